//! What can be done outside the writer: signatures, the image, the differences of `as`, the appraisal, the receipt. Order and
//! forks are the writer's business.

use std::sync::Arc;

use attestation::appraisal::{self, Appraisal, Evidence, Reference};
use attestation::difference::Pins;
use attestation::digest::Digest;
use attestation::dsse::{Envelope, VerifiedStatement};
use attestation::key::{NodeId, PublicKey};
use attestation::statement::{Attestation, Difference, Receipt, Statement};
use attestation::time::Timestamp;

use super::refusal::Code;
use crate::assignments::Current;
use crate::images::LoadedImage;
use crate::keys::CollectorKeys;
use crate::pins::Standing;

/// Characters of another log's origin that are kept beside the statement.
const ORIGIN: usize = 200;

/// A statement that its node's key has signed, appraised and ready to be stored.
pub struct Prepared {
    /// Verified.
    pub statement: VerifiedStatement<Attestation>,
    /// SHA-256 of its payload.
    pub payload: Digest,
    /// The differences that stand by it.
    pub differences: Arc<Vec<Difference>>,
    /// The sequence whose statement lists them.
    pub differences_at: u64,
    /// None without an assignment.
    pub appraisal: Option<Appraisal>,
    /// The image that it compares with, where it is held.
    pub image: Option<Arc<LoadedImage>>,
    /// What else the assignment allows now, where something differs: a node on its way from one image to another shows both.
    pub beside: Vec<Arc<LoadedImage>>,
    /// How its pins stand to what is held.
    pub pins: Standing,
    /// The assignment that it was appraised by.
    pub assignment: Option<Digest>,
    /// The log that it is for, where that is not ours: stored and appraised like any other, for its key and sequence are right,
    /// but it was not said to us, so it makes nobody fresh.
    pub another_log: Option<String>,
    /// Whether it answers an open challenge.
    pub fresh: bool,
    /// The receipt that it gets when it is stored.
    pub receipt: Envelope,
}

/// What preparing needs beside the statement.
pub struct Bench<'a> {
    /// Whose statements.
    pub node: &'a NodeId,
    /// The group's assignment.
    pub assignment: Option<&'a Current>,
    /// Signs the receipt.
    pub keys: &'a CollectorKeys,
    /// The log's origin.
    pub origin: &'a str,
    /// When the request was received.
    pub received: Timestamp,
}

/// Checks that a statement is this node's and in bounds.
pub fn verify(
    envelope: &Envelope,
    node: &NodeId,
    keys: &[PublicKey],
) -> Result<VerifiedStatement<Attestation>, Code> {
    let header = envelope.peek_header().map_err(|_bad| Code::Malformed)?;
    let subject = header.subject.first().map(|subject| subject.name.as_str());
    if subject != Some(node.as_str()) {
        return Err(Code::AnotherNode);
    }
    let statement = envelope
        .verify::<Attestation>(keys, 1)
        .map_err(|error| match error {
            attestation::dsse::VerifyError::Statement(_) => Code::Malformed,
            _ => Code::Signature,
        })?;
    if statement.statement().subject.len() != 1 || statement.statement().tree().is_none() {
        return Err(Code::Malformed);
    }
    statement
        .predicate()
        .check_limits()
        .map_err(|_many| Code::Malformed)?;
    Ok(statement)
}

/// Appraises and signs the receipt.
pub fn prepare(
    bench: &Bench<'_>,
    statement: VerifiedStatement<Attestation>,
    differences: Option<Arc<Vec<Difference>>>,
    image: Option<Arc<LoadedImage>>,
    pins: Standing,
    fresh: bool,
) -> Result<Prepared, Code> {
    let said = statement.predicate();
    let payload = statement.payload_digest();
    let differences_at = said.r#as.unwrap_or(said.sequence);
    // What `as` names and we do not have is no list at all: unless nothing differs it will not explain the tree.
    let differences = differences.unwrap_or_else(|| Arc::new(said.differences.clone()));
    let trees = match (&pins, &image) {
        (Standing::Held(held), Some(image)) => {
            Some(held.trees(image.payload, &image.statement.predicate.scope))
        }
        _ => None,
    };
    let held = match (&pins, &trees) {
        (Standing::None, _) => Pins::None,
        (Standing::Held(_), Some(trees)) => Pins::Held {
            local: &trees.local,
            growing: &trees.growing,
        },
        _ => Pins::Missing,
    };
    let appraisal = bench.assignment.map(|assignment| {
        appraisal::appraise(&Evidence {
            attestation: &statement,
            differences: &differences,
            forked: false,
            allowed: &assignment.assignment.allowed,
            reference: image.as_ref().map(|image| Reference {
                image_payload: image.payload,
                statement: &image.statement,
                tree: &image.tree,
            }),
            received: bench.received,
            revoked: image.as_ref().is_some_and(|image| image.revoked),
            pins: held,
        })
    });
    let receipt = Statement::<Receipt>::of_payload(
        bench.node,
        &payload,
        Receipt {
            log: bench.origin.to_owned(),
            sequence: said.sequence,
            fresh,
            received: bench.received,
            logged_by: bench.received,
        },
    );
    let receipt = Envelope::sign(receipt.to_payload(), &bench.keys.receipt)
        .map_err(|_no_key| Code::Internal)?;
    let assignment = bench.assignment.map(|assignment| assignment.payload);
    let another_log = (said.log != bench.origin).then(|| said.log.chars().take(ORIGIN).collect());
    Ok(Prepared {
        statement,
        payload,
        differences,
        differences_at,
        appraisal,
        image,
        beside: Vec::new(),
        pins,
        assignment,
        another_log,
        fresh,
        receipt,
    })
}
