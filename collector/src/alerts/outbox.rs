//! The sender: takes what is due from the outbox, in order for each violation and each change, a few at a time for each channel.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attestation::digest::Digest;
use attestation::time::Timestamp;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::attempt::Outcome;
use super::channel::Channel;
use super::due::{Due, due, next_due};
use super::{Alerting, alertmanager, gather, standing};
use crate::clock;
use crate::metrics::DeliveryLabel;
use crate::store::{Store, StoreError};
use crate::violations::store::Channels;

/// Deliveries under way to one channel: a slow receiver holds up itself alone.
const PER_CHANNEL: usize = 8;
/// The first pause after a failure; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A pause that a receiver asks for is kept up to this.
const LONGEST_ASKED: Duration = Duration::from_secs(3_600);
/// After three days of trying a delivery is given up on, and stays listed as such.
const GIVE_UP_AFTER_SECS: i64 = 3 * 86_400;
/// How often a channel that keeps alerts in memory is told again how all stands.
const STANDING: Duration = Duration::from_secs(60);
/// Alerts in one request of that.
const AT_ONCE: usize = 500;

/// Delivers until told to stop. What is under way then is finished or tried again at the next start, under the same id.
pub async fn run(store: Store, channels: Channels, mut shutdown: watch::Receiver<bool>) {
    let mut sender = Sender {
        store,
        channels,
        under_way: HashSet::new(),
        sending: JoinSet::new(),
    };
    if let Err(error) = sender.adopt().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "outbox of channels that have changed not looked at"
        );
    }
    let mut told: Option<Instant> = None;
    while !*shutdown.borrow() {
        if told.is_none_or(|told| told.elapsed() >= STANDING) {
            told = Some(Instant::now());
            sender.tell_standing();
        }
        let pause = match sender.start_due().await {
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
            () = sender.store.outbox_changed() => {}
            Some(done) = sender.sending.join_next(), if !sender.sending.is_empty() => {
                if let Ok(key) = done {
                    sender.under_way.remove(&key);
                }
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
    // What has been sent gets its mark; what hangs is tried again at the next start.
    let drain = async { while sender.sending.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(2), drain)
        .await
        .is_err()
    {
        sender.sending.abort_all();
    }
}

type Key = (usize, String);

struct Sender {
    store: Store,
    channels: Channels,
    under_way: HashSet<Key>,
    sending: JoinSet<Key>,
}

impl Sender {
    /// What waits for a webhook that has got a name waits under that name; what waits for a channel that is gone is given up on, visibly.
    async fn adopt(&self) -> Result<(), StoreError> {
        let alerting = Arc::clone(&self.channels.alerting);
        let now = clock::now().as_micros();
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    for channel in alerting.channels() {
                        let Some(url) = channel.url_once_its_key() else { continue };
                        sqlx::query("UPDATE OR IGNORE outbox SET channel = ? WHERE channel = ? AND delivered IS NULL AND given_up IS NULL")
                            .bind(&channel.key)
                            .bind(url)
                            .execute(&mut tx.connection)
                            .await?;
                    }
                    let keys: Vec<&str> = alerting.channels().iter().map(|it| it.key.as_str()).collect();
                    sqlx::query(
                        "UPDATE outbox SET given_up = ?, last_error = 'the channel is no longer configured' WHERE delivered IS NULL \
                         AND given_up IS NULL AND channel NOT IN (SELECT value FROM json_each(?))",
                    )
                    .bind(now)
                    .bind(serde_json::json!(keys).to_string())
                    .execute(&mut tx.connection)
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    /// Starts what is due and has a place; how long nothing else will be.
    async fn start_due(&mut self) -> Result<Duration, StoreError> {
        let now = clock::now();
        for index in 0..self.channels.alerting.channels().len() {
            let busy = self
                .under_way
                .iter()
                .filter(|(channel, _)| *channel == index)
                .count();
            if busy >= PER_CHANNEL {
                continue;
            }
            let key = &self.channels.alerting.channels()[index].key;
            let due = due(&self.store, index, key, now, PER_CHANNEL * 2).await?;
            let fresh: Vec<Due> = due
                .into_iter()
                .filter(|row| !self.under_way.contains(&(index, row.id.clone())))
                .collect();
            for row in fresh.into_iter().take(PER_CHANNEL - busy) {
                let key = (index, row.id.clone());
                self.under_way.insert(key.clone());
                let delivery = Delivery {
                    store: self.store.clone(),
                    channels: self.channels.clone(),
                    row,
                };
                self.sending.spawn(async move {
                    delivery.deliver().await;
                    key
                });
            }
        }
        next_due(&self.store, now).await
    }

    /// Tells channels that keep alerts in memory how all stands. Nothing waits for it: what it fails to tell is told the next time.
    fn tell_standing(&mut self) {
        for (index, channel) in self.channels.alerting.channels().iter().enumerate() {
            let key = (index, String::new());
            if !channel.updates() || !self.under_way.insert(key.clone()) {
                continue;
            }
            let (store, channels) = (self.store.clone(), self.channels.clone());
            self.sending.spawn(async move {
                let channel = &channels.alerting.channels()[index];
                if let Err(error) = standing_to(&store, &channels.alerting, channel).await {
                    tracing::warn!(channel = channel.name, error, "alerts that stand not told");
                }
                key
            });
        }
    }
}

async fn standing_to(store: &Store, alerting: &Alerting, channel: &Channel) -> Result<(), String> {
    let client = alerting.client().map_err(|error| error.to_string())?;
    let all = standing::all(store.read_pool(), alerting, channel, clock::now())
        .await
        .map_err(|error| error.to_string())?;
    for some in all.chunks(AT_ONCE) {
        match channel
            .send(&client, "standing", alertmanager::body(some))
            .await
        {
            Outcome::Accepted => {}
            Outcome::Retry { error, .. } | Outcome::Refused { error } => return Err(error),
        }
    }
    Ok(())
}

/// One message on its way to one channel.
struct Delivery {
    store: Store,
    channels: Channels,
    row: Due,
}

impl Delivery {
    fn channel(&self) -> &Channel {
        &self.channels.alerting.channels()[self.row.channel]
    }

    async fn deliver(&self) {
        let body = match self.body().await {
            Ok(Some(body)) => body,
            // It gathers on, or was settled by somebody else.
            Ok(None) | Err(StoreError::Closed) => return,
            Err(error) => {
                self.note(Outcome::retry(error.to_string())).await;
                return;
            }
        };
        let outcome = match self.channels.alerting.client() {
            Ok(client) => self.channel().send(&client, &self.row.id, body).await,
            Err(error) => Outcome::retry(error.to_string()),
        };
        self.note(outcome).await;
    }

    /// The bytes to send: those that are stored, after the message is closed where it gathers.
    async fn body(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let body = if self.row.gathers {
            let (alerting, id, index) = (
                Arc::clone(&self.channels.alerting),
                self.row.id.clone(),
                self.row.channel,
            );
            let closed = self
                .store
                .write(move |tx| {
                    Box::pin(async move {
                        let channel = &alerting.channels()[index];
                        gather::close(tx, &alerting, channel, &id, clock::now()).await
                    })
                })
                .await?;
            match closed {
                Some(body) => body,
                None => return Ok(None),
            }
        } else {
            self.row.body.clone()
        };
        match &self.row.change {
            Some(change) if self.channel().updates() => self.standing(change).await.map(Some),
            _ => Ok(Some(body)),
        }
    }

    /// How the change stands now: what was true when the message began may be over.
    async fn standing(&self, change: &Digest) -> Result<Vec<u8>, StoreError> {
        let alerting = &self.channels.alerting;
        let pool = self.store.read_pool();
        // Of the first message about it: labels must be what they were.
        let record: Option<String> = sqlx::query_scalar(
            "SELECT s.record FROM outbox o JOIN message_steps m ON m.message = o.id JOIN violation_steps s ON s.id = m.step \
             WHERE o.channel = ? AND o.change = ? ORDER BY o.id, s.seq LIMIT 1",
        )
        .bind(&self.channel().key)
        .bind(change.as_bytes().as_slice())
        .fetch_optional(pool)
        .await?;
        let first = record
            .and_then(|record| serde_json::from_str(&record).ok())
            .ok_or_else(|| StoreError::corrupt("violation_steps.record: a message of nothing"))?;
        let now = clock::now();
        let alert = standing::alert(
            pool,
            alerting,
            self.channel(),
            &self.row.id,
            change,
            &first,
            now,
        )
        .await?;
        Ok(alertmanager::body(&[alert]))
    }

    /// Writes down how an attempt ended; a store that takes no write is asked again, because a delivery without its mark would be
    /// repeated.
    async fn note(&self, outcome: Outcome) {
        let label = DeliveryLabel {
            channel: self.channel().name.clone(),
            outcome: outcome.word(),
        };
        self.channels.metrics.deliveries.get_or_create(&label).inc();
        let settled = settle(outcome, &self.row, clock::now());
        if let Some(error) = &settled.error {
            let (delivery, channel, attempt) =
                (&self.row.id, &self.channel().name, self.row.attempts + 1);
            if settled.given_up.is_some() {
                tracing::error!(delivery, channel, attempt, error, "alert given up on");
            } else {
                tracing::warn!(
                    delivery,
                    channel,
                    attempt,
                    error,
                    "alert not delivered, will be tried again"
                );
            }
        }
        loop {
            let (id, key, settled) = (
                self.row.id.clone(),
                self.channel().key.clone(),
                settled.clone(),
            );
            let written = self
                .store
                .write(move |tx| {
                    Box::pin(async move {
                        sqlx::query(
                            "UPDATE outbox SET attempts = attempts + 1, delivered = ?, given_up = ?, last_error = ?, next_attempt = ? \
                             WHERE id = ? AND channel = ?",
                        )
                        .bind(settled.delivered.map(Timestamp::as_micros))
                        .bind(settled.given_up.map(Timestamp::as_micros))
                        .bind(settled.error)
                        .bind(settled.next.as_micros())
                        .bind(id)
                        .bind(key)
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
}

/// What is written down of an attempt.
#[derive(Clone)]
struct Settled {
    delivered: Option<Timestamp>,
    given_up: Option<Timestamp>,
    error: Option<String>,
    next: Timestamp,
}

fn settle(outcome: Outcome, row: &Due, now: Timestamp) -> Settled {
    let mut settled = Settled {
        delivered: None,
        given_up: None,
        error: None,
        next: now,
    };
    match outcome {
        Outcome::Accepted => settled.delivered = Some(now),
        Outcome::Refused { error } => {
            settled.given_up = Some(now);
            settled.error = Some(error);
        }
        Outcome::Retry { error, after } => {
            let pause =
                after.map_or_else(|| backoff(row.attempts), |asked| asked.min(LONGEST_ASKED));
            let pause = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX);
            settled.error = Some(error);
            settled.next = Timestamp::from_micros(now.as_micros().saturating_add(pause));
            if settled.next > row.tried_from.saturating_add_secs(GIVE_UP_AFTER_SECS) {
                settled.given_up = Some(now);
            }
        }
    }
    settled
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

    #[test]
    fn patience_ends_after_three_days_and_begins_anew_with_another_try() {
        let row = |tried_from| Due {
            id: "m".to_owned(),
            channel: 0,
            body: Vec::new(),
            gathers: false,
            change: None,
            tried_from: Timestamp::from_micros(tried_from),
            attempts: 40,
        };
        let now = Timestamp::from_micros(GIVE_UP_AFTER_SECS * 1_000_000);
        let failed = || Outcome::retry("down".to_owned());
        assert!(settle(failed(), &row(0), now).given_up.is_some());
        assert!(
            settle(failed(), &row(now.as_micros()), now)
                .given_up
                .is_none()
        );
        let refused = Outcome::Refused {
            error: "gone".to_owned(),
        };
        assert!(
            settle(refused, &row(now.as_micros()), now)
                .given_up
                .is_some()
        );
        assert!(settle(Outcome::Accepted, &row(0), now).delivered.is_some());
    }
}

#[cfg(test)]
#[path = "outbox/delivery_tests.rs"]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod delivery_tests;
