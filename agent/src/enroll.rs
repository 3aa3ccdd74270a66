//! Joining: the node makes its key, asks at the joining door, and keeps what it is given.
//!
//! The key is made and synced before anybody is asked, so that a second try is the same question and gets the same answer.

use std::path::PathBuf;
use std::time::Duration;

use attestation::dsse::Envelope;
use attestation::join_token::JoinToken;
use attestation::key::{KeyError, NodeId};
use attestation::statement::{Enrolment, Statement};
use attestation::wire::{EnrolmentAnswer, EnrolmentPending, EnrolmentRequest, Problem, TokenPair};

use crate::certificate;
use crate::identity::{self, Identity, IdentityError};
use crate::tls::{CaTrust, TlsError};
use crate::transport::{Joining, Network, Transport, TransportError, Trust};

/// Tries at each door before giving up; the collector may be starting at the same time.
const TRIES: u32 = 5;
/// Never asked more often, whatever the collector says.
const LEAST_WAIT: Duration = Duration::from_secs(1);
/// Never waited longer between two questions.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Where to join, and what for proof.
#[derive(Clone, Debug)]
pub enum Door {
    /// With a token: it names the doors and their CA.
    Token(JoinToken),
    /// Without: a person admits the node.
    Person {
        /// URL of the joining door.
        join: String,
        /// Its CA certificate, PEM.
        ca: String,
    },
}

/// How a node joins.
#[derive(Clone, Debug)]
pub struct EnrolOptions {
    /// The state directory.
    pub state: PathBuf,
    /// Where.
    pub door: Door,
    /// The node's name; absent: its host name.
    pub name: Option<String>,
    /// The node whose place it takes.
    pub replaces: Option<String>,
}

/// A node that has joined.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The agents' doors.
    pub agents: Vec<String>,
    /// Origin of the log.
    pub log: String,
}

/// Why a node has not joined.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Key or identity cannot be kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No certificate request could be made of the key.
    #[error("make a certificate request")]
    Request(#[source] rcgen::Error),
    /// The key does not sign.
    #[error("sign the enrolment")]
    Sign(#[from] KeyError),
    /// TLS cannot be set up.
    #[error("set up the connection to the joining door")]
    Tls(#[from] TlsError),
    /// No door answered.
    #[error("join at {url}")]
    Unreachable {
        /// The last door tried.
        url: String,
        /// Why.
        source: TransportError,
    },
    /// The token is not, or no longer, good.
    #[error(
        "the collector refused the token ({code}): it may be used up, expired or revoked; create another with `pristine token create --join`"
    )]
    Token {
        /// The collector's word.
        code: String,
    },
    /// Another node has the name.
    #[error(
        "the name {name:?} is a living node's; choose another with --name, or name the node it takes the place of with --replaces"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// Refused for another reason.
    #[error("the collector refused the enrolment: {0}")]
    Refused(#[source] Box<Problem>),
    /// The answer is for another key.
    #[error("the collector answered for node {answered}, this one is {own}")]
    OtherNode {
        /// Whom it speaks of.
        answered: NodeId,
        /// Whose key was shown.
        own: NodeId,
    },
}

/// Joins; waits for a person where there is no token. The caller may drop the future and ask again later.
pub async fn enroll(options: EnrolOptions) -> Result<Enrolled, EnrolError> {
    enroll_over(options, &Network::InProcess).await
}

/// The same, with the network's words parsed where they should be.
pub async fn enroll_over(options: EnrolOptions, network: &Network) -> Result<Enrolled, EnrolError> {
    let machine = identity::machine();
    enroll_on(options, network, machine).await
}

/// The same on a machine that is named.
pub(crate) async fn enroll_on(
    options: EnrolOptions,
    network: &Network,
    machine: Option<String>,
) -> Result<Enrolled, EnrolError> {
    identity::prepare(&options.state)?;
    if let Err(error @ IdentityError::OtherMachine { .. }) =
        identity::load_on(&options.state, machine.clone())
    {
        tracing::warn!(%error, "joining as a new node");
    }
    let key = identity::key(&options.state)?;
    let own = NodeId::of(&key.public());
    let name = options.name.clone().unwrap_or_else(host_name);
    let enrolment = Enrolment {
        name: name.clone(),
        csr: certificate::request(&key, &own).map_err(EnrolError::Request)?,
        machine: machine.clone(),
        replaces: options.replaces.clone(),
    };
    let statement = Statement::<Enrolment>::of_node(&key.public(), enrolment);
    let (urls, trust, token) = match &options.door {
        Door::Token(token) => (
            token.join.clone(),
            CaTrust::Digest(token.ca),
            Some(token.pair()),
        ),
        Door::Person { join, ca } => (vec![join.clone()], CaTrust::Pem(ca.clone()), None),
    };
    let request = EnrolmentRequest {
        statement: Envelope::sign(statement.to_payload(), &key)?,
        token,
    };
    let trust = Trust {
        heard: None,
        agents: None,
        joining: Some(trust),
    };
    let transport = Transport::open(network, trust, &key)?;
    let answer = ask(&urls, &transport, &request, &name).await?;
    if answer.node != own {
        return Err(EnrolError::OtherNode {
            answered: answer.node,
            own,
        });
    }
    let identity = identity::keep(&options.state, &name, urls, machine, answer)?;
    Ok(enrolled(identity))
}

fn enrolled(identity: Identity) -> Enrolled {
    Enrolled {
        node: identity.node,
        name: identity.name,
        agents: identity.agents,
        log: identity.log,
    }
}

/// Asks each door in turn until one answers, and goes on asking while a person has to decide.
async fn ask(
    urls: &[String],
    transport: &Transport,
    request: &EnrolmentRequest,
    name: &str,
) -> Result<EnrolmentAnswer, EnrolError> {
    let mut failures = 0;
    let mut waited = false;
    loop {
        let mut last = None;
        for url in urls {
            match ask_one(url, transport, request).await {
                Ok(Answer::Admitted(answer)) => return Ok(*answer),
                Ok(Answer::Pending(pending)) => {
                    if !waited {
                        tracing::info!(node = %pending.node, %name, "waiting for a person to admit this node");
                        waited = true;
                    }
                    failures = 0;
                    let wait = Duration::from_secs(pending.retry_after);
                    tokio::time::sleep(wait.clamp(LEAST_WAIT, LONGEST_WAIT)).await;
                    last = None;
                    break;
                }
                Ok(Answer::Refused(problem)) => {
                    return Err(refusal(problem, name, request.token.as_ref()));
                }
                Err(error @ EnrolError::Unreachable { .. }) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = last {
            failures += 1;
            // Who waits for a person waits through a restart of the collector, too.
            if failures >= TRIES && !waited {
                return Err(error);
            }
            tracing::warn!(error = %crate::journal::chain(&error), "joining door does not answer");
            tokio::time::sleep(Duration::from_secs(1 << failures.min(6))).await;
        }
    }
}

enum Answer {
    Admitted(Box<EnrolmentAnswer>),
    Pending(EnrolmentPending),
    Refused(Problem),
}

async fn ask_one(
    url: &str,
    transport: &Transport,
    request: &EnrolmentRequest,
) -> Result<Answer, EnrolError> {
    let address = format!("{}/join/v1/enrolment", url.trim_end_matches('/'));
    let unreachable = |source| EnrolError::Unreachable {
        url: url.to_owned(),
        source,
    };
    let body = serde_json::to_vec(request)
        .map_err(|error| unreachable(TransportError::Body(error.into())))?;
    match transport.enrolment(address, body).await {
        Ok(Joining::Admitted(answer)) => Ok(Answer::Admitted(answer)),
        Ok(Joining::Pending(pending)) => Ok(Answer::Pending(pending)),
        Err(TransportError::Refused(problem)) if !matches!(problem.status, 429 | 500..=599) => {
            Ok(Answer::Refused(*problem))
        }
        Err(error) => Err(unreachable(error)),
    }
}

fn refusal(problem: Problem, name: &str, token: Option<&TokenPair>) -> EnrolError {
    match problem.status {
        401 if token.is_some() => EnrolError::Token { code: problem.code },
        409 => EnrolError::NameTaken {
            name: name.to_owned(),
        },
        _ => EnrolError::Refused(Box::new(problem)),
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unnamed".to_owned())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let token = TokenPair {
            id: "t".to_owned(),
            secret: "s".to_owned(),
        };
        let refused = |status, code: &str| {
            refusal(Problem::new(status, code, "no"), "web-1", Some(&token)).to_string()
        };
        assert!(refused(401, "token").contains("token create"));
        assert!(refused(409, "name-taken").contains("--replaces"));
        assert!(
            refused(400, "malformed").contains("malformed")
                || refused(400, "malformed").contains("refused")
        );
    }
}
