//! Where `up` keeps its state, whose it is, and what it remembers from one run to the next.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use attestation::digest::Digest;
use attestation::key::{Algorithm, PrivateKey};
use attestation::path::ImagePath;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::left_out::Added;
use crate::exit::{Code, Failure};
use crate::files::read_bounded;
use crate::{atomic, key};

/// Small files of our own.
const SMALL: u64 = 4 << 20;

/// The state directory, locked for this process.
pub struct Place {
    /// The directory, as a real path.
    pub state: PathBuf,
    /// Held until the process ends.
    _lock: File,
}

/// What is remembered of the image in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// The attested root: its absolute path, shown in the mtree encoding.
    pub root: ImagePath,
    /// Name of the image.
    pub name: String,
    /// Version of the image.
    pub version: String,
    /// Epoch of the image.
    pub epoch: u64,
    /// SHA-256 of the statement's payload.
    pub statement: Digest,
    /// The image file that was given with `--image`, by the digest of its statement or manifest.
    pub given: Option<Digest>,
    /// Where the image lies below the state directory.
    pub file: String,
    /// The rules that were added.
    #[serde(default)]
    pub added: Vec<AddedKept>,
    /// Whether the collector has it and the group must be it.
    pub assigned: bool,
}

/// An added rule, as it is remembered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddedKept {
    r#match: String,
    reason: String,
}

impl From<&Added> for AddedKept {
    fn from(added: &Added) -> Self {
        Self {
            r#match: added.r#match.clone(),
            reason: added.reason.clone(),
        }
    }
}

impl From<&AddedKept> for Added {
    fn from(kept: &AddedKept) -> Self {
        Self {
            r#match: kept.r#match.clone(),
            reason: kept.reason.clone(),
        }
    }
}

/// Who signs in, and the first password from the moment it is made until it has been printed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignIn {
    /// The first administrator.
    pub user: String,
    /// Their password, while nobody has seen it.
    pub password: Option<String>,
}

impl Place {
    /// Makes the directory (mode 0700) and takes it for this process alone.
    pub fn open(given: Option<&Path>) -> Result<Self, Failure> {
        let state = match given {
            Some(given) => given.to_owned(),
            None => default_state()?,
        };
        let unusable = |error: &std::io::Error| {
            Failure::io(
                format!("cannot keep the state in {}", state.display()),
                error,
            )
            .remedy("name a directory of your own with --state")
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&state)
            .map_err(|error| unusable(&error))?;
        let state = state.canonicalize().map_err(|error| unusable(&error))?;
        check_private(&state)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(state.join("lock"))
            .map_err(|error| unusable(&error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { state, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(Failure::new(format!("cannot use {}", state.display()))
                    .why("another `pristine up` is running on it")
                    .remedy("stop that one first, or name another directory with --state"))
            }
            Err(TryLockError::Error(error)) => Err(unusable(&error)),
        }
    }

    /// The collector's state.
    pub fn collector(&self) -> PathBuf {
        self.state.join("collector")
    }

    /// The agent's state.
    pub fn agent(&self) -> PathBuf {
        self.state.join("agent")
    }

    /// What is remembered, if this is not the first start.
    pub fn kept(&self) -> Result<Option<Kept>, Failure> {
        self.read_json("up.json")
    }

    /// Remembers.
    pub fn keep(&self, kept: &Kept) -> Result<(), Failure> {
        self.write_json("up.json", kept)
    }

    /// Who signs in.
    pub fn sign_in(&self) -> Result<Option<SignIn>, Failure> {
        self.read_json("sign-in.json")
    }

    /// Keeps who signs in.
    pub fn keep_sign_in(&self, sign_in: &SignIn) -> Result<(), Failure> {
        self.write_json("sign-in.json", sign_in)
    }

    /// The password has been printed: it is shown once, and kept nowhere.
    pub fn forget_password(&self, sign_in: &SignIn) -> Result<(), Failure> {
        if sign_in.password.is_none() {
            return Ok(());
        }
        self.keep_sign_in(&SignIn {
            user: sign_in.user.clone(),
            password: None,
        })
    }

    /// The publisher's key, made at the first start.
    pub fn publisher(&self) -> Result<PrivateKey, Failure> {
        let path = self.state.join("publisher.pem");
        if path.symlink_metadata().is_ok() {
            return key::read_private(&path);
        }
        let made = PrivateKey::generate(Algorithm::Ed25519)
            .map_err(|error| Failure::new("cannot make a publisher's key").because(&error))?;
        // A public half without its private one is left by a start that was cut short.
        let _removed = fs::remove_file(self.state.join("publisher.pem.pub"));
        key::write_pair(&made, &path)?;
        Ok(made)
    }

    /// The webhook's secret, made when it is first asked for.
    pub fn webhook_secret(&self) -> Result<String, Failure> {
        let path = self.state.join("webhook.secret");
        if path.symlink_metadata().is_ok() {
            let bytes = read_bounded(&path, SMALL)?;
            return Ok(String::from_utf8_lossy(&bytes).trim().to_owned());
        }
        let mut random = [0_u8; 32];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_unspecified| Failure::new("cannot get random bytes"))?;
        let secret = format!("whsec_{}", STANDARD.encode(random));
        atomic::create(&path, secret.as_bytes(), 0o600)
            .map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error))?;
        Ok(secret)
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failure> {
        let path = self.state.join(name);
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let bytes = read_bounded(&path, SMALL)?;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Failure::new(format!("cannot read {}", path.display()))
                .because(&error)
                .remedy("the state is damaged; begin anew with another --state")
                .code(Code::Configuration)
        })
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), Failure> {
        let path = self.state.join(name);
        let bytes = serde_json::to_vec_pretty(value).map_err(|error| {
            Failure::new(format!("cannot write {}", path.display())).because(&error)
        })?;
        atomic::replace(&path, &bytes, 0o600)
            .map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error))
    }
}

/// Keys lie in it: nobody else may look in, and nobody else may own it.
fn check_private(state: &Path) -> Result<(), Failure> {
    let metadata = state
        .metadata()
        .map_err(|error| Failure::io(format!("cannot open {}", state.display()), &error))?;
    let refused = |why: &str, remedy: String| {
        Failure::new(format!("will not keep the state in {}", state.display()))
            .why(why)
            .remedy(remedy)
            .code(Code::Configuration)
    };
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused(
            "it belongs to another user",
            "name a directory of your own with --state".to_owned(),
        ));
    }
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(refused(
            "others may write to it",
            format!("chmod 700 {}", state.display()),
        ));
    }
    Ok(())
}

fn default_state() -> Result<PathBuf, Failure> {
    if is_root() {
        return Ok(PathBuf::from("/var/lib/pristine/up"));
    }
    let set = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("pristine/up"))
        .ok_or_else(|| {
            Failure::new("cannot tell where to keep the state")
                .why("neither XDG_STATE_HOME nor HOME is set")
                .remedy("name a directory with --state")
        })
}

/// Whether this process may read everything.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// An absolute path as it is remembered.
pub fn shown_root(root: &Path) -> Result<ImagePath, Failure> {
    let bytes = root.as_os_str().as_bytes();
    ImagePath::from_bytes(bytes.strip_prefix(b"/").unwrap_or(bytes))
        .map_err(|error| Failure::new(format!("cannot attest {}", root.display())).because(&error))
}

/// A remembered path as a path.
pub fn real_root(shown: &ImagePath) -> PathBuf {
    let mut bytes = vec![b'/'];
    bytes.extend_from_slice(shown.as_bytes());
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// This machine's name: the node's and the image's.
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name.to_owned()
    }
}
