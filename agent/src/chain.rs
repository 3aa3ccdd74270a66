//! The chain of statements: who may sign the next one, with which sequence, and what comes before it.
//!
//! Signing, keeping and counting are one step under one lock, so that no sequence is ever given to two statements,
//! whoever asks: the engine for what it found, the uplink when the collector stands elsewhere in the chain.

use std::sync::{Mutex, MutexGuard, PoisonError};

use attestation::dsse::Envelope;
use attestation::key::{KeyError, NodeId, PrivateKey};
use attestation::statement::{Attestation, Gap, Statement};

use crate::spool::{Appended, Outgoing, Position, Spool, SpoolError};

/// Why a statement was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The spool does not take it.
    #[error("keep a statement")]
    Spool(#[from] SpoolError),
    /// The key does not sign.
    #[error("sign a statement")]
    Sign(#[from] KeyError),
    /// It is larger than any statement may be.
    #[error("statement of {0} bytes is larger than 1 MiB")]
    TooLarge(usize),
}

/// The largest statement (FORMATS.md 5.2).
pub const STATEMENT_BYTES: usize = 1 << 20;

/// A statement that was signed and kept.
#[derive(Clone, Copy, Debug)]
pub struct Signed {
    /// Its sequence.
    pub sequence: u64,
    /// Bytes of its payload.
    pub bytes: usize,
    /// Whether it is on disk.
    pub appended: Appended,
}

/// What the spool holds, for status and decisions.
#[derive(Clone, Debug, Default)]
pub struct ChainState {
    /// The next sequence.
    pub next: u64,
    /// The first without a receipt.
    pub unsent: u64,
    /// How many wait.
    pub waiting: usize,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Why the disk takes no write.
    pub failing: Option<String>,
}

/// The chain of one node.
#[derive(Debug)]
pub struct Chain {
    inner: Mutex<Inner>,
    node: NodeId,
}

#[derive(Debug)]
struct Inner {
    spool: Spool,
    key: PrivateKey,
    /// The next statement says that the node found itself behind.
    rewound: bool,
    /// And that something between it and the collector was lost, or refused.
    gap: Option<Gap>,
}

impl Chain {
    /// The chain that a spool holds, and the key that signs what comes next.
    pub fn new(spool: Spool, node: NodeId, key: PrivateKey) -> Self {
        Self {
            inner: Mutex::new(Inner {
                spool,
                key,
                rewound: false,
                gap: None,
            }),
            node,
        }
    }

    /// The key that signs.
    pub fn key(&self) -> PrivateKey {
        self.lock().key.clone()
    }

    /// Signs with another key from now on; what waits stays as it is.
    pub fn set_key(&self, key: PrivateKey) {
        self.lock().key = key;
    }

    /// Whose chain it is.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Signs the next statement and keeps it; `predicate` has everything but its place in the chain.
    pub fn sign(
        &self,
        statement: Statement<Attestation>,
        quiet: bool,
    ) -> Result<Signed, ChainError> {
        let mut inner = self.lock();
        Self::sign_locked(&mut inner, statement, quiet)
    }

    fn sign_locked(
        inner: &mut Inner,
        mut statement: Statement<Attestation>,
        quiet: bool,
    ) -> Result<Signed, ChainError> {
        let position = inner.spool.position();
        statement.predicate.sequence = position.sequence;
        statement.predicate.previous = position.previous;
        statement.predicate.rewound |= inner.rewound;
        let gaps = &mut statement.predicate.coverage.gaps;
        if let Some(gap) = &inner.gap
            && gaps.len() < Attestation::MAX_LIST
            && !gaps.contains(gap)
        {
            gaps.push(gap.clone());
        }
        let payload = statement.to_payload();
        let bytes = payload.len();
        if bytes > STATEMENT_BYTES {
            return Err(ChainError::TooLarge(bytes));
        }
        // Base64 and signature around it.
        if !inner.spool.has_room(bytes / 3 * 4 + 1024) {
            return Err(SpoolError::Full.into());
        }
        let envelope = Envelope::sign(payload, &inner.key)?;
        let appended = inner
            .spool
            .append(envelope.payload_digest(), quiet, envelope.to_json())?;
        inner.rewound = false;
        inner.gap = None;
        Ok(Signed {
            sequence: position.sequence,
            bytes,
            appended,
        })
    }

    /// Whether the spool takes another statement of the usual size.
    pub fn has_room(&self) -> bool {
        self.lock().spool.has_room(16 * 1024)
    }

    /// Whether a quiet statement waits already.
    pub fn quiet_waits(&self) -> bool {
        self.lock().spool.quiet_waits()
    }

    /// Whether that sequence has its receipt.
    pub fn is_receipted(&self, sequence: u64) -> bool {
        sequence < self.lock().spool.unsent_from()
    }

    /// What the spool holds.
    pub fn state(&self) -> ChainState {
        let inner = self.lock();
        let spool = &inner.spool;
        ChainState {
            next: spool.position().sequence,
            unsent: spool.unsent_from(),
            waiting: spool.waiting(),
            waiting_bytes: spool.waiting_bytes(),
            failing: spool.failing().map(str::to_owned),
        }
    }

    /// The next statements to send.
    pub fn batch(&self, statements: usize, bytes: usize) -> Result<Vec<Outgoing>, ChainError> {
        Ok(self.lock().spool.batch(statements, bytes)?)
    }

    /// The newest statement, as it was signed.
    pub fn newest(&self) -> Option<Statement<Attestation>> {
        let outgoing = self.lock().spool.newest().ok()??;
        Envelope::from_json(&outgoing.envelope).ok()?.peek().ok()
    }

    /// Whether nothing waits.
    pub fn is_drained(&self) -> bool {
        self.lock().spool.waiting() == 0
    }

    /// Marks everything before `sequence` as receipted.
    pub fn receipted_before(&self, sequence: u64) {
        self.lock().spool.receipted_before(sequence);
    }

    /// How this chain relates to where the collector says it stands.
    pub fn compare(&self, expected: Position) -> Standing {
        let inner = self.lock();
        let spool = &inner.spool;
        let own = spool.position();
        let digest_before = |sequence: u64| match sequence {
            0 => Some(None),
            _ if sequence == own.sequence => Some(own.previous),
            _ => spool.payload(sequence - 1).map(Some),
        };
        let agrees = digest_before(expected.sequence).map(|digest| digest == expected.previous);
        if expected.sequence > own.sequence || agrees == Some(false) {
            return Standing::Behind;
        }
        if expected.sequence >= spool.unsent_from() {
            return Standing::InStep;
        }
        match agrees {
            Some(true) => Standing::Ahead,
            _ => Standing::Unknown,
        }
    }

    /// Offers statements from `sequence` on again; `false` where the ring no longer holds them.
    pub fn resend_from(&self, sequence: u64) -> bool {
        self.lock().spool.resend_from(sequence)
    }

    /// Goes on from another place: what waits is set aside and its content told again from there, but for the first
    /// `skip` of them, which the collector refused.
    pub fn reposition(
        &self,
        to: Option<Position>,
        rewound: bool,
        gap: Option<&Gap>,
        skip: usize,
    ) -> Result<usize, ChainError> {
        let mut inner = self.lock();
        let to = to.unwrap_or_else(|| own_place(&inner.spool));
        let aside = inner.spool.reposition(to)?;
        inner.rewound |= rewound;
        if gap.is_some() {
            inner.gap = gap.cloned();
        }
        let mut renumbered = std::collections::BTreeMap::new();
        let mut told = 0;
        for outgoing in aside.iter().skip(skip) {
            let Some(mut statement) = reread(outgoing) else {
                continue;
            };
            let predicate = &mut statement.predicate;
            predicate.challenge = None;
            if let Some(named) = predicate.r#as {
                predicate.r#as = Some(renumbered.get(&named).copied().unwrap_or(named));
            }
            if let Some(gap) = gap
                && predicate.coverage.gaps.len() < Attestation::MAX_LIST
            {
                predicate.coverage.gaps.push(gap.clone());
            }
            let signed = Self::sign_locked(&mut inner, statement, false)?;
            renumbered.insert(outgoing.sequence, signed.sequence);
            told += 1;
        }
        Ok(told)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere while it was held leaves the spool as its last record says: still true.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of the first statement that waits.
fn own_place(spool: &Spool) -> Position {
    let sequence = spool.unsent_from();
    let own = spool.position();
    if sequence == own.sequence {
        return own;
    }
    let previous = sequence
        .checked_sub(1)
        .and_then(|before| spool.payload(before));
    Position { sequence, previous }
}

fn reread(outgoing: &Outgoing) -> Option<Statement<Attestation>> {
    let statement = Envelope::from_json(&outgoing.envelope)
        .ok()
        .and_then(|envelope| envelope.peek().ok());
    if statement.is_none() {
        tracing::error!(
            sequence = outgoing.sequence,
            "a statement that was set aside cannot be read"
        );
    }
    statement
}

/// How the node's chain relates to where the collector stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It expects something that waits here, or what comes next.
    InStep,
    /// It was restored: it lacks statements that it receipted, and the chain before them is the same.
    Ahead,
    /// It lacks statements, and what lies before them is no longer kept here.
    Unknown,
    /// It has what this node does not: the disk was restored, or took no write.
    Behind,
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use std::collections::BTreeMap;

    use attestation::digest::Digest;
    use attestation::key::Algorithm;
    use attestation::statement::{AgentFacts, Rung, WatchCoverage};
    use attestation::time::Timestamp;

    use super::*;
    use crate::statement::{Report, Seen, compose};

    /// A chain with so many statements that wait.
    fn chain(statements: usize) -> (tempfile::TempDir, Chain) {
        let scratch = tempfile::tempdir().unwrap();
        let spool = Spool::open(scratch.path(), 16 << 20).unwrap();
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let chain = Chain::new(spool, NodeId::of(&key.public()), key);
        for _ in 0..statements {
            sign(&chain);
        }
        (scratch, chain)
    }

    fn sign(chain: &Chain) {
        let composed = compose(&Report {
            node: chain.node(),
            log: "collector.example.org/log",
            boot: "c2d8e3ae-35b1-4f4c-8b40-9f3c1f5b8d5e",
            issued: Timestamp::from_micros(1),
            monotonic: 1,
            goodbye: false,
            challenge: None,
            image: None,
            tree: Digest::ZERO,
            entries: 0,
            seen: Seen {
                watch: WatchCoverage {
                    rung: Rung::A,
                    limits: Vec::new(),
                    limits_total: None,
                },
                since: None,
                read: None,
                gaps: &[],
                unreadable: &BTreeMap::new(),
                unsettled: Vec::new(),
                mounts: Digest::ZERO,
                unexpected: &[],
            },
            differences: &[],
            told: None,
            own: None,
            grown: Vec::new(),
            grown_total: None,
            touched: &[],
            touched_total: 0,
            agent: &AgentFacts::default(),
        });
        chain.sign(composed.statement, false).unwrap();
    }

    fn refused() -> Gap {
        Gap {
            from: Timestamp::from_micros(1),
            to: Some(Timestamp::from_micros(2)),
            cause: "refused".to_owned(),
            paths: Vec::new(),
            paths_total: None,
        }
    }

    /// Sequences and gaps of what waits, as it is signed.
    fn waiting(chain: &Chain) -> Vec<(u64, Vec<Gap>)> {
        let batch = chain.batch(usize::MAX, usize::MAX).unwrap();
        let said = batch.iter().map(|outgoing| {
            let envelope = Envelope::from_json(&outgoing.envelope).unwrap();
            let said = envelope.peek::<Attestation>().unwrap().predicate;
            (said.sequence, said.coverage.gaps)
        });
        said.collect()
    }

    #[test]
    fn what_is_told_again_after_a_refusal_says_that_something_is_missing() {
        let (_scratch, chain) = chain(3);
        let gap = refused();
        let told = chain.reposition(None, false, Some(&gap), 1).unwrap();
        assert_eq!(told, 2, "but for the refused one");
        sign(&chain);
        let expected = [
            (0, vec![gap.clone()]),
            (1, vec![gap]),
            // By then it is told.
            (2, Vec::new()),
        ];
        assert_eq!(waiting(&chain), expected);
    }

    #[test]
    fn where_nothing_is_told_again_the_next_statement_says_what_was_refused() {
        let (_scratch, chain) = chain(1);
        let gap = refused();
        assert_eq!(chain.reposition(None, false, Some(&gap), 1).unwrap(), 0);
        sign(&chain);
        sign(&chain);
        assert_eq!(waiting(&chain), [(0, vec![gap]), (1, Vec::new())]);
    }
}
