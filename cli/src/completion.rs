//! `pristine completion`: completion for shells.

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use crate::command::Cli;
use crate::exit::{Failure, Status};
use crate::output::Output;

/// Arguments of `completion`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  pristine completion bash > /usr/share/bash-completion/completions/pristine"
)]
pub struct Completion {
    /// The shell.
    shell: Kind,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// GNU bash.
    Bash,
    /// Z shell.
    Zsh,
    /// fish.
    Fish,
}

/// Prints the script.
pub fn run(arguments: &Completion, output: Output) -> Result<Status, Failure> {
    let shell = match arguments.shell {
        Kind::Bash => Shell::Bash,
        Kind::Zsh => Shell::Zsh,
        Kind::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pristine", &mut script);
    output.stream(|out| out.write_all(&script))?;
    Ok(Status::Clean)
}
