//! What the node is assigned to be: fetched when the collector names another assignment than the one at hand, checked
//! with the pinned keys, kept for the next start.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attestation::digest::Digest;
use attestation::dsse::{Envelope, VerifiedStatement, VerifyError};
use attestation::key::PublicKey;
use attestation::statement::{Allowed, Assignment, StatementError};
use attestation::time::Timestamp;
use tokio::sync::mpsc;

use super::{ExchangeError, UplinkParts};
use crate::durable;
use crate::event::AgentEvent;
use crate::image::{Candidate, ImageStore, Publishers, Reference, StoreError};
use crate::journal;
use crate::transport::{self, PieceReader, TransportError};

/// After an image that could not be had.
const RETRY: Duration = Duration::from_secs(60);

/// Why the assigned images are not at hand.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("get {url}")]
    Get { url: String, source: TransportError },
    #[error("the assignment is not signed by the collector's key")]
    Assignment(#[source] VerifyError),
    #[error("the assignment is {found}, {wanted} was announced")]
    OtherAssignment { wanted: Digest, found: Digest },
    #[error("read the image statement")]
    Statement(#[from] StatementError),
    #[error("keep the image")]
    Store(#[from] StoreError),
    #[error("keep the assignment")]
    Write(#[source] std::io::Error),
    #[error("a thread that checks an image ended abnormally")]
    Thread,
}

/// The assignment at hand, and the one that is announced.
#[derive(Debug)]
pub(super) struct References {
    /// What the engine was told last; nothing was yet: it is told even that there is none.
    told: Option<Option<Digest>>,
    wanted: Option<Option<Digest>>,
    not_before: Option<Instant>,
    /// The images that the engine compares with.
    given: Vec<(Digest, Option<Timestamp>)>,
}

impl References {
    pub(super) fn new(parts: &UplinkParts) -> Self {
        let mut references = Self {
            told: None,
            wanted: None,
            not_before: None,
            given: Vec::new(),
        };
        if let Some((digest, candidates)) = load_kept(parts) {
            references.give(parts, candidates);
            references.told = Some(Some(digest));
        }
        references
    }

    /// The collector named the assignment that holds.
    pub(super) fn heard(&mut self, parts: &UplinkParts, assignment: Option<Digest>) {
        if assignment.is_none() && self.told != Some(None) {
            tracing::info!("no image is assigned to this node");
            remove_kept(&parts.state);
            self.give(parts, Vec::new());
            self.told = Some(None);
        }
        if self.wanted != Some(assignment) {
            self.wanted = Some(assignment);
            self.not_before = None;
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.wanted.is_some()
            && self.wanted != self.told
            && self.not_before.is_none_or(|not_before| not_before <= now)
    }

    /// Gets what is announced. Trouble with an image is told and tried again later; only a collector that does not
    /// answer is an error here.
    pub(super) async fn fetch(
        &mut self,
        parts: &UplinkParts,
        base: &str,
    ) -> Result<(), ExchangeError> {
        let Some(Some(wanted)) = self.wanted else {
            return Ok(());
        };
        match fetch_all(parts, base, wanted).await {
            Ok((candidates, complete)) => {
                if !candidates.is_empty() {
                    self.give(parts, candidates);
                }
                if complete {
                    self.told = Some(Some(wanted));
                    parts.images.keep_only(&self.images());
                } else {
                    self.again_later(parts);
                }
                Ok(())
            }
            Err(FetchError::Get { source, .. }) if source.is_away() => Err(source.into()),
            Err(error) => {
                let error = journal::chain(&error);
                tracing::error!(%error, assignment = %wanted, "the assignment cannot be used");
                self.again_later(parts);
                Ok(())
            }
        }
    }

    /// The node goes on with what it had; one that had nothing says at least that it is there.
    fn again_later(&mut self, parts: &UplinkParts) {
        self.not_before = Some(Instant::now() + RETRY);
        if self.told.is_none() && self.given.is_empty() {
            self.give(parts, Vec::new());
            self.told = Some(None);
        }
    }

    fn give(&mut self, parts: &UplinkParts, candidates: Vec<Candidate>) {
        let given: Vec<_> = candidates
            .iter()
            .map(|candidate| (candidate.reference.payload, candidate.until))
            .collect();
        if self.told.is_some() && given == self.given {
            return;
        }
        self.given = given;
        let images = self.images();
        parts.observer.tell(AgentEvent::Assigned { images });
        parts
            .link
            .order(|orders| orders.references = Some(candidates));
    }

    fn images(&self) -> Vec<Digest> {
        self.given.iter().map(|(image, _)| *image).collect()
    }
}

fn kept_path(state: &Path) -> std::path::PathBuf {
    state.join("assignment.json")
}

fn remove_kept(state: &Path) {
    match std::fs::remove_file(kept_path(state)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, "remove the kept assignment");
        }
        _ => {}
    }
}

/// What was assigned before a restart, if every image of it is still at hand.
fn load_kept(parts: &UplinkParts) -> Option<(Digest, Vec<Candidate>)> {
    let bytes = durable::read_if_present(&kept_path(&parts.state)).ok()??;
    let envelope = Envelope::from_json(&bytes).ok()?;
    let assignment = verify_assignment(&envelope, &parts.identity.keys.assignment).ok()?;
    let mut candidates = Vec::new();
    for allowed in &assignment.predicate().allowed {
        match parts.images.load(allowed.image, &parts.publishers) {
            Ok(Some(reference)) => {
                candidates.push(Candidate {
                    reference: Arc::new(reference),
                    until: allowed.until,
                });
            }
            Ok(None) => return None,
            Err(error) => {
                let error = journal::chain(&error);
                tracing::warn!(%error, image = %allowed.image, "a kept image is fetched again");
                return None;
            }
        }
    }
    Some((envelope.payload_digest(), candidates))
}

fn verify_assignment(
    envelope: &Envelope,
    key: &PublicKey,
) -> Result<VerifiedStatement<Assignment>, FetchError> {
    envelope
        .verify::<Assignment>(std::slice::from_ref(key), 1)
        .map_err(FetchError::Assignment)
}

/// The assignment and every image of it that can be had; `false` where some could not.
async fn fetch_all(
    parts: &UplinkParts,
    base: &str,
    wanted: Digest,
) -> Result<(Vec<Candidate>, bool), FetchError> {
    let envelope = get_envelope(parts, &format!("{base}/agent/v1/assignment")).await?;
    let assignment = verify_assignment(&envelope, &parts.identity.keys.assignment)?;
    let found = envelope.payload_digest();
    if found != wanted {
        return Err(FetchError::OtherAssignment { wanted, found });
    }
    let mut candidates = Vec::new();
    let mut complete = true;
    for allowed in &assignment.predicate().allowed {
        match fetch_image(parts, base, allowed).await {
            Ok(reference) => {
                candidates.push(Candidate {
                    reference: Arc::new(reference),
                    until: allowed.until,
                });
            }
            Err(FetchError::Get { url, source }) if source.is_away() => {
                return Err(FetchError::Get { url, source });
            }
            Err(error) => {
                let error = journal::chain(&error);
                tracing::error!(%error, image = %allowed.image, name = %allowed.name, "an assigned image cannot be used");
                complete = false;
            }
        }
    }
    if complete {
        durable::replace(&kept_path(&parts.state), &envelope.to_json())
            .map_err(FetchError::Write)?;
    }
    Ok((candidates, complete))
}

async fn fetch_image(
    parts: &UplinkParts,
    base: &str,
    allowed: &Allowed,
) -> Result<Reference, FetchError> {
    let payload = allowed.image;
    let (store, publishers) = (parts.images.clone(), parts.publishers.clone());
    let kept = on_thread(move || load(&store, payload, &publishers)).await?;
    if let Some(reference) = kept {
        return Ok(reference);
    }
    let envelope = get_envelope(parts, &format!("{base}/agent/v1/images/{payload}")).await?;
    let found = envelope.payload_digest();
    if found != payload {
        let wanted = payload;
        return Err(StoreError::OtherImage { wanted, found }.into());
    }
    // Who signed it comes before anything that it says; its name is the assignment's, which is signed too.
    let image = parts
        .publishers
        .verify_as(&envelope, &allowed.name)
        .map_err(|source| StoreError::Untrusted { payload, source })?;
    let manifest = image.predicate().manifest.clone();
    let (pieces, plain) = mpsc::channel(transport::PIECES);
    let (store, publishers) = (parts.images.clone(), parts.publishers.clone());
    let installing = tokio::task::spawn_blocking(move || {
        store.install(&envelope, payload, &publishers, PieceReader::new(plain))
    });
    let url = format!("{base}/agent/v1/manifests/{}", manifest.sha256);
    let fetched = parts.transport.manifest(url.clone(), &manifest, pieces);
    let fetched = fetched.await;
    let installed = installing.await.map_err(|_| FetchError::Thread)?;
    let reference = match (fetched, installed) {
        // What came is whole by its tree, or it is not kept; why it is not is better told by who fetched it.
        (Err(source), _) => return Err(FetchError::Get { url, source }),
        (Ok(()), installed) => installed?,
    };
    tracing::info!(
        image = %payload,
        name = reference.statement.name().unwrap_or_default(),
        version = %reference.statement.predicate.version,
        entries = reference.statement.predicate.entries,
        "image at hand"
    );
    Ok(reference)
}

/// The kept image; one that is damaged is as good as none.
fn load(store: &ImageStore, payload: Digest, publishers: &Publishers) -> Option<Reference> {
    store
        .load(payload, publishers)
        .inspect_err(|error| {
            let error = journal::chain(error);
            tracing::warn!(%error, image = %payload, "a kept image is fetched again");
        })
        .ok()
        .flatten()
}

async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| FetchError::Thread)
}

async fn get_envelope(parts: &UplinkParts, url: &str) -> Result<Envelope, FetchError> {
    let answer = parts.transport.envelope(url.to_owned()).await;
    answer.map_err(|source| FetchError::Get {
        url: url.to_owned(),
        source,
    })
}
