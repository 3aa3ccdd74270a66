//! The daemon on a node: `run`, `enroll`, `status`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use pristine_agent::command;
use pristine_agent::transport::inside;

fn main() -> ExitCode {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("pristine-agent: a second cryptographic provider was installed before ours");
        return ExitCode::from(2);
    }
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == inside::SUBCOMMAND)
    {
        return inside::run();
    }
    let arguments = match command::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    pristine_agent::journal::start(arguments.level());
    if arguments.is_daemon() {
        // Before there is a second thread: each has its own capabilities.
        pristine_agent::privileges::give_up_the_rest();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("pristine-agent: start the network runtime: {error}");
            return ExitCode::from(2);
        }
    };
    let outcome = runtime.block_on(Box::pin(command::perform(arguments)));
    // A scan that is still reading must not hold the process back once the goodbye is out.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("pristine-agent: {}", failure.message());
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Prints what clap has to say: help and version are no errors, everything else is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    let shown = error.print();
    match (error.use_stderr(), shown) {
        (false, Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::from(64),
    }
}
