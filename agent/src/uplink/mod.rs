//! The connection to the collector: one request in flight, statements byte for byte until each has its receipt.
//!
//! After a start and after every failure the collector is heard first: where it stands in the chain decides what is
//! sent, so that two statements with one sequence never leave this machine.

mod credentials;
mod decide;
mod pins;
mod references;
mod steps;
mod uploads;
mod weather;

use std::sync::Arc;
use std::time::{Duration, Instant};

use attestation::digest::Digest;
use attestation::wire::{AttestationsAnswer, MAX_STATEMENTS, Request, RequestKind};
use ring::rand::SystemRandom;

use self::credentials::CollectorClock;
use self::decide::{Backoff, ReceiptRules, by_standing, position, receipted};
use self::pins::Wanted;
use self::references::References;
use crate::chain::{Chain, ChainError};
use crate::clock;
use crate::event::{AgentEvent, Observer};
use crate::identity::Identity;
use crate::image::{ImageStore, Publishers};
use crate::link::Link;
use crate::reload::UplinkSettings;
use crate::renewal::RenewalPlan;
use crate::spool::Outgoing;
use crate::status::Board;
use crate::transport::{Transport, TransportError};

/// Bytes of statements in one request (FORMATS.md 5.4), what stands around them left free.
const BATCH_BYTES: usize = 4 * 1024 * 1024 - 4096;
/// Challenges kept in hand: the one for the next statement, and a spare for the one after.
const SPARE: usize = 2;
/// Without a reason to speak there is a look this often at what grows old: challenges, the certificate, the key.
const LOOK_ABOUT: Duration = Duration::from_secs(5);
/// A node that the collector does not know is not made known by asking.
const UNKNOWN_WAIT: Duration = Duration::from_secs(60);
/// A node that is not fresh tries to be so once in a while, whatever the collector answers.
const REFRESH: Duration = Duration::from_secs(5);

/// What the uplink is started with.
pub struct UplinkParts {
    /// Who speaks.
    pub identity: Identity,
    /// The CA that the agents' doors must show, PEM: of the configuration, else the identity's.
    pub ca: String,
    /// The agents' doors, tried in turn.
    pub collectors: Vec<String>,
    /// The way to the network.
    pub transport: Transport,
    /// What is sent.
    pub chain: Arc<Chain>,
    /// From and to the engine.
    pub link: Arc<Link>,
    /// Images at hand.
    pub images: ImageStore,
    /// Who signs images.
    pub publishers: Publishers,
    /// The state directory.
    pub state: std::path::PathBuf,
    /// What `status` shows.
    pub board: Board,
    /// Who is told.
    pub observer: Observer,
}

/// Why an exchange came to nothing.
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the spool")]
    Chain(#[from] ChainError),
    #[error("the collector's answer is not believed")]
    Receipt(#[from] decide::ReceiptError),
    #[error(
        "the collector does not know this node: it was removed there, or its data is another's; enrol again"
    )]
    UnknownNode,
}

/// What an exchange came to.
enum Exchanged {
    /// Where the collector stands is known again.
    Heard,
    /// A request was answered as it should be; there may be a reason for another.
    Done,
    /// There was no reason for one.
    Nothing,
}

/// The uplink; [`Uplink::run`] is its task.
pub struct Uplink {
    parts: UplinkParts,
    references: References,
    at: usize,
    /// Whether the collector was heard since the last failure.
    heard: bool,
    away: bool,
    backoff: Backoff,
    /// A gap of cause `lost` was told and has no receipt yet.
    jump_announced: bool,
    /// Statements in the next request: fewer after one was refused as a whole, until one is through.
    statements: usize,
    refreshed: Option<Instant>,
    clock: CollectorClock,
    renewal: RenewalPlan,
    /// When a wish for another key was last looked for.
    looked: Option<Instant>,
    /// The snapshot that the collector asks for.
    snapshot_wanted: Option<Digest>,
    /// When the collector was last shown earlier rotations.
    shown: Option<Instant>,
    pins: Wanted,
    random: SystemRandom,
}

impl Uplink {
    /// An uplink that has not spoken yet.
    pub fn new(parts: UplinkParts) -> Self {
        let references = References::new(&parts);
        let renewal = RenewalPlan::new(&parts.identity.certificate);
        Self {
            parts,
            references,
            at: 0,
            heard: false,
            away: false,
            backoff: Backoff::default(),
            jump_announced: false,
            statements: MAX_STATEMENTS,
            refreshed: None,
            clock: CollectorClock::default(),
            renewal,
            looked: None,
            snapshot_wanted: None,
            shown: None,
            pins: Wanted::default(),
            random: SystemRandom::new(),
        }
    }

    /// Speaks with the collector until dropped.
    pub async fn run(mut self) {
        loop {
            match self.exchange().await {
                // A collector that tells where it stands may still refuse what is sent to it.
                Ok(Exchanged::Heard) => {}
                Ok(Exchanged::Done) => self.reached(),
                Ok(Exchanged::Nothing) => {
                    self.reached();
                    self.rest().await;
                }
                Err(error) => self.failed(error).await,
            }
        }
    }

    /// One request, if there is a reason for one.
    async fn exchange(&mut self) -> Result<Exchanged, ExchangeError> {
        if let Some(settings) = self.parts.link.take_uplink_settings() {
            self.reload(settings);
        }
        Box::pin(self.keep_credentials()).await;
        if !self.heard {
            self.pins.heard_again();
            self.ask_challenge().await?;
            self.heard = true;
            return Ok(Exchanged::Heard);
        }
        if self.references.is_due(Instant::now()) {
            let base = self.base();
            self.references.fetch(&self.parts, &base).await?;
            return Ok(Exchanged::Done);
        }
        let batch = self.parts.chain.batch(self.statements, BATCH_BYTES)?;
        if !batch.is_empty() {
            self.send(batch).await?;
            return Ok(Exchanged::Done);
        }
        if let Some(sha256) = self.snapshot_wanted.take() {
            self.upload_snapshot(sha256).await?;
            return Ok(Exchanged::Done);
        }
        if self.send_pins().await? {
            return Ok(Exchanged::Done);
        }
        if self.parts.link.challenges(Instant::now()) < SPARE && !self.parts.link.is_stopping() {
            self.ask_challenge().await?;
            return Ok(Exchanged::Done);
        }
        Ok(Exchanged::Nothing)
    }

    /// Nothing to do: until a statement is signed, or the challenges in hand grow old.
    async fn rest(&self) {
        // Either way there is a look at what is to be done.
        drop(tokio::time::timeout(LOOK_ABOUT, self.parts.link.uplink.notified()).await);
    }

    fn base(&self) -> String {
        let door = self
            .parts
            .collectors
            .get(self.at)
            .map_or("", String::as_str);
        door.trim_end_matches('/').to_owned()
    }

    /// Another configuration: its collectors from the first on, its publishers at the next image.
    fn reload(&mut self, settings: UplinkSettings) {
        let identity = &self.parts.identity;
        let collectors = match settings.collectors.is_empty() {
            true => identity.agents.clone(),
            false => settings.collectors,
        };
        if collectors != self.parts.collectors {
            self.parts.collectors = collectors;
            self.at = 0;
            self.heard = false;
        }
        self.parts.publishers = Publishers::new(settings.publishers, identity.publishers.clone());
    }

    async fn ask_challenge(&mut self) -> Result<(), ExchangeError> {
        let url = format!("{}/agent/v1/challenge", self.base());
        let answer = match self.parts.transport.challenge(url).await {
            Err(TransportError::Refused(problem)) => return Err(self.refused_whole(problem, 0)?),
            answer => answer?,
        };
        self.clock.told(answer.expires, clock::now());
        if !self.heard {
            // A collector that was started anew knows none of those in hand.
            self.parts.link.forget_challenges();
        }
        self.parts
            .link
            .challenged(answer.challenge.clone(), Instant::now());
        self.note(answer.interval, answer.assignment, &answer.requests);
        let expected = position(&answer.expected);
        let standing = self.parts.chain.compare(expected);
        let step = by_standing(standing, expected, self.jump_announced);
        self.perform(&step)
    }

    async fn send(&mut self, batch: Vec<Outgoing>) -> Result<(), ExchangeError> {
        self.parts.link.sending(Instant::now());
        let url = format!("{}/agent/v1/attestations", self.base());
        let sent = Instant::now();
        let read = match self.parts.transport.attestations(url, body(&batch)).await {
            Err(TransportError::Refused(problem)) => {
                return Err(self.refused_whole(problem, batch.len())?);
            }
            answer => answer?,
        };
        let rules = ReceiptRules {
            key: &self.parts.identity.keys.receipt,
            node: self.parts.identity.node.as_str(),
            log: &self.parts.identity.log,
        };
        self.clock.told(read.expires, clock::now());
        let receipted = receipted(&rules, &batch, &read)?;
        let after = receipted.map(|(after, _)| after);
        if let Some((after, received)) = receipted {
            self.heard_at(received);
            self.parts.chain.receipted_before(after);
            self.jump_announced = false;
            self.statements = MAX_STATEMENTS;
            // Also where the rest of the request was refused: it goes on from there.
            self.backoff.reset();
        }
        self.parts
            .link
            .challenged(read.challenge.clone(), Instant::now());
        self.note(read.interval, read.assignment, &read.requests);
        self.tell(&read, after, sent.elapsed());
        if let Some(refused) = &read.refused {
            return Box::pin(self.refused_one(refused, after.is_some())).await;
        }
        if after.is_none() {
            // Neither taken nor refused: the same again at once would go on for ever.
            return Err(decide::ReceiptError::Count(0, batch.len()).into());
        }
        Ok(())
    }

    /// What the engine and whoever watches should know of an answer.
    fn tell(&mut self, answer: &AttestationsAnswer, after: Option<u64>, took: Duration) {
        let through = after.and_then(|after| after.checked_sub(1));
        tracing::debug!(?through, verdict = ?answer.verdict, fresh = answer.fresh, ?took, "receipted");
        self.parts.board.update(|status| {
            status.verdict = answer.verdict;
            status.fresh = answer.fresh;
        });
        if let Some(through) = through {
            let (verdict, fresh) = (answer.verdict, answer.fresh);
            self.parts.observer.tell(AgentEvent::Receipted {
                through,
                verdict,
                fresh,
            });
            // A heartbeat may wait for the one before it to be through.
            self.parts.link.order(|orders| orders.ready = true);
        }
        let again = self.refreshed.is_none_or(|at| at.elapsed() >= REFRESH);
        if !answer.fresh && answer.refused.is_none() && again && self.parts.chain.is_drained() {
            self.refreshed = Some(Instant::now());
            self.parts.link.order(|orders| orders.refresh = true);
        }
    }

    /// What every answer carries.
    fn note(&mut self, interval: u64, assignment: Option<Digest>, requests: &[Request]) {
        let state = self.parts.chain.state();
        self.parts.board.update(|status| {
            status.collector.last_contact = Some(clock::now());
            status.collector.error = None;
            status.spool = state.into();
        });
        let interval = Duration::from_secs(interval.max(1));
        if interval != Duration::from_secs(self.parts.identity.interval) {
            self.parts.identity.interval = interval.as_secs();
            self.parts
                .link
                .order(|orders| orders.interval = Some(interval));
        }
        self.references.heard(&self.parts, assignment);
        for request in requests {
            match request.kind {
                RequestKind::Snapshot => self.snapshot_wanted = request.sha256,
                RequestKind::Rescan => self.parts.link.order(|orders| orders.rescan = true),
                RequestKind::Pins => self.pins_wanted(request),
                RequestKind::Accept => self.accepted(request),
                kind => tracing::info!(
                    ?kind,
                    "the collector asks for what this version does not do"
                ),
            }
        }
    }
}

/// The body of a request: the envelopes as they were signed, not one byte changed.
fn body(batch: &[Outgoing]) -> Vec<u8> {
    let mut body = b"{\"statements\":[".to_vec();
    for (index, outgoing) in batch.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&outgoing.envelope);
    }
    body.extend_from_slice(b"]}");
    body
}
