//! `pristine key`: publishers' signing keys.

use std::path::{Path, PathBuf};

use attestation::key::{Algorithm, PrivateKey, PublicKey};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use crate::atomic;
use crate::exit::{Failure, Status};
use crate::output::Output;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a private key and its public half.
    #[command(after_help = "Example:\n  pristine key generate -o release.pem\n\
        writes release.pem (keep it offline) and release.pem.pub (give it to collectors and agents).")]
    Generate(Generate),
}

/// Arguments of `key generate`.
#[derive(Args, Debug)]
pub struct Generate {
    /// Kind of key.
    #[arg(long, value_enum, default_value_t = Kind::Ed25519)]
    algorithm: Kind,
    /// Where the private key goes; the public key goes to FILE.pub. Neither may exist.
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// The default.
    Ed25519,
    /// ECDSA on NIST P-256.
    P256,
}

#[derive(Serialize)]
struct Made {
    keyid: String,
    algorithm: &'static str,
    private: String,
    public: String,
}

/// Runs a key command.
pub fn run(command: &KeyCommand, output: Output) -> Result<Status, Failure> {
    let KeyCommand::Generate(arguments) = command;
    let (algorithm, name) = match arguments.algorithm {
        Kind::Ed25519 => (Algorithm::Ed25519, "ed25519"),
        Kind::P256 => (Algorithm::P256, "p256"),
    };
    let key = PrivateKey::generate(algorithm)
        .map_err(|error| Failure::new("cannot make a key").because(&error))?;
    let public_path = write_pair(&key, &arguments.output)?;
    let made = Made {
        keyid: key.public().keyid().to_string(),
        algorithm: name,
        private: arguments.output.display().to_string(),
        public: public_path.display().to_string(),
    };
    if output.is_json() {
        output.document(&made)?;
    } else {
        output.line(format_args!(
            "keyid    {}\nprivate  {}\npublic   {}",
            made.keyid, made.private, made.public
        ))?;
    }
    Ok(Status::Clean)
}

/// Writes the private key (mode 0600) and its public half beside it; neither may exist before.
pub fn write_pair(key: &PrivateKey, path: &Path) -> Result<PathBuf, Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    let public_path = PathBuf::from(name);
    for taken in [path, &public_path] {
        if taken.symlink_metadata().is_ok() {
            return Err(Failure::new(format!("{} exists already", taken.display()))
                .why("a key is never overwritten, as what it signed could not be continued")
                .remedy("choose another name, or move the old key away"));
        }
    }
    let private_pem = key.to_pem();
    let unwritten = |path: &Path, error: &std::io::Error| {
        Failure::io(format!("cannot write {}", path.display()), error)
    };
    atomic::create(path, private_pem.as_bytes(), 0o600).map_err(|error| unwritten(path, &error))?;
    atomic::create(&public_path, key.public().to_pem().as_bytes(), 0o644)
        .map_err(|error| unwritten(&public_path, &error))?;
    Ok(public_path)
}

/// Reads a private key in PEM.
pub fn read_private(path: &Path) -> Result<PrivateKey, Failure> {
    let text = read_pem(path)?;
    PrivateKey::from_pem(&text).map_err(|error| {
        Failure::new(format!("{} is not a private key", path.display()))
            .because(&error)
            .remedy("a key is PKCS#8 in PEM, Ed25519 or ECDSA P-256, as `pristine key generate` writes it")
    })
}

/// Reads public keys in PEM, one a file.
pub fn read_public(paths: &[PathBuf]) -> Result<Vec<PublicKey>, Failure> {
    paths
        .iter()
        .map(|path| {
            PublicKey::from_pem(&read_pem(path)?).map_err(|error| {
                Failure::new(format!("{} is not a public key", path.display()))
                    .because(&error)
                    .remedy("a publisher's key is SPKI in PEM, the FILE.pub that `pristine key generate` writes")
            })
        })
        .collect()
}

/// A key in PEM takes a few hundred bytes; more is not one.
const PEM_LIMIT: u64 = 64 * 1024;

fn read_pem(path: &Path) -> Result<String, Failure> {
    let bytes = crate::files::read_bounded(path, PEM_LIMIT)?;
    String::from_utf8(bytes).map_err(|_not_text| {
        Failure::new(format!("{} is not a key", path.display())).why("it is not text")
    })
}
