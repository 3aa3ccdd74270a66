//! One attempt to deliver, and how it ended.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};

/// A receiver that has not answered by then has not accepted.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of an answer we read no more than lets the connection be used again.
const ANSWER_BYTES: usize = 16 * 1024;

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Accepted,
    /// It may be tried again.
    Retry {
        /// Why it was not accepted.
        error: String,
        /// The pause that the receiver asks for.
        after: Option<Duration>,
    },
    /// It will never be accepted.
    Refused {
        /// Why.
        error: String,
    },
}

impl Outcome {
    /// It may be tried again, whenever we like.
    pub fn retry(error: String) -> Self {
        Self::Retry { error, after: None }
    }

    /// `accepted`, `retried`, `refused`: for metrics.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Retry { .. } => "retried",
            Self::Refused { .. } => "refused",
        }
    }
}

/// The client of all channels that speak HTTP.
///
/// # Errors
/// When TLS cannot be set up.
pub fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("pristine-collector/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Posts a body.
pub async fn post(
    client: &reqwest::Client,
    url: &str,
    kind: &'static str,
    headers: &[(&'static str, String)],
    body: Vec<u8>,
) -> Outcome {
    let mut request = client.post(url).header(CONTENT_TYPE, kind);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    match request.body(body).send().await {
        Ok(answer) => judge(answer).await,
        Err(error) => Outcome::retry(without_url(&error)),
    }
}

async fn judge(mut answer: reqwest::Response) -> Outcome {
    let status = answer.status();
    let after = answer
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    let mut read = 0;
    while read < ANSWER_BYTES {
        match answer.chunk().await {
            Ok(Some(chunk)) => read += chunk.len(),
            Ok(None) | Err(_) => break,
        }
    }
    if status.is_success() {
        return Outcome::Accepted;
    }
    let error = if status.is_redirection() {
        format!("answered {status}: redirects are not followed")
    } else {
        format!("answered {status}")
    };
    // 410: the receiver says that it will never take any again.
    if status == reqwest::StatusCode::GONE {
        Outcome::Refused { error }
    } else {
        Outcome::Retry {
            error,
            after: after.map(Duration::from_secs),
        }
    }
}

/// The chain of causes; an address may hold a secret and is left out.
fn without_url(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() {
        "no answer in time".to_owned()
    } else {
        "not reached".to_owned()
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text.chars().take(300).collect()
}
