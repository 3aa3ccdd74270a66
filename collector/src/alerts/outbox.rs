//! The sender: takes what is due from the outbox, in order for each violation, a few at a time for each channel.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use attestation::time::Timestamp;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use ring::rand::{SecureRandom as _, SystemRandom};
use sqlx::Row as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::event;
use super::signature::{SecretError, SigningSecret};
use crate::clock;
use crate::settings::CollectorSettings;
use crate::store::{Store, StoreError};

/// Deliveries under way to one channel: a slow receiver holds up itself alone.
const PER_CHANNEL: usize = 8;
/// A receiver that has not answered by then has not accepted.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of an answer we read no more than lets the connection be used again.
const ANSWER_BYTES: usize = 16 * 1024;
/// The first pause after a failure; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A pause that a receiver asks for is kept up to this.
const LONGEST_ASKED: Duration = Duration::from_secs(3_600);
/// After three days of trying a delivery is given up on, and stays listed as such.
const GIVE_UP_AFTER_SECS: i64 = 3 * 86_400;
/// How long nothing is looked for when nothing is known to be due.
const IDLE: Duration = Duration::from_secs(30);

struct Channel {
    url: String,
    secret: Result<SigningSecret, SecretError>,
}

struct Due {
    id: String,
    channel: usize,
    body: Vec<u8>,
    created: Timestamp,
    attempts: i64,
}

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Retry {
        error: String,
        after: Option<Duration>,
    },
    Refused {
        error: String,
    },
}

/// Delivers until told to stop. What is under way then is finished or tried again at the next start, under the same id.
pub async fn run(
    store: Store,
    settings: Arc<CollectorSettings>,
    mut shutdown: watch::Receiver<bool>,
) {
    let channels: Arc<Vec<Channel>> = Arc::new(settings.webhooks.iter().map(channel).collect());
    let client = match client() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "alerts cannot be sent: no HTTP client"
            );
            return;
        }
    };
    let mut under_way: HashSet<(usize, String)> = HashSet::new();
    let mut sending: JoinSet<(usize, String)> = JoinSet::new();
    while !*shutdown.borrow() {
        let pause = match start_due(&store, &channels, &client, &mut under_way, &mut sending).await
        {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "outbox could not be read"
                );
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            changed = shutdown.changed() => if changed.is_err() { break },
            () = store.outbox_changed() => {}
            Some(done) = sending.join_next(), if !sending.is_empty() => {
                if let Ok(key) = done {
                    under_way.remove(&key);
                }
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
    // What has been sent gets its mark; what hangs is tried again at the next start.
    let drain = async { while sending.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(2), drain)
        .await
        .is_err()
    {
        sending.abort_all();
    }
}

fn channel(webhook: &crate::settings::Webhook) -> Channel {
    let secret = SigningSecret::parse(&webhook.secret);
    if let Err(error) = &secret {
        tracing::error!(
            channel = webhook.url,
            error = error as &dyn std::error::Error,
            "webhook cannot be signed for"
        );
    }
    Channel {
        url: webhook.url.clone(),
        secret,
    }
}

fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("pristine-collector/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Starts what is due and has a place; how long nothing else will be.
async fn start_due(
    store: &Store,
    channels: &Arc<Vec<Channel>>,
    client: &reqwest::Client,
    under_way: &mut HashSet<(usize, String)>,
    sending: &mut JoinSet<(usize, String)>,
) -> Result<Duration, StoreError> {
    let now = clock::now();
    for index in 0..channels.len() {
        let busy = under_way
            .iter()
            .filter(|(channel, _)| *channel == index)
            .count();
        if busy >= PER_CHANNEL {
            continue;
        }
        let due = due(store, index, &channels[index].url, now).await?;
        let fresh: Vec<Due> = due
            .into_iter()
            .filter(|row| !under_way.contains(&(index, row.id.clone())))
            .collect();
        for row in fresh.into_iter().take(PER_CHANNEL - busy) {
            under_way.insert((index, row.id.clone()));
            let (store, client, channels) = (store.clone(), client.clone(), Arc::clone(channels));
            sending.spawn(async move {
                let key = (row.channel, row.id.clone());
                let channel = &channels[row.channel];
                let outcome = attempt(&client, channel, &row).await;
                note(&store, channel, &row, outcome).await;
                key
            });
        }
    }
    next_due(store, now).await
}

/// What may be sent to a channel now. A step waits for the steps of its violation before it, so that they arrive in order.
async fn due(
    store: &Store,
    index: usize,
    url: &str,
    now: Timestamp,
) -> Result<Vec<Due>, StoreError> {
    let rows = sqlx::query(
        "SELECT o.id, o.body, o.created, o.attempts FROM outbox o LEFT JOIN violation_steps s ON s.id = o.id \
         WHERE o.delivered IS NULL AND o.given_up IS NULL AND o.next_attempt <= ?1 AND o.channel = ?2 \
         AND NOT EXISTS (SELECT 1 FROM violation_steps b JOIN outbox p ON p.id = b.id AND p.channel = o.channel \
           WHERE b.violation = s.violation AND b.seq < s.seq AND p.delivered IS NULL AND p.given_up IS NULL) \
         ORDER BY o.next_attempt, s.seq LIMIT ?3",
    )
    .bind(now.as_micros())
    .bind(url)
    .bind(i64::try_from(PER_CHANNEL * 2).unwrap_or(i64::MAX))
    .fetch_all(store.read_pool())
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Due {
                id: row.try_get("id")?,
                channel: index,
                body: row.try_get("body")?,
                created: Timestamp::from_micros(row.try_get("created")?),
                attempts: row.try_get("attempts")?,
            })
        })
        .collect()
}

async fn next_due(store: &Store, now: Timestamp) -> Result<Duration, StoreError> {
    let next: Option<i64> =
        sqlx::query_scalar("SELECT min(next_attempt) FROM outbox WHERE delivered IS NULL AND given_up IS NULL AND next_attempt > ?")
            .bind(now.as_micros())
            .fetch_one(store.read_pool())
            .await?;
    let wait = next
        .and_then(|next| u64::try_from(next - now.as_micros()).ok())
        .map_or(IDLE, Duration::from_micros);
    Ok(wait.clamp(Duration::from_millis(5), IDLE))
}

async fn attempt(client: &reqwest::Client, channel: &Channel, row: &Due) -> Outcome {
    let secret = match &channel.secret {
        Ok(secret) => secret,
        Err(error) => {
            return Outcome::Refused {
                error: error.to_string(),
            };
        }
    };
    let seconds = clock::now().as_micros() / 1_000_000;
    let request = client
        .post(&channel.url)
        .header(CONTENT_TYPE, event::CONTENT_TYPE)
        .header("webhook-id", &row.id)
        .header("webhook-timestamp", seconds.to_string())
        .header(
            "webhook-signature",
            secret.sign(&row.id, seconds, &row.body),
        )
        .body(row.body.clone());
    match request.send().await {
        Ok(answer) => judge(answer).await,
        Err(error) => Outcome::Retry {
            error: without_url(&error),
            after: None,
        },
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

/// The chain of causes; a webhook's URL may hold a secret and is left out.
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

/// Writes down how an attempt ended; a store that takes no write is asked again, because a delivery without its mark would be repeated.
async fn note(store: &Store, channel: &Channel, row: &Due, outcome: Outcome) {
    let now = clock::now();
    let (delivered, mut given_up, error, next) = match outcome {
        Outcome::Accepted => (Some(now), None, None, now),
        Outcome::Refused { error } => (None, Some(now), Some(error), now),
        Outcome::Retry { error, after } => {
            let pause =
                after.map_or_else(|| backoff(row.attempts), |asked| asked.min(LONGEST_ASKED));
            let pause = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX);
            (
                None,
                None,
                Some(error),
                Timestamp::from_micros(now.as_micros().saturating_add(pause)),
            )
        }
    };
    if delivered.is_none() && next > row.created.saturating_add_secs(GIVE_UP_AFTER_SECS) {
        given_up = Some(now);
    }
    if let Some(error) = &error {
        let attempt = row.attempts + 1;
        if given_up.is_some() {
            tracing::error!(delivery = row.id, attempt, error, "alert given up on");
        } else {
            tracing::warn!(
                delivery = row.id,
                attempt,
                error,
                "alert not delivered, will be tried again"
            );
        }
    }
    loop {
        let (id, url, error) = (row.id.clone(), channel.url.clone(), error.clone());
        let written = store
            .write(move |tx| {
                Box::pin(async move {
                    sqlx::query(
                        "UPDATE outbox SET attempts = attempts + 1, delivered = ?, given_up = ?, last_error = ?, next_attempt = ? \
                         WHERE id = ? AND channel = ?",
                    )
                    .bind(delivered.map(Timestamp::as_micros))
                    .bind(given_up.map(Timestamp::as_micros))
                    .bind(error)
                    .bind(next.as_micros())
                    .bind(id)
                    .bind(url)
                    .execute(&mut tx.connection)
                    .await?;
                    Ok(())
                })
            })
            .await;
        match written {
            Ok(()) | Err(StoreError::Closed) => return,
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

/// Twice as long after each failure, with a fifth of chance either way, so that many deliveries do not knock in step.
fn backoff(attempts: i64) -> Duration {
    let doublings = u32::try_from(attempts.clamp(0, 16)).unwrap_or(0);
    let pause = FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE);
    let mut random = [128_u8];
    // Without random bytes the pause has no jitter.
    let _full = SystemRandom::new().fill(&mut random);
    pause.mul_f64(0.8 + 0.4 * f64::from(random[0]) / 255.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let within = |attempts, seconds: f64| {
            let pause = backoff(attempts).as_secs_f64();
            assert!(
                pause >= seconds * 0.79 && pause <= seconds * 1.21,
                "{attempts}: {pause}"
            );
        };
        within(0, 0.5);
        within(1, 1.0);
        within(5, 16.0);
        within(60, 300.0);
    }
}

#[cfg(test)]
#[path = "outbox/delivery_tests.rs"]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod delivery_tests;
