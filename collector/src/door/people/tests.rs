//! The people's door as a whole, on a collector of its own in a temporary directory.

mod activity;
mod changes;
mod pages;
mod reach;
mod refused;
mod routes;
mod settings;
mod signing_in;
mod tokens_made;

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tower::ServiceExt as _;

use super::*;
use crate::access::accounts::{self, NewAccount};
use crate::access::tokens::{self, NewToken};
use crate::access::{Person, Reach, Role};
use crate::door::Peer;
use crate::settings::CollectorSettings;
use crate::store::{NodeRow, NodeState};
use crate::violations::view::{Step, ViolationView};

struct Bench {
    router: Router,
    app: AppState,
    admin: String,
    running: crate::Running,
    _closing: watch::Sender<bool>,
    _state: TempDir,
}

const HOST: &str = "ops.example:8080";
const ORIGIN: (&str, &str) = ("origin", "http://ops.example:8080");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

async fn bench() -> Bench {
    bench_with(|_| {}).await
}

/// The same, configured.
async fn bench_with(configure: impl FnOnce(&mut CollectorSettings)) -> Bench {
    // A provider that is there already is the same one.
    drop(rustls::crypto::ring::default_provider().install_default());
    let directory = tempfile::tempdir().unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut settings = CollectorSettings::new(directory.path().join("collector"));
    (
        settings.agents,
        settings.join,
        settings.ops,
        settings.journal,
    ) = (any, any, any, false);
    configure(&mut settings);
    let first = crate::init(&settings).await.unwrap();
    let running = crate::start(settings, std::future::pending())
        .await
        .unwrap();
    let app = running.state.clone();
    let (closing, closed) = watch::channel(false);
    Bench {
        router: router(app.clone(), closed),
        app,
        admin: first.token,
        running,
        _closing: closing,
        _state: directory,
    }
}

impl Bench {
    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, HOST);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        self.send("192.0.2.7", request).await
    }

    async fn send(&self, from: &str, mut request: Request) -> Response {
        request.extensions_mut().insert(Peer {
            address: format!("{from}:40000").parse().unwrap(),
            tls: false,
        });
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn as_admin(&self, method: Method, path: &str, body: &str) -> (StatusCode, Value) {
        self.with_token(&self.admin, method, path, body).await
    }

    async fn with_token(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: &str,
    ) -> (StatusCode, Value) {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str())];
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        json(self.ask(method, path, &headers, body).await).await
    }

    /// A token of a role, limited to groups; none for all.
    async fn token(&self, user: &str, role: Role, groups: &[&str]) -> String {
        let new = NewToken {
            user: user.to_owned(),
            role,
            reach: Reach::of(groups.iter().map(|group| (*group).to_owned())),
            label: "test".to_owned(),
            expires: None,
            login: false,
        };
        let issued = tokens::issue(&self.app.store, &Person::local("test"), new).await;
        issued.unwrap().written.to_string()
    }

    /// Signs in as a browser does; the cookie.
    async fn sign_in(&self, user: &str) -> String {
        let body = format!("user={user}&password=a+long+password");
        let answer = self
            .ask(Method::POST, "/sign-in", &[ORIGIN, FORM], &body)
            .await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{user}");
        cookie(answer.headers())
    }

    /// Records of the activity log that fit, the newest first.
    async fn activity(&self, query: &str) -> Vec<Value> {
        let path = format!("/api/v1/activity?limit=1000&{query}");
        let (status, listed) = self.as_admin(Method::GET, &path, "").await;
        assert_eq!(status, StatusCode::OK, "{listed}");
        listed["items"].as_array().unwrap().clone()
    }

    async fn page(&self, path: &str) -> (StatusCode, String) {
        let bearer = format!("Bearer {}", self.admin);
        let response = self
            .ask(
                Method::GET,
                path,
                &[("authorization", &bearer), ("accept", "text/html")],
                "",
            )
            .await;
        (response.status(), text(response).await)
    }

    /// With the password `a long password`.
    async fn add_account(&self, user: &str, role: Role) {
        let new = NewAccount {
            user: user.to_owned(),
            password: "a long password".to_owned().into(),
            role,
            reach: Reach::all(),
        };
        let store = &self.app.store;
        accounts::add(store, &Person::local("test"), new)
            .await
            .unwrap();
    }

    async fn add_node(&self, id: &str, name: &str) {
        self.add_node_in(id, name, "default").await;
    }

    async fn add_node_in(&self, id: &str, name: &str, group: &str) {
        let mut row = NodeRow::new(
            id.to_owned(),
            name.to_owned(),
            group.to_owned(),
            NodeState::Active,
            String::new(),
            crate::clock::now(),
        );
        row.last_received = Some(crate::clock::now());
        row.last_fresh = row.last_received;
        row.verdict = Some("pristine".to_owned());
        self.app
            .store
            .write(move |tx| Box::pin(async move { tx.put_node(row).await }))
            .await
            .unwrap();
    }

    async fn add_violation(&self, violation: ViolationView) {
        use crate::violations::Change;
        use crate::violations::store::apply;
        let channels = self.app.channels.clone();
        let change = Change {
            step: Step::Opened,
            violation,
        };
        self.app
            .store
            .write(move |tx| {
                Box::pin(
                    async move { apply(tx, &change, crate::clock::now(), None, &channels).await },
                )
            })
            .await
            .unwrap();
    }
}

async fn text(response: Response) -> String {
    String::from_utf8(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    )
    .unwrap()
}

async fn json(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

fn concrete(path: &str) -> String {
    path.replace("{id}", "00112233445566778899aabbccddeeff")
        .replace("{sha256}", &"ab".repeat(32))
        .replace("{file}", "pristine.css")
        .replace("{user}", "nobody")
        .replace("{name}", "nothing")
}

fn cookie(headers: &HeaderMap) -> String {
    let set = headers
        .get(header::SET_COOKIE)
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        set.contains("HttpOnly") && set.contains("SameSite=Strict") && set.contains("Path=/"),
        "{set}"
    );
    set.split(';').next().unwrap().to_owned()
}
