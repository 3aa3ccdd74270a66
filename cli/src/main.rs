//! `pristine`: for people and build pipelines.
#![forbid(unsafe_code)]

mod activity;
mod alert;
mod atomic;
mod change;
mod client;
mod clock;
mod command;
mod completion;
mod documentation;
mod exception;
mod exit;
mod files;
mod gather;
mod image;
mod key;
mod keyring;
mod login;
mod node;
mod output;
mod progress;
mod scan;
mod token;
mod up;
mod user;
mod violation;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::command::Cli;
use crate::exit::Code;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return told(&error),
    };
    // One provider of cryptography; a client built before this would not find any. The only failure is that it is there.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    match cli.run(cli.output()) {
        Ok(status) => status.into(),
        Err(failure) if failure.code == Code::Unheard => failure.code.into(),
        Err(failure) => {
            let _told = writeln!(std::io::stderr().lock(), "pristine: {failure}");
            failure.code.into()
        }
    }
}

/// Help and version are results; anything else that the parser says is a mistake in the command line.
fn told(error: &clap::Error) -> ExitCode {
    let _told = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => Code::Usage.into(),
    }
}
