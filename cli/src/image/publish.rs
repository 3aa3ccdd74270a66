//! `pristine image publish`: an image to the collector.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::file::{ImageFile, image_name};
use super::show::another_manifest;
use crate::client::{self, Client};
use crate::exit::{Failure, Status};
use crate::output::{Output, plain};

/// Arguments of `image publish`.
#[derive(Args, Debug)]
pub struct Publish {
    /// The manifest; its signed statement lies beside it.
    file: PathBuf,
}

/// Sends statement and manifest.
pub fn run(arguments: &Publish, output: Output) -> Result<Status, Failure> {
    let image = ImageFile::open(&arguments.file)?;
    let (envelope, says) = image.required()?;
    if let Some(reason) = image.mismatch(says, &image.contents()?) {
        return Err(another_manifest(&image, &reason));
    }
    if envelope.signatures().is_empty() {
        return Err(
            Failure::new(format!("will not publish {}", image.statement.display()))
                .why("nobody has signed it")
                .remedy("sign it with `pristine image sign FILE --key KEY`"),
        );
    }
    let answer = client::run(async {
        let client = Client::signed_in(output)?;
        send(&client, &image).await
    })?;
    if output.is_json() {
        output.document(&answer)?;
    } else {
        output.line(format_args!(
            "published {} {} as {}",
            plain(image_name(says)),
            plain(&says.predicate.version),
            envelope.payload_digest()
        ))?;
    }
    Ok(Status::Clean)
}

/// Sends the statement, then the manifest where the collector does not have it yet.
pub async fn send(client: &Client, image: &ImageFile) -> Result<Value, Failure> {
    let (envelope, says) = image.required()?;
    let answer = client
        .post("/api/v1/images", &json!({ "statement": envelope }))
        .await?;
    if answer
        .get("manifest_needed")
        .and_then(Value::as_bool)
        .unwrap_or(true)
    {
        let path = format!("/api/v1/manifests/{}", says.predicate.manifest.sha256);
        client.put_bytes(&path, image.compressed.clone()).await?;
    }
    Ok(answer)
}
