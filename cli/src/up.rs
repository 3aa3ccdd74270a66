//! `pristine up`: the whole system on this machine in one process.

mod doors;
mod left_out;
mod place;
mod running;
mod taken;
mod told;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use attestation::key::PrivateKey;
use clap::Args;
use pristine_agent::scan::Progress;
use pristine_collector::settings::Webhook;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use self::left_out::Added;
use self::place::{Kept, Place};
use self::running::Plan;
use self::taken::{Taken, Wish};
use self::told::{ImageTold, Ready};
use crate::exit::{Failure, Status};
use crate::image::file::ImageFile;
use crate::output::{Output, plain};

/// Threads that are still at work when everything else has ended.
const THREADS_STOP_WITHIN: Duration = Duration::from_secs(2);

/// Arguments of `up`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pristine up\n  pristine up --root /srv/app --state ~/pristine --scope rules.json\n\n\
    Takes ROOT as it stands for the image, starts a collector and an agent on it, and prints where its page is, a first\n\
    sign-in, then a line for each verdict and violation until Ctrl-C. Started again it goes on with the same keys, image\n\
    and history. It proves what changed since the image was taken, not that the start was clean.\n\n\
    The scope `host` seals everything but what changes on an idle Debian server: machine-id, host keys, logs, caches,\n\
    leases and the like, each by a rule with its reason; -v lists them. Whatever else is left out is printed."
)]
pub struct Up {
    /// The directory to attest [default: / at the first start, then the same again].
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where keys, image and history are kept [default: /var/lib/pristine/up, or pristine/up in the user's state directory].
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Rules for what differs from node to node: a JSON file, or `host` for the built-in ones, which is the default.
    #[arg(long, value_name = "FILE|host")]
    scope: Option<PathBuf>,
    /// Hold ROOT to this image instead of taking it as it stands.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Take ROOT anew, at the next epoch.
    #[arg(long, conflicts_with = "image")]
    rebase: bool,
    /// The people's door [default: 127.0.0.1:8080, or a free port].
    #[arg(long, value_name = "ADDR")]
    ops: Option<SocketAddr>,
    /// The agents' door [default: 127.0.0.1:8443, or a free port].
    #[arg(long, value_name = "ADDR")]
    agents: Option<SocketAddr>,
    /// The joining door [default: 127.0.0.1:8444, or a free port].
    #[arg(long, value_name = "ADDR")]
    join: Option<SocketAddr>,
    /// Tell this URL of every violation, signed per Standard Webhooks.
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
}

/// Runs everything until a signal.
pub fn run(arguments: &Up, output: Output) -> Result<Status, Failure> {
    log_to_stderr(output);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("cannot start the runtime", &error))?;
    let outcome = runtime.block_on(Box::pin(serve(arguments, output)));
    runtime.shutdown_timeout(THREADS_STOP_WITHIN);
    outcome.map(|()| Status::Clean)
}

/// Warnings of agent and collector, on standard error; `RUST_LOG` asks for more.
fn log_to_stderr(output: Output) {
    let level = match (output.is_quiet(), output.is_verbose()) {
        (true, _) => "error",
        (_, true) => "info",
        _ => "warn",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // Only a second subscriber could fail, and there is none.
    let _set = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output.logs_in_colour())
        .with_target(false)
        .try_init();
}

async fn serve(arguments: &Up, output: Output) -> Result<(), Failure> {
    let stop = running::signals()?;
    let place = Arc::new(Place::open(arguments.state.as_deref())?);
    let before = place.kept()?;
    let root = root(arguments.root.as_deref(), before.as_ref())?;
    let doors = doors::choose(arguments.ops, arguments.agents, arguments.join, output)?;
    let webhook = webhook(arguments.webhook.as_deref(), &place)?;
    let publisher = Arc::new(place.publisher()?);
    if before.is_some() && arguments.scope.is_some() && !arguments.rebase {
        output.warn("the image keeps the scope that it was taken with; --rebase takes ROOT anew");
    }
    let Some(taken) = take(
        arguments,
        &root,
        &place,
        before.clone(),
        &publisher,
        stop.clone(),
        output,
    )
    .await?
    else {
        return Ok(());
    };
    let (mut kept, added) = in_force(&place, before, taken, output)?;
    let plan = Plan {
        place: &place,
        doors,
        image: &kept.name,
        publisher: &publisher,
        webhook: webhook.clone(),
    };
    let started = Box::pin(running::start(plan, output)).await?;
    let introduced = Box::pin(introduce(&started, &place, &mut kept)).await;
    let node = match introduced {
        Ok(node) => node,
        Err(failure) => {
            started.running.stop();
            started.running.wait().await;
            return Err(failure);
        }
    };
    tell(
        &Facts {
            root: &root,
            kept: &kept,
            added,
            node: &node,
            webhook: webhook.as_ref(),
        },
        &place,
        &started,
        output,
    )?;
    let agent = running::agent_settings(&root, &place, &kept, &publisher, &started.running);
    Box::pin(running::attest(started, agent, node, stop, output)).await
}

async fn introduce(
    started: &running::Started,
    place: &Place,
    kept: &mut Kept,
) -> Result<String, Failure> {
    running::introduce(&started.client, place, kept).await?;
    running::enrol(&started.client, place).await
}

/// What a scan on another thread answers; nothing where a signal came first.
async fn take(
    arguments: &Up,
    root: &Path,
    place: &Arc<Place>,
    before: Option<Kept>,
    publisher: &Arc<PrivateKey>,
    mut stop: watch::Receiver<bool>,
    output: Output,
) -> Result<Option<Option<Taken>>, Failure> {
    let progress = Arc::new(Progress::default());
    let (root, scope, image, rebase) = (
        root.to_owned(),
        arguments.scope.clone(),
        arguments.image.clone(),
        arguments.rebase,
    );
    let (place, publisher, counted) = (
        Arc::clone(place),
        Arc::clone(publisher),
        Arc::clone(&progress),
    );
    let mut work = tokio::task::spawn_blocking(move || {
        let wish = Wish {
            root: &root,
            scope: scope.as_deref(),
            image: image.as_deref(),
            rebase,
        };
        taken::take(&wish, &place, before.as_ref(), &publisher, &counted, output)
    });
    tokio::select! {
        taken = &mut work => match taken {
            Ok(taken) => taken.map(Some),
            Err(error) => Err(Failure::new("cannot take the image").because(&error)),
        },
        _ = stop.wait_for(|stop| *stop) => {
            progress.stop();
            // Its result is of no use any more.
            drop(work.await);
            output.note("stopped before the image was taken");
            Ok(None)
        }
    }
}

/// Remembers an image just taken, and tells of it; else the one from before is in force.
fn in_force(
    place: &Place,
    before: Option<Kept>,
    taken: Option<Taken>,
    output: Output,
) -> Result<(Kept, Vec<Added>), Failure> {
    let is_new = taken.is_some();
    let (kept, added, limits) = match (taken, before) {
        (Some(taken), _) => {
            place.keep(&taken.kept)?;
            (taken.kept, taken.added, taken.limits)
        }
        (None, Some(before)) => {
            let added = before.added.iter().map(Added::from).collect();
            (before, added, Vec::new())
        }
        (None, None) => return Err(Failure::new("no image was taken")),
    };
    let image = ImageFile::open(&taken::file_of(place, &kept))?;
    let says = &image.required()?.1.predicate;
    if is_new || output.is_verbose() {
        let is_host = kept.given.is_none();
        told::left_out(
            &says.scope,
            is_host && says.scope.rules().len() > added.len(),
            &added,
            &says.mounts,
            output,
        )?;
        limits
            .into_iter()
            .try_for_each(|limit| told::remark(format!("limit: {}", plain(&limit)), output))?;
    }
    Ok((kept, added))
}

/// What `tell` needs beside the collector.
struct Facts<'a> {
    root: &'a Path,
    kept: &'a Kept,
    added: Vec<Added>,
    node: &'a str,
    webhook: Option<&'a Webhook>,
}

fn tell(
    facts: &Facts<'_>,
    place: &Place,
    started: &running::Started,
    output: Output,
) -> Result<(), Failure> {
    let file = taken::file_of(place, facts.kept);
    let mounts = ImageFile::open(&file)?
        .required()?
        .1
        .predicate
        .mounts
        .clone();
    let ready = Ready {
        event: "ready",
        ops: running::ops_url(&started.running),
        agents: running::agents_url(started.running.agents),
        join: running::agents_url(started.running.join),
        user: started.sign_in.user.clone(),
        password: started.sign_in.password.clone(),
        token: started.token.clone(),
        webhook_secret: facts.webhook.map(|webhook| webhook.secret.to_string()),
        root: facts.root.display().to_string(),
        node: facts.node.to_owned(),
        image: ImageTold {
            name: facts.kept.name.clone(),
            version: facts.kept.version.clone(),
            epoch: facts.kept.epoch,
            sha256: facts.kept.statement.to_string(),
            file: file.display().to_string(),
        },
        added: facts.added.clone(),
        mounts,
    };
    told::ready(&ready, output)?;
    place.forget_password(&started.sign_in)
}

fn webhook(url: Option<&str>, place: &Place) -> Result<Option<Webhook>, Failure> {
    let Some(url) = url else { return Ok(None) };
    let parsed = reqwest::Url::parse(url)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"));
    if parsed.is_none() {
        return Err(
            Failure::usage(format!("`{}` is not a webhook's address", plain(url)))
                .remedy("give it like https://example.org/hook"),
        );
    }
    Ok(Some(Webhook::new(url, place.webhook_secret()?)))
}

/// The root as a real path: the one asked for, the one from before, or all of this machine.
fn root(given: Option<&Path>, before: Option<&Kept>) -> Result<PathBuf, Failure> {
    let wanted = match (given, before) {
        (Some(given), _) => given.to_owned(),
        (None, Some(before)) => place::real_root(&before.root),
        (None, None) => PathBuf::from("/"),
    };
    let what = format!("cannot attest {}", wanted.display());
    let root = wanted
        .canonicalize()
        .map_err(|error| Failure::io(what.clone(), &error))?;
    if !root.is_dir() {
        return Err(Failure::new(what).why("it is not a directory"));
    }
    match before {
        Some(before) if place::shown_root(&root)? != before.root => Err(Failure::new(what)
            .why(format!(
                "this state is of {}",
                place::real_root(&before.root).display()
            ))
            .remedy("name another directory for its state with --state")),
        _ => Ok(root),
    }
}
