//! `GET /api/v1/events`: what happens within reach, as server-sent events named `verdict`, `violation`, `session` and `node`.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::Stream;
use http::StatusCode;
use tokio::sync::broadcast::error::RecvError;

use super::Answer;
use crate::access::{Person, Reach};
use crate::door::people::People;
use crate::problem::ProblemResponse;
use crate::store::Store;

/// Proxies close what is silent; and a listener that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Streams events until the listener goes, or has lagged so far behind that it must read anew.
#[utoipa::path(get, path = "/api/v1/events", operation_id = "events_stream", tag = "events", responses((status = 200, body = String, content_type = "text/event-stream")))]
pub async fn stream(
    State(people): State<People>,
    Extension(person): Extension<Person>,
) -> Answer<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let Ok(place) = people.listeners.clone().try_acquire_owned() else {
        return Err(ProblemResponse::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "listeners",
            "too many listen to events already",
        )
        .with_retry_after(30));
    };
    let receiver = people.app.store.events().subscribe();
    let (store, reach) = (people.app.store.clone(), person.reach);
    let state = (receiver, place, people.closing.clone(), store, reach);
    let events = futures_util::stream::unfold(
        state,
        |(mut receiver, place, mut closing, store, reach)| async move {
            loop {
                let received = tokio::select! {
                    received = receiver.recv() => received,
                    () = closing.closed() => return None,
                };
                match received {
                    Ok(event) => {
                        if within(&store, &reach, &event).await
                            && let Some(sent) = written(&event)
                        {
                            return Some((Ok(sent), (receiver, place, closing, store, reach)));
                        }
                    }
                    // The browser connects again and the page reads what it missed.
                    Err(RecvError::Lagged(_) | RecvError::Closed) => return None,
                }
            }
        },
    );
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Whether a listener may hear of it. A node whose group cannot be read now is left out: the page asks again by itself.
async fn within(store: &Store, reach: &Reach, event: &crate::events::Event) -> bool {
    if reach.is_all() {
        return true;
    }
    if let Some(group) = event.group() {
        return reach.reaches(group);
    }
    let Some(node) = event.node() else {
        return false;
    };
    let group: Result<Option<String>, _> = sqlx::query_scalar("SELECT grp FROM nodes WHERE id = ?")
        .bind(node)
        .fetch_optional(store.read_pool())
        .await;
    group.is_ok_and(|group| group.is_some_and(|group| reach.reaches(&group)))
}

fn written(event: &crate::events::Event) -> Option<Event> {
    use crate::events::Event as What;
    let data = match event {
        What::Verdict(verdict) => serde_json::to_string(verdict),
        What::Violation(violation) => serde_json::to_string(violation),
        What::Session(session) => serde_json::to_string(session),
        What::Change(change) => serde_json::to_string(change),
        What::Node(node) => serde_json::to_string(node),
    };
    Some(Event::default().event(event.name()).data(data.ok()?))
}
