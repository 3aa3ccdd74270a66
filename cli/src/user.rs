//! `pristine user`: the collector's local accounts.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::client::{self, Client, segment, text_of};
use crate::exit::{Failure, Status};
use crate::output::{self, Output};
use crate::token::groups_of;

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// All accounts.
    #[command(after_help = "Example:\n  pristine user list")]
    List,
    /// Add an account; its password is made and printed once.
    #[command(after_help = "Example:\n  pristine user add ann --role operator --group web")]
    Add {
        /// Its name.
        user: String,
        /// What it may do: viewer, operator, approver, publisher, admin.
        #[arg(long, value_name = "R", default_value = "viewer")]
        role: String,
        /// A group of nodes that it is limited to; may be given more than once.
        #[arg(long, value_name = "G")]
        group: Vec<String>,
    },
    /// Give an account another role, or other groups; tokens that go beyond are revoked.
    #[command(after_help = "Example:\n  pristine user role ann --role approver --all-groups")]
    Role(Role),
    /// Make another password and print it once; the account's sessions end.
    #[command(after_help = "Example:\n  pristine user passwd ann")]
    Passwd {
        /// The account.
        user: String,
    },
    /// Disable an account: its sessions end, its tokens are revoked.
    #[command(after_help = "Example:\n  pristine user disable ann")]
    Disable {
        /// The account.
        user: String,
    },
    /// Let a disabled account sign in again.
    #[command(after_help = "Example:\n  pristine user enable ann")]
    Enable {
        /// The account.
        user: String,
    },
}

/// Arguments of `user role`.
#[derive(Args, Debug)]
pub struct Role {
    /// The account.
    user: String,
    /// What it may do.
    #[arg(long, value_name = "R", required_unless_present_any = ["group", "all_groups"])]
    role: Option<String>,
    /// A group of nodes that it is limited to; may be given more than once.
    #[arg(long, value_name = "G")]
    group: Vec<String>,
    /// It is limited to no group.
    #[arg(long, conflicts_with = "group")]
    all_groups: bool,
}

/// Runs a user command.
pub fn run(command: &UserCommand, output: Output) -> Result<Status, Failure> {
    client::run(async {
        let client = Client::signed_in(output)?;
        let path = |user: &str, what: &str| format!("/api/v1/accounts/{}{what}", segment(user));
        match command {
            UserCommand::List => list(&client, output).await,
            UserCommand::Add { user, role, group } => {
                let body = json!({ "user": user, "role": role, "groups": group });
                let made = client.post("/api/v1/accounts", &body).await?;
                tell(&made, &format!("{user} is added"), output)
            }
            UserCommand::Role(arguments) => {
                let mut body = json!({});
                if let Some(role) = &arguments.role {
                    body["role"] = json!(role);
                }
                if arguments.all_groups || !arguments.group.is_empty() {
                    body["groups"] = json!(arguments.group);
                }
                let now = client.patch(&path(&arguments.user, ""), &body).await?;
                let (role, groups) = (text_of(&now, "/role"), groups_of(&now));
                let done = format!("{} is {role}, groups: {groups}", arguments.user);
                tell(&now, &done, output)
            }
            UserCommand::Passwd { user } => {
                let made = client.post(&path(user, "/password"), &json!({})).await?;
                tell(&made, &format!("{user} has another password"), output)
            }
            UserCommand::Disable { user } => {
                let now = client.post(&path(user, "/disable"), &json!({})).await?;
                tell(&now, &format!("{user} is disabled"), output)
            }
            UserCommand::Enable { user } => {
                let now = client.post(&path(user, "/enable"), &json!({})).await?;
                tell(&now, &format!("{user} may sign in again"), output)
            }
        }
    })
}

fn tell(answer: &Value, done: &str, output: Output) -> Result<Status, Failure> {
    if output.is_json() {
        output.document(answer)?;
        return Ok(Status::Clean);
    }
    output.note(done);
    let password = text_of(answer, "/password");
    if !password.is_empty() {
        output.line(password)?;
        output.note("its password, printed this once");
    }
    Ok(Status::Clean)
}

async fn list(client: &Client, output: Output) -> Result<Status, Failure> {
    let items = client.list("/api/v1/accounts", &[]).await?;
    if output.is_json() {
        output.document(&json!({ "items": items, "next": Value::Null }))?;
        return Ok(Status::Clean);
    }
    let mut rows = vec![
        ["USER", "ROLE", "GROUPS", "CREATED", "DISABLED"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(items.iter().map(|item| {
        vec![
            text_of(item, "/user"),
            text_of(item, "/role"),
            groups_of(item),
            text_of(item, "/created"),
            text_of(item, "/disabled"),
        ]
    }));
    output.line(output::table(&rows))?;
    Ok(Status::Clean)
}
