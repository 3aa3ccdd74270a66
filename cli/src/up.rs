//! `pristine up`.
use clap::Args;
use crate::exit::{Failure, Status};
use crate::output::Output;

/// Arguments of `up`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  pristine up")]
pub struct Up {}

/// Runs everything.
pub fn run(_arguments: &Up, _output: Output) -> Result<Status, Failure> {
    Err(Failure::new("cannot do it"))
}
