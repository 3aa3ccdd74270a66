//! `pristine image verify`: are the signatures good, and is the manifest the signed one.

use std::path::PathBuf;

use attestation::dsse::Envelope;
use attestation::key::PublicKey;
use attestation::statement::Image;
use clap::Args;
use serde::Serialize;

use super::file::{ImageFile, image_name};
use crate::exit::{Failure, Status};
use crate::output::{Colour, Output, plain};
use crate::{clock, key};

/// Arguments of `image verify`.
#[derive(Args, Debug)]
pub struct Verify {
    /// The manifest; its statement lies beside it.
    file: PathBuf,
    /// Public keys of the publishers.
    #[arg(long = "publisher", value_name = "PUB", num_args = 1.., required = true)]
    publishers: Vec<PathBuf>,
    /// How many different publishers must have signed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threshold: usize,
}

#[derive(Serialize)]
struct Verified {
    verified: bool,
    name: String,
    version: String,
    epoch: u64,
    signers: Vec<String>,
    reason: Option<String>,
}

/// Checks; every way in which the image is not the signed one is exit code 1.
pub fn run(arguments: &Verify, output: Output) -> Result<Status, Failure> {
    let keys = key::read_public(&arguments.publishers)?;
    check_threshold(&keys, arguments.threshold)?;
    let image = ImageFile::open(&arguments.file)?;
    let (envelope, says) = image.required()?;
    let (signers, reason) = match signers(envelope, &keys, arguments.threshold) {
        Err(reason) => (Vec::new(), Some(reason)),
        Ok(signers) => (signers, unlike(&image)),
    };
    if says.predicate.expires.is_some_and(|at| at <= clock::now()) {
        output.warn("the image has expired");
    }
    let verified = Verified {
        verified: reason.is_none(),
        name: image_name(says).to_owned(),
        version: says.predicate.version.clone(),
        epoch: says.predicate.epoch,
        signers,
        reason,
    };
    tell(&verified, output)?;
    Ok(if verified.verified {
        Status::Clean
    } else {
        Status::NotSo
    })
}

fn tell(verified: &Verified, output: Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.document(verified);
    }
    if let Some(reason) = &verified.reason {
        return output.line(format_args!(
            "{}  {}",
            output.paint(Colour::Bad, "not verified"),
            plain(reason)
        ));
    }
    output.line(format_args!(
        "{}  {} {} (epoch {}), signed by {}",
        output.paint(Colour::Good, "verified"),
        plain(&verified.name),
        plain(&verified.version),
        verified.epoch,
        verified.signers.join(", ")
    ))
}

/// A threshold that these keys can meet.
fn check_threshold(keys: &[PublicKey], threshold: usize) -> Result<(), Failure> {
    let mut ids: Vec<String> = keys.iter().map(|key| key.keyid().to_string()).collect();
    ids.sort();
    ids.dedup();
    if threshold == 0 || threshold > ids.len() {
        return Err(
            Failure::usage(format!("a threshold of {threshold} cannot be met"))
                .why(format!("{} different publisher keys were given", ids.len())),
        );
    }
    Ok(())
}

/// The key ids that signed, or why they are not enough.
pub fn signers(
    envelope: &Envelope,
    keys: &[PublicKey],
    threshold: usize,
) -> Result<Vec<String>, String> {
    match envelope.verify::<Image>(keys, threshold) {
        Ok(verified) => Ok(verified.signers().iter().map(ToString::to_string).collect()),
        Err(error) => Err(format!("the statement does not verify: {error}")),
    }
}

/// Why the manifest is not the one that was signed, if it is not. A manifest that cannot be read is not the signed one.
fn unlike(image: &ImageFile) -> Option<String> {
    let says = image.says.as_ref()?;
    if !image.is_signed_file(says) {
        return Some("the manifest is not the one that was signed: its SHA-256 differs".to_owned());
    }
    match image.contents() {
        Ok(contents) => image.mismatch(says, &contents),
        Err(failure) => Some(failure.to_string()),
    }
}
