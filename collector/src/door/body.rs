//! Request bodies: bounded by what they declare and by what they are, before and after decompression.

use std::io::Read;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::pace::TooSlow;
use crate::problem::ProblemResponse;

/// A request with 4 MiB of envelopes, and the JSON around them.
const COMPRESSED: usize = (4 << 20) + (64 << 10);
/// What a compressed body may become.
const PLAIN: usize = 8 << 20;

/// Why a body is not taken.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It declares, or has, more than is taken.
    #[error("a body has at most {limit} bytes")]
    TooLarge {
        /// The most that is taken.
        limit: usize,
    },
    /// It decompresses to more than is taken.
    #[error("a body has at most {limit} bytes when decompressed")]
    Bomb {
        /// The most that is taken.
        limit: usize,
    },
    /// Its compression is broken.
    #[error("the body is no gzip")]
    Gzip,
    /// Its encoding is none that is taken.
    #[error("the content encoding is neither gzip nor identity")]
    Encoding,
    /// The connection broke off.
    #[error("the body broke off")]
    Broken,
    /// It came too slowly.
    #[error("the body came too slowly")]
    Slow,
    /// It is no JSON of the right shape.
    #[error("the body cannot be read: {reason}")]
    Json {
        /// Why not.
        reason: String,
    },
}

impl From<BodyError> for ProblemResponse {
    fn from(error: BodyError) -> Self {
        let detail = error.to_string();
        match error {
            BodyError::TooLarge { .. } => Self::too_large(detail),
            BodyError::Bomb { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "bomb", detail),
            BodyError::Slow => Self::new(StatusCode::REQUEST_TIMEOUT, "slow", detail),
            BodyError::Encoding => {
                Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoding", detail)
            }
            BodyError::Gzip | BodyError::Broken | BodyError::Json { .. } => Self::malformed(detail),
        }
    }
}

/// Reads a body of at most `limit` bytes; a longer one is refused by its declared length, without reading.
pub async fn read_body(request: Request<Body>, limit: usize) -> Result<Bytes, BodyError> {
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared
        .is_some_and(|declared| usize::try_from(declared).map_or(true, |declared| declared > limit))
    {
        return Err(BodyError::TooLarge { limit });
    }
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge { limit }),
        Err(error) if is_slow(error.as_ref()) => Err(BodyError::Slow),
        Err(_broken) => Err(BodyError::Broken),
    }
}

/// Whether a body ended because it came too slowly.
fn is_slow(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|cause| cause.is::<TooSlow>())
}

/// Reads a JSON body, gzip or plain, strictly. The plain size is given with it: budgets count that.
pub async fn read_json<T>(request: Request<Body>) -> Result<(T, usize), BodyError>
where
    T: DeserializeOwned + Send + 'static,
{
    read_json_within(request, COMPRESSED, PLAIN).await
}

/// The same with limits of its own, before and after decompression.
pub async fn read_json_within<T>(
    request: Request<Body>,
    compressed: usize,
    plain: usize,
) -> Result<(T, usize), BodyError>
where
    T: DeserializeOwned + Send + 'static,
{
    let gzip = match request
        .headers()
        .get(header::CONTENT_ENCODING)
        .map(|value| value.as_bytes())
    {
        None | Some(b"identity") => false,
        Some(b"gzip") => true,
        Some(_) => return Err(BodyError::Encoding),
    };
    let body = read_body(request, compressed).await?;
    // Small bodies are parsed where they are; a thread change costs more than they do.
    if body.len() <= 16 << 10 {
        return parse(&body, gzip, plain);
    }
    tokio::task::spawn_blocking(move || parse(&body, gzip, plain))
        .await
        .map_err(|_gone| BodyError::Broken)?
}

fn parse<T: DeserializeOwned>(
    body: &[u8],
    gzip: bool,
    limit: usize,
) -> Result<(T, usize), BodyError> {
    let plain;
    let bytes = if gzip {
        plain = decompress(body, limit)?;
        plain.as_slice()
    } else {
        body
    };
    let value = attestation::json::from_slice_strict(bytes).map_err(|error| BodyError::Json {
        reason: error.to_string(),
    })?;
    Ok((value, bytes.len()))
}

fn decompress(body: &[u8], limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut plain = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    flate2::read::GzDecoder::new(body)
        .take(most)
        .read_to_end(&mut plain)
        .map_err(|_bad| BodyError::Gzip)?;
    if plain.len() > limit {
        return Err(BodyError::Bomb { limit });
    }
    Ok(plain)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(plain).unwrap();
        writer.finish().unwrap()
    }

    async fn read(
        request: http::request::Builder,
        body: impl Into<Body>,
    ) -> Result<(serde_json::Value, usize), BodyError> {
        read_json(request.body(body.into()).unwrap()).await
    }

    #[tokio::test]
    async fn ten_declared_gigabytes_are_refused_without_reading() {
        let request = http::Request::builder().header("content-length", "10000000000");
        assert!(matches!(
            read(
                request,
                Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>())
            )
            .await,
            Err(BodyError::TooLarge { .. })
        ));
    }

    #[tokio::test]
    async fn a_bomb_is_refused() {
        let bomb = gzip(&vec![b' '; 64 << 20]);
        assert!(bomb.len() < COMPRESSED);
        let request = http::Request::builder().header("content-encoding", "gzip");
        assert!(matches!(
            read(request, bomb).await,
            Err(BodyError::Bomb { .. })
        ));
    }

    #[tokio::test]
    async fn garbage_and_truncation_are_refused() {
        let request = || http::Request::builder().header("content-encoding", "gzip");
        assert!(matches!(
            read(request(), b"garbage".to_vec()).await,
            Err(BodyError::Gzip)
        ));
        let whole = gzip(b"{\"a\":1}");
        assert!(matches!(
            read(request(), whole[..whole.len() - 9].to_vec()).await,
            Err(BodyError::Gzip)
        ));
        assert!(matches!(
            read(http::Request::builder(), b"{\"a\":1,\"a\":2}".to_vec()).await,
            Err(BodyError::Json { .. })
        ));
        assert_eq!(read(request(), whole).await.unwrap().1, 7);
    }

    #[tokio::test]
    async fn what_streams_on_without_end_is_cut_off() {
        let endless = futures_util::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1 << 16]))
        });
        assert!(matches!(
            read(http::Request::builder(), Body::from_stream(endless)).await,
            Err(BodyError::TooLarge { .. })
        ));
    }
}
