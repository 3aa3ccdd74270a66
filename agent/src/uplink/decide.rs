//! What follows from an answer. Pure: the answer goes in, the next step comes out.

use std::time::Duration;

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::key::PublicKey;
use attestation::statement::Receipt;
use attestation::time::Timestamp;
use attestation::wire::{AttestationsAnswer, Expected, Problem};

use crate::chain::Standing;
use crate::spool::{Outgoing, Position};

/// What is to be done about the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Go on sending.
    Continue,
    /// The collector was restored: offer again from there.
    Resend(u64),
    /// Set aside what waits and tell it again from another place; nothing given: from the own one.
    Reposition {
        /// Where.
        to: Option<Position>,
        /// Say that the node found itself behind.
        rewound: bool,
        /// Tell a gap of this cause.
        gap: Option<&'static str>,
        /// So many of what waits were refused for good.
        skip: usize,
    },
}

/// What is to be done about a request that was refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Again, later.
    Later,
    /// The collector does not know the node.
    UnknownNode,
    /// One statement at a time: one of them is what it does not take.
    Split,
    /// The chain is elsewhere, or the statement is not taken.
    Step(Step),
}

/// Where the collector stands decides how to go on.
pub(super) fn by_standing(standing: Standing, expected: Position, jump_announced: bool) -> Step {
    match standing {
        Standing::InStep => Step::Continue,
        Standing::Ahead => Step::Resend(expected.sequence),
        // It is said once; until the first receipt the collector expects what it expected.
        Standing::Unknown if jump_announced => Step::Continue,
        Standing::Unknown => Step::Reposition {
            to: None,
            rewound: false,
            gap: Some("lost"),
            skip: 0,
        },
        Standing::Behind => Step::Reposition {
            to: Some(expected),
            rewound: true,
            gap: None,
            skip: 0,
        },
    }
}

/// A request that was refused as a whole: `statements` were in it.
pub(super) fn by_problem(
    problem: &Problem,
    statements: usize,
    standing: impl FnOnce(Position) -> Standing,
    jump_announced: bool,
) -> Refusal {
    match problem.status {
        429 | 500..=599 | 408 => Refusal::Later,
        403 if problem.code == "unknown-node" => Refusal::UnknownNode,
        // Suspended, banned, another's certificate: nothing that a statement could mend.
        401 | 403 | 404 | 405 => Refusal::Later,
        _ if statements == 0 => Refusal::Later,
        _ if problem.code == "sequence" => match &problem.expected {
            Some(expected) => {
                let expected = position(expected);
                Refusal::Step(by_standing(standing(expected), expected, jump_announced))
            }
            None => Refusal::Later,
        },
        _ if statements > 1 => Refusal::Split,
        _ => Refusal::Step(refused(problem.expected.as_ref())),
    }
}

/// One statement of a request was refused, those before it were taken.
pub(super) fn by_refused(
    code: &str,
    expected: Option<&Expected>,
    standing: impl FnOnce(Position) -> Standing,
    jump_announced: bool,
) -> Option<Step> {
    match code {
        // The collector's trouble, or too much at once: the same bytes again.
        "internal" | "budget" | "flood" | "busy" | "unavailable" | "store" => None,
        "sequence" => {
            let expected = position(expected?);
            match standing(expected) {
                // It was said, and is not taken: the same again at once would go on for ever.
                Standing::Unknown if jump_announced => None,
                standing => Some(by_standing(standing, expected, jump_announced)),
            }
        }
        _ => Some(refused(expected)),
    }
}

fn refused(expected: Option<&Expected>) -> Step {
    Step::Reposition {
        to: expected.map(position),
        rewound: false,
        gap: Some("refused"),
        skip: 1,
    }
}

pub(super) fn position(expected: &Expected) -> Position {
    Position {
        sequence: expected.sequence,
        previous: expected.previous,
    }
}

/// Why a receipt is not one.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiptError {
    #[error("receipt for statement {0} is not signed by the collector's key")]
    Signature(u64, #[source] attestation::dsse::VerifyError),
    #[error("receipt for statement {0} is for something else")]
    Other(u64),
    #[error("{0} receipts for {1} statements")]
    Count(usize, usize),
}

/// What receipts are checked against.
pub(super) struct ReceiptRules<'a> {
    pub(super) key: &'a PublicKey,
    pub(super) node: &'a str,
    pub(super) log: &'a str,
}

/// The sequence after the last statement that has its receipt, if any has, and the newest time in them. Receipts come in
/// the order of the request.
pub(super) fn receipted(
    rules: &ReceiptRules<'_>,
    batch: &[Outgoing],
    answer: &AttestationsAnswer,
) -> Result<Option<(u64, Timestamp)>, ReceiptError> {
    if answer.receipts.len() > batch.len() {
        return Err(ReceiptError::Count(answer.receipts.len(), batch.len()));
    }
    let mut after = None;
    let mut newest = Timestamp::from_micros(i64::MIN);
    for (outgoing, receipt) in batch.iter().zip(&answer.receipts) {
        let received = check_receipt(rules, outgoing.sequence, outgoing.payload, receipt)?;
        newest = newest.max(received);
        after = Some((outgoing.sequence + 1, newest));
    }
    Ok(after)
}

fn check_receipt(
    rules: &ReceiptRules<'_>,
    sequence: u64,
    payload: Digest,
    receipt: &Envelope,
) -> Result<Timestamp, ReceiptError> {
    let verified = receipt
        .verify::<Receipt>(std::slice::from_ref(rules.key), 1)
        .map_err(|source| ReceiptError::Signature(sequence, source))?;
    let statement = verified.statement();
    let right = statement.name() == Some(rules.node)
        && statement.payload_digest() == Some(payload)
        && statement.predicate.sequence == sequence
        && statement.predicate.log == rules.log;
    if right {
        Ok(statement.predicate.received)
    } else {
        Err(ReceiptError::Other(sequence))
    }
}

/// Waiting longer after each failure, with jitter, so that a fleet does not come back in one moment.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Bounds of the wait.
    const LEAST: Duration = Duration::from_millis(250);
    const MOST: Duration = Duration::from_secs(60);

    /// The wait after one more failure; `random` is anything.
    pub(super) fn next(&mut self, random: u32) -> Duration {
        let doubled = Self::LEAST
            .saturating_mul(1 << self.failures.min(10))
            .min(Self::MOST);
        self.failures = self.failures.saturating_add(1);
        // Between half and the whole.
        let share = f64::from(random) / f64::from(u32::MAX);
        doubled.mul_f64(0.5 + share / 2.0).max(Self::LEAST / 2)
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use attestation::key::{Algorithm, NodeId, PrivateKey};
    use attestation::statement::Statement;

    use super::*;

    fn at(sequence: u64) -> Position {
        Position {
            sequence,
            previous: Some(Digest::of(b"p")),
        }
    }

    #[test]
    fn the_collectors_place_decides() {
        let step = |standing| by_standing(standing, at(4), false);
        assert_eq!(step(Standing::InStep), Step::Continue);
        assert_eq!(step(Standing::Ahead), Step::Resend(4));
        assert_eq!(
            step(Standing::Behind),
            Step::Reposition {
                to: Some(at(4)),
                rewound: true,
                gap: None,
                skip: 0
            }
        );
        assert_eq!(
            step(Standing::Unknown),
            Step::Reposition {
                to: None,
                rewound: false,
                gap: Some("lost"),
                skip: 0
            }
        );
        assert_eq!(by_standing(Standing::Unknown, at(4), true), Step::Continue);
    }

    #[test]
    fn refusals_of_a_request() {
        let decide = |status, code: &str, statements| {
            by_problem(
                &Problem::new(status, code, ""),
                statements,
                |_| Standing::InStep,
                false,
            )
        };
        for status in [429, 500, 503, 408] {
            assert_eq!(decide(status, "whatever", 1), Refusal::Later);
        }
        assert_eq!(decide(403, "unknown-node", 1), Refusal::UnknownNode);
        assert_eq!(decide(403, "banned", 1), Refusal::Later);
        assert_eq!(decide(413, "too-large", 7), Refusal::Split);
        assert_eq!(
            decide(413, "too-large", 1),
            Refusal::Step(Step::Reposition {
                to: None,
                rewound: false,
                gap: Some("refused"),
                skip: 1
            })
        );
        assert_eq!(decide(400, "malformed", 0), Refusal::Later);
        let jump = Problem::new(409, "sequence", "").with_expected(Expected {
            sequence: 9,
            previous: None,
        });
        let step = by_problem(&jump, 3, |_| Standing::Ahead, false);
        assert_eq!(step, Refusal::Step(Step::Resend(9)));
    }

    #[test]
    fn refusals_of_a_statement() {
        let expected = Expected {
            sequence: 4,
            previous: Some(Digest::of(b"p")),
        };
        let decide = |code| by_refused(code, Some(&expected), |_| Standing::Behind, false);
        assert_eq!(decide("budget"), None);
        assert_eq!(
            decide("sequence"),
            Some(Step::Reposition {
                to: Some(at(4)),
                rewound: true,
                gap: None,
                skip: 0
            })
        );
        assert_eq!(
            decide("signature"),
            Some(Step::Reposition {
                to: Some(at(4)),
                rewound: false,
                gap: Some("refused"),
                skip: 1
            })
        );
    }

    #[test]
    fn only_right_receipts_count() {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let node = NodeId::of(&key.public());
        let public = key.public();
        let rules = ReceiptRules {
            key: &public,
            node: node.as_str(),
            log: "log",
        };
        let outgoing = |sequence: u64| Outgoing {
            sequence,
            payload: Digest::of(&sequence.to_le_bytes()),
            envelope: Vec::new(),
        };
        let receipt = |sequence: u64, log: &str, signer: &PrivateKey| {
            let predicate = Receipt {
                log: log.to_owned(),
                sequence,
                fresh: true,
                received: Timestamp::from_micros(0),
                logged_by: Timestamp::from_micros(0),
            };
            let payload = Digest::of(&sequence.to_le_bytes());
            let statement = Statement::<Receipt>::of_payload(&node, &payload, predicate);
            Envelope::sign(statement.to_payload(), signer).unwrap()
        };
        let answer = |receipts| AttestationsAnswer {
            receipts,
            verdict: None,
            fresh: true,
            challenge: String::new(),
            expires: Timestamp::from_micros(0),
            interval: 30,
            assignment: None,
            requests: Vec::new(),
            refused: None,
        };
        let batch = [outgoing(4), outgoing(5)];
        let good = answer(vec![receipt(4, "log", &key), receipt(5, "log", &key)]);
        let after = |answer: &AttestationsAnswer| {
            let receipted = receipted(&rules, &batch, answer).unwrap();
            receipted.map(|(after, _)| after)
        };
        assert_eq!(after(&good), Some(6));
        assert_eq!(after(&answer(vec![receipt(4, "log", &key)])), Some(5));
        assert_eq!(after(&answer(Vec::new())), None);
        let other = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        for bad in [
            receipt(4, "log", &other),
            receipt(5, "log", &key),
            receipt(4, "other", &key),
        ] {
            assert!(receipted(&rules, &batch, &answer(vec![bad])).is_err());
        }
        let many = vec![
            receipt(4, "log", &key),
            receipt(5, "log", &key),
            receipt(6, "log", &key),
        ];
        assert!(receipted(&rules, &batch, &answer(many)).is_err());
    }

    #[test]
    fn the_wait_grows_to_a_minute_and_starts_over() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.next(u32::MAX)).collect();
        assert_eq!(waits[0], Duration::from_millis(250));
        assert_eq!(waits[1], Duration::from_millis(500));
        assert_eq!(waits[11], Duration::from_secs(60));
        assert!(waits.is_sorted());
        backoff.reset();
        assert_eq!(backoff.next(0), Duration::from_millis(125));
    }
}
