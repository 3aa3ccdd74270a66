//! Deliveries to a receiver that can be made to fail.

use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, StatusCode};

use super::*;
use crate::access::Reach;
use crate::alerts::{Delivery as Listed, DeliveryFilter, SigningSecret, deliveries};
use crate::metrics::Metrics;
use crate::settings::{CollectorSettings, Webhook};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What a receiver has got, and how it answers the first times.
#[derive(Default)]
struct Receiver {
    got: Mutex<Vec<(String, bool)>>,
    answers: Mutex<Vec<StatusCode>>,
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> Response {
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (id, seconds) = (
        text("webhook-id"),
        text("webhook-timestamp").parse().unwrap(),
    );
    let signed = SigningSecret::parse(SECRET)
        .unwrap()
        .sign(&id, seconds, &body);
    let good = signed == text("webhook-signature")
        && text("content-type") == "application/cloudevents+json";
    receiver.got.lock().unwrap().push((id, good));
    let answer = receiver
        .answers
        .lock()
        .unwrap()
        .pop()
        .unwrap_or(StatusCode::NO_CONTENT);
    if answer.is_redirection() {
        (answer, [("location", "/elsewhere")]).into_response()
    } else {
        answer.into_response()
    }
}

struct Bench {
    store: Store,
    url: String,
    receiver: Arc<Receiver>,
    stop: watch::Sender<bool>,
    run: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

async fn bench(answers: &[StatusCode]) -> Bench {
    drop(rustls::crypto::ring::default_provider().install_default());
    let receiver = Arc::new(Receiver {
        answers: Mutex::new(answers.iter().rev().copied().collect()),
        ..Receiver::default()
    });
    let router = Router::new()
        .route("/hook", post(receive))
        .with_state(receiver.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.db"))
        .await
        .unwrap();
    let mut settings = CollectorSettings::new(directory.path().to_owned());
    settings.webhooks = vec![Webhook::new(url.clone(), SECRET.to_owned())];
    let channels = Channels {
        alerting: Arc::new(Alerting::new(&settings, settings.ops)),
        metrics: Arc::new(Metrics::new()),
    };
    let (stop, stopped) = watch::channel(false);
    let run = tokio::spawn(run(store.clone(), channels, stopped));
    Bench {
        store,
        url,
        receiver,
        stop,
        run,
        _directory: directory,
    }
}

impl Bench {
    async fn put(&self, id: &str, violation: &str) {
        let (id, violation, url) = (id.to_owned(), violation.to_owned(), self.url.clone());
        self.store
            .write(move |tx| {
                Box::pin(async move {
                    sqlx::query("INSERT INTO violation_steps (id, violation, step, at, record) VALUES (?, ?, 'opened', 0, '{}')")
                        .bind(&id)
                        .bind(violation)
                        .execute(&mut tx.connection)
                        .await?;
                    let now = clock::now().as_micros();
                    sqlx::query("INSERT INTO outbox (id, channel, body, created, next_attempt) VALUES (?, ?, X'7B7D', ?, ?)")
                        .bind(&id)
                        .bind(url)
                        .bind(now)
                        .bind(now)
                        .execute(&mut tx.connection)
                        .await?;
                    tx.outbox_changed();
                    Ok(())
                })
            })
            .await
            .unwrap();
    }

    /// Waits until so many deliveries are settled.
    async fn settled(&self, count: usize) -> Vec<Listed> {
        loop {
            let all = deliveries(
                &self.store,
                None,
                &Reach::all(),
                DeliveryFilter::default(),
                100,
            )
            .await
            .unwrap();
            if all
                .iter()
                .filter(|one| one.delivered.is_some() || one.given_up.is_some())
                .count()
                >= count
            {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn got(&self) -> Vec<String> {
        let got = self.receiver.got.lock().unwrap();
        assert!(
            got.iter().all(|(_, good)| *good),
            "a delivery was not signed as it should be"
        );
        got.iter().map(|(id, _)| id.clone()).collect()
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.run.await.unwrap();
    }
}

#[tokio::test]
async fn a_refused_delivery_comes_again_under_the_same_id_and_later_steps_wait_for_it() {
    let bench = bench(&[StatusCode::SERVICE_UNAVAILABLE, StatusCode::FOUND]).await;
    bench.put("01-opened", "v1").await;
    bench.put("02-updated", "v1").await;
    bench.settled(2).await;
    assert_eq!(
        bench.got(),
        ["01-opened", "01-opened", "01-opened", "02-updated"]
    );
    bench.end().await;
}

#[tokio::test]
async fn another_violation_does_not_wait() {
    let bench = bench(&[StatusCode::INTERNAL_SERVER_ERROR]).await;
    bench.put("01", "v1").await;
    loop {
        if !bench.got().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.put("02", "v2").await;
    bench.settled(1).await;
    assert_eq!(bench.got()[..2], ["01", "02"]);
    bench.end().await;
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_given_up_on_and_says_so() {
    let bench = bench(&[StatusCode::GONE]).await;
    bench.put("01", "v1").await;
    let all = bench.settled(1).await;
    assert!(
        all[0].given_up.is_some()
            && all[0]
                .last_error
                .as_deref()
                .is_some_and(|error| error.contains("410")),
        "{:?}",
        all[0]
    );
    bench.end().await;
}
