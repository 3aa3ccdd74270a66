//! The people's door as a whole, on a collector of its own in a temporary directory.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use tempfile::TempDir;
use tokio::sync::watch;
use tower::ServiceExt as _;

use super::*;
use crate::access::roles::{Need, ROUTES, Role};
use crate::access::{accounts, fresh_token};
use crate::door::Peer;
use crate::settings::CollectorSettings;
use crate::store::{NodeRow, NodeState};
use crate::violations::view::{Step, ViolationView};

struct Bench {
    router: Router,
    app: AppState,
    admin: String,
    viewer: String,
    running: crate::Running,
    _closing: watch::Sender<bool>,
    _state: TempDir,
}

const HOST: &str = "ops.example:8080";

async fn bench() -> Bench {
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
    let first = crate::init(&settings).await.unwrap();
    let running = crate::start(settings, std::future::pending())
        .await
        .unwrap();
    let app = running.state.clone();
    let viewer = fresh_token(&app.store, "auditor", Role::Viewer, "test")
        .await
        .unwrap()
        .to_string();
    let (closing, closed) = watch::channel(false);
    Bench {
        router: router(app.clone(), closed),
        app,
        admin: first.token,
        viewer,
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
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        request.extensions_mut().insert(Peer {
            address: "192.0.2.7:40000".parse().unwrap(),
            tls: false,
        });
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn as_admin(
        &self,
        method: Method,
        path: &str,
        body: &str,
    ) -> (StatusCode, serde_json::Value) {
        let bearer = format!("Bearer {}", self.admin);
        json(
            self.ask(
                method,
                path,
                &[
                    ("authorization", &bearer),
                    ("content-type", "application/json"),
                ],
                body,
            )
            .await,
        )
        .await
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

    async fn add_node(&self, id: &str, name: &str) {
        let mut row = NodeRow::new(
            id.to_owned(),
            name.to_owned(),
            "default".to_owned(),
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
        use crate::violations::store::{Channels, apply};
        let metrics = self.app.metrics.clone();
        let change = Change {
            step: Step::Opened,
            violation,
        };
        self.app
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let channels = Channels {
                        webhooks: &[],
                        metrics: &metrics,
                    };
                    apply(tx, &change, crate::clock::now(), None, &channels).await
                })
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

async fn json(response: Response) -> (StatusCode, serde_json::Value) {
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

fn concrete(path: &str) -> String {
    path.replace("{id}", "00112233445566778899aabbccddeeff")
        .replace("{sha256}", &"ab".repeat(32))
        .replace("{file}", "pristine.css")
}

#[tokio::test]
async fn every_route_asks_for_what_the_table_says_and_for_no_less() {
    let bench = bench().await;
    for route in ROUTES {
        let path = concrete(route.path);
        let with = async |token: Option<&str>| {
            let bearer = token.map(|token| format!("Bearer {token}"));
            let mut headers = vec![("content-type", "application/json")];
            if let Some(bearer) = &bearer {
                headers.push(("authorization", bearer));
            }
            bench
                .ask(route.method.clone(), &path, &headers, "{}")
                .await
                .status()
        };
        let name = format!("{} {}", route.method, route.path);
        // Ends the token that it is asked with; it has a test of its own.
        if name == "DELETE /api/v1/sessions" {
            continue;
        }
        let (nobody, viewer, admin) = (
            with(None).await,
            with(Some(&bench.viewer)).await,
            with(Some(&bench.admin)).await,
        );
        let refused = [
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::METHOD_NOT_ALLOWED,
        ];
        let let_in = |status: StatusCode| !refused.contains(&status);
        let sent_away = |status: StatusCode| {
            status == StatusCode::UNAUTHORIZED || status == StatusCode::SEE_OTHER
        };
        match route.need {
            Need::Open => assert!(nobody != StatusCode::METHOD_NOT_ALLOWED, "{name}: {nobody}"),
            Need::LoopbackOrViewer | Need::SignedIn(Role::Viewer) => {
                assert!(sent_away(nobody), "{name} lets nobody in: {nobody}");
                assert!(
                    let_in(viewer) && let_in(admin),
                    "{name}: viewer {viewer}, admin {admin}"
                );
            }
            Need::SignedIn(Role::Admin) => {
                assert!(sent_away(nobody), "{name} lets nobody in: {nobody}");
                assert_eq!(viewer, StatusCode::FORBIDDEN, "{name} lets a viewer in");
                assert!(let_in(admin), "{name}: admin {admin}");
            }
        }
    }
    bench.running.stop();
}

#[tokio::test]
async fn what_stands_in_no_table_is_refused() {
    let bench = bench().await;
    let (status, _) = bench.as_admin(Method::PATCH, "/nodes", "").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let (status, problem) = bench.as_admin(Method::GET, "/api/v1/nowhere", "").await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (StatusCode::NOT_FOUND, Some("not-found"))
    );
    let (status, page) = bench.page("/nowhere").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(page.contains("There is nothing here"), "{page}");
}

#[tokio::test]
async fn answers_carry_the_security_headers_and_a_request_id() {
    let bench = bench().await;
    let response = bench.ask(Method::GET, "/sign-in", &[], "").await;
    let value = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    assert!(
        value("content-security-policy").contains("default-src 'none'")
            && value("content-security-policy").contains("frame-ancestors 'none'")
    );
    assert!(!value("content-security-policy").contains("unsafe"));
    assert_eq!(
        (
            value("x-content-type-options"),
            value("referrer-policy"),
            value("cache-control")
        ),
        ("nosniff", "same-origin", "no-store")
    );
    assert_eq!(value("x-request-id").len(), 36);
    let page = text(response).await;
    assert!(
        !page.contains("style=") && !page.contains("<style") && !page.contains("onclick"),
        "inline style or script"
    );
    let (status, problem) = json(bench.ask(Method::GET, "/api/v1/nodes", &[], "").await).await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (StatusCode::UNAUTHORIZED, Some("sign-in"))
    );
    assert_eq!(problem["request_id"].as_str().map(str::len), Some(36));
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

#[tokio::test]
async fn a_browser_signs_in_looks_around_and_signs_out() {
    let bench = bench().await;
    accounts::add(
        &bench.app.store,
        "ops",
        "a long password".to_owned().into(),
        Role::Viewer,
        "test",
    )
    .await
    .unwrap();
    let origin = ("origin", "http://ops.example:8080");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let asked = bench.ask(Method::GET, "/nodes?status=lost", &[], "").await;
    assert_eq!(
        asked.headers()[header::LOCATION],
        "/sign-in?next=/nodes%3Fstatus%3Dlost"
    );
    let wrong = bench
        .ask(
            Method::POST,
            "/sign-in",
            &[origin, form],
            "user=ops&password=another",
        )
        .await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert!(
        text(wrong)
            .await
            .contains("No account has this name and password.")
    );
    let foreign = bench
        .ask(
            Method::POST,
            "/sign-in",
            &[("origin", "http://evil.example"), form],
            "user=ops&password=a+long+password",
        )
        .await;
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    let right = bench
        .ask(
            Method::POST,
            "/sign-in",
            &[origin, form],
            "user=ops&password=a+long+password&next=/nodes?status=lost",
        )
        .await;
    assert_eq!(
        (
            right.status(),
            right.headers()[header::LOCATION].to_str().unwrap()
        ),
        (StatusCode::SEE_OTHER, "/nodes?status=lost")
    );
    let cookie = cookie(right.headers());
    assert_eq!(
        bench
            .ask(Method::GET, "/", &[("cookie", &cookie)], "")
            .await
            .status(),
        StatusCode::OK
    );
    let forged = bench
        .ask(Method::POST, "/sign-out", &[("cookie", &cookie)], "")
        .await;
    assert_eq!(forged.status(), StatusCode::FORBIDDEN);
    let out = bench
        .ask(
            Method::POST,
            "/sign-out",
            &[("cookie", &cookie), origin],
            "",
        )
        .await;
    assert_eq!(out.status(), StatusCode::SEE_OTHER);
    assert_eq!(
        bench
            .ask(Method::GET, "/", &[("cookie", &cookie)], "")
            .await
            .status(),
        StatusCode::SEE_OTHER
    );
}

#[tokio::test]
async fn a_program_exchanges_its_password_for_a_token_and_gives_it_back() {
    let bench = bench().await;
    accounts::add(
        &bench.app.store,
        "ci",
        "a long password".to_owned().into(),
        Role::Viewer,
        "test",
    )
    .await
    .unwrap();
    let body = r#"{"user":"ci","password":"a long password"}"#;
    let (status, session) =
        json(bench.ask(Method::POST, "/api/v1/sessions", &[], body).await).await;
    assert_eq!(
        (status, session["role"].as_str()),
        (StatusCode::CREATED, Some("viewer"))
    );
    let bearer = format!("Bearer {}", session["token"].as_str().unwrap());
    let headers = [("authorization", bearer.as_str())];
    let (_, me) = json(bench.ask(Method::GET, "/api/v1/whoami", &headers, "").await).await;
    assert_eq!(
        me,
        serde_json::json!({"user": "ci", "role": "viewer", "by": "token"})
    );
    assert_eq!(
        bench
            .ask(Method::DELETE, "/api/v1/sessions", &headers, "")
            .await
            .status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        bench
            .ask(Method::GET, "/api/v1/whoami", &headers, "")
            .await
            .status(),
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let bench = bench().await;
    let mut last = StatusCode::OK;
    for _ in 0..12 {
        last = bench
            .ask(
                Method::POST,
                "/api/v1/sessions",
                &[],
                r#"{"user":"admin","password":"x"}"#,
            )
            .await
            .status();
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn lists_go_on_where_they_ended() {
    let bench = bench().await;
    for number in 0..5 {
        bench
            .add_node(&format!("{number:032x}"), &format!("web-{number}"))
            .await;
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/nodes?limit=2".to_owned();
    for _ in 0..3 {
        let (status, page) = bench.as_admin(Method::GET, &path, "").await;
        assert_eq!(status, StatusCode::OK, "{page}");
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|node| node["name"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/api/v1/nodes?limit=2&cursor={next}");
    }
    assert_eq!(seen, ["web-0", "web-1", "web-2", "web-3", "web-4"]);
    for refused in ["limit=0", "limit=1001", "limit=x", "cursor=a%20b"] {
        let (status, problem) = bench
            .as_admin(Method::GET, &format!("/api/v1/nodes?{refused}"), "")
            .await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (StatusCode::BAD_REQUEST, Some("malformed")),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_violation_is_in_the_api_on_its_page_and_on_its_nodes_page() {
    let bench = bench().await;
    let mut violation = crate::web::sample::violation();
    violation.image = None;
    violation.path = Some("./usr/bin/p\\012<b>ing".to_owned());
    violation.expected = None;
    violation.found = None;
    bench.add_node(&violation.node, "web-17").await;
    let id = violation.id.clone();
    bench.add_violation(violation.clone()).await;
    let (_, listed) = bench
        .as_admin(
            Method::GET,
            &format!("/api/v1/violations?node={}", violation.node),
            "",
        )
        .await;
    assert_eq!(listed["items"][0]["id"], id.as_str(), "{listed}");
    assert_eq!(listed["items"][0]["path"], "./usr/bin/p\\012<b>ing");
    let (status, one) = bench
        .as_admin(Method::GET, &format!("/api/v1/violations/{id}"), "")
        .await;
    assert_eq!(
        (status, one["fields"][0].as_str()),
        (StatusCode::OK, Some("mode"))
    );
    for path in [
        "/".to_owned(),
        "/violations".to_owned(),
        format!("/violations/{id}"),
        format!("/nodes/{}", violation.node),
        "/nodes".to_owned(),
        "/images".to_owned(),
    ] {
        let (status, page) = bench.page(&path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {page}");
        assert!(page.contains("web-17") || path == "/images", "{path}");
        assert!(!page.contains("<b>ing"), "{path}");
    }
    let (_, page) = bench.page(&format!("/violations/{id}")).await;
    assert!(
        page.contains("mallory") && page.contains("\\012</span>"),
        "{page}"
    );
    let (_, resolved) = bench
        .as_admin(Method::GET, "/api/v1/violations?status=resolved", "")
        .await;
    assert_eq!(resolved["items"], serde_json::json!([]));
}

#[tokio::test]
async fn events_are_streamed_as_they_are_committed() {
    let bench = bench().await;
    let bearer = format!("Bearer {}", bench.admin);
    let response = bench
        .ask(
            Method::GET,
            "/api/v1/events",
            &[("authorization", &bearer)],
            "",
        )
        .await;
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/event-stream"
    );
    let mut violation = crate::web::sample::violation();
    violation.image = None;
    bench.add_violation(violation.clone()).await;
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let sent = String::from_utf8(frame.to_vec()).unwrap();
    assert!(
        sent.starts_with("event: violation\n") && sent.contains(&violation.id),
        "{sent}"
    );
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    let bench = bench().await;
    let (status, made) = bench
        .as_admin(
            Method::POST,
            "/api/v1/tokens",
            r#"{"kind":"api","role":"viewer","label":"grafana"}"#,
        )
        .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let (_, join) = bench
        .as_admin(
            Method::POST,
            "/api/v1/tokens",
            r#"{"kind":"join","group":"web","uses":3}"#,
        )
        .await;
    assert!(
        join["token"]
            .as_str()
            .unwrap()
            .starts_with("pristine-join."),
        "{join}"
    );
    let (_, listed) = bench.as_admin(Method::GET, "/api/v1/tokens", "").await;
    let ids: Vec<&str> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|item| item["id"].as_str())
        .collect();
    assert!(
        ids.contains(&made["id"].as_str().unwrap()) && ids.contains(&join["id"].as_str().unwrap()),
        "{listed}"
    );
    assert!(!listed.to_string().contains(made["token"].as_str().unwrap()));
    let id = made["id"].as_str().unwrap();
    let (status, _) = bench
        .as_admin(Method::DELETE, &format!("/api/v1/tokens/{id}"), "")
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    assert_eq!(
        bench
            .ask(
                Method::GET,
                "/api/v1/whoami",
                &[("authorization", &bearer)],
                ""
            )
            .await
            .status(),
        StatusCode::UNAUTHORIZED
    );
}
