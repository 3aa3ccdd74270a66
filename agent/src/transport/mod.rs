//! What the agent asks of the network, and what may come back: a request to one of the two doors, a typed and bounded
//! answer.
//!
//! Two ways lead there. [`Transport::direct`] speaks TLS, HTTP and JSON in this process: it is what a program uses that
//! embeds the agent (`pristine up`), where the collector is in the same process anyway. The daemon uses a child process
//! without privileges ([`Transport::child`]): what comes from the network is parsed there, and this process takes
//! messages of its own making only. What is proven by a signature is proven here, whichever way it came.

pub mod child;
mod confine;
mod direct;
mod handshake;
pub mod inside;
pub mod message;
mod names;
mod pieces;

use std::sync::Arc;

use attestation::dsse::Envelope;
use attestation::key::{Algorithm, PrivateKey};
use attestation::statement::ManifestRef;
use attestation::time::Timestamp;
use attestation::wire::{
    AttestationsAnswer, ChallengeAnswer, EnrolmentAnswer, EnrolmentPending, Problem, RenewalAnswer,
};
use tokio::sync::mpsc;

#[cfg(test)]
pub use self::direct::gzip;
pub(crate) use self::handshake::{HandshakeKey, Signs};
pub use self::pieces::PieceReader;
use crate::tls::{CaTrust, TlsError};

/// Pieces of a manifest that are on their way to the disk.
pub const PIECES: usize = 4;

/// Which door is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The agents': the node shows its certificate.
    Agents,
    /// Joining and renewal: no client certificate.
    Joining,
}

/// Whom the agent believes at each door, and what it shows there. The key itself is not part of it.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The newest time in a receipt: no door's certificate that was over then is believed, whatever the clock.
    pub heard: Option<Timestamp>,
    /// The agents' door, once the node has joined.
    pub agents: Option<AgentsTrust>,
    /// The joining door.
    pub joining: Option<CaTrust>,
}

/// The agents' door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentsTrust {
    /// The CA that the door must show, PEM.
    pub ca: String,
    /// This node's certificate chain, PEM.
    pub certificate: String,
    /// What the node's key is for.
    pub algorithm: Algorithm,
}

/// What kind of answer a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A challenge.
    Challenge,
    /// Receipts.
    Attestations,
    /// An envelope: an assignment, an image statement.
    Envelope,
    /// Admitted, or to be admitted by a person.
    Enrolment,
    /// A new certificate.
    Renewal,
    /// Nothing but that it was taken.
    Taken,
}

/// An answer as what it should be; nothing in it is proven yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Wanted::Challenge`].
    Challenge(ChallengeAnswer),
    /// To [`Wanted::Attestations`].
    Attestations(AttestationsAnswer),
    /// To [`Wanted::Envelope`].
    Envelope(Envelope),
    /// To [`Wanted::Enrolment`]: 201.
    Admitted(Box<EnrolmentAnswer>),
    /// To [`Wanted::Enrolment`]: 202.
    Pending(EnrolmentPending),
    /// To [`Wanted::Renewal`].
    Renewal(RenewalAnswer),
    /// To [`Wanted::Taken`].
    Taken,
}

/// What joining is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joining {
    /// The node is admitted.
    Admitted(Box<EnrolmentAnswer>),
    /// A person must admit it.
    Pending(EnrolmentPending),
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Where.
    pub door: Door,
    /// What with.
    pub method: Method,
    /// The whole address, `https://…`.
    pub url: String,
    /// What comes back.
    pub wanted: Wanted,
    /// The body, as it is before compression; empty for a `GET`.
    pub body: Vec<u8>,
}

/// The methods that FORMATS.md 5.4 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Nothing is sent.
    Get,
    /// JSON is sent.
    Post,
    /// A compressed manifest is sent.
    Put,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The request could not be sent, or the answer not received. The text is the network's, shortened.
    #[error("no answer: {reason}")]
    NoAnswer {
        /// What the network said.
        reason: String,
    },
    /// The collector does not take this node's certificate: it is over, or not one of its own.
    #[error("the collector does not take this node's certificate: {reason}")]
    Certificate {
        /// What the network said.
        reason: String,
    },
    /// The process that speaks with the network ended, or said what it must not say.
    #[error("the network process {reason}")]
    Child {
        /// What became of it.
        reason: String,
    },
    /// The body cannot be made.
    #[error("make the body of a request")]
    Body(#[source] std::io::Error),
    /// The answer is longer than any that is right.
    #[error("answer is longer than {limit} bytes")]
    TooLong {
        /// The most that is read.
        limit: u64,
    },
    /// The answer is not what the format says.
    #[error("answer cannot be read: {reason}")]
    Unreadable {
        /// Why.
        reason: String,
    },
    /// The manifest that came is not the signed one.
    #[error("the manifest is not the file that was signed: {reason}")]
    Manifest {
        /// In which way.
        reason: String,
    },
    /// The collector answered with an error.
    #[error("refused: {0}")]
    Refused(Box<Problem>),
}

impl TransportError {
    /// Whether nobody was there to answer: another door, or later, may do.
    pub fn is_away(&self) -> bool {
        matches!(
            self,
            Self::NoAnswer { .. } | Self::Certificate { .. } | Self::Child { .. }
        )
    }
}

/// Where the network's words are parsed.
#[derive(Clone, Debug, Default)]
pub enum Network {
    /// In this process: for a program that embeds the agent.
    #[default]
    InProcess,
    /// In a child process without privileges: for the daemon.
    Child(child::Program),
}

/// The way to the network; clones share it.
#[derive(Clone, Debug)]
pub struct Transport(Way);

#[derive(Clone, Debug)]
enum Way {
    Direct(Arc<direct::Direct>),
    Child(child::Child),
}

impl Transport {
    /// TLS, HTTP and JSON in this process. A limit where it is used: what the network sends is parsed with the rights of
    /// this process.
    pub fn direct(trust: &Trust, key: &PrivateKey) -> Result<Self, TlsError> {
        let direct = direct::Direct::new(trust, Arc::new(key.clone()), names::Names::of_system())?;
        Ok(Self(Way::Direct(Arc::new(direct))))
    }

    /// Over a child process without privileges, which is started. To be called in a runtime.
    pub fn child(program: child::Program, trust: Trust, key: &PrivateKey) -> std::io::Result<Self> {
        let child = child::Child::start(program, trust, key.clone())?;
        Ok(Self(Way::Child(child)))
    }

    /// Whichever of them is asked for.
    pub fn open(network: &Network, trust: Trust, key: &PrivateKey) -> Result<Self, TlsError> {
        match network {
            Network::InProcess => Self::direct(&trust, key),
            Network::Child(program) => {
                Self::child(program.clone(), trust, key).map_err(TlsError::Child)
            }
        }
    }

    /// Whom to believe and what to show from the next connection on: after a renewal, for another key.
    pub async fn trust(&self, trust: &Trust, key: &PrivateKey) -> Result<(), TlsError> {
        match &self.0 {
            Way::Direct(direct) => direct.trust(trust, Arc::new(key.clone())),
            Way::Child(child) => {
                child.trust(trust.clone(), key.clone()).await;
                Ok(())
            }
        }
    }

    /// What the network process is like, where there is one.
    pub fn status(&self) -> Option<child::ChildStatus> {
        match &self.0 {
            Way::Direct(_) => None,
            Way::Child(child) => Some(child.status()),
        }
    }

    /// `POST /agent/v1/challenge`.
    pub async fn challenge(&self, url: String) -> Result<ChallengeAnswer, TransportError> {
        let ask = Ask::post(Door::Agents, url, Wanted::Challenge, b"{}".to_vec());
        match self.ask(ask).await? {
            Reply::Challenge(answer) => Ok(answer),
            other => Err(other.unexpected()),
        }
    }

    /// `POST /agent/v1/attestations`.
    pub async fn attestations(
        &self,
        url: String,
        body: Vec<u8>,
    ) -> Result<AttestationsAnswer, TransportError> {
        let ask = Ask::post(Door::Agents, url, Wanted::Attestations, body);
        match self.ask(ask).await? {
            Reply::Attestations(answer) => Ok(answer),
            other => Err(other.unexpected()),
        }
    }

    /// `POST /join/v1/enrolment`.
    pub async fn enrolment(&self, url: String, body: Vec<u8>) -> Result<Joining, TransportError> {
        let ask = Ask::post(Door::Joining, url, Wanted::Enrolment, body);
        match self.ask(ask).await? {
            Reply::Admitted(answer) => Ok(Joining::Admitted(answer)),
            Reply::Pending(answer) => Ok(Joining::Pending(answer)),
            other => Err(other.unexpected()),
        }
    }

    /// `POST /join/v1/renewal`, and `/join/v1/rotation`, which is answered in the same way.
    pub async fn renewal(
        &self,
        url: String,
        body: Vec<u8>,
    ) -> Result<RenewalAnswer, TransportError> {
        let ask = Ask::post(Door::Joining, url, Wanted::Renewal, body);
        match self.ask(ask).await? {
            Reply::Renewal(answer) => Ok(answer),
            other => Err(other.unexpected()),
        }
    }

    /// `GET` of an envelope at the agents' door.
    pub async fn envelope(&self, url: String) -> Result<Envelope, TransportError> {
        let ask = Ask {
            door: Door::Agents,
            method: Method::Get,
            url,
            wanted: Wanted::Envelope,
            body: Vec::new(),
        };
        match self.ask(ask).await? {
            Reply::Envelope(envelope) => Ok(envelope),
            other => Err(other.unexpected()),
        }
    }

    /// Whether anybody answers at the joining door, whatever it says.
    pub async fn reach(&self, url: String) -> Result<(), TransportError> {
        let ask = Ask {
            door: Door::Joining,
            method: Method::Get,
            url,
            wanted: Wanted::Taken,
            body: Vec::new(),
        };
        match self.ask(ask).await {
            Ok(_) | Err(TransportError::Refused(_) | TransportError::TooLong { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `PUT` of a compressed manifest at the agents' door: pins, a snapshot.
    pub async fn put(&self, url: String, body: Vec<u8>) -> Result<(), TransportError> {
        let ask = Ask {
            door: Door::Agents,
            method: Method::Put,
            url,
            wanted: Wanted::Taken,
            body,
        };
        match self.ask(ask).await? {
            Reply::Taken => Ok(()),
            other => Err(other.unexpected()),
        }
    }

    /// `GET` of a manifest at the agents' door: its plain bytes, in pieces, at most as many as were signed. An error may
    /// come after some of them; who takes them checks the tree.
    pub async fn manifest(
        &self,
        url: String,
        manifest: &ManifestRef,
        pieces: mpsc::Sender<Vec<u8>>,
    ) -> Result<(), TransportError> {
        match &self.0 {
            Way::Direct(direct) => direct.manifest(&url, manifest, pieces).await,
            Way::Child(child) => child.manifest(url, manifest.clone(), pieces).await,
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Reply, TransportError> {
        match &self.0 {
            Way::Direct(direct) => direct.ask(ask).await,
            Way::Child(child) => child.ask(ask).await,
        }
    }
}

impl Ask {
    fn post(door: Door, url: String, wanted: Wanted, body: Vec<u8>) -> Self {
        Self {
            door,
            method: Method::Post,
            url,
            wanted,
            body,
        }
    }
}

impl Reply {
    /// Whether this is an answer to what was asked.
    pub fn answers(&self, wanted: Wanted) -> bool {
        wanted
            == match self {
                Self::Challenge(_) => Wanted::Challenge,
                Self::Attestations(_) => Wanted::Attestations,
                Self::Envelope(_) => Wanted::Envelope,
                Self::Admitted(_) | Self::Pending(_) => Wanted::Enrolment,
                Self::Renewal(_) => Wanted::Renewal,
                Self::Taken => Wanted::Taken,
            }
    }

    fn unexpected(self) -> TransportError {
        TransportError::Unreadable {
            reason: "an answer to another question".to_owned(),
        }
    }
}
