//! `pristine image list`: the images that the collector has.

use clap::Args;
use serde_json::{Value, json};

use crate::client::{self, Client, text_of};
use crate::exit::{Failure, Status};
use crate::output::{self, Output};

/// Arguments of `image list`.
#[derive(Args, Debug)]
pub struct List {
    /// Only images of this name.
    #[arg(long)]
    name: Option<String>,
}

/// Lists.
pub fn run(arguments: &List, output: Output) -> Result<Status, Failure> {
    let items = client::run(async {
        let client = Client::signed_in(output)?;
        let query: Vec<(&str, &str)> = arguments
            .name
            .iter()
            .map(|name| ("name", name.as_str()))
            .collect();
        client.list("/api/v1/images", &query).await
    })?;
    if output.is_json() {
        output.document(&json!({ "items": items, "next": Value::Null }))?;
        return Ok(Status::Clean);
    }
    let mut rows = vec![
        [
            "NAME",
            "VERSION",
            "EPOCH",
            "COMMIT",
            "NODES",
            "REVOKED",
            "STATEMENT",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    rows.extend(items.iter().map(|item| {
        let commit = text_of(item, "/source/commit");
        let commit = if commit.is_empty() {
            text_of(item, "/commit")
        } else {
            commit
        };
        vec![
            text_of(item, "/name"),
            text_of(item, "/version"),
            text_of(item, "/epoch"),
            commit,
            text_of(item, "/nodes"),
            text_of(item, "/revoked"),
            text_of(item, "/sha256"),
        ]
    }));
    output.line(output::table(&rows))?;
    Ok(Status::Clean)
}
