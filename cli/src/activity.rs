//! `pristine activity`: what people and pipelines did.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::client::{self, Client, text_of};
use crate::clock;
use crate::exit::{Failure, Status};
use crate::output::{self, Output};

/// What to do with the activity log.
#[derive(Debug, Subcommand)]
pub enum ActivityCommand {
    /// The newest records that fit.
    #[command(
        after_help = "Example:\n  pristine activity list --object web-1 --from 2026-11-01 --limit 20"
    )]
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many, at most 1000.
        #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// All records that fit, oldest first, as lines of JSON. That it was exported stands in the log.
    #[command(
        after_help = "Example:\n  pristine activity export --from 2026-11-01 --to 2026-11-30 -o november.ndjson"
    )]
    Export {
        #[command(flatten)]
        filter: Filter,
        /// Write to this file, which must not be there yet.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// Which records.
#[derive(Args, Debug)]
pub struct Filter {
    /// Done by this person.
    #[arg(long, value_name = "USER")]
    who: Option<String>,
    /// This was done: `node.ban`.
    #[arg(long, value_name = "A")]
    action: Option<String>,
    /// Done to something of this kind: `node`, `account`, `token`, ….
    #[arg(long, value_name = "K")]
    kind: Option<String>,
    /// Done to this, by its id or name, or about this node.
    #[arg(long, value_name = "ID")]
    object: Option<String>,
    /// Since then: a day, or a moment like 2026-11-29T12:00:00Z.
    #[arg(long, value_name = "T")]
    from: Option<String>,
    /// To the end of this day, or before this moment.
    #[arg(long, value_name = "T")]
    to: Option<String>,
    /// With this text anywhere.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
}

impl Filter {
    fn query(&self) -> Result<Vec<(&'static str, String)>, Failure> {
        let time = |text: &Option<String>| match text {
            Some(text) if text.len() != 10 => clock::parse(text).map(|at| Some(at.to_string())),
            day => Ok(day.clone()),
        };
        let parts = [
            ("who", self.who.clone()),
            ("action", self.action.clone()),
            ("kind", self.kind.clone()),
            ("target", self.object.clone()),
            ("from", time(&self.from)?),
            ("to", time(&self.to)?),
            ("q", self.search.clone()),
        ];
        Ok(parts
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect())
    }
}

/// Runs an activity command.
pub fn run(command: &ActivityCommand, output: Output) -> Result<Status, Failure> {
    client::run(async {
        let client = Client::signed_in(output)?;
        match command {
            ActivityCommand::List { filter, limit } => list(&client, filter, *limit, output).await,
            ActivityCommand::Export {
                filter,
                output: file,
            } => {
                let mut query = filter.query()?;
                query.push(("format", "ndjson".to_owned()));
                let bytes = client.download("/api/v1/activity", &query, file).await?;
                output.note(format_args!("{}: {bytes} bytes", file.display()));
                Ok(Status::Clean)
            }
        }
    })
}

async fn list(
    client: &Client,
    filter: &Filter,
    limit: u32,
    output: Output,
) -> Result<Status, Failure> {
    let mut query = filter.query()?;
    query.push(("limit", limit.to_string()));
    let page = client.page("/api/v1/activity", &query).await?;
    if output.is_json() {
        output.document(&page)?;
        return Ok(Status::Clean);
    }
    let heading = [
        "WHEN", "WHO", "WHAT", "OBJECT", "FROM", "BEFORE", "AFTER", "REASON",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let items = page.get("items").and_then(Value::as_array);
    rows.extend(items.into_iter().flatten().map(|item| {
        let named = text_of(item, "/name");
        let object = if named.is_empty() {
            text_of(item, "/target")
        } else {
            named
        };
        vec![
            text_of(item, "/at"),
            text_of(item, "/user"),
            text_of(item, "/action"),
            object,
            text_of(item, "/from"),
            text_of(item, "/before"),
            text_of(item, "/after"),
            text_of(item, "/reason"),
        ]
    }));
    output.line(output::table(&rows))?;
    Ok(Status::Clean)
}
