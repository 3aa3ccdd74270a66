//! `pristine exception`: differences that are accepted until an end.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::change::{Reasoned, Said};
use crate::client::{self, Client, segment, text_of};
use crate::clock;
use crate::exit::{Failure, Status};
use crate::output::{self, Output};

/// What to do with exceptions.
#[derive(Debug, Subcommand)]
pub enum ExceptionCommand {
    /// Ask that the difference of a violation be accepted for a while.
    #[command(
        after_help = "Example:\n  pristine exception request 0199… --for 30d --reason \"until the image has it\" --ticket OPS-4711"
    )]
    Request(Request),
    /// Approve one that somebody else asked for.
    #[command(
        after_help = "Example:\n  pristine exception approve 0199… --reason \"agreed with the owner\""
    )]
    Approve(Said),
    /// Refuse one that somebody else asked for.
    #[command(after_help = "Example:\n  pristine exception refuse 0199… --reason \"put it right\"")]
    Refuse(Reasoned),
    /// Take back one that you asked for.
    #[command(after_help = "Example:\n  pristine exception withdraw 0199… --reason \"it is gone\"")]
    Withdraw(Reasoned),
    /// Exceptions, the newest first.
    #[command(after_help = "Example:\n  pristine exception list --state waiting")]
    List(List),
    /// End one before its end.
    #[command(
        after_help = "Example:\n  pristine exception revoke 0199… --reason \"the image has it now\""
    )]
    Revoke(Reasoned),
}

/// Arguments of `exception request`.
#[derive(Args, Debug)]
pub struct Request {
    /// The violation's id, as `violation list` shows it.
    violation: String,
    /// Why it may stay, in one line; it is kept and told.
    #[arg(long, value_name = "R")]
    reason: String,
    /// For how long, at most a year: 12h, 30d.
    #[arg(long = "for", value_name = "D", value_parser = clock::parse_span)]
    span: u64,
    /// Where it is tracked.
    #[arg(long, value_name = "T")]
    ticket: Option<String>,
    /// Who answers for it; you where nobody is named.
    #[arg(long, value_name = "O")]
    owner: Option<String>,
    /// For all nodes of the violation's group, not for its node alone.
    #[arg(long)]
    group: bool,
}

/// Arguments of `exception list`.
#[derive(Args, Debug)]
pub struct List {
    /// Only those that stand so: waiting, approved, ended, refused, withdrawn, revoked.
    #[arg(long, value_name = "S")]
    state: Option<String>,
    /// Only this node's and its group's, by id or name.
    #[arg(long, value_name = "N")]
    node: Option<String>,
}

/// Runs an exception command.
pub fn run(command: &ExceptionCommand, output: Output) -> Result<Status, Failure> {
    client::run(async {
        let client = Client::signed_in(output)?;
        match command {
            ExceptionCommand::Request(arguments) => request(&client, arguments, output).await,
            ExceptionCommand::List(arguments) => list(&client, arguments, output).await,
            ExceptionCommand::Approve(Said { id, reason }) => {
                let body = json!({ "reason": reason });
                decide(&client, id, "approve", &body, output).await
            }
            ExceptionCommand::Refuse(said) => reasoned(&client, said, "refuse", output).await,
            ExceptionCommand::Withdraw(said) => reasoned(&client, said, "withdraw", output).await,
            ExceptionCommand::Revoke(said) => reasoned(&client, said, "revoke", output).await,
        }
    })
}

async fn request(client: &Client, arguments: &Request, output: Output) -> Result<Status, Failure> {
    let span = i64::try_from(arguments.span).unwrap_or(i64::MAX);
    let body = json!({
        "violation": arguments.violation,
        "for": if arguments.group { "group" } else { "node" },
        "reason": arguments.reason,
        "ticket": arguments.ticket.as_deref().unwrap_or_default(),
        "owner": arguments.owner.as_deref().unwrap_or_default(),
        "ends": clock::now().saturating_add_secs(span),
    });
    let answer = client.post("/api/v1/exceptions", &body).await?;
    told(&answer, output)?;
    if text_of(&answer, "/state") == "waiting" {
        output.note(format_args!(
            "with: pristine exception approve {}",
            text_of(&answer, "/id")
        ));
    }
    Ok(Status::Clean)
}

async fn list(client: &Client, arguments: &List, output: Output) -> Result<Status, Failure> {
    let node = match &arguments.node {
        Some(node) => Some(crate::node::id_of(client, node).await?),
        None => None,
    };
    let mut query = Vec::new();
    query.extend(
        arguments
            .state
            .iter()
            .map(|state| ("state", state.as_str())),
    );
    query.extend(node.iter().map(|node| ("node", node.as_str())));
    let items = client.list("/api/v1/exceptions", &query).await?;
    if output.is_json() {
        output.document(&json!({ "items": items, "next": Value::Null }))?;
        return Ok(Status::Clean);
    }
    let heading = [
        "STATE",
        "PATH",
        "ON",
        "REASON",
        "TICKET",
        "OWNER",
        "ASKED FOR BY",
        "DECIDED BY",
        "ENDS",
        "ID",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(items.iter().map(|item| {
        let group = text_of(item, "/group");
        let on = if group.is_empty() {
            text_of(item, "/node_name")
        } else {
            format!("group {group}")
        };
        let texts = [
            "/reason",
            "/ticket",
            "/owner",
            "/requested_by",
            "/decided_by",
            "/ends",
            "/id",
        ]
        .map(|name| text_of(item, name));
        let first = vec![text_of(item, "/state"), text_of(item, "/path"), on];
        [first, texts.to_vec()].concat()
    }));
    output.line(output::table(&rows))?;
    Ok(Status::Clean)
}

async fn reasoned(
    client: &Client,
    said: &Reasoned,
    action: &str,
    output: Output,
) -> Result<Status, Failure> {
    let body = json!({ "reason": said.reason });
    decide(client, &said.id, action, &body, output).await
}

async fn decide(
    client: &Client,
    id: &str,
    action: &str,
    body: &Value,
    output: Output,
) -> Result<Status, Failure> {
    let path = format!("/api/v1/exceptions/{}/{action}", segment(id));
    let answer = client.post(&path, body).await?;
    told(&answer, output)?;
    Ok(Status::Clean)
}

fn told(answer: &Value, output: Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.document(answer);
    }
    output.line(format_args!(
        "exception {} for {} is {}; {}",
        text_of(answer, "/id"),
        text_of(answer, "/path"),
        text_of(answer, "/state"),
        text_of(answer, "/told")
    ))
}
