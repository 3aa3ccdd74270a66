//! `pristine change`: deployments that were asked for, what another person says of them, and how far they have come.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::client::{self, Client, segment, text_of};
use crate::exit::{Failure, Status};
use crate::output::{self, Output};

/// What to do with changes.
#[derive(Debug, Subcommand)]
pub enum ChangeCommand {
    /// Deployments, the newest first.
    #[command(after_help = "Example:\n  pristine change list --waiting")]
    List(List),
    /// One deployment, and the nodes that do not have it yet.
    #[command(after_help = "Example:\n  pristine change show 0199…")]
    Show {
        /// Its id, as `change list` shows it.
        id: String,
    },
    /// Approve one that somebody else asked for: it holds from then on.
    #[command(
        after_help = "Example:\n  pristine change approve 0199… --reason \"looked at the diff, ticket 4711\""
    )]
    Approve(Said),
    /// Refuse one that somebody else asked for.
    #[command(after_help = "Example:\n  pristine change refuse 0199… --reason \"not on a Friday\"")]
    Refuse(Reasoned),
    /// Take back one that you asked for.
    #[command(after_help = "Example:\n  pristine change withdraw 0199… --reason \"wrong group\"")]
    Withdraw(Reasoned),
}

/// Arguments of `change list`.
#[derive(Args, Debug)]
pub struct List {
    /// Only of this group.
    #[arg(long, value_name = "G")]
    group: Option<String>,
    /// Only those that wait for another person's word.
    #[arg(long)]
    waiting: bool,
}

/// An id, and what may be said of it.
#[derive(Args, Debug)]
pub struct Said {
    /// Its id.
    pub id: String,
    /// Why, in one line; it is kept and told.
    #[arg(long, value_name = "R")]
    pub reason: Option<String>,
}

/// An id, and why.
#[derive(Args, Debug)]
pub struct Reasoned {
    /// Its id.
    pub id: String,
    /// Why, in one line; it is kept and told.
    #[arg(long, value_name = "R")]
    pub reason: String,
}

/// Runs a change command.
pub fn run(command: &ChangeCommand, output: Output) -> Result<Status, Failure> {
    client::run(async {
        let client = Client::signed_in(output)?;
        match command {
            ChangeCommand::List(arguments) => list(&client, arguments, output).await,
            ChangeCommand::Show { id } => show(&client, id, output).await,
            ChangeCommand::Approve(Said { id, reason }) => {
                decide(&client, id, "approve", &json!({ "reason": reason }), output).await
            }
            ChangeCommand::Refuse(Reasoned { id, reason }) => {
                decide(&client, id, "refuse", &json!({ "reason": reason }), output).await
            }
            ChangeCommand::Withdraw(Reasoned { id, reason }) => {
                decide(
                    &client,
                    id,
                    "withdraw",
                    &json!({ "reason": reason }),
                    output,
                )
                .await
            }
        }
    })
}

async fn list(client: &Client, arguments: &List, output: Output) -> Result<Status, Failure> {
    let mut query = Vec::new();
    query.extend(
        arguments
            .group
            .iter()
            .map(|group| ("group", group.as_str())),
    );
    if arguments.waiting {
        query.push(("waiting", "true"));
    }
    let items = client.list("/api/v1/changes", &query).await?;
    if output.is_json() {
        output.document(&json!({ "items": items, "next": Value::Null }))?;
        return Ok(Status::Clean);
    }
    let heading = [
        "REQUESTED",
        "STATE",
        "GROUP",
        "IMAGE",
        "COMMIT",
        "ASKED FOR BY",
        "DECIDED BY",
        "NODES",
        "ID",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(items.iter().map(|item| {
        vec![
            text_of(item, "/requested"),
            text_of(item, "/state"),
            text_of(item, "/group"),
            image(item, "/image"),
            text_of(item, "/image/commit").chars().take(12).collect(),
            text_of(item, "/requested_by"),
            text_of(item, "/decided_by"),
            progress(item),
            text_of(item, "/id"),
        ]
    }));
    output.line(output::table(&rows))?;
    Ok(Status::Clean)
}

fn image(item: &Value, pointer: &str) -> String {
    let text = |name: &str| text_of(item, &format!("{pointer}/{name}"));
    format!("{} {}", text("name"), text("version"))
        .trim()
        .to_owned()
}

/// How many nodes have it.
fn progress(item: &Value) -> String {
    let (new, nodes) = (
        text_of(item, "/progress/new"),
        text_of(item, "/progress/nodes"),
    );
    if nodes.is_empty() {
        String::new()
    } else {
        format!("{new}/{nodes}")
    }
}

async fn show(client: &Client, id: &str, output: Output) -> Result<Status, Failure> {
    let path = format!("/api/v1/changes/{}", segment(id));
    let shown = client.get(&path).await?;
    if output.is_json() {
        output.document(&shown)?;
        return Ok(Status::Clean);
    }
    let missing = client
        .list(&format!("{path}/nodes"), &[("has", "false")])
        .await?;
    let mut rows = vec![
        vec!["image".to_owned(), image(&shown, "/image")],
        vec!["before".to_owned(), image(&shown, "/previous")],
        vec!["nodes".to_owned(), progress(&shown)],
    ];
    for (what, pointer) in [
        ("id", "/id"),
        ("state", "/state"),
        ("group", "/group"),
        ("commit", "/image/commit"),
        ("repository", "/image/repository"),
        ("author", "/image/author"),
        ("reason", "/reason"),
        ("requested", "/requested"),
        ("requested by", "/requested_by"),
        ("decided", "/decided"),
        ("decided by", "/decided_by"),
        ("decision", "/decision"),
        ("until", "/until"),
        ("superseded", "/superseded"),
    ] {
        rows.push(vec![what.to_owned(), text_of(&shown, pointer)]);
    }
    rows.retain(|row| row.last().is_some_and(|text| !text.is_empty()));
    output.line(output::table(&rows))?;
    if text_of(&shown, "/state") == "superseded" {
        return Ok(Status::Clean);
    }
    for node in &missing {
        output.line(format_args!(
            "{}  {}  {}",
            text_of(node, "/name"),
            text_of(node, "/stand"),
            image(node, "/image")
        ))?;
    }
    Ok(Status::Clean)
}

async fn decide(
    client: &Client,
    id: &str,
    action: &str,
    body: &Value,
    output: Output,
) -> Result<Status, Failure> {
    let path = format!("/api/v1/assignments/{}/{action}", segment(id));
    let answer = client.post(&path, body).await?;
    if output.is_json() {
        output.document(&answer)?;
    } else {
        output.line(format_args!(
            "{} of {} is {}; {}",
            image(&answer, "/change/image"),
            text_of(&answer, "/change/group"),
            text_of(&answer, "/state"),
            text_of(&answer, "/told")
        ))?;
    }
    Ok(Status::Clean)
}
