//! `pristine violation`: what a person must judge.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::client::{self, Client, segment, text_of};
use crate::exit::{Failure, Status};
use crate::node;
use crate::output::{self, Output};

/// What to do with violations.
#[derive(Debug, Subcommand)]
pub enum ViolationCommand {
    /// Violations, the newest first.
    #[command(after_help = "Example:\n  pristine violation list --status all --node web-1")]
    List(List),
    /// One violation with all that is known of it.
    #[command(after_help = "Example:\n  pristine violation show 0199…")]
    Show {
        /// Its id, as `violation list` shows it.
        id: String,
    },
    /// Mark one as seen, as it now is.
    #[command(
        after_help = "Example:\n  pristine violation acknowledge 0199… --reason \"on it, ticket 4711\""
    )]
    Acknowledge(Review),
    /// End one that a person must judge: what still is so ends by itself once it no longer is.
    #[command(
        after_help = "Examples:\n  pristine violation resolve 0199… --reason \"the package update of Monday\"\n  \
        pristine violation resolve 0199… --accept --reason \"new host key, ticket 4711\"\n  \
        pristine violation resolve 0199… --false-alarm --reason \"our own scanner\""
    )]
    Resolve(Resolution),
}

/// Arguments of `violation acknowledge` and `violation resolve`.
#[derive(Args, Debug)]
pub struct Review {
    /// Its id, as `violation list` shows it.
    id: String,
    /// Why, in one line; it is kept and told.
    #[arg(long, value_name = "R")]
    reason: String,
}

/// Arguments of `violation resolve`.
#[derive(Args, Debug)]
pub struct Resolution {
    #[command(flatten)]
    review: Review,
    /// What was found at a `local` or `growing` path becomes the node's pin; the violation ends when the node says that it has.
    #[arg(long)]
    accept: bool,
    /// Nothing was wrong.
    #[arg(long, conflicts_with = "accept")]
    false_alarm: bool,
}

/// What a person says of a violation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judged {
    Plain,
    Accept,
    FalseAlarm,
}

/// Arguments of `violation list`.
#[derive(Args, Debug)]
pub struct List {
    /// Which.
    #[arg(long, value_enum, default_value_t = Which::Open)]
    status: Which,
    /// Only this node's, by id or name.
    #[arg(long, value_name = "N")]
    node: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    /// Not yet resolved.
    Open,
    /// Resolved.
    Resolved,
    /// Both.
    All,
}

/// Runs a violation command.
pub fn run(command: &ViolationCommand, output: Output) -> Result<Status, Failure> {
    client::run(async {
        let client = Client::signed_in(output)?;
        match command {
            ViolationCommand::List(arguments) => list(&client, arguments, output).await,
            ViolationCommand::Show { id } => show(&client, id, output).await,
            ViolationCommand::Acknowledge(review) => {
                reviewed(&client, review, "acknowledge", Judged::Plain, output).await
            }
            ViolationCommand::Resolve(Resolution {
                review,
                accept,
                false_alarm,
            }) => {
                let judged = match (accept, false_alarm) {
                    (true, _) => Judged::Accept,
                    (_, true) => Judged::FalseAlarm,
                    _ => Judged::Plain,
                };
                reviewed(&client, review, "resolve", judged, output).await
            }
        }
    })
}

async fn list(client: &Client, arguments: &List, output: Output) -> Result<Status, Failure> {
    let status = match arguments.status {
        Which::Open => "open",
        Which::Resolved => "resolved",
        Which::All => "all",
    };
    let node = match &arguments.node {
        Some(node) => Some(node::id_of(client, node).await?),
        None => None,
    };
    let mut query = vec![("status", status)];
    query.extend(node.iter().map(|node| ("node", node.as_str())));
    let items = client.list("/api/v1/violations", &query).await?;
    if output.is_json() {
        output.document(&json!({ "items": items, "next": Value::Null }))?;
        return Ok(Status::Clean);
    }
    let heading = [
        "OPENED", "SEVERITY", "KIND", "PATH", "FIELDS", "BY", "RESOLVED", "NODE", "ID",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(items.iter().map(|item| {
        vec![
            text_of(item, "/opened"),
            text_of(item, "/severity"),
            text_of(item, "/kind"),
            text_of(item, "/path"),
            fields(item),
            actor(item),
            text_of(item, "/resolved"),
            text_of(item, "/node"),
            text_of(item, "/id"),
        ]
    }));
    output.line(output::table(&rows))?;
    Ok(Status::Clean)
}

async fn show(client: &Client, id: &str, output: Output) -> Result<Status, Failure> {
    let shown = client
        .get(&format!("/api/v1/violations/{}", segment(id)))
        .await?;
    if output.is_json() {
        output.document(&shown)?;
        return Ok(Status::Clean);
    }
    let mut rows = Vec::new();
    for name in [
        "id",
        "node",
        "kind",
        "path",
        "severity",
        "opened",
        "detected",
        "resolved",
        "resolution",
        "resolved_as",
        "acknowledged/by",
        "acknowledged/reason",
        "expected",
        "found",
    ] {
        let text = text_of(&shown, &format!("/{name}"));
        if !text.is_empty() {
            rows.push(vec![name.to_owned(), text]);
        }
    }
    rows.push(vec!["fields".to_owned(), fields(&shown)]);
    rows.push(vec!["by".to_owned(), actor(&shown)]);
    let image = ["/image/name", "/image/version", "/image/commit"]
        .map(|name| text_of(&shown, name))
        .join(" ");
    rows.push(vec!["image".to_owned(), image]);
    output.line(output::table(&rows))?;
    Ok(Status::Clean)
}

async fn reviewed(
    client: &Client,
    review: &Review,
    action: &str,
    judged: Judged,
    output: Output,
) -> Result<Status, Failure> {
    let path = format!("/api/v1/violations/{}/{action}", segment(&review.id));
    let body = match judged {
        Judged::Plain => json!({ "reason": review.reason }),
        Judged::Accept => json!({ "reason": review.reason, "accept": true }),
        Judged::FalseAlarm => json!({ "reason": review.reason, "as": "false-alarm" }),
    };
    let answer = client.post(&path, &body).await?;
    if output.is_json() {
        output.document(&answer)?;
        return Ok(Status::Clean);
    }
    let resolution = text_of(&answer, "/resolution");
    if judged == Judged::Accept {
        output.line(format_args!(
            "violation {}: the node is asked to take what it found for its pin; it ends when the node says so",
            review.id
        ))?;
    } else if resolution.is_empty() {
        output.line(format_args!("violation {} is acknowledged", review.id))?;
    } else {
        output.line(format_args!("violation {}: {resolution}", review.id))?;
    }
    Ok(Status::Clean)
}

/// What differs, in one cell.
pub fn fields(violation: &Value) -> String {
    let names: Vec<String> = violation
        .get("fields")
        .and_then(Value::as_array)
        .map(|names| {
            names
                .iter()
                .filter_map(Value::as_str)
                .map(output::plain)
                .collect()
        })
        .unwrap_or_default();
    names.join(" ")
}

/// Who did it, in one cell.
pub fn actor(violation: &Value) -> String {
    let (exe, user, pid) = (
        text_of(violation, "/actor/exe"),
        text_of(violation, "/actor/user"),
        text_of(violation, "/actor/pid"),
    );
    let uid = text_of(violation, "/actor/uid");
    let who = match (user.is_empty(), uid.is_empty()) {
        (false, _) => user,
        (true, false) => format!("uid {uid}"),
        (true, true) => String::new(),
    };
    match (exe.is_empty(), who.is_empty()) {
        (true, true) => String::new(),
        (true, false) => format!("{who} (pid {pid})"),
        (false, true) => format!("{exe} (pid {pid})"),
        (false, false) => format!("{exe} (pid {pid}, {who})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_is_told_as_far_as_it_is_known() {
        let full = json!({"actor": {"pid": 7, "exe": "/usr/bin/vi", "user": "ann", "uid": 1000}});
        assert_eq!(actor(&full), "/usr/bin/vi (pid 7, ann)");
        assert_eq!(actor(&json!({"actor": null})), "");
        assert_eq!(
            actor(&json!({"actor": {"pid": 7, "exe": "/a", "uid": 0}})),
            "/a (pid 7, uid 0)"
        );
    }
}
