//! `pristine image revoke`: no node may be this image any more.

use clap::Args;
use serde_json::json;

use crate::client::{self, Client, text_of};
use crate::exit::{Failure, Status};
use crate::node;
use crate::output::{Output, plain};

/// Arguments of `image revoke`.
#[derive(Args, Debug)]
pub struct Revoke {
    /// The image's name.
    name: String,
    /// Its version.
    version: String,
    /// Why, in one line; it is kept and told.
    #[arg(long, value_name = "R")]
    reason: String,
}

/// Revokes.
pub fn run(arguments: &Revoke, output: Output) -> Result<Status, Failure> {
    let answer = client::run(async {
        let client = Client::signed_in(output)?;
        let image = format!("{}:{}", arguments.name, arguments.version);
        let sha256 = node::image_of(&client, &image).await?;
        client
            .post(
                &format!("/api/v1/images/{sha256}/revoke"),
                &json!({ "reason": arguments.reason }),
            )
            .await
    })?;
    if output.is_json() {
        output.document(&answer)?;
        return Ok(Status::Clean);
    }
    output.line(format_args!(
        "{} {} is revoked; {} nodes are it",
        plain(&arguments.name),
        plain(&arguments.version),
        text_of(&answer, "/nodes")
    ))?;
    let groups: Vec<String> = answer
        .get("groups")
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(serde_json::Value::as_str)
        .map(plain)
        .collect();
    if !groups.is_empty() {
        output.note(format_args!(
            "these groups must still be it and need another image: {}",
            groups.join(", ")
        ));
    }
    Ok(Status::Clean)
}
