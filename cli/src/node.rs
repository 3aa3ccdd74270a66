//! `pristine node`: the fleet.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::client::{self, Client, segment, text_of};
use crate::exit::{Code, Failure, Status};
use crate::output::{self, Output};

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// All nodes and how they stand.
    #[command(after_help = "Example:\n  pristine node list --format json")]
    List,
    /// One node, and what differs on it.
    #[command(after_help = "Example:\n  pristine node show web-1")]
    Show {
        /// Its id or its name.
        node: String,
    },
    /// Let a node in that asked to join without a token.
    #[command(after_help = "Example:\n  pristine node approve web-1")]
    Approve {
        /// Its id or its name.
        node: String,
    },
    /// Give a node another name; its id stays.
    #[command(after_help = "Example:\n  pristine node rename web-1 web-01")]
    Rename {
        /// Its id or its name.
        node: String,
        /// The name it gets.
        name: String,
    },
    /// Do not count a node for a while: what it says is kept, nobody is told of it.
    #[command(after_help = "Example:\n  pristine node suspend web-1 --reason 'disk is replaced'")]
    Suspend {
        /// Its id or its name.
        node: String,
        /// Why, for whoever asks later.
        #[arg(long, value_name = "R")]
        reason: String,
    },
    /// Count a suspended node again; what stands open of it is told now.
    #[command(after_help = "Example:\n  pristine node resume web-1")]
    Resume {
        /// Its id or its name.
        node: String,
    },
    /// Refuse a node at every door from now on.
    #[command(after_help = "Example:\n  pristine node ban web-1 --reason 'its key was copied'")]
    Ban {
        /// Its id or its name.
        node: String,
        /// Why, for whoever asks later.
        #[arg(long, value_name = "R")]
        reason: String,
    },
    /// Say that a node is gone for good: it becomes history. What a provisioner calls when it takes a server away.
    #[command(after_help = "Example:\n  pristine node decommission web-1")]
    Decommission {
        /// Its id or its name.
        node: String,
        /// Why, for whoever asks later.
        #[arg(long, value_name = "R", default_value = "")]
        reason: String,
    },
    /// Ask a node to look at everything again, at its next contact.
    #[command(after_help = "Example:\n  pristine node rescan web-1")]
    Rescan {
        /// Its id or its name.
        node: String,
    },
    /// Say which image the nodes of a group must be, or move one node to a group.
    #[command(
        after_help = "Examples:\n  pristine node assign --group web web:1.4.2\n  \
        pristine node assign --node web-1 --group web"
    )]
    Assign(Assign),
}

/// Arguments of `node assign`.
#[derive(Args, Debug)]
pub struct Assign {
    /// The image: NAME (its highest epoch), NAME:VERSION, or the SHA-256 of its statement.
    #[arg(required_unless_present = "node")]
    image: Option<String>,
    /// The group.
    #[arg(long, value_name = "G", default_value = "default")]
    group: String,
    /// For how long the image before stays allowed beside the new one: 30m, 24h.
    #[arg(long, value_name = "D", value_parser = crate::clock::parse_span, requires = "image")]
    keep_previous: Option<u64>,
    /// What it brings, in one line; it is kept and told.
    #[arg(long, value_name = "R", requires = "image")]
    reason: Option<String>,
    /// Move this node to the group.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
}

/// Runs a node command.
pub fn run(command: &NodeCommand, output: Output) -> Result<Status, Failure> {
    client::run(async {
        let client = Client::signed_in(output)?;
        match command {
            NodeCommand::List => list(&client, output).await,
            NodeCommand::Show { node } => show(&client, node, output).await,
            NodeCommand::Approve { node } => {
                decide(&client, node, "approve", "", "approved", output).await
            }
            NodeCommand::Suspend { node, reason } => {
                decide(&client, node, "suspend", reason, "suspended", output).await
            }
            NodeCommand::Resume { node } => {
                decide(&client, node, "resume", "", "counted again", output).await
            }
            NodeCommand::Ban { node, reason } => {
                decide(&client, node, "ban", reason, "banned", output).await
            }
            NodeCommand::Decommission { node, reason } => {
                decide(&client, node, "decommission", reason, "history", output).await
            }
            NodeCommand::Rename { node, name } => rename(&client, node, name, output).await,
            NodeCommand::Rescan { node } => rescan(&client, node, output).await,
            NodeCommand::Assign(arguments) => assign(&client, arguments, output).await,
        }
    })
}

async fn list(client: &Client, output: Output) -> Result<Status, Failure> {
    let items = client.list("/api/v1/nodes", &[]).await?;
    if output.is_json() {
        output.document(&json!({ "items": items, "next": Value::Null }))?;
        return Ok(Status::Clean);
    }
    let heading = [
        "NAME",
        "GROUP",
        "STATUS",
        "ASSURANCE",
        "IMAGE",
        "VIOLATIONS",
        "LAST ATTESTED",
        "ID",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(items.iter().map(|item| {
        let image = format!(
            "{} {}",
            text_of(item, "/image/name"),
            text_of(item, "/image/version")
        );
        vec![
            text_of(item, "/name"),
            text_of(item, "/group"),
            status(item),
            text_of(item, "/assurance"),
            image.trim().to_owned(),
            text_of(item, "/violations"),
            text_of(item, "/last_attested"),
            text_of(item, "/id"),
        ]
    }));
    output.line(output::table(&rows))?;
    Ok(Status::Clean)
}

/// The status, with how much waits for a person.
fn status(node: &Value) -> String {
    let mut status = text_of(node, "/status");
    for (pointer, word) in [("/excepted", "excepted"), ("/unreviewed", "unreviewed")] {
        if let Some(count @ 1..) = node.pointer(pointer).and_then(Value::as_u64) {
            let joint = if status.contains(", with ") {
                " and"
            } else {
                ", with"
            };
            status = format!("{status}{joint} {count} {word}");
        }
    }
    status
}

async fn show(client: &Client, node: &str, output: Output) -> Result<Status, Failure> {
    let id = id_of(client, node).await?;
    let shown = client
        .get(&format!("/api/v1/nodes/{}", segment(&id)))
        .await?;
    if output.is_json() {
        output.document(&shown)?;
        return Ok(Status::Clean);
    }
    let differences = client
        .list(&format!("/api/v1/nodes/{}/differences", segment(&id)), &[])
        .await?;
    let mut rows = Vec::new();
    for (what, pointer) in [
        ("name", "/name"),
        ("id", "/id"),
        ("group", "/group"),
        ("status", "/status"),
        ("excepted", "/excepted"),
        ("unreviewed", "/unreviewed"),
        ("pinned lines", "/pins/entries"),
        ("verdict", "/verdict"),
        ("assurance", "/assurance"),
        ("image", "/image/name"),
        ("version", "/image/version"),
        ("commit", "/image/commit"),
        ("tree", "/tree"),
        ("watch", "/coverage/watch/rung"),
        ("last attested", "/last_attested"),
        ("violations", "/violations"),
    ] {
        let text = text_of(&shown, pointer);
        if !text.is_empty() {
            rows.push(vec![what.to_owned(), text]);
        }
    }
    output.line(output::table(&rows))?;
    for difference in &differences {
        output.line(format_args!(
            "{}  expected {}  found {}",
            text_of(difference, "/path"),
            or_nothing(difference, "/expected"),
            or_nothing(difference, "/found")
        ))?;
    }
    Ok(Status::Clean)
}

fn or_nothing(value: &Value, pointer: &str) -> String {
    let text = text_of(value, pointer);
    if text.is_empty() {
        "nothing".to_owned()
    } else {
        text
    }
}

/// A decision about a node: what the API calls it, why, and how it is then.
async fn decide(
    client: &Client,
    node: &str,
    decision: &str,
    reason: &str,
    then: &str,
    output: Output,
) -> Result<Status, Failure> {
    let id = id_of(client, node).await?;
    let path = format!("/api/v1/nodes/{}/{decision}", segment(&id));
    let answer = client.post(&path, &json!({ "reason": reason })).await?;
    if output.is_json() {
        output.document(&answer)?;
    } else {
        output.line(format_args!("node {id} is {then}"))?;
    }
    Ok(Status::Clean)
}

async fn rename(
    client: &Client,
    node: &str,
    name: &str,
    output: Output,
) -> Result<Status, Failure> {
    let id = id_of(client, node).await?;
    let path = format!("/api/v1/nodes/{}/rename", segment(&id));
    let answer = client.post(&path, &json!({ "name": name })).await?;
    if output.is_json() {
        output.document(&answer)?;
    } else {
        output.line(format_args!("node {id} is named {name}"))?;
    }
    Ok(Status::Clean)
}

async fn rescan(client: &Client, node: &str, output: Output) -> Result<Status, Failure> {
    let id = id_of(client, node).await?;
    let answer = client
        .post(
            &format!("/api/v1/nodes/{}/rescan", segment(&id)),
            &json!({}),
        )
        .await?;
    if output.is_json() {
        output.document(&answer)?;
    } else {
        output.line(format_args!(
            "node {id} is asked at its next contact to look at everything again"
        ))?;
    }
    Ok(Status::Clean)
}

async fn assign(client: &Client, arguments: &Assign, output: Output) -> Result<Status, Failure> {
    let mut answer = Value::Null;
    if let Some(node) = &arguments.node {
        let id = id_of(client, node).await?;
        let path = format!("/api/v1/nodes/{}/group", segment(&id));
        answer = client
            .post(&path, &json!({ "group": arguments.group }))
            .await?;
        output.note(format_args!("node {id} is in group {}", arguments.group));
    }
    if let Some(image) = &arguments.image {
        let sha256 = image_of(client, image).await?;
        let mut body = json!({ "group": arguments.group, "image": sha256 });
        if let (Some(seconds), Some(fields)) = (arguments.keep_previous, body.as_object_mut()) {
            fields.insert("keep_previous_secs".to_owned(), seconds.into());
        }
        if let (Some(reason), Some(fields)) = (&arguments.reason, body.as_object_mut()) {
            fields.insert("reason".to_owned(), reason.as_str().into());
        }
        answer = client.post("/api/v1/assignments", &body).await?;
        told(&answer, &arguments.group, image, &sha256, output);
    }
    if output.is_json() {
        output.document(&answer)?;
    }
    Ok(Status::Clean)
}

/// Whether it holds, or for whom it waits.
fn told(answer: &Value, group: &str, image: &str, sha256: &str, output: Output) {
    let said = text_of(answer, "/told");
    if text_of(answer, "/state") == "waiting" {
        output.note(format_args!(
            "group {group} is to be {image} ({sha256}); {said}\nwith: pristine change approve {}",
            text_of(answer, "/id")
        ));
        return;
    }
    output.note(format_args!("group {group} must be {image} ({sha256})"));
    if !said.is_empty() {
        output.note(said);
    }
}

/// The id of a node that is named by id or by name.
pub async fn id_of(client: &Client, node: &str) -> Result<String, Failure> {
    if node.len() == 32 && node.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(node.to_owned());
    }
    let items = client.list("/api/v1/nodes", &[]).await?;
    let named: Vec<&Value> = items
        .iter()
        .filter(|item| text_of(item, "/name") == node)
        .collect();
    // A rebuilt server keeps its name: the one that still counts is meant.
    let counted: Vec<&&Value> = named
        .iter()
        .filter(|item| text_of(item, "/status") != "retired")
        .collect();
    match (counted.as_slice(), named.as_slice()) {
        ([one], _) => Ok(text_of(one, "/id")),
        ([], [one]) => Ok(text_of(one, "/id")),
        ([], []) => {
            Err(Failure::new(format!("there is no node `{node}`"))
                .remedy("see `pristine node list`"))
        }
        _ => Err(Failure::new(format!("several nodes are named `{node}`"))
            .remedy("give the id, from `pristine node list`")),
    }
}

/// The statement's digest of an image that is named in one of three ways.
pub async fn image_of(client: &Client, image: &str) -> Result<String, Failure> {
    if image.len() == 64 && image.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(image.to_ascii_lowercase());
    }
    let items = client.list("/api/v1/images", &[]).await?;
    let epoch = |item: &Value| item.get("epoch").and_then(Value::as_u64).unwrap_or(0);
    let is_meant = |item: &&Value| {
        let (name, version) = (text_of(item, "/name"), text_of(item, "/version"));
        name == image || format!("{name}:{version}") == image
    };
    let mut meant: Vec<&Value> = items.iter().filter(is_meant).collect();
    meant.sort_by_key(|item| epoch(item));
    let newest = meant.last().ok_or_else(|| {
        Failure::new(format!("there is no image `{image}`"))
            .remedy("see `pristine image list`, or publish it first")
    })?;
    if meant
        .iter()
        .filter(|item| epoch(item) == epoch(newest))
        .count()
        > 1
    {
        return Err(Failure::new(format!("several images are named `{image}`"))
            .why("they have the same epoch")
            .remedy("give NAME:VERSION, or the statement's SHA-256 from `pristine image list`")
            .code(Code::NotDone));
    }
    Ok(text_of(newest, "/sha256"))
}
