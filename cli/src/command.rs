//! The command line.

use clap::{Parser, Subcommand};

use crate::activity::{self, ActivityCommand};
use crate::alert::{self, AlertCommand};
use crate::change::{self, ChangeCommand};
use crate::exception::{self, ExceptionCommand};
use crate::exit::{Failure, Status};
use crate::image::{self, ImageCommand};
use crate::key::{self, KeyCommand};
use crate::node::{self, NodeCommand};
use crate::output::{Format, Output};
use crate::token::{self, TokenCommand};
use crate::user::{self, UserCommand};
use crate::violation::{self, ViolationCommand};
use crate::{completion, documentation, login, scan, up};

/// Tells whether a server still is the image it was built from.
#[derive(Debug, Parser)]
#[command(
    name = "pristine",
    version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("PRISTINE_COMMIT"), ")"),
    propagate_version = true,
    after_help = "Example:\n  pristine up\nattests this machine and shows it on a page.\n\n\
        Exit codes: 0 done and clean; 1 done, and what was asked is not so; 2 could not be done; 64 usage; \
        77 permission; 78 configuration."
)]
pub struct Cli {
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, display_order = 100)]
    format: Format,
    /// Say only results and errors.
    #[arg(
        short,
        long,
        global = true,
        display_order = 101,
        conflicts_with = "verbose"
    )]
    quiet: bool,
    /// Say more.
    #[arg(short, long, global = true, display_order = 102)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole system on this machine in one process, until Ctrl-C.
    Up(Box<up::Up>),
    /// Publishers' signing keys.
    #[command(subcommand, arg_required_else_help = true)]
    Key(KeyCommand),
    /// Manifests and their signed statements.
    #[command(subcommand, arg_required_else_help = true)]
    Image(Box<ImageCommand>),
    /// Read a tree now; with --image, compare it.
    Scan(scan::Scan),
    /// Sign in to a collector.
    Login(login::Login),
    /// Who is signed in, and where.
    #[command(after_help = "Example:\n  pristine whoami")]
    Whoami,
    /// Forget the token.
    #[command(after_help = "Example:\n  pristine logout")]
    Logout,
    /// Join tokens and API tokens.
    #[command(subcommand, arg_required_else_help = true)]
    Token(TokenCommand),
    /// The fleet.
    #[command(subcommand, arg_required_else_help = true)]
    Node(NodeCommand),
    /// What a person must judge.
    #[command(subcommand, arg_required_else_help = true)]
    Violation(ViolationCommand),
    /// The collector's local accounts.
    #[command(subcommand, arg_required_else_help = true)]
    User(UserCommand),
    /// What people and pipelines did.
    #[command(subcommand, arg_required_else_help = true)]
    Activity(ActivityCommand),
    /// Deployments: what was asked for, who approved it, how far it has come.
    #[command(subcommand, arg_required_else_help = true)]
    Change(ChangeCommand),
    /// Accepted differences.
    #[command(subcommand, arg_required_else_help = true)]
    Exception(Box<ExceptionCommand>),
    /// Who is told of violations, and whether it reached them.
    #[command(subcommand, arg_required_else_help = true)]
    Alert(AlertCommand),
    /// Completion for a shell.
    Completion(completion::Completion),
    /// Man pages and completions of the three programs, into a folder.
    #[command(hide = true)]
    Documentation(documentation::Documentation),
}

impl Cli {
    /// How results are to be printed.
    pub fn output(&self) -> Output {
        Output::new(self.format, self.quiet, self.verbose)
    }

    /// Runs the command.
    pub fn run(&self, output: Output) -> Result<Status, Failure> {
        match &self.command {
            Command::Up(arguments) => up::run(arguments, output),
            Command::Key(command) => key::run(command, output),
            Command::Image(command) => image::run(command, output),
            Command::Scan(arguments) => scan::run(arguments, output),
            Command::Login(arguments) => login::login(arguments, output),
            Command::Whoami => login::whoami(output),
            Command::Logout => login::logout(output),
            Command::Token(command) => token::run(command, output),
            Command::Node(command) => node::run(command, output),
            Command::Violation(command) => violation::run(command, output),
            Command::User(command) => user::run(command, output),
            Command::Activity(command) => activity::run(command, output),
            Command::Change(command) => change::run(command, output),
            Command::Exception(command) => exception::run(command, output),
            Command::Alert(command) => alert::run(command, output),
            Command::Completion(arguments) => completion::run(arguments, output),
            Command::Documentation(arguments) => documentation::run(arguments, output),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let is_group = command.has_subcommands();
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                is_group || help.contains("Example"),
                "{path} has no example"
            );
            for below in command
                .get_subcommands()
                .filter(|below| below.get_name() != "help")
            {
                check(below, &format!("{path} {}", below.get_name()));
            }
        }
        check(&Cli::command(), "pristine");
    }
}
