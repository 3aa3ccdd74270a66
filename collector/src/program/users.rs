//! `user add|passwd|disable|list`: local accounts from the collector's own machine, also while it runs.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Printed, ProgramError, print};
use crate::access::accounts::{self, Account, NewAccount};
use crate::access::{Person, Reach, Role, secret};
use crate::init::{exists, store_file};
use crate::store::Store;
use crate::{config, files};

/// A password is a line.
const LINE: u64 = 4096;

#[derive(Args)]
pub(super) struct Users {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Add an account.
    #[command(after_help = "Example:\n  pristine-collector user add ann --role admin")]
    Add {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        password: Password,
        /// What it may do.
        #[arg(long, value_enum, default_value = "viewer")]
        role: Allowed,
        /// A group of nodes that it is limited to; may be given more than once. Without one it reaches all.
        #[arg(long, value_name = "G")]
        group: Vec<String>,
    },
    /// Give an account another role or other groups; tokens that go beyond are revoked.
    #[command(
        after_help = "Examples:\n  pristine-collector user role ann --role operator --group web\n  \
        pristine-collector user role ann --group '*'"
    )]
    Role {
        #[command(flatten)]
        named: Named,
        /// What it may do.
        #[arg(long, value_enum, required_unless_present = "group")]
        role: Option<Allowed>,
        /// The groups of nodes that it is limited to; `*` for all.
        #[arg(long, value_name = "G")]
        group: Vec<String>,
    },
    /// Let a disabled account sign in again. What ended with it stays ended.
    #[command(after_help = "Example:\n  pristine-collector user enable ann")]
    Enable {
        #[command(flatten)]
        named: Named,
    },
    /// Set another password; the account's browser sessions end.
    #[command(after_help = "Example:\n  pristine-collector user passwd ann")]
    Passwd {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        password: Password,
    },
    /// Disable an account: its sessions end, its tokens are revoked.
    #[command(after_help = "Example:\n  pristine-collector user disable ann")]
    Disable {
        #[command(flatten)]
        named: Named,
    },
    /// List all accounts.
    #[command(after_help = "Example:\n  pristine-collector user list --format json")]
    List {
        #[command(flatten)]
        all: Printed,
    },
}

#[derive(Args)]
struct Named {
    /// The account.
    #[arg(value_name = "NAME")]
    user: String,
    #[command(flatten)]
    all: Printed,
}

#[derive(Args)]
struct Password {
    /// A file whose first line is the password, `-` for standard input; without it one is made and printed once.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Allowed {
    /// Reads everything, changes nothing.
    Viewer,
    /// Works with what is found, asks for changes, keeps the list of nodes.
    Operator,
    /// Approves what others ask for, lets nodes in.
    Approver,
    /// Publishes images.
    Publisher,
    /// Everything, but for approving what they asked for themselves.
    Admin,
}

impl From<Allowed> for Role {
    fn from(allowed: Allowed) -> Self {
        match allowed {
            Allowed::Viewer => Self::Viewer,
            Allowed::Operator => Self::Operator,
            Allowed::Approver => Self::Approver,
            Allowed::Publisher => Self::Publisher,
            Allowed::Admin => Self::Admin,
        }
    }
}

#[derive(Serialize)]
struct Changed {
    user: String,
    done: &'static str,
    /// Only where it was made here.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

impl Password {
    /// The password, and whether it was made here and has to be told.
    fn get(&self) -> Result<(Zeroizing<String>, bool), ProgramError> {
        match &self.password_file {
            None => {
                let made = secret::fresh_password().map_err(crate::access::AccessError::from)?;
                Ok((made, true))
            }
            Some(file) => Ok((first_line(file)?, false)),
        }
    }
}

fn first_line(file: &Path) -> Result<Zeroizing<String>, ProgramError> {
    let text = if file == Path::new("-") {
        let mut text = Zeroizing::new(String::new());
        std::io::stdin().take(LINE).read_to_string(&mut text)?;
        text
    } else {
        Zeroizing::new(files::read_secret(file)?)
    };
    Ok(Zeroizing::new(
        text.lines().next().unwrap_or_default().to_owned(),
    ))
}

/// Who does it: nobody has signed in here, so it is the user of this machine.
fn local() -> Result<Person, ProgramError> {
    let uid = std::fs::metadata("/proc/self")?.uid();
    Ok(Person::local(format!("uid {uid} on the collector")))
}

async fn opened(all: &Printed) -> Result<Store, ProgramError> {
    let settings = config::load(all.configured.config.as_deref())?;
    if !exists(&settings.state) {
        return Err(ProgramError::NotInitialised(settings.state));
    }
    Ok(Store::open(&store_file(&settings.state)).await?)
}

pub(super) async fn run(asked: Users) -> Result<(), ProgramError> {
    match asked.command {
        Command::Add {
            named,
            password,
            role,
            group,
        } => {
            let (secret, made) = password.get()?;
            let store = opened(&named.all).await?;
            let new = NewAccount {
                user: named.user.clone(),
                password: secret.clone(),
                role: role.into(),
                reach: Reach::of(group),
            };
            let added = accounts::add(&store, &local()?, new).await;
            store.close().await;
            added?;
            tell(&named, "added", made.then_some(secret))
        }
        Command::Role { named, role, group } => {
            let store = opened(&named.all).await?;
            let reach =
                (!group.is_empty()).then(|| Reach::of(group.into_iter().filter(|it| it != "*")));
            let role = role.map(Role::from);
            let set = accounts::set_role(&store, &local()?, &named.user, role, reach).await;
            store.close().await;
            set?;
            tell(&named, "has another role", None)
        }
        Command::Passwd { named, password } => {
            let (secret, made) = password.get()?;
            let store = opened(&named.all).await?;
            let set = accounts::set_password(&store, &local()?, &named.user, secret.clone()).await;
            store.close().await;
            set?;
            tell(&named, "has another password", made.then_some(secret))
        }
        Command::Disable { named } => {
            let store = opened(&named.all).await?;
            let disabled = accounts::disable(&store, &local()?, &named.user).await;
            store.close().await;
            disabled?;
            tell(&named, "disabled", None)
        }
        Command::Enable { named } => {
            let store = opened(&named.all).await?;
            let enabled = accounts::enable(&store, &local()?, &named.user).await;
            store.close().await;
            enabled?;
            tell(&named, "enabled", None)
        }
        Command::List { all } => {
            let store = opened(&all).await?;
            let listed = accounts::list(&store, &Reach::all()).await;
            store.close().await;
            let listed = listed?;
            print(all.format, &listed, || table(&listed))
        }
    }
}

fn tell(
    named: &Named,
    done: &'static str,
    secret: Option<Zeroizing<String>>,
) -> Result<(), ProgramError> {
    let changed = Changed {
        user: named.user.clone(),
        done,
        password: secret.map(|secret| secret.to_string()),
    };
    print(named.all.format, &changed, || {
        let password = changed.password.as_ref().map_or_else(String::new, |it| {
            format!("\npassword, printed this once: {it}")
        });
        format!("{} {done}{password}", changed.user)
    })
}

fn table(accounts: &[Account]) -> String {
    let width = accounts.iter().map(|it| it.user.len()).max().unwrap_or(0);
    let lines = accounts.iter().map(|it| {
        let state = it
            .disabled
            .map_or_else(String::new, |at| format!("  disabled {at}"));
        let groups: Vec<&str> = it.groups.groups().collect();
        let groups = if groups.is_empty() {
            String::new()
        } else {
            format!("  only {}", groups.join(", "))
        };
        format!(
            "{:width$}  {:9}  {}{groups}{state}",
            it.user,
            it.role.as_str(),
            it.created
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}
