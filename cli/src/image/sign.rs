//! `pristine image sign`: one more signature on a statement.

use std::path::PathBuf;

use clap::Args;

use super::file::ImageFile;
use super::show::Shown;
use crate::exit::{Failure, Status};
use crate::output::Output;
use crate::{atomic, key};

/// Arguments of `image sign`.
#[derive(Args, Debug)]
pub struct Sign {
    /// The manifest; its statement lies beside it.
    file: PathBuf,
    /// The private key to sign with.
    #[arg(long, value_name = "KEY")]
    key: PathBuf,
}

/// Signs only what has been checked: a signature on a statement about another manifest would help nobody but an attacker.
pub fn run(arguments: &Sign, output: Output) -> Result<Status, Failure> {
    let signer = key::read_private(&arguments.key)?;
    let image = ImageFile::open(&arguments.file)?;
    let (envelope, says) = image.required()?;
    if let Some(reason) = image.mismatch(says, &image.contents()?) {
        return Err(
            Failure::new(format!("will not sign {}", image.statement.display()))
                .why(format!("it is not about this manifest: {reason}"))
                .remedy("build the image again"),
        );
    }
    let keyid = signer.public().keyid();
    let mut envelope = envelope.clone();
    if envelope
        .verify::<attestation::statement::Image>(&[signer.public()], 1)
        .is_ok()
    {
        output.note(format_args!("{keyid} has signed it already"));
    } else {
        envelope
            .add_signature(&signer)
            .map_err(|error| Failure::new("cannot sign the statement").because(&error))?;
        atomic::replace(&image.statement, &envelope.to_json(), 0o644).map_err(|error| {
            Failure::io(
                format!("cannot write {}", image.statement.display()),
                &error,
            )
        })?;
        output.note(format_args!("signed by {keyid}"));
    }
    let shown = Shown::signed(&envelope, says);
    if output.is_json() {
        output.document(&shown)?;
    } else {
        output.line(shown.text())?;
    }
    Ok(Status::Clean)
}
