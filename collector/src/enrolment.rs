//! Who becomes a node: by a join token at once, without one when a person agrees. The node id comes from the key, so another key
//! is another node, and the same key again gets the same answer.

mod admission;
mod certificate;
mod renewal;
mod rotation;

use std::net::IpAddr;

use attestation::key::{NodeId, PublicKey};
use attestation::statement::{Enrolment, Statement};
use attestation::time::Timestamp;
use attestation::wire::{CollectorKeys, EnrolmentAnswer, EnrolmentPending, EnrolmentRequest};
use http::StatusCode;

use self::admission::{Decided, Desk, decide};
use crate::authority::{Issued, public_key_of};
use crate::clock;
use crate::fleet;
use crate::problem::ProblemResponse;
use crate::state::AppState;

pub use self::renewal::renew;
pub use self::rotation::{Former, former_keys, rotate};

/// Nodes that wait for a person; more are told to come again.
const WAITING: i64 = 1_000;
/// Seconds until a waiting node asks again.
const ASK_AGAIN: u64 = 5;
/// A product UUID and whatever else machines have for one.
const MACHINE: usize = 128;
/// The group of nodes that came without a token.
const DEFAULT_GROUP: &str = "default";

/// What an enrolment came to.
pub enum Enrolled {
    /// 201.
    Admitted(Box<EnrolmentAnswer>),
    /// 202.
    Waits(EnrolmentPending),
}

/// A request whose signature and certificate request are by one key.
struct Applicant {
    id: NodeId,
    key: PublicKey,
    statement: Statement<Enrolment>,
    envelope: Vec<u8>,
    digest: attestation::digest::Digest,
}

/// Answers `POST /join/v1/enrolment`.
pub async fn enrol(
    state: &AppState,
    request: EnrolmentRequest,
    from: Option<IpAddr>,
) -> Result<Enrolled, ProblemResponse> {
    let applicant = applicant(&request)?;
    let (id, now) = (applicant.id.clone(), clock::now());
    let issued = issue(state, &id, &applicant.key, now)?;
    let desk = Desk {
        now,
        started: state.started,
        interval: state.settings.interval,
        from,
        retiring: fleet::Retiring::new(state),
    };
    let decided = state
        .store
        .write(move |tx| Box::pin(decide(tx, desk, applicant, request.token, issued)))
        .await??;
    match decided {
        Decided::Certificate(pem) => Ok(Enrolled::Admitted(Box::new(answer(state, id, pem)))),
        Decided::Waits => Ok(Enrolled::Waits(EnrolmentPending {
            node: id,
            retry_after: ASK_AGAIN,
        })),
    }
}

fn applicant(request: &EnrolmentRequest) -> Result<Applicant, ProblemResponse> {
    let malformed = |error: String| ProblemResponse::malformed(error);
    let claimed = request
        .statement
        .peek::<Enrolment>()
        .map_err(|error| malformed(error.to_string()))?;
    let spki =
        public_key_of(&claimed.predicate.csr).map_err(|error| malformed(error.to_string()))?;
    let key = PublicKey::from_spki_der(&spki).map_err(|error| malformed(error.to_string()))?;
    let verified = request
        .statement
        .verify::<Enrolment>(std::slice::from_ref(&key), 1)
        .map_err(|error| {
            ProblemResponse::new(StatusCode::FORBIDDEN, "signature", error.to_string())
        })?;
    let id = NodeId::of(&key);
    if verified.statement().name() != Some(id.as_str()) {
        return Err(ProblemResponse::new(
            StatusCode::FORBIDDEN,
            "other-key",
            "the statement is about another node than its key's",
        ));
    }
    let name = &claimed.predicate.name;
    fleet::checked(name).map_err(|error| malformed(error.to_string()))?;
    let machine = claimed.predicate.machine.as_deref();
    if machine.is_some_and(|machine| machine.len() > MACHINE || fleet::checked(machine).is_err()) {
        return Err(malformed(format!(
            "`machine` has 1 to {MACHINE} visible characters"
        )));
    }
    let replaces = claimed.predicate.replaces.as_deref();
    if replaces.is_some_and(|id| id.parse::<NodeId>().is_err()) {
        return Err(malformed("`replaces` is a node id".to_owned()));
    }
    Ok(Applicant {
        id,
        key,
        digest: verified.payload_digest(),
        envelope: request.statement.to_json(),
        statement: claimed,
    })
}

fn issue(
    state: &AppState,
    id: &NodeId,
    key: &PublicKey,
    now: Timestamp,
) -> Result<Issued, ProblemResponse> {
    state
        .authority
        .issue_node(
            id.as_str(),
            &key.spki_der(),
            now,
            state.settings.limits.node_certificate,
        )
        .map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "no certificate issued"
            );
            ProblemResponse::internal()
        })
}

fn answer(state: &AppState, node: NodeId, certificate: String) -> EnrolmentAnswer {
    EnrolmentAnswer {
        node,
        certificate,
        ca: state.authority.pem().to_owned(),
        agents: state.agents_urls(),
        log: state.settings.origin.clone(),
        publishers: state.settings.publishers.clone(),
        keys: CollectorKeys {
            receipt: state.keys.receipt.public(),
            assignment: state.keys.assignment.public(),
            verdict: state.keys.verdict.public(),
        },
        interval: state.settings.interval,
    }
}
