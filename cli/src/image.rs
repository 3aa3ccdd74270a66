//! `pristine image`: manifests and their signed statements.

pub mod build;
pub mod diff;
pub mod export;
pub mod file;
pub mod guard;
pub mod list;
pub mod provenance;
pub mod publish;
pub mod revoke;
pub mod show;
pub mod sign;
pub mod verify;

use clap::Subcommand;

use crate::exit::{Failure, Status};
use crate::output::Output;

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make the manifest of a tree and, with a key, its signed statement.
    #[command(after_help = build::EXAMPLE, disable_version_flag = true)]
    Build(Box<build::Build>),
    /// Add a signature to the statement beside FILE.
    #[command(after_help = "Example:\n  pristine image sign web.mtree.zst --key release.pem")]
    Sign(sign::Sign),
    /// Check signatures, and that the manifest is the one that was signed.
    #[command(
        after_help = "Example:\n  pristine image verify web.mtree.zst --publisher release.pem.pub"
    )]
    Verify(verify::Verify),
    /// What is in an image; with PATH, that entry and the proof of it.
    #[command(after_help = "Example:\n  pristine image show web.mtree.zst /usr/sbin/nginx")]
    Show(show::Show),
    /// Hand an image to other tools, on standard output.
    #[command(
        after_help = "Example:\n  pristine image export web.mtree.zst --as mtree | bsdtar -tvf -"
    )]
    Export(export::Export),
    /// What changed between two images; exit 1 where they differ.
    #[command(after_help = "Example:\n  pristine image diff web-1.mtree.zst web-2.mtree.zst")]
    Diff(diff::Diff),
    /// Send an image to the collector.
    #[command(after_help = "Example:\n  pristine image publish web.mtree.zst")]
    Publish(publish::Publish),
    /// The images that the collector has.
    #[command(after_help = "Example:\n  pristine image list --name web")]
    List(list::List),
    /// No node may be this image any more.
    #[command(
        disable_version_flag = true,
        after_help = "Example:\n  pristine image revoke web 1.4.1 --reason \"its OpenSSL has a hole, ticket 4711\""
    )]
    Revoke(revoke::Revoke),
}

/// Runs an image command.
pub fn run(command: &ImageCommand, output: Output) -> Result<Status, Failure> {
    match command {
        ImageCommand::Build(arguments) => build::run(arguments, output),
        ImageCommand::Sign(arguments) => sign::run(arguments, output),
        ImageCommand::Verify(arguments) => verify::run(arguments, output),
        ImageCommand::Show(arguments) => show::run(arguments, output),
        ImageCommand::Export(arguments) => export::run(arguments, output),
        ImageCommand::Diff(arguments) => diff::run(arguments, output),
        ImageCommand::Publish(arguments) => publish::run(arguments, output),
        ImageCommand::List(arguments) => list::run(arguments, output),
        ImageCommand::Revoke(arguments) => revoke::run(arguments, output),
    }
}
