//! One request, one answer, both bounded.

use std::time::Duration;

use attestation::wire::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest JSON answer that is read: 256 receipts are a quarter of a megabyte.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// The longest envelope: an image statement with a thousand rules of scope, in base64.
const ENVELOPE_BYTES: usize = 16 * 1024 * 1024;
/// A collector that is busy longer is treated as away.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bodies below this go out as they are: two packets either way.
const WORTH_COMPRESSING: usize = 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The request could not be sent, or the answer not received.
    #[error("no answer")]
    Request(#[source] reqwest::Error),
    /// The body cannot be made.
    #[error("make the body of a request")]
    Body(#[source] std::io::Error),
    /// The answer is longer than any that is right.
    #[error("answer is longer than {limit} bytes")]
    TooLong {
        /// The most that is read.
        limit: usize,
    },
    /// The answer is not what the format says.
    #[error("answer cannot be read")]
    Unreadable(#[source] attestation::json::JsonError),
    /// The collector answered with an error.
    #[error("refused: {0}")]
    Refused(Box<Problem>),
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as what it should be.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, TransportError> {
        attestation::json::from_slice_strict(&self.body).map_err(TransportError::Unreadable)
    }

    /// The body as a problem; one is made of the status where it is none.
    pub fn problem(&self) -> Problem {
        let mut problem: Problem = attestation::json::from_slice_strict(&self.body)
            .unwrap_or_else(|_| Problem::new(self.status, "unknown", "answer without a reason"));
        problem.status = self.status;
        problem
    }
}

/// Posts JSON.
pub async fn post<T: Serialize>(
    client: &reqwest::Client,
    url: &str,
    body: &T,
) -> Result<Answer, TransportError> {
    let body = serde_json::to_vec(body).map_err(|error| TransportError::Body(error.into()))?;
    post_bytes(client, url, body).await
}

/// Posts bytes that are JSON already, compressed where that is worth it.
pub async fn post_bytes(
    client: &reqwest::Client,
    url: &str,
    body: Vec<u8>,
) -> Result<Answer, TransportError> {
    let mut request = client
        .post(url)
        .header("content-type", "application/json")
        .timeout(PATIENCE);
    if body.len() >= WORTH_COMPRESSING {
        let compressed = compress(body).await?;
        request = request.header("content-encoding", "gzip").body(compressed);
    } else {
        request = request.body(body);
    }
    whole(
        request.send().await.map_err(TransportError::Request)?,
        ANSWER_BYTES,
    )
    .await
}

/// Gets an envelope.
pub async fn get(client: &reqwest::Client, url: &str) -> Result<Answer, TransportError> {
    let response = client
        .get(url)
        .timeout(PATIENCE)
        .send()
        .await
        .map_err(TransportError::Request)?;
    whole(response, ENVELOPE_BYTES).await
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

async fn whole(mut response: reqwest::Response, limit: usize) -> Result<Answer, TransportError> {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(TransportError::Request)? {
        if body.len().saturating_add(chunk.len()) > limit {
            return Err(TransportError::TooLong { limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, body })
}
