//! `pristine token`: join tokens for agents, API tokens for programs.

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};

use crate::client::{self, Client, text_of};
use crate::clock;
use crate::exit::{Code, Failure, Status};
use crate::output::{self, Output};

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a join token, or an API token.
    #[command(
        after_help = "Examples:\n  pristine token create --join --group web --uses 20 --ttl 24h\n  \
        pristine token create --role publisher --label 'the pipeline of web' --ttl 90d\n  \
        pristine token create --role operator --group web"
    )]
    Create(Create),
    /// The tokens there are, without their secrets.
    #[command(after_help = "Example:\n  pristine token list")]
    List,
    /// End a token.
    #[command(after_help = "Example:\n  pristine token revoke 0199…")]
    Revoke {
        /// The token's id, as `token list` shows it.
        id: String,
    },
}

/// Arguments of `token create`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("kind").required(true).args(["join", "role"])))]
pub struct Create {
    /// A join token: agents enrol with it.
    #[arg(long)]
    join: bool,
    /// An API token with this role: viewer, operator, approver, publisher, admin. It may be none that you lack.
    #[arg(long, value_name = "R")]
    role: Option<String>,
    /// The group that nodes join, or that the API token is limited to; for an API token it may be given more than once.
    #[arg(long, value_name = "G")]
    group: Vec<String>,
    /// What an API token is for, as lists show it.
    #[arg(long, value_name = "TEXT", conflicts_with = "join")]
    label: Option<String>,
    /// How many agents may join with it.
    #[arg(long, value_name = "N", requires = "join", value_parser = clap::value_parser!(u64).range(1..))]
    uses: Option<u64>,
    /// How long it is good for: 30m, 24h, 7d.
    #[arg(long, value_name = "D", value_parser = clock::parse_span)]
    ttl: Option<u64>,
}

/// Runs a token command.
pub fn run(command: &TokenCommand, output: Output) -> Result<Status, Failure> {
    client::run(async {
        let client = Client::signed_in(output)?;
        match command {
            TokenCommand::Create(arguments) => create(&client, arguments, output).await,
            TokenCommand::List => list(&client, output).await,
            TokenCommand::Revoke { id } => {
                client
                    .delete(&format!("/api/v1/tokens/{}", client::segment(id)))
                    .await?;
                output.note(format_args!("token {id} is revoked"));
                Ok(Status::Clean)
            }
        }
    })
}

async fn create(client: &Client, arguments: &Create, output: Output) -> Result<Status, Failure> {
    if arguments.join && arguments.group.len() > 1 {
        return Err(Failure::new("a join token is for one group")
            .remedy("make one for each")
            .code(Code::Usage));
    }
    let mut body = json!({ "kind": if arguments.join { "join" } else { "api" } });
    if let Some(fields) = body.as_object_mut() {
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        };
        put("role", arguments.role.clone().map(Value::from));
        put("label", arguments.label.clone().map(Value::from));
        if arguments.join {
            put("group", arguments.group.first().cloned().map(Value::from));
        } else if !arguments.group.is_empty() {
            put("groups", Some(arguments.group.clone().into()));
        }
        put("uses", arguments.uses.map(Value::from));
        put("ttl_secs", arguments.ttl.map(Value::from));
    }
    let made = client.post("/api/v1/tokens", &body).await?;
    if output.is_json() {
        output.document(&made)?;
    } else {
        // The token alone, so that a script can take it as it is.
        output.line(text_of(&made, "/token"))?;
        output.note(format_args!(
            "id {}, good until {}; it is shown only now",
            text_of(&made, "/id"),
            text_of(&made, "/expires")
        ));
    }
    Ok(Status::Clean)
}

async fn list(client: &Client, output: Output) -> Result<Status, Failure> {
    let items = client.list("/api/v1/tokens", &[]).await?;
    if output.is_json() {
        output.document(&json!({ "items": items, "next": Value::Null }))?;
        return Ok(Status::Clean);
    }
    let mut rows = vec![
        [
            "ID", "KIND", "ROLE", "GROUPS", "USES", "EXPIRES", "USER", "LABEL", "STATE",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    rows.extend(items.iter().map(|item| {
        let uses = text_of(item, "/uses_left");
        let uses = if uses.is_empty() {
            text_of(item, "/uses")
        } else {
            uses
        };
        let groups = match text_of(item, "/group") {
            group if group.is_empty() => groups_of(item),
            group => group,
        };
        let state = if text_of(item, "/revoked").is_empty() {
            ""
        } else {
            "revoked"
        };
        let mut row = ["/id", "/kind", "/role"]
            .map(|name| text_of(item, name))
            .to_vec();
        row.extend([groups, uses]);
        row.extend(["/expires", "/user", "/label"].map(|name| text_of(item, name)));
        row.push(state.to_owned());
        row
    }));
    output.line(output::table(&rows))?;
    Ok(Status::Clean)
}

/// The groups that something is limited to, in words.
pub fn groups_of(item: &Value) -> String {
    let groups: Vec<&str> = item
        .get("groups")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if groups.is_empty() {
        "all".to_owned()
    } else {
        groups.join(",")
    }
}
