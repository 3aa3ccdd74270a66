//! `pristine login`, `whoami`, `logout`: a token kept in the user's keyring.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use crate::client::{self, Client, text_of};
use crate::exit::{Failure, Status};
use crate::files::read_bounded;
use crate::keyring::{self, Keyring};
use crate::output::Output;
use crate::token::groups_of;

/// Arguments of `login`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  pristine login https://pristine.example.org --user admin\n\
    asks for the password, on standard input where there is no terminal."
)]
pub struct Login {
    /// The collector's people's door.
    url: String,
    /// Who signs in; asked for where it is not given.
    #[arg(long)]
    user: Option<String>,
    /// Read the password from this file instead of asking.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Keep this API token, instead of asking for user and password.
    #[arg(long, conflicts_with_all = ["user", "password_file"])]
    token: Option<String>,
}

/// Signs in and keeps the token.
pub fn login(arguments: &Login, output: Output) -> Result<Status, Failure> {
    let kept = client::run(async {
        let mut client = Client::new(&arguments.url, None, output)?;
        let (token, expires) = match &arguments.token {
            Some(token) => (token.clone(), None),
            None => exchange(arguments, &client).await?,
        };
        client.use_token(token.clone());
        let who = client.get("/api/v1/whoami").await?;
        Ok(Keyring {
            url: client.base().to_string(),
            user: text_of(&who, "/user"),
            token,
            expires,
        })
    })?;
    let path = keyring::write(&kept)?;
    if output.is_json() {
        output.document(&json!({ "url": kept.url, "user": kept.user, "expires": kept.expires }))?;
    } else {
        output.line(format_args!("signed in to {} as {}", kept.url, kept.user))?;
    }
    output.detail(format_args!("the token is kept in {}", path.display()));
    Ok(Status::Clean)
}

async fn exchange(arguments: &Login, client: &Client) -> Result<(String, Option<String>), Failure> {
    let user = match &arguments.user {
        Some(user) => user.clone(),
        None => ask("user: ", false)?,
    };
    let password = match &arguments.password_file {
        Some(path) => {
            let bytes = read_bounded(path, 64 * 1024)?;
            String::from_utf8_lossy(&bytes)
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned()
        }
        None => ask("password: ", true)?,
    };
    let answer = client
        .post(
            "/api/v1/sessions",
            &json!({ "user": user, "password": password }),
        )
        .await?;
    let token = answer.get("token").and_then(Value::as_str).ok_or_else(|| {
        Failure::new(format!(
            "{} does not answer like a collector",
            client.base()
        ))
        .why("it gave no token")
    })?;
    Ok((
        token.to_owned(),
        answer
            .get("expires")
            .and_then(Value::as_str)
            .map(str::to_owned),
    ))
}

/// Asks on the terminal, without an echo for what is secret; without a terminal, a line of standard input.
fn ask(question: &str, is_secret: bool) -> Result<String, Failure> {
    let unread = |error: &io::Error| Failure::io("cannot read the answer", error);
    let mut answer = String::new();
    if io::stdin().is_terminal() {
        let terminal = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .map_err(|error| unread(&error))?;
        write!(&terminal, "{question}").map_err(|error| unread(&error))?;
        let before = if is_secret {
            Some(tcgetattr(&terminal).map_err(|error| unread(&error.into()))?)
        } else {
            None
        };
        if let Some(before) = &before {
            let mut silent = before.clone();
            silent.local_modes.remove(LocalModes::ECHO);
            tcsetattr(&terminal, OptionalActions::Flush, &silent)
                .map_err(|error| unread(&error.into()))?;
        }
        let read = BufReader::new(&terminal).read_line(&mut answer);
        if let Some(before) = &before {
            tcsetattr(&terminal, OptionalActions::Flush, before)
                .map_err(|error| unread(&error.into()))?;
            writeln!(&terminal).map_err(|error| unread(&error))?;
        }
        read.map_err(|error| unread(&error))?;
    } else {
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|error| unread(&error))?;
    }
    let answer = answer.trim_end_matches(['\r', '\n']).to_owned();
    if answer.is_empty() {
        return Err(Failure::new("cannot sign in")
            .why("no answer was given")
            .remedy("give --user, and --password-file"));
    }
    Ok(answer)
}

/// Who the token belongs to.
pub fn whoami(output: Output) -> Result<Status, Failure> {
    let (url, who) = client::run(async {
        let client = Client::signed_in(output)?;
        Ok((
            client.base().to_string(),
            client.get("/api/v1/whoami").await?,
        ))
    })?;
    if output.is_json() {
        output.document(&who)?;
    } else {
        output.line(format_args!(
            "{} ({}{}) at {url}",
            text_of(&who, "/user"),
            text_of(&who, "/role"),
            match groups_of(&who).as_str() {
                "all" => String::new(),
                groups => format!(", only {groups}"),
            }
        ))?;
    }
    Ok(Status::Clean)
}

/// Forgets the token, and asks the collector to do the same.
pub fn logout(output: Output) -> Result<Status, Failure> {
    if let Some(kept) = keyring::read()? {
        let ended = client::run(async {
            let client = Client::new(&kept.url, Some(kept.token.clone()), output)?;
            client.delete("/api/v1/sessions").await
        });
        if let Err(failure) = ended {
            output.warn(format_args!(
                "the token is only forgotten here, the collector still takes it: {failure}"
            ));
        }
    }
    if keyring::remove()? {
        output.note("signed out");
    } else {
        output.note("was not signed in");
    }
    Ok(Status::Clean)
}
