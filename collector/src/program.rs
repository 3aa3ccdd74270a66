//! The commands of `pristine-collector`.

mod keeping;
mod owner;
mod users;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::access::AccessError;
use crate::backup::BackupError;
use crate::check::CheckError;
use crate::config::{self, ConfigError};
use crate::files::FileError;
use crate::init::{InitError, Initialised};
use crate::keys::KeysError;
use crate::serve::StartError;
use crate::store::StoreError;

/// The commit that this was built from.
pub const COMMIT: &str = env!("PRISTINE_COMMIT");
const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("PRISTINE_COMMIT"),
    ")"
);

/// Takes attestations, appraises them, keeps the evidence and tells people.
#[derive(Parser)]
#[command(name = "pristine-collector", version = VERSION, about, after_help = "Example:\n  pristine-collector init && pristine-collector serve")]
pub struct Program {
    #[command(subcommand)]
    command: Command,
    /// Logs warnings only.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Logs more; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Open the three doors; the journal goes to standard output.
    #[command(
        after_help = "Example:\n  pristine-collector serve --config /etc/pristine/collector.toml"
    )]
    Serve(Configured),
    /// Make keys, authorities, store and the first administrator, who is printed once.
    #[command(after_help = "Example:\n  pristine-collector init --format json")]
    Init(Printed),
    /// Local accounts, for when nobody can sign in.
    User(users::Users),
    /// Copy everything into one new file, while the collector runs. The copy holds the keys: keep it as safe as them.
    #[command(
        after_help = "Example:\n  pristine-collector backup /srv/backup/collector-$(date +%F).tar.zst"
    )]
    Backup(keeping::Copying),
    /// Put a copy back where no collector is. Nodes send again what the copy lacks.
    #[command(
        after_help = "Example:\n  pristine-collector restore /srv/backup/collector-2026-11-25.tar.zst && pristine-collector check"
    )]
    Restore(keeping::Copying),
    /// The API's description: OpenAPI 3.1, as JSON.
    #[command(
        name = "openapi",
        after_help = "Example:\n  pristine-collector openapi > pristine-openapi.json"
    )]
    OpenApi,
    /// Whether store, log and evidence agree; exit 1 where they do not.
    #[command(after_help = "Example:\n  pristine-collector check --format json")]
    Check(Printed),
}

#[derive(Args)]
struct Configured {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args)]
struct Printed {
    #[command(flatten)]
    configured: Configured,
    /// How the result is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// Why a command could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The configuration is refused.
    #[error("configuration refused")]
    Config(#[from] ConfigError),
    /// `init` could not be done.
    #[error("not initialised")]
    Init(#[from] InitError),
    /// The collector could not be started.
    #[error("not started")]
    Start(#[from] StartError),
    /// An account could not be changed.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The store could not be opened.
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
    /// There is nothing to work on.
    #[error("{} holds no collector: run `pristine-collector init` first", .0.display())]
    NotInitialised(PathBuf),
    /// Nothing was copied or put back.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Nothing was checked.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A file with a password cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was asked is not so.
    #[error("{0}")]
    NotSo(String),
    /// Root could not go on as whom the state belongs to.
    #[error("cannot go on as the owner of {}", state.display())]
    Owner {
        /// The state directory.
        state: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The result could not be printed, or signals cannot be had.
    #[error("standard output or signals cannot be used")]
    Io(#[from] std::io::Error),
}

impl ProgramError {
    /// 1 what was asked is not so, 77 permission, 78 configuration, else 2.
    pub fn exit_code(&self) -> u8 {
        let file = match self {
            Self::Config(ConfigError::File(file))
            | Self::Init(InitError::File(file) | InitError::Keys(KeysError::File(file)))
            | Self::Start(StartError::File(file) | StartError::Keys(KeysError::File(file))) => {
                Some(file)
            }
            Self::File(file) => Some(file),
            _ => None,
        };
        if let Self::Backup(BackupError::File { source, .. }) = self
            && source.kind() == std::io::ErrorKind::PermissionDenied
        {
            return 77;
        }
        if file.is_some_and(FileError::is_permission) {
            return 77;
        }
        match self {
            Self::NotSo(_) => 1,
            Self::Config(_) => 78,
            _ if matches!(
                file,
                Some(FileError::Readable { .. } | FileError::Writable { .. })
            ) =>
            {
                78
            }
            Self::Start(StartError::Bind { source, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                77
            }
            _ => 2,
        }
    }
}

impl Program {
    /// What is logged where the environment does not say.
    pub fn log_filter(&self) -> &'static str {
        match (self.quiet, self.verbose) {
            (true, _) => "warn",
            (false, 0) => "info",
            (false, 1) => "debug,sqlx=info,hyper=info,h2=info,rustls=info",
            (false, _) => "trace",
        }
    }
}

/// Runs a command to its end.
pub async fn run(program: Program) -> Result<(), ProgramError> {
    match program.command {
        Command::Serve(configured) => serve(configured).await,
        Command::Init(asked) => init(asked).await,
        Command::User(asked) => users::run(asked).await,
        Command::Backup(asked) => keeping::backup(asked).await,
        Command::Restore(asked) => keeping::restore(asked).await,
        Command::Check(asked) => keeping::check(asked).await,
        Command::OpenApi => openapi(),
    }
}

/// What the service reads and writes is made by the service's user.
fn owned(state: &Path) -> Result<(), ProgramError> {
    owner::take(state).map_err(|source| ProgramError::Owner {
        state: state.to_owned(),
        source,
    })
}

async fn serve(configured: Configured) -> Result<(), ProgramError> {
    let settings = config::load(configured.config.as_deref())?;
    owned(&settings.state)?;
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    };
    let running = crate::start(settings, shutdown).await?;
    let scheme = if running.ops_tls { "https" } else { "http" };
    tracing::info!(
        event = "ready",
        agents = %running.agents,
        join = %running.join,
        ops = %running.ops,
        url = format!("{scheme}://{}", running.ops),
        version = VERSION,
        "three doors are open"
    );
    running.wait().await;
    Ok(())
}

fn openapi() -> Result<(), ProgramError> {
    let description = crate::api::openapi::description();
    let text = description
        .to_pretty_json()
        .map_err(std::io::Error::other)?;
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

async fn init(asked: Printed) -> Result<(), ProgramError> {
    let settings = config::load(asked.configured.config.as_deref())?;
    owned(&settings.state)?;
    let made = crate::init(&settings).await?;
    print(asked.format, &made, || told(&made))
}

/// Prints a result in the form that was asked for.
fn print(
    format: Format,
    result: &impl serde::Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), ProgramError> {
    let text = match format {
        Format::Json => serde_json::to_string(result).map_err(std::io::Error::other)?,
        Format::Text => text(),
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

fn told(made: &Initialised) -> String {
    format!(
        "The first administrator, printed this once:\n  user      {}\n  password  {}\n  API token {}\n\
         The agents' certificate authority:\n  file      {}\n  sha256    {}\nNow: systemctl start pristine-collector, or without its package: pristine-collector serve",
        made.user, made.password, made.token, made.ca, made.ca_sha256
    )
}
