//! The messages between the agent and its network process. What comes from there is believed to be hostile: it is read
//! by a reader that knows every length before it allocates, knows every message, and takes nothing that it does not know.
//!
//! A frame is its length (four bytes, little end first), and a message: a byte that says which, then its members in order.
//! Numbers are little end first, texts and bytes have their length before them, what may be absent has a byte before it.

mod members;
mod reader;

use attestation::statement::ManifestRef;
use attestation::time::Timestamp;
use attestation::wire::Problem;

pub use self::reader::{Malformed, Reader, Writer};
use super::{AgentsTrust, Ask, Door, Method, Reply, TransportError, Trust, Wanted};
use crate::tls::CaTrust;

/// The longest message from the network process: the longest envelope of an image, in plain bytes, and what stands around it.
pub const FROM_CHILD: usize = 16 * 1024 * 1024 + 4096;
/// The longest message to it: a snapshot of a manifest with a million lines is half of this.
pub const TO_CHILD: usize = 128 * 1024 * 1024;

/// What the agent says.
#[derive(Clone, Debug)]
pub enum ToChild {
    /// Whom to believe from now on.
    Trust(Box<Trust>),
    /// A request.
    Ask {
        /// Names it in answers.
        id: u32,
        /// What.
        ask: Ask,
    },
    /// A manifest.
    Manifest {
        /// Names it in answers.
        id: u32,
        /// From where.
        url: String,
        /// What was signed.
        manifest: ManifestRef,
    },
}

/// What the network process says.
#[derive(Debug)]
pub enum FromChild {
    /// It is confined, in the words of what could not be done, and ready.
    Ready {
        /// What holds it less than it should.
        missing: Vec<String>,
    },
    /// An answer.
    Answer {
        /// To what.
        id: u32,
        /// What.
        reply: Reply,
    },
    /// Some plain bytes of a manifest.
    Piece {
        /// Of which.
        id: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// All of the manifest came, and the file was the signed one.
    Whole {
        /// Which.
        id: u32,
    },
    /// There is no answer.
    Failed {
        /// To what.
        id: u32,
        /// Why.
        error: TransportError,
    },
    /// The trust that it was given cannot be used.
    Untrusting {
        /// Why.
        reason: String,
    },
}

/// Lists longer than this are none of ours: 256 receipts and requests.
const LIST: usize = 1024;
/// What could not be confined: one line a mechanism.
const MISSING: usize = 16;

impl ToChild {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        match self {
            Self::Trust(trust) => {
                to.u8(1);
                to.option(trust.heard.as_ref(), |to, heard| {
                    to.u64(u64::from_le_bytes(heard.as_micros().to_le_bytes()));
                });
                to.option(trust.agents.as_ref(), |to, agents| {
                    to.text(&agents.ca);
                    to.text(&agents.certificate);
                    members::put_algorithm(to, agents.algorithm);
                });
                to.option(trust.joining.as_ref(), |to, joining| match joining {
                    CaTrust::Digest(digest) => {
                        to.u8(0);
                        to.digest(digest);
                    }
                    CaTrust::Pem(pem) => {
                        to.u8(1);
                        to.text(pem);
                    }
                });
            }
            Self::Ask { id, ask } => {
                to.u8(2);
                to.u32(*id);
                to.u8(match ask.door {
                    Door::Agents => 0,
                    Door::Joining => 1,
                });
                to.u8(match ask.method {
                    Method::Get => 0,
                    Method::Post => 1,
                    Method::Put => 2,
                });
                to.u8(wanted_number(ask.wanted));
                to.text(&ask.url);
                to.bytes(&ask.body);
            }
            Self::Manifest { id, url, manifest } => {
                to.u8(3);
                to.u32(*id);
                to.text(url);
                to.u64(manifest.size);
                to.digest(&manifest.sha256);
                to.u64(manifest.uncompressed);
            }
        }
        to.finish()
    }

    /// Reads a whole message.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(bytes);
        let message = match from.u8()? {
            1 => {
                let heard = from.option(|from| {
                    let micros = i64::from_le_bytes(from.u64()?.to_le_bytes());
                    Ok(Timestamp::from_micros(micros))
                })?;
                let agents = from.option(|from| {
                    Ok(AgentsTrust {
                        ca: from.text()?,
                        certificate: from.text()?,
                        algorithm: members::algorithm(from)?,
                    })
                })?;
                let joining = from.option(|from| match from.u8()? {
                    0 => from.digest().map(CaTrust::Digest),
                    1 => from.text().map(CaTrust::Pem),
                    _ => Err(Malformed("trust")),
                })?;
                Self::Trust(Box::new(Trust {
                    heard,
                    agents,
                    joining,
                }))
            }
            2 => Self::Ask {
                id: from.u32()?,
                ask: read_ask(&mut from)?,
            },
            3 => Self::Manifest {
                id: from.u32()?,
                url: from.text()?,
                manifest: ManifestRef {
                    media_type: ManifestRef::MEDIA_TYPE.to_owned(),
                    size: from.u64()?,
                    sha256: from.digest()?,
                    uncompressed: from.u64()?,
                },
            },
            _ => return Err(Malformed("kind")),
        };
        from.end()?;
        Ok(message)
    }
}

fn read_ask(from: &mut Reader<'_>) -> Result<Ask, Malformed> {
    Ok(Ask {
        door: match from.u8()? {
            0 => Door::Agents,
            1 => Door::Joining,
            _ => return Err(Malformed("door")),
        },
        method: match from.u8()? {
            0 => Method::Get,
            1 => Method::Post,
            2 => Method::Put,
            _ => return Err(Malformed("method")),
        },
        wanted: match from.u8()? {
            0 => Wanted::Challenge,
            1 => Wanted::Attestations,
            2 => Wanted::Envelope,
            3 => Wanted::Enrolment,
            4 => Wanted::Renewal,
            5 => Wanted::Taken,
            _ => return Err(Malformed("what is wanted")),
        },
        url: from.text()?,
        body: from.bytes()?.to_vec(),
    })
}

const fn wanted_number(wanted: Wanted) -> u8 {
    match wanted {
        Wanted::Challenge => 0,
        Wanted::Attestations => 1,
        Wanted::Envelope => 2,
        Wanted::Enrolment => 3,
        Wanted::Renewal => 4,
        Wanted::Taken => 5,
    }
}

impl FromChild {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        match self {
            Self::Ready { missing } => {
                to.u8(1);
                to.list(missing, |to, text| to.text(text));
            }
            Self::Answer { id, reply } => {
                to.u8(2);
                to.u32(*id);
                members::put_reply(&mut to, reply);
            }
            Self::Piece { id, bytes } => {
                to.u8(3);
                to.u32(*id);
                to.bytes(bytes);
            }
            Self::Whole { id } => {
                to.u8(4);
                to.u32(*id);
            }
            Self::Failed { id, error } => {
                to.u8(5);
                to.u32(*id);
                put_error(&mut to, error);
            }
            Self::Untrusting { reason } => {
                to.u8(6);
                to.text(reason);
            }
        }
        to.finish()
    }

    /// Reads a whole message.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(bytes);
        let message = match from.u8()? {
            1 => Self::Ready {
                missing: from.list(MISSING, Reader::short_text)?,
            },
            2 => Self::Answer {
                id: from.u32()?,
                reply: members::reply(&mut from)?,
            },
            3 => Self::Piece {
                id: from.u32()?,
                bytes: from.bytes()?.to_vec(),
            },
            4 => Self::Whole { id: from.u32()? },
            5 => Self::Failed {
                id: from.u32()?,
                error: error(&mut from)?,
            },
            6 => Self::Untrusting {
                reason: from.short_text()?,
            },
            _ => return Err(Malformed("kind")),
        };
        from.end()?;
        Ok(message)
    }
}

fn put_error(to: &mut Writer, error: &TransportError) {
    match error {
        TransportError::NoAnswer { reason } | TransportError::Child { reason } => {
            to.u8(1);
            to.text(reason);
        }
        TransportError::Body(error) => {
            to.u8(1);
            to.text(&error.to_string());
        }
        TransportError::TooLong { limit } => {
            to.u8(2);
            to.u64(*limit);
        }
        TransportError::Unreadable { reason } => {
            to.u8(3);
            to.text(reason);
        }
        TransportError::Manifest { reason } => {
            to.u8(4);
            to.text(reason);
        }
        TransportError::Refused(problem) => {
            to.u8(5);
            members::put_problem(to, problem);
        }
        TransportError::Certificate { reason } => {
            to.u8(6);
            to.text(reason);
        }
    }
}

fn error(from: &mut Reader<'_>) -> Result<TransportError, Malformed> {
    Ok(match from.u8()? {
        1 => TransportError::NoAnswer {
            reason: from.short_text()?,
        },
        2 => TransportError::TooLong { limit: from.u64()? },
        3 => TransportError::Unreadable {
            reason: from.short_text()?,
        },
        4 => TransportError::Manifest {
            reason: from.short_text()?,
        },
        5 => {
            let problem: Problem = members::problem(from)?;
            TransportError::Refused(Box::new(problem))
        }
        6 => TransportError::Certificate {
            reason: from.short_text()?,
        },
        _ => return Err(Malformed("error")),
    })
}

#[cfg(test)]
mod tests;
