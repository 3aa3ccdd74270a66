//! A webhook receiver as a customer would write it: checks the Standard Webhooks signature, keeps every delivery, and can be told to
//! answer with errors.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde_json::Value;

use crate::RUNTIME;

/// One request that arrived.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// `webhook-id`: one for each step of a violation.
    pub id: String,
    /// The CloudEvent.
    pub event: Value,
    /// When it was here in full.
    pub arrived: Instant,
    /// Whether we answered that we have it.
    pub accepted: bool,
}

impl Delivery {
    /// The CloudEvents type without its prefix: `opened`, `updated`, `resolved`.
    pub fn step(&self) -> &str {
        let kind = self.event["type"].as_str().unwrap_or_default();
        kind.strip_prefix("dev.pristine.violation.").unwrap_or(kind)
    }

    /// The violation as the API gives it.
    pub fn violation(&self) -> &Value {
        &self.event["data"]
    }
}

#[derive(Debug)]
struct Inbox {
    key: hmac::Key,
    deliveries: Mutex<Vec<Delivery>>,
    refused: Mutex<Vec<String>>,
    failing: AtomicBool,
}

/// The receiver; it listens as long as the test runs.
#[derive(Debug, Clone)]
pub struct Receiver {
    inbox: Arc<Inbox>,
    /// Where it listens.
    pub address: SocketAddr,
    /// The shared secret in its usual form, `whsec_…`.
    pub secret: String,
}

impl Receiver {
    /// Listens on a free port of this machine.
    pub fn start() -> Self {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key).expect("random bytes");
        Self::at("127.0.0.1:0", &format!("whsec_{}", STANDARD.encode(key)))
    }

    /// Listens at `address` with a secret that somebody else made.
    pub fn at(address: &str, secret: &str) -> Self {
        let raw = STANDARD
            .decode(secret.trim_start_matches("whsec_"))
            .expect("a base64 secret");
        let inbox = Arc::new(Inbox {
            key: hmac::Key::new(hmac::HMAC_SHA256, &raw),
            deliveries: Mutex::default(),
            refused: Mutex::default(),
            failing: AtomicBool::new(false),
        });
        let listener = RUNTIME
            .block_on(tokio::net::TcpListener::bind(address))
            .expect("a free port");
        let address = listener.local_addr().expect("its address");
        let routes = Router::new()
            .route("/hook", post(receive))
            .with_state(Arc::clone(&inbox));
        RUNTIME.spawn(async move { axum::serve(listener, routes).await });
        Self {
            inbox,
            address,
            secret: secret.to_owned(),
        }
    }

    /// The address to configure.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Whether it answers 503 from now on.
    pub fn fail(&self, failing: bool) {
        self.inbox.failing.store(failing, Ordering::SeqCst);
    }

    /// Everything that arrived with a right signature, in order.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.inbox.deliveries.lock().expect("deliveries").clone()
    }

    /// Forgets what arrived so far: hours of changes bring more than anybody wants to keep.
    pub fn forget(&self) {
        self.inbox.deliveries.lock().expect("deliveries").clear();
    }

    /// The first delivery of `step` of this violation.
    pub fn find(&self, step: &str, violation: &str) -> Option<Delivery> {
        let here = self.inbox.deliveries.lock().expect("deliveries");
        here.iter()
            .find(|d| d.step() == step && d.violation()["id"] == violation && d.accepted)
            .cloned()
    }

    /// Why requests were turned away: must be empty at the end of every test.
    pub fn refused(&self) -> Vec<String> {
        self.inbox.refused.lock().expect("refusals").clone()
    }
}

async fn receive(State(inbox): State<Arc<Inbox>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let arrived = Instant::now();
    match check(&inbox.key, &headers, &body) {
        Err(reason) => {
            inbox.refused.lock().expect("refusals").push(reason);
            StatusCode::UNAUTHORIZED
        }
        Ok((id, event)) => {
            let accepted = !inbox.failing.load(Ordering::SeqCst);
            inbox.deliveries.lock().expect("deliveries").push(Delivery {
                id,
                event,
                arrived,
                accepted,
            });
            if accepted {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
}

fn check(key: &hmac::Key, headers: &HeaderMap, body: &[u8]) -> Result<(String, Value), String> {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .ok_or(format!("no {name}"))
    };
    let (id, stamp) = (header("webhook-id")?, header("webhook-timestamp")?);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|e| e.to_string())?
        .as_secs();
    let sent: u64 = stamp
        .parse()
        .map_err(|_| format!("webhook-timestamp {stamp} is not a number of seconds"))?;
    if now.abs_diff(sent) > 300 {
        return Err(format!("webhook-timestamp {stamp} is far from now, {now}"));
    }
    let signed = [id.as_bytes(), b".", stamp.as_bytes(), b".", body].concat();
    let verifies = |text: &str| {
        let bytes = text
            .strip_prefix("v1,")
            .and_then(|b64| STANDARD.decode(b64).ok());
        bytes.is_some_and(|tag| hmac::verify(key, &signed, &tag).is_ok())
    };
    if !header("webhook-signature")?.split(' ').any(verifies) {
        return Err(format!("the signature of {id} does not verify"));
    }
    let event: Value = serde_json::from_slice(body).map_err(|e| format!("{id} is no JSON: {e}"))?;
    for member in ["id", "source", "type", "data"] {
        if event["specversion"] != "1.0" || event[member].is_null() {
            return Err(format!("{id} is no CloudEvent 1.0: no {member} in {event}"));
        }
    }
    Ok((id.to_owned(), event))
}
