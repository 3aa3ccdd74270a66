//! TLS, HTTP, JSON and zstd in this process: what the network child does, and a program that embeds the agent itself.

use std::io::Read;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::json::from_slice_strict;
use attestation::statement::ManifestRef;
use attestation::wire::Problem;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::names::Names;
use super::{Ask, Door, HandshakeKey, Method, PieceReader, Reply, Signs, TransportError, Trust};
use super::{PIECES, Wanted};
use crate::journal;
use crate::tls::{self, TlsError};

/// The longest JSON answer that is read: 256 receipts are a quarter of a megabyte.
const ANSWER_BYTES: u64 = 4 * 1024 * 1024;
/// The longest envelope: an image statement with a thousand rules of scope, in base64.
const ENVELOPE_BYTES: u64 = 16 * 1024 * 1024;
/// The longest answer that says what went wrong.
const PROBLEM_BYTES: u64 = 64 * 1024;
/// A collector that is busy longer is treated as away.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// A manifest that comes slower than this in its pieces is asked for again later.
pub(super) const PIECE: Duration = Duration::from_secs(30);
/// The largest manifest file: a million entries are below a hundred megabytes.
const MANIFEST_BYTES: u64 = 1024 * 1024 * 1024;
/// Plain bytes of a manifest in one piece.
pub(super) const PIECE_BYTES: usize = 128 * 1024;
/// Bodies below this go out as they are: two packets either way.
const WORTH_COMPRESSING: usize = 1024;
/// What an error's text is cut to: some of it is the network's.
const REASON_BYTES: usize = 512;

/// A client for each door.
#[derive(Debug)]
pub(super) struct Direct {
    clients: RwLock<Clients>,
    names: Names,
}

#[derive(Debug)]
struct Clients {
    agents: Option<reqwest::Client>,
    joining: Option<reqwest::Client>,
}

impl Clients {
    fn new(trust: &Trust, signs: Arc<dyn Signs>, names: &Names) -> Result<Self, TlsError> {
        let client = |config| tls::client(config, names.clone());
        let agents = trust.agents.as_ref().map(|agents| {
            let key = Arc::new(HandshakeKey::new(agents.algorithm, signs));
            tls::agents(&agents.ca, &agents.certificate, key, trust.heard).and_then(client)
        });
        let joining = trust
            .joining
            .as_ref()
            .map(|joining| tls::joining(joining, trust.heard).and_then(client));
        Ok(Self {
            agents: agents.transpose()?,
            joining: joining.transpose()?,
        })
    }
}

impl Direct {
    pub(super) fn new(
        trust: &Trust,
        signs: Arc<dyn Signs>,
        names: Names,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            clients: RwLock::new(Clients::new(trust, signs, &names)?),
            names,
        })
    }

    pub(super) fn trust(&self, trust: &Trust, signs: Arc<dyn Signs>) -> Result<(), TlsError> {
        let clients = Clients::new(trust, signs, &self.names)?;
        *self.clients.write().unwrap_or_else(PoisonError::into_inner) = clients;
        Ok(())
    }

    fn client(&self, door: Door) -> Result<reqwest::Client, TransportError> {
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        let client = match door {
            Door::Agents => &clients.agents,
            Door::Joining => &clients.joining,
        };
        client.clone().ok_or_else(|| TransportError::NoAnswer {
            reason: "nobody is trusted at this door".to_owned(),
        })
    }

    /// One request and its answer.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Reply, TransportError> {
        let client = self.client(ask.door)?;
        let request = match ask.method {
            Method::Get => client.get(&ask.url),
            Method::Post => json(client.post(&ask.url), ask.body).await?,
            Method::Put => client
                .put(&ask.url)
                .header("content-type", ManifestRef::MEDIA_TYPE)
                .body(ask.body),
        };
        let answer = whole(request.timeout(PATIENCE), ask.wanted);
        // The timeout of the request covers what is read of its answer; this one whatever else may take long.
        let (status, body) = tokio::time::timeout(PATIENCE * 2, answer)
            .await
            .map_err(|_| no_answer("it takes too long"))??;
        read(ask.wanted, status, &body)
    }

    /// The plain bytes of a manifest; the file must be the signed one.
    pub(super) async fn manifest(
        &self,
        url: &str,
        manifest: &ManifestRef,
        plain: mpsc::Sender<Vec<u8>>,
    ) -> Result<(), TransportError> {
        let not_signed = |reason: &str| TransportError::Manifest {
            reason: reason.to_owned(),
        };
        if manifest.size > MANIFEST_BYTES {
            return Err(not_signed("larger than any"));
        }
        let sent = self.client(Door::Agents)?.get(url).send();
        let mut response = tokio::time::timeout(PATIENCE, sent)
            .await
            .map_err(|_| no_answer("it takes too long"))?
            .map_err(|error| no_answer(&journal::chain(&error)))?;
        let status = response.status().as_u16();
        if status != 200 {
            let problem = Problem::new(status, "manifest", "no manifest");
            return Err(TransportError::Refused(Box::new(problem)));
        }
        let (compressed, pieces) = mpsc::channel(PIECES);
        let uncompressed = manifest.uncompressed;
        let unpacking = tokio::task::spawn_blocking(move || {
            unpack(PieceReader::new(pieces), uncompressed, &plain)
        });
        let mut hasher = Sha256::new();
        let mut received = 0_u64;
        loop {
            let piece = tokio::time::timeout(PIECE, response.chunk())
                .await
                .map_err(|_| no_answer("it stopped coming"))?
                .map_err(|error| no_answer(&journal::chain(&error)))?;
            let Some(piece) = piece else { break };
            received = received.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            if received > manifest.size {
                return Err(not_signed("longer"));
            }
            hasher.update(&piece);
            if compressed.send(piece.to_vec()).await.is_err() {
                // It cannot be unpacked, or nobody wants it any more.
                break;
            }
        }
        drop(compressed);
        let unpacked = unpacking
            .await
            .map_err(|_| not_signed("the thread that unpacks it ended"))?;
        unpacked.map_err(|error| not_signed(&error.to_string()))?;
        if received != manifest.size {
            return Err(not_signed("shorter"));
        }
        if Digest::from_bytes(hasher.finalize().into()) != manifest.sha256 {
            return Err(not_signed("another digest"));
        }
        Ok(())
    }
}

/// Decompresses what comes and passes it on, as long as somebody wants it.
fn unpack(
    compressed: PieceReader,
    uncompressed: u64,
    plain: &mpsc::Sender<Vec<u8>>,
) -> std::io::Result<()> {
    let mut reader = attestation::manifest::decompressor(compressed, uncompressed);
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let limit = u64::try_from(PIECE_BYTES).unwrap_or(u64::MAX);
        (&mut reader).take(limit).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Ok(());
        }
        plain
            .blocking_send(piece)
            .map_err(|_| std::io::Error::other("nobody takes it"))?;
    }
}

/// An error's text, cut to what is worth telling.
pub(super) fn no_answer(reason: &str) -> TransportError {
    TransportError::NoAnswer {
        reason: shortened(reason),
    }
}

pub(super) fn shortened(reason: &str) -> String {
    let mut end = reason.len().min(REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or_default().to_owned()
}

/// Bytes that are JSON already, compressed where that is worth it.
async fn json(
    request: reqwest::RequestBuilder,
    body: Vec<u8>,
) -> Result<reqwest::RequestBuilder, TransportError> {
    let request = request.header("content-type", "application/json");
    if body.len() < WORTH_COMPRESSING {
        return Ok(request.body(body));
    }
    let compressed = compress(body).await?;
    Ok(request.header("content-encoding", "gzip").body(compressed))
}

/// Compresses; a large body leaves the runtime's threads alone.
async fn compress(body: Vec<u8>) -> Result<Vec<u8>, TransportError> {
    if body.len() < 64 * 1024 {
        return gzip(&body).map_err(TransportError::Body);
    }
    match tokio::task::spawn_blocking(move || gzip(&body)).await {
        Ok(compressed) => compressed.map_err(TransportError::Body),
        Err(error) => Err(TransportError::Body(std::io::Error::other(error))),
    }
}

/// The body as it goes over the wire.
pub fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body)?;
    encoder.finish()
}

/// Why there is no answer: whether it is the certificate, which can be mended, or anything else.
fn unanswered(error: reqwest::Error) -> TransportError {
    let reason = shortened(&journal::chain(&error));
    if refuses_certificate(&error) {
        TransportError::Certificate { reason }
    } else {
        TransportError::NoAnswer { reason }
    }
}

/// Whether the other side ended the handshake because of the client's certificate.
fn refuses_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::AlertDescription as Alert;
    let mut cause = Some(error);
    while let Some(error) = cause {
        // An I/O error holds the error of TLS, and does not name it as its source.
        let held = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .map(|held| held as &(dyn std::error::Error + 'static));
        let told = [Some(error), held].into_iter().flatten().any(|error| {
            matches!(
                error.downcast_ref::<rustls::Error>(),
                Some(rustls::Error::AlertReceived(
                    Alert::CertificateExpired
                        | Alert::CertificateRevoked
                        | Alert::CertificateUnknown
                        | Alert::BadCertificate
                        | Alert::UnsupportedCertificate
                        | Alert::UnknownCA
                        | Alert::AccessDenied
                ))
            )
        });
        if told {
            return true;
        }
        cause = held.or_else(|| error.source());
    }
    false
}

async fn whole(
    request: reqwest::RequestBuilder,
    wanted: Wanted,
) -> Result<(u16, Vec<u8>), TransportError> {
    let mut response = request.send().await.map_err(unanswered)?;
    let status = response.status().as_u16();
    let limit = match (status, wanted) {
        (200..=299, Wanted::Envelope) => ENVELOPE_BYTES,
        (200..=299, _) => ANSWER_BYTES,
        _ => PROBLEM_BYTES,
    };
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unanswered)? {
        if body.len().saturating_add(chunk.len()) > most {
            return Err(TransportError::TooLong { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok((status, body))
}

/// An answer as what it should be.
fn read(wanted: Wanted, status: u16, body: &[u8]) -> Result<Reply, TransportError> {
    Ok(match (wanted, status) {
        (Wanted::Challenge, 200) => Reply::Challenge(parse(body)?),
        (Wanted::Attestations, 200) => Reply::Attestations(parse(body)?),
        (Wanted::Envelope, 200) => {
            let envelope = Envelope::from_json(body).map_err(|error| unreadable(&error))?;
            Reply::Envelope(envelope)
        }
        (Wanted::Enrolment, 200 | 201) => Reply::Admitted(Box::new(parse(body)?)),
        (Wanted::Enrolment, 202) => Reply::Pending(parse(body)?),
        (Wanted::Renewal, 200) => Reply::Renewal(parse(body)?),
        (Wanted::Taken, 200 | 201) => Reply::Taken,
        _ => return Err(TransportError::Refused(Box::new(problem(status, body)))),
    })
}

/// The body as a problem; one is made of the status where it is none.
fn problem(status: u16, body: &[u8]) -> Problem {
    let mut problem: Problem = from_slice_strict(body)
        .unwrap_or_else(|_| Problem::new(status, "unknown", "answer without a reason"));
    problem.status = status;
    problem
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, TransportError> {
    from_slice_strict(body).map_err(|error| unreadable(&error))
}

fn unreadable(error: &dyn std::error::Error) -> TransportError {
    TransportError::Unreadable {
        reason: shortened(&journal::chain(error)),
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_was_asked_for_or_a_refusal() {
        let refused = |status, body: &[u8]| match read(Wanted::Challenge, status, body) {
            Err(TransportError::Refused(problem)) => *problem,
            other => panic!("{other:?}"),
        };
        let problem = refused(409, br#"{"code":"sequence","title":"t","status":1}"#);
        assert_eq!((problem.status, problem.code.as_str()), (409, "sequence"));
        assert_eq!(refused(502, b"<html>").code, "unknown");
        assert_eq!(refused(204, b"").status, 204);
        assert!(matches!(
            read(Wanted::Challenge, 200, b"{}"),
            Err(TransportError::Unreadable { .. })
        ));
        assert_eq!(read(Wanted::Taken, 201, b"anything").unwrap(), Reply::Taken);
    }

    #[test]
    fn what_the_network_says_is_cut_at_a_letter() {
        let text = "ä".repeat(400);
        assert_eq!(shortened(&text).len(), 512);
        assert_eq!(shortened("short"), "short");
    }

    #[test]
    fn a_manifest_is_unpacked_up_to_its_signed_size() {
        let plain = vec![b'x'; 300_000];
        let mut packed = Vec::new();
        attestation::manifest::compress(plain.as_slice(), &mut packed).unwrap();
        for (signed, right) in [(300_000, true), (299_999, false), (300_001, false)] {
            let (compressed, pieces) = mpsc::channel(64);
            for piece in packed.chunks(100) {
                compressed.try_send(piece.to_vec()).unwrap();
            }
            drop(compressed);
            let (sender, mut receiver) = mpsc::channel(64);
            let unpacked = unpack(PieceReader::new(pieces), signed, &sender);
            drop(sender);
            assert_eq!(unpacked.is_ok(), right, "{signed}");
            let mut length = 0;
            while let Ok(piece) = receiver.try_recv() {
                length += piece.len();
            }
            assert!(length <= 300_000);
        }
    }
}
