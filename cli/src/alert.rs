//! `pristine alert`: who is told of violations, and whether it reached them.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::client::{self, Client, segment, text_of};
use crate::exit::{Failure, Status};
use crate::output::{self, Output};

/// What to do with alerts.
#[derive(Debug, Subcommand)]
pub enum AlertCommand {
    /// Channels with how their deliveries stand, and the newest deliveries.
    #[command(
        after_help = "Examples:\n  pristine alert list\n  pristine alert list --state given-up --channel chat"
    )]
    List(List),
    /// Send a real test message to a channel now; exit code 1 where it is not accepted.
    #[command(after_help = "Example:\n  pristine alert test chat")]
    Test {
        /// Its name, as `alert list` shows it.
        channel: String,
    },
    /// Try dead letters of a message again, under the id they had.
    #[command(after_help = "Example:\n  pristine alert retry 0199… --channel chat")]
    Retry {
        /// Its id, as `alert list` shows it.
        id: String,
        /// Only to this channel.
        #[arg(long, value_name = "C")]
        channel: Option<String>,
    },
}

/// Arguments of `alert list`.
#[derive(Args, Debug)]
pub struct List {
    /// Only deliveries that stand so.
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Only deliveries to this channel.
    #[arg(long, value_name = "C")]
    channel: Option<String>,
    /// So many deliveries at most.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    /// On their way.
    Waiting,
    /// Accepted by the receiver.
    Delivered,
    /// Dead letters.
    GivenUp,
}

/// Runs an alert command.
pub fn run(command: &AlertCommand, output: Output) -> Result<Status, Failure> {
    client::run(async {
        let client = Client::signed_in(output)?;
        match command {
            AlertCommand::List(arguments) => list(&client, arguments, output).await,
            AlertCommand::Test { channel } => test(&client, channel, output).await,
            AlertCommand::Retry { id, channel } => {
                retry(&client, id, channel.as_deref(), output).await
            }
        }
    })
}

async fn list(client: &Client, arguments: &List, output: Output) -> Result<Status, Failure> {
    let mut path = format!("/api/v1/alerts?limit={}", arguments.limit);
    let state = arguments.state.map(|state| match state {
        State::Waiting => "waiting",
        State::Delivered => "delivered",
        State::GivenUp => "given-up",
    });
    for (name, value) in [("state", state), ("channel", arguments.channel.as_deref())] {
        if let Some(value) = value {
            path = format!("{path}&{name}={}", segment(value));
        }
    }
    let channels = client.get("/api/v1/channels").await?;
    let deliveries = client.get(&path).await?;
    if output.is_json() {
        output.document(&json!({
            "channels": channels["items"], "routes": channels["routes"],
            "items": deliveries["items"], "next": deliveries["next"],
        }))?;
        return Ok(Status::Clean);
    }
    let channel = [
        ("CHANNEL", "/name"),
        ("KIND", "/kind"),
        ("WHERE TO", "/place"),
        ("LAST ACCEPTED", "/delivered"),
        ("WAITING", "/waiting"),
        ("GIVEN UP", "/given_up"),
        ("TROUBLE", "/trouble"),
    ];
    output.line(output::table(&rows(&channels["items"], &channel)))?;
    let delivery = [
        ("CREATED", "/created"),
        ("CHANNEL", "/channel"),
        ("STATE", "/state"),
        ("STEP", "/step"),
        ("NODES", "/nodes"),
        ("ATTEMPTS", "/attempts"),
        ("ERROR", "/last_error"),
        ("ID", "/id"),
    ];
    output.line("")?;
    output.line(output::table(&rows(&deliveries["items"], &delivery)))?;
    Ok(Status::Clean)
}

fn rows(items: &Value, columns: &[(&str, &str)]) -> Vec<Vec<String>> {
    let mut rows = vec![
        columns
            .iter()
            .map(|(title, _)| (*title).to_owned())
            .collect(),
    ];
    rows.extend(items.as_array().into_iter().flatten().map(|item| {
        columns
            .iter()
            .map(|(_, pointer)| text_of(item, pointer))
            .collect()
    }));
    rows
}

async fn test(client: &Client, channel: &str, output: Output) -> Result<Status, Failure> {
    let path = format!("/api/v1/channels/{}/test", segment(channel));
    let tried = client.post(&path, &json!({})).await?;
    let accepted = tried["accepted"] == true;
    if output.is_json() {
        output.document(&tried)?;
    } else {
        let (kind, place) = (text_of(&tried, "/kind"), text_of(&tried, "/place"));
        let took = text_of(&tried, "/milliseconds");
        if accepted {
            output.line(format_args!(
                "{kind} at {place} has taken the test message after {took} ms (message {})",
                text_of(&tried, "/id")
            ))?;
        } else {
            output.line(format_args!(
                "{kind} at {place} has not taken the test message: {}",
                text_of(&tried, "/error")
            ))?;
        }
    }
    Ok(if accepted {
        Status::Clean
    } else {
        Status::NotSo
    })
}

async fn retry(
    client: &Client,
    id: &str,
    channel: Option<&str>,
    output: Output,
) -> Result<Status, Failure> {
    let path = format!("/api/v1/alerts/{}/retry", segment(id));
    let moved = client.post(&path, &json!({ "channel": channel })).await?;
    if output.is_json() {
        output.document(&moved)?;
    } else {
        output.line(format_args!(
            "tried again: {} (deliveries)",
            text_of(&moved, "/deliveries")
        ))?;
    }
    Ok(Status::Clean)
}
