//! Collector and agent in one process: started, introduced to each other over their doors, and ended in order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use attestation::join_token::JoinToken;
use attestation::key::PrivateKey;
use attestation::time::Timestamp;
use attestation::wire::PublisherKeys;
use pristine_agent::identity::{self, IdentityError};
use pristine_agent::{AgentEvent, AgentSettings, Door, EnrolOptions, Publisher};
use pristine_collector::access::tokens::{self, NewToken};
use pristine_collector::access::{Person, Reach, Role};
use pristine_collector::approvals::Approvals;
use pristine_collector::events::{Event, VerdictEvent};
use pristine_collector::settings::{CollectorSettings, Webhook};
use pristine_collector::{Running, authority, init};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::doors::{self, Doors};
use super::place::{Kept, Place, SignIn, host_name};
use super::taken;
use super::told;
use crate::client::Client;
use crate::clock;
use crate::exit::{Code, Failure};
use crate::image::file::ImageFile;
use crate::image::publish;
use crate::output::{Output, plain};

/// The group of this machine.
const GROUP: &str = "default";
/// An API token of one run: the next run makes its own.
const TOKEN_SECS: i64 = 30 * 86_400;
/// The join token is used at once.
const JOIN_SECS: u64 = 600;
/// What is only shown may be missed when the terminal is slow.
const EVENTS: usize = 256;
/// For the goodbye, and for requests under way.
const AGENT_STOPS_WITHIN: Duration = Duration::from_secs(12);
const COLLECTOR_STOPS_WITHIN: Duration = Duration::from_secs(10);

/// A collector that runs, and a client of it.
pub struct Started {
    /// The collector.
    pub running: Running,
    /// The people's door, signed in.
    pub client: Client,
    /// Who signs in there.
    pub sign_in: SignIn,
    /// The token of this run.
    pub token: String,
}

/// What the collector is started with.
pub struct Plan<'a> {
    /// Where the state lies.
    pub place: &'a Place,
    /// The addresses.
    pub doors: Doors,
    /// The image's name: whose publisher is known.
    pub image: &'a str,
    /// Our publisher's key.
    pub publisher: &'a PrivateKey,
    /// Who is told.
    pub webhook: Option<Webhook>,
}

/// Starts the collector; makes it first where there is none.
pub async fn start(plan: Plan<'_>, output: Output) -> Result<Started, Failure> {
    let place = plan.place;
    let settings = settings(&plan);
    let mut token = None;
    let sign_in = match place.sign_in()? {
        Some(known) if init::exists(&settings.state) => known,
        _ => {
            let made = pristine_collector::init(&settings).await.map_err(|error| {
                Failure::new("cannot make the collector")
                    .because(&error)
                    .remedy("the state is from a start that was cut short; begin anew with another --state")
            })?;
            token = Some(made.token);
            let made = SignIn {
                user: made.user,
                password: Some(made.password),
            };
            place.keep_sign_in(&made)?;
            made
        }
    };
    let running = pristine_collector::start(settings, std::future::pending())
        .await
        .map_err(|error| {
            Failure::new("cannot start the collector")
                .because(&error)
                .code(Code::NotDone)
        })?;
    let token = match token {
        Some(token) => token,
        None => {
            let expires = clock::now().saturating_add_secs(TOKEN_SECS);
            let new = NewToken {
                user: sign_in.user.clone(),
                role: Role::Admin,
                reach: Reach::all(),
                label: "up".to_owned(),
                expires: Some(expires),
                login: false,
            };
            let who = Person::local(sign_in.user.as_str());
            let issued = tokens::issue(&running.state.store, &who, new)
                .await
                .map_err(|error| Failure::new("cannot make a token").because(&error))?;
            issued.written.to_string()
        }
    };
    let client = people(&running, place, token.clone(), output)?;
    Ok(Started {
        running,
        client,
        sign_in,
        token,
    })
}

fn settings(plan: &Plan<'_>) -> CollectorSettings {
    let Plan { place, doors, .. } = plan;
    CollectorSettings {
        agents: doors.agents,
        join: doors.join,
        ops: doors.ops,
        names: doors::names(doors, &host_name()),
        publishers: vec![PublisherKeys {
            image: plan.image.to_owned(),
            keys: vec![plan.publisher.public()],
            threshold: 1,
        }],
        webhooks: plan.webhook.iter().cloned().collect(),
        approvals: Approvals::One,
        journal: false,
        ..CollectorSettings::new(place.collector())
    }
}

fn people(
    running: &Running,
    place: &Place,
    token: String,
    output: Output,
) -> Result<Client, Failure> {
    let url = ops_url(running);
    if !running.ops_tls {
        return Client::new(&url, Some(token), output);
    }
    let ca = authority::certificate_file(&place.collector(), init::PEOPLE);
    Client::trusting(&url, Some(token), &ca, output)
}

/// Where people go.
pub fn ops_url(running: &Running) -> String {
    let scheme = if running.ops_tls { "https" } else { "http" };
    format!("{scheme}://{}/", doors::reachable(running.ops))
}

/// Where agents go.
pub fn agents_url(address: SocketAddr) -> String {
    format!("https://{}", doors::reachable(address))
}

/// Publishes the image and assigns it, as anybody would.
pub async fn introduce(client: &Client, place: &Place, kept: &mut Kept) -> Result<(), Failure> {
    if kept.assigned {
        return Ok(());
    }
    let image = ImageFile::open(&taken::file_of(place, kept))?;
    publish::send(client, &image).await?;
    client
        .post(
            "/api/v1/assignments",
            &json!({ "group": GROUP, "image": kept.statement }),
        )
        .await?;
    kept.assigned = true;
    place.keep(kept)
}

/// Enrols the agent where it has no identity yet; answers its node id.
pub async fn enrol(client: &Client, place: &Place) -> Result<String, Failure> {
    match identity::load(&place.agent()) {
        Ok(held) => return Ok(held.identity.node.to_string()),
        Err(IdentityError::NotEnrolled { .. } | IdentityError::OtherMachine { .. }) => {}
        Err(error) => return Err(Failure::new("cannot use the agent's identity").because(&error)),
    }
    let body = json!({ "kind": "join", "group": GROUP, "uses": 1, "ttl_secs": JOIN_SECS });
    let answer = client.post("/api/v1/tokens", &body).await?;
    let token: JoinToken = answer
        .get("token")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .parse()
        .map_err(|error| Failure::new("cannot read the join token").because(&error))?;
    let options = EnrolOptions {
        state: place.agent(),
        door: Door::Token(token),
        name: Some(host_name()),
        replaces: None,
    };
    let enrolled = Box::pin(pristine_agent::enroll(options))
        .await
        .map_err(|error| Failure::new("cannot enrol the agent").because(&error))?;
    Ok(enrolled.node.to_string())
}

/// Runs the agent and tells what happens until `stop`; then says goodbye.
pub async fn attest(
    started: Started,
    agent: AgentSettings,
    node: String,
    mut stop: watch::Receiver<bool>,
    output: Output,
) -> Result<(), Failure> {
    let mut events = started.running.events.subscribe();
    let (observer, mut observed) = mpsc::channel(EVENTS);
    let (end_agent, agent_ends) = oneshot::channel::<()>();
    let shutdown = async move {
        // A dropped sender ends it as well.
        drop(agent_ends.await);
    };
    let mut agent = tokio::spawn(pristine_agent::run(agent, shutdown, Some(observer)));
    let mut listener = Listener {
        node,
        has_told: false,
        is_baselined: false,
    };
    let outcome = loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break Ok(()),
            ended = &mut agent => break Err(agent_failure(ended)),
            event = events.recv() => if let Err(failure) = listener.collector(event, output) { break Err(failure) },
            Some(event) = observed.recv() => if let Err(failure) = listener.agent(&event, output) { break Err(failure) },
        }
    };
    // Where nobody reads our lines any more the goodbye is said all the same.
    if !agent.is_finished() {
        output.note("\nsaying goodbye …");
        drop(end_agent);
        if tokio::time::timeout(AGENT_STOPS_WITHIN, &mut agent)
            .await
            .is_err()
        {
            output.warn("the agent did not stop in time");
            agent.abort();
        }
    }
    started.running.stop();
    if tokio::time::timeout(COLLECTOR_STOPS_WITHIN, started.running.wait())
        .await
        .is_err()
    {
        output.warn("the collector did not stop in time");
    }
    outcome
}

fn agent_failure(
    ended: Result<Result<(), pristine_agent::RunError>, tokio::task::JoinError>,
) -> Failure {
    let failure = Failure::new("the agent ended");
    match ended {
        Ok(Ok(())) => failure,
        Ok(Err(error)) => failure.because(&error),
        Err(error) => failure.because(&error),
    }
}

/// Turns what happens into lines.
struct Listener {
    node: String,
    /// Whether a verdict has been told in this run.
    has_told: bool,
    /// Whether the agent's first scan of this run is over.
    is_baselined: bool,
}

impl Listener {
    fn collector(
        &mut self,
        event: Result<Event, broadcast::error::RecvError>,
        output: Output,
    ) -> Result<(), Failure> {
        match event {
            Ok(event) => {
                self.has_told |= matches!(&event, Event::Verdict(told) if told.verdict.is_some());
                told::event(&event, output)
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                output.warn(format_args!(
                    "{missed} lines were left out here; the page has them all"
                ));
                Ok(())
            }
            Err(broadcast::error::RecvError::Closed) => Err(Failure::new("the collector ended")),
        }
    }

    fn agent(&mut self, event: &AgentEvent, output: Output) -> Result<(), Failure> {
        match event {
            AgentEvent::ScanProgress { .. }
            | AgentEvent::Attested { .. }
            | AgentEvent::Assigned { .. } => {}
            AgentEvent::Watching {
                coverage, entries, ..
            } => {
                self.is_baselined = true;
                output.detail(format_args!(
                    "watching {entries} entries, rung {:?}",
                    coverage.rung
                ));
                for limit in &coverage.limits {
                    output.note(format_args!("limit: {}", plain(limit)));
                }
            }
            AgentEvent::Receipted {
                verdict: Some(verdict),
                fresh: true,
                through,
            } if self.is_baselined && !self.has_told => {
                // Nothing has changed since the last run, so the collector has no news; this run has none told yet.
                self.has_told = true;
                let at: Timestamp = clock::now();
                let told = VerdictEvent {
                    node: self.node.clone(),
                    name: host_name(),
                    verdict: Some(*verdict),
                    was: Some(*verdict),
                    reasons: Vec::new(),
                    at,
                    sequence: *through,
                };
                return told::verdict_line(&told, output);
            }
            AgentEvent::Receipted { .. } => {}
            AgentEvent::Blind { error } => output.warn(format_args!(
                "the agent cannot look at its root: {}",
                plain(error)
            )),
            AgentEvent::CollectorAway { error } => output.detail(format_args!(
                "the agent does not reach the collector: {}",
                plain(error)
            )),
            AgentEvent::CollectorBack => output.detail("the agent reaches the collector again"),
            AgentEvent::UnknownNode => output
                .warn("the collector does not know this node; begin anew with another --state"),
        }
        Ok(())
    }
}

/// The agent's settings for this process.
pub fn agent_settings(
    root: &Path,
    place: &Place,
    kept: &Kept,
    publisher: &PrivateKey,
    running: &Running,
) -> AgentSettings {
    let mut settings = AgentSettings::new(root, place.agent());
    // The kept identity may name a port of an earlier run.
    settings.collectors = vec![agents_url(running.agents)];
    // And another image than the one that was known when it joined.
    settings.publishers = vec![Publisher {
        image: kept.name.clone(),
        keys: vec![publisher.public()],
        threshold: 1,
    }];
    settings
}

/// A flag that the first SIGINT or SIGTERM raises; the second ends the process at once.
pub fn signals() -> Result<watch::Receiver<bool>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let unheard = |error: std::io::Error| Failure::io("cannot listen for signals", &error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unheard)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unheard)?;
    let (raise, raised) = watch::channel(false);
    let raise = Arc::new(raise);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if raise.send_replace(true) {
                std::process::exit(2);
            }
        }
    });
    Ok(raised)
}
