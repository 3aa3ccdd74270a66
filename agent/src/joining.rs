//! Asking at the joining door as a node that has a name there already: for a certificate, for another key, for its place.

use std::future::Future;

use serde::Serialize;

use crate::transport::TransportError;

/// Why no joining door gave an answer to act on.
#[derive(Debug, thiserror::Error)]
pub enum JoiningError {
    /// Enrolment kept no address.
    #[error("the address of the joining door is not known; enrol anew")]
    NoDoor,
    /// None answered, or one refused; this is of the last one.
    #[error("ask at the joining door {url}")]
    Door {
        /// The door.
        url: String,
        /// Why.
        source: TransportError,
    },
}

/// Asks each door in turn until one answers with more than "later".
pub async fn ask<B, T, F>(
    doors: &[String],
    path: &str,
    body: &B,
    mut ask: impl FnMut(String, Vec<u8>) -> F,
) -> Result<T, JoiningError>
where
    B: Serialize,
    F: Future<Output = Result<T, TransportError>>,
{
    let mut last = JoiningError::NoDoor;
    for door in doors {
        let failed = |source| JoiningError::Door {
            url: door.clone(),
            source,
        };
        let body =
            serde_json::to_vec(body).map_err(|error| failed(TransportError::Body(error.into())))?;
        let url = format!("{}{path}", door.trim_end_matches('/'));
        match ask(url, body).await {
            Ok(answer) => return Ok(answer),
            Err(TransportError::Refused(problem)) if !matches!(problem.status, 429 | 500..=599) => {
                return Err(failed(TransportError::Refused(problem)));
            }
            Err(error) => last = failed(error),
        }
    }
    Err(last)
}
