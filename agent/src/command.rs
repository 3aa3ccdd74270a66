//! The command line of the agent: what was asked, done, and said.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::DEFAULT_PATH;
use crate::identity::IdentityError;
use crate::journal::{Level, chain};
use crate::transport::child::Program;
use crate::{
    AgentConfig, AgentSettings, ConfigError, Door, EnrolError, EnrolOptions, Network, RunError,
    VERSION, check, clock, config, status,
};

/// A join token and its newline are never longer.
const TOKEN_BYTES: u64 = 64 * 1024;

/// Attests this node: tells a collector, signed, whether its root still is the image it should be.
#[derive(Debug, Parser)]
#[command(name = "pristine-agent", version = VERSION, after_help = "Example: pristine-agent enroll --token-file /run/join-token && pristine-agent run")]
pub struct Arguments {
    /// Only what an operator must act on.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Every statement and answer.
    #[arg(short, long, global = true)]
    verbose: bool,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value = "text")]
    format: Format,
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM or Ctrl-C; it says goodbye.
    #[command(after_help = "Example: pristine-agent run --config /etc/pristine/agent.toml")]
    Run,
    /// Make keys, join a collector, keep the identity.
    #[command(
        after_help = "Example: pristine-agent enroll --token pristine-join.eyJ… --name web-1"
    )]
    Enroll(Enroll),
    /// Is this node ready: kernel, privileges, collector, clock, service; each with what to do about it.
    #[command(after_help = "Example: pristine-agent check --config /etc/pristine/agent.toml")]
    Check,
    /// Take another key under the same id: the old one vouches for it.
    #[command(after_help = "Example: pristine-agent rotate-key")]
    RotateKey,
    /// State, verdict, coverage and cost of the running agent.
    #[command(after_help = "Example: pristine-agent status --format json")]
    Status,
}

#[derive(Debug, Args)]
struct Enroll {
    /// A join token.
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["token_file", "join"])]
    token: Option<String>,
    /// A file that holds a join token; wiped after use.
    #[arg(long, value_name = "FILE", conflicts_with = "join")]
    token_file: Option<PathBuf>,
    /// URL of the joining door; a person admits the node.
    #[arg(long, value_name = "URL", requires = "ca")]
    join: Option<String>,
    /// The CA certificate (PEM) of the joining door.
    #[arg(long, value_name = "FILE", requires = "join")]
    ca: Option<PathBuf>,
    /// What people call this node; its host name if not given.
    #[arg(long)]
    name: Option<String>,
    /// The id of the node whose place it takes.
    #[arg(long, value_name = "NODE")]
    replaces: Option<String>,
}

impl Arguments {
    /// Whether this process is the daemon, which holds no more than it needs.
    pub fn is_daemon(&self) -> bool {
        matches!(self.command, Command::Run)
    }

    /// How much the journal tells.
    pub fn level(&self) -> Level {
        match (self.quiet, self.verbose) {
            (true, _) => Level::Quiet,
            (_, true) => Level::Verbose,
            _ => Level::Usual,
        }
    }
}

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node has not joined.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The daemon ended.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The key stays the one it was.
    #[error(transparent)]
    RotateKey(#[from] crate::RotateKeyError),
    /// The running agent does not answer.
    #[error(transparent)]
    Status(#[from] status::StatusError),
    /// A file that was named cannot be read or wiped.
    #[error("read {path}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// What was given is no join token.
    #[error("read the join token")]
    Token(#[from] attestation::join_token::JoinTokenError),
    /// Nobody said where to join.
    #[error("give --token, --token-file, or --join with --ca")]
    NoDoor,
    /// `check` found something that must be mended.
    #[error("this node is not ready")]
    NotReady,
    /// Signals cannot be had.
    #[error("take signals")]
    Signals(#[source] std::io::Error),
}

impl Failure {
    /// The error and its causes.
    pub fn message(&self) -> String {
        chain(self)
    }

    /// The exit code that scripts rely on.
    pub fn exit_code(&self) -> u8 {
        if refused_permission(self) {
            return 77;
        }
        match self {
            Self::NotReady => 1,
            Self::Config(_) => 78,
            Self::Enrol(EnrolError::Identity(error)) | Self::Run(RunError::Identity(error)) => {
                match error {
                    IdentityError::KeyMode { .. } => 78,
                    _ => 2,
                }
            }
            Self::Run(RunError::NoCollector) => 78,
            Self::NoDoor => 64,
            _ => 2,
        }
    }
}

/// Whether the system refused it for want of permission.
fn refused_permission(failure: &Failure) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(failure);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::PermissionDenied
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Does what was asked.
pub async fn perform(arguments: Arguments) -> Result<(), Failure> {
    if matches!(arguments.command, Command::Check) {
        return Box::pin(check(arguments.config.as_deref(), arguments.format)).await;
    }
    let settings = settings(arguments.config.as_deref())?;
    match arguments.command {
        Command::Check => Ok(()),
        Command::Run => run(settings, arguments.config.as_deref()).await,
        Command::Enroll(enroll) => self::enroll(settings, enroll, arguments.format).await,
        Command::RotateKey => rotate_key(&settings, arguments.format).await,
        Command::Status => show_status(&settings, arguments.format).await,
    }
}

/// The named configuration, else the usual one, else the defaults.
fn settings(path: Option<&Path>) -> Result<AgentSettings, ConfigError> {
    match path {
        Some(path) => AgentConfig::load(path),
        None if Path::new(DEFAULT_PATH).exists() => AgentConfig::load(Path::new(DEFAULT_PATH)),
        None => Ok(AgentSettings::new("/", config::default_state())),
    }
}

/// The network has a process of its own: this program, started anew.
fn network() -> Network {
    Network::Child(Program::this())
}

/// Configurations that wait to be taken: a second SIGHUP reads what the first would have.
const RELOADS: usize = 2;

/// Runs until a signal; SIGHUP reads the configuration again.
async fn run(mut settings: AgentSettings, config: Option<&Path>) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::Signals)?;
    let mut reload = signal(SignalKind::hangup()).map_err(Failure::Signals)?;
    settings.network = network();
    tracing::info!(version = VERSION, root = %settings.root.display(), "pristine-agent starts");
    let (reloads, coming) = tokio::sync::mpsc::channel(RELOADS);
    let shutdown = async {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = reload.recv() => drop(reloads.try_send(self::settings(config))),
            }
        }
    };
    Box::pin(crate::run_reloading(settings, shutdown, coming)).await?;
    Ok(())
}

async fn enroll(settings: AgentSettings, enroll: Enroll, format: Format) -> Result<(), Failure> {
    let door = match (&enroll.token, &enroll.token_file, &enroll.join, &enroll.ca) {
        (Some(token), ..) => Door::Token(token.trim().parse()?),
        (None, Some(file), ..) => Door::Token(read(file)?.trim().parse()?),
        (None, None, Some(join), Some(ca)) => Door::Person {
            join: join.clone(),
            ca: read(ca)?,
        },
        _ => return Err(Failure::NoDoor),
    };
    let options = EnrolOptions {
        state: settings.state,
        door,
        name: enroll.name,
        replaces: enroll.replaces,
    };
    let enrolled = Box::pin(crate::enroll_over(options, &network())).await?;
    if let Some(file) = &enroll.token_file {
        crate::wipe(file).map_err(|source| Failure::File {
            path: file.clone(),
            source,
        })?;
    }
    match format {
        Format::Text => println!(
            "{} joined as {}\nagents' doors: {}",
            enrolled.name,
            enrolled.node,
            enrolled.agents.join(", ")
        ),
        Format::Json => println!(
            "{}",
            serde_json::json!({
                "node": enrolled.node, "name": enrolled.name, "agents": enrolled.agents, "log": enrolled.log,
            })
        ),
    }
    Ok(())
}

async fn check(config: Option<&Path>, format: Format) -> Result<(), Failure> {
    let usual = Path::new(DEFAULT_PATH);
    let config = config.or_else(|| usual.exists().then_some(usual));
    let defaults = AgentSettings::new("/", config::default_state());
    let report = check::check(config, self::settings(config), defaults, &network()).await;
    match format {
        Format::Text => print!("{}", check::text(&report)),
        Format::Json => println!("{}", serde_json::to_string(&report).unwrap_or_default()),
    }
    if report.ready {
        return Ok(());
    }
    Err(Failure::NotReady)
}

async fn rotate_key(settings: &AgentSettings, format: Format) -> Result<(), Failure> {
    let rotated = Box::pin(crate::rotate_key(settings)).await?;
    let (node, from, to) = (&rotated.node, rotated.from, rotated.to);
    match format {
        Format::Text => println!("{node} signs with another key\nfrom {from}\nto   {to}"),
        Format::Json => println!(
            "{}",
            serde_json::json!({"node": node, "from": from, "to": to})
        ),
    }
    Ok(())
}

async fn show_status(settings: &AgentSettings, format: Format) -> Result<(), Failure> {
    let status = status::ask(&settings.state).await?;
    match format {
        Format::Text => print!("{}", status::text(&status, clock::now())),
        Format::Json => println!("{}", serde_json::to_string(&status).unwrap_or_default()),
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    use std::io::Read as _;
    let failed = |source| Failure::File {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(TOKEN_BYTES).read_to_string(&mut text))
        .map_err(failed)?;
    Ok(text)
}
