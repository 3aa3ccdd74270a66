//! Somebody tries a channel: a real message, sent now and not by the outbox, and what became of it.

use attestation::time::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::attempt::Outcome;
use super::message::Message;
use crate::access::Person;
use crate::activity::{self, Doing, Target};
use crate::clock;
use crate::problem::ProblemResponse;
use crate::state::AppState;

/// What became of a try.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Trial {
    /// The message's id, as the receiver has it.
    pub id: String,
    /// The channel.
    pub channel: String,
    /// Its kind.
    pub kind: &'static str,
    /// Where to, without what may be secret.
    pub place: String,
    /// Whether the receiver has it.
    pub accepted: bool,
    /// Why not.
    pub error: Option<String>,
    /// How long it took.
    pub milliseconds: u64,
    /// When it was sent.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// Sends a test message to a channel, and writes down who did.
///
/// # Errors
/// When there is no such channel, or the store refuses.
pub async fn trial(app: &AppState, name: &str, by: &Person) -> Result<Trial, ProblemResponse> {
    let alerting = &app.channels.alerting;
    let Some(channel) = alerting.channel(name) else {
        let names: Vec<&str> = alerting
            .channels()
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        return Err(ProblemResponse::not_found(if names.is_empty() {
            "no channel is configured: add a `[[webhook]]`, `[[slack]]`, `[[alertmanager]]` or `[[email]]` to the collector's configuration".to_owned()
        } else {
            format!(
                "there is no channel of this name; there are: {}",
                names.join(", ")
            )
        }));
    };
    let (at, id) = (clock::now(), uuid::Uuid::now_v7().to_string());
    let message = Message::test(&id, &channel.name, &by.user, &alerting.pages, at);
    let outcome = match (channel.test_body(&message, at), alerting.client()) {
        (Ok(body), Ok(client)) => channel.send(&client, &id, body).await,
        (Err(error), _) => Outcome::Refused {
            error: error.to_string(),
        },
        (_, Err(error)) => Outcome::Refused {
            error: error.to_string(),
        },
    };
    let took = clock::now().as_micros().saturating_sub(at.as_micros());
    let (accepted, error) = match outcome {
        Outcome::Accepted => (true, None),
        Outcome::Retry { error, .. } | Outcome::Refused { error } => (false, Some(error)),
    };
    let tried = Trial {
        id,
        channel: channel.name.clone(),
        kind: channel.kind(),
        place: channel.place.clone(),
        accepted,
        error,
        milliseconds: u64::try_from(took / 1_000).unwrap_or(0),
        at,
    };
    write_down(app, tried.clone(), by.clone()).await?;
    Ok(tried)
}

async fn write_down(app: &AppState, tried: Trial, by: Person) -> Result<(), ProblemResponse> {
    app.store
        .write(move |tx| {
            Box::pin(async move {
                let doing = Doing {
                    who: &by,
                    at: tried.at,
                    action: "alert.test",
                    target: Target::new("channel", &tried.channel, &tried.channel),
                    before: json!(null),
                    after: json!({"accepted": tried.accepted, "error": tried.error}),
                    reason: None,
                };
                activity::record(tx, &doing).await
            })
        })
        .await?;
    Ok(())
}
