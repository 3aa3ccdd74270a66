//! The journal of the agent: what happened. Under systemd it goes to the journal with its fields, else to standard error:
//! people read text, pipelines read one JSON object a line.

mod native;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Only what an operator must act on.
    Quiet,
    /// What changes state.
    Usual,
    /// Every statement and answer.
    Verbose,
}

/// Starts the journal of a program. A second call changes nothing.
pub fn start(level: Level) {
    let own = match level {
        Level::Quiet => "error",
        Level::Usual => "info",
        Level::Verbose => "debug",
    };
    let filter = EnvFilter::new(format!("warn,pristine_agent={own}"));
    let started = if let Some(native) = native::Native::of_this_program() {
        tracing_subscriber::registry()
            .with(filter)
            .with(native)
            .try_init()
    } else if std::io::stderr().is_terminal() {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
            .finish()
            .try_init()
    } else {
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .finish()
            .try_init()
    };
    // Only a program that embeds the agent has one already, and then that one is right.
    drop(started);
}

/// An error and all its causes in one line: `display` of ours never repeats the cause.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    // A cycle of causes would be a bug of a library; it must not hang the journal.
    for _ in 0..16 {
        let Some(error) = cause else { break };
        let shown = error.to_string();
        if !text.ends_with(&shown) {
            text.push_str(": ");
            text.push_str(&shown);
        }
        cause = error.source();
    }
    text
}
