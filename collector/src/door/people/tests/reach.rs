//! What is beyond somebody's reach does not exist for them.

use attestation::digest::Digest;

use super::*;
use crate::store::StoreError;

const WEB: &str = "00000000000000000000000000000001";
const DB: &str = "00000000000000000000000000000002";

/// A node in each of two groups, with a violation each; the ids of the violations.
async fn two_groups(bench: &Bench) -> (String, String) {
    bench.add_node_in(WEB, "web-1", "web").await;
    bench.add_node_in(DB, "db-1", "db").await;
    let mut ids = Vec::new();
    for (node, id) in [(WEB, "a"), (DB, "b")] {
        let mut violation = crate::web::sample::violation();
        violation.image = None;
        violation.node = node.to_owned();
        violation.id = format!("01990000-0000-7000-8000-00000000000{id}");
        ids.push(violation.id.clone());
        bench.add_violation(violation).await;
    }
    let [web, db] = ids.try_into().unwrap();
    (web, db)
}

#[tokio::test]
async fn lists_and_numbers_leave_out_what_is_beyond() {
    let bench = bench().await;
    two_groups(&bench).await;
    let limited = bench.token("ann", Role::Operator, &["web"]).await;
    for (path, all) in [
        ("/api/v1/nodes", 2),
        ("/api/v1/violations", 2),
        ("/api/v1/violations?status=all", 2),
    ] {
        let (_, whole) = bench.as_admin(Method::GET, path, "").await;
        assert_eq!(whole["items"].as_array().unwrap().len(), all, "{path}");
        let (status, part) = bench.with_token(&limited, Method::GET, path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {part}");
        assert_eq!(part["items"].as_array().unwrap().len(), 1, "{path}");
        assert!(!part.to_string().contains(DB), "{path}: {part}");
    }
    let (_, numbers) = bench
        .with_token(&limited, Method::GET, "/api/v1/summary", "")
        .await;
    assert_eq!(
        (&numbers["nodes"], &numbers["violations"]),
        (&1.into(), &1.into())
    );
    for path in [
        "/",
        "/nodes",
        "/violations",
        "/sessions",
        "/activity",
        "/images",
        "/alerts",
    ] {
        let bearer = format!("Bearer {limited}");
        let headers = [("authorization", bearer.as_str()), ("accept", "text/html")];
        let page = bench.ask(Method::GET, path, &headers, "").await;
        assert_eq!(page.status(), StatusCode::OK, "{path}");
        let page = text(page).await;
        assert!(
            !page.contains("db-1") && !page.contains(DB),
            "{path}: {page}"
        );
    }
}

/// Both nodes are the same image.
async fn one_image(bench: &Bench) -> Digest {
    let image = Digest::of(b"an image");
    let insert = "INSERT INTO images (payload, name, version, epoch, tree, entries, bytes, manifest, manifest_size, envelope, \
        created, published, published_by, complete) VALUES (?1, 'base', '1', 1, ?1, 1, 1, ?1, 1, x'7b7d', 1, 1, 'ann', 1)";
    bench
        .app
        .store
        .write(move |tx| {
            Box::pin(async move {
                for sql in [insert, "UPDATE nodes SET image = ?1"] {
                    sqlx::query(sqlx::AssertSqlSafe(sql))
                        .bind(image.as_bytes().as_slice())
                        .execute(&mut tx.connection)
                        .await?;
                }
                Ok::<_, StoreError>(())
            })
        })
        .await
        .unwrap();
    image
}

#[tokio::test]
async fn nodes_that_are_an_image_are_counted_as_far_as_one_reaches() {
    let bench = bench().await;
    two_groups(&bench).await;
    let image = one_image(&bench).await;
    let limited = bench.token("ann", Role::Publisher, &["web"]).await;
    let one = format!("/api/v1/images/{image}");
    for (path, at) in [("/api/v1/images", "/items/0/nodes"), (&one, "/nodes")] {
        let (_, whole) = bench.as_admin(Method::GET, path, "").await;
        assert_eq!(whole.pointer(at), Some(&2.into()), "{path}: {whole}");
        let (_, part) = bench.with_token(&limited, Method::GET, path, "").await;
        assert_eq!(part.pointer(at), Some(&1.into()), "{path}: {part}");
    }
    for path in ["/images".to_owned(), format!("/images/{image}")] {
        let bearer = format!("Bearer {limited}");
        let headers = [("authorization", bearer.as_str()), ("accept", "text/html")];
        let page = text(bench.ask(Method::GET, &path, &headers, "").await).await;
        assert!(
            page.contains("1 node") && !page.contains("2 nodes"),
            "{page}"
        );
    }
}

#[tokio::test]
async fn what_is_beyond_is_not_there_to_look_at_or_to_act_on() {
    let bench = bench().await;
    let (web, db) = two_groups(&bench).await;
    let limited = bench.token("ann", Role::Admin, &["web"]).await;
    let reason = r#"{"reason":"seen"}"#;
    for (method, path, body) in [
        (Method::GET, format!("/api/v1/nodes/{DB}"), ""),
        (Method::GET, format!("/api/v1/nodes/{DB}/differences"), ""),
        (Method::GET, format!("/api/v1/nodes/{DB}/pins"), ""),
        (Method::GET, format!("/nodes/{DB}"), ""),
        (Method::POST, format!("/api/v1/nodes/{DB}/rescan"), ""),
        (Method::POST, format!("/api/v1/nodes/{DB}/ban"), reason),
        (
            Method::POST,
            format!("/api/v1/nodes/{DB}/group"),
            r#"{"group":"web"}"#,
        ),
        (Method::GET, format!("/api/v1/violations/{db}"), ""),
        (
            Method::POST,
            format!("/api/v1/violations/{db}/acknowledge"),
            reason,
        ),
        (Method::GET, format!("/violations/{db}"), ""),
    ] {
        let (status, _) = bench.with_token(&limited, method, &path, body).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
    let path = format!("/api/v1/violations/{web}/acknowledge");
    let (status, seen) = bench
        .with_token(&limited, Method::POST, &path, reason)
        .await;
    assert_eq!(status, StatusCode::OK, "{seen}");
    // Nor is anything of one's own carried there.
    let path = format!("/api/v1/nodes/{WEB}/group");
    let body = r#"{"group":"db"}"#;
    let (status, _) = bench.with_token(&limited, Method::POST, &path, body).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

/// A channel each for both groups and for one of them, and a chat that gathers; none of them can be reached.
fn three_channels(settings: &mut CollectorSettings) {
    use crate::settings::{AlertRoute, Slack, Webhook};
    use crate::violations::Severity;
    let hook = |name: &str| Webhook {
        name: Some(name.to_owned()),
        ..Webhook::new("http://127.0.0.1:9/", "0123456789abcdef".to_owned())
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let route = |channels: &[&str], groups: &[&str]| AlertRoute {
        channels: names(channels),
        severity: Severity::Low,
        groups: names(groups),
        kinds: Vec::new(),
        paths: None,
    };
    settings.webhooks = vec![hook("both"), hook("db-only")];
    settings.alerts.slack = vec![Slack {
        name: "chat".to_owned(),
        url: "http://127.0.0.1:9/".to_owned().into(),
    }];
    // Longer than any test: both nodes are one message.
    (settings.alerts.settle, settings.alerts.window) = (60, 60);
    settings.alerts.routes = vec![
        route(&["both", "chat"], &["web", "db"]),
        route(&["db-only"], &["db"]),
    ];
}

#[tokio::test]
async fn alerts_are_parted_by_the_nodes_that_they_tell_of() {
    let bench = bench_with(three_channels).await;
    let (web, db) = two_groups(&bench).await;
    for (group, own, beyond, channels, deliveries) in [
        ("web", &web, &db, &["both", "chat"][..], 2),
        ("db", &db, &web, &["both", "db-only", "chat"][..], 3),
    ] {
        let limited = bench.token("ann", Role::Operator, &[group]).await;
        let (_, told) = bench
            .with_token(&limited, Method::GET, "/api/v1/alerts", "")
            .await;
        let items = told["items"].as_array().unwrap();
        assert_eq!(items.len(), deliveries, "{group}: {told}");
        for one in items {
            assert_eq!(one["violation"], own.as_str(), "{group}: {one}");
            let nodes = u64::from(one["channel"] == "chat");
            assert_eq!(one["nodes"].as_u64().unwrap_or(0), nodes, "{group}: {one}");
        }
        assert!(!told.to_string().contains(beyond.as_str()), "{told}");
        let (_, listed) = bench
            .with_token(&limited, Method::GET, "/api/v1/channels", "")
            .await;
        let seen = listed["items"].as_array().unwrap().iter();
        let names: Vec<&str> = seen.map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, channels, "{group}");
        let waiting =
            |it: &Value| it["waiting"].as_u64().unwrap() + it["given_up"].as_u64().unwrap();
        let sum: u64 = listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(waiting)
            .sum();
        assert_eq!(sum, deliveries as u64, "{group}: {listed}");
        let (_, numbers) = bench
            .with_token(&limited, Method::GET, "/api/v1/summary", "")
            .await;
        assert_eq!(numbers["alerts_waiting"], sum, "{group}: {numbers}");
    }
    let (_, whole) = bench.as_admin(Method::GET, "/api/v1/alerts", "").await;
    let gathered = whole["items"].as_array().unwrap().iter();
    let nodes: Vec<u64> = gathered.filter_map(|it| it["nodes"].as_u64()).collect();
    assert_eq!(nodes, [2], "{whole}");
    // The page of the one who is limited names no group, node or channel of the other.
    let limited = bench.token("ann", Role::Operator, &["web"]).await;
    let bearer = format!("Bearer {limited}");
    let headers = [("authorization", bearer.as_str()), ("accept", "text/html")];
    let page = text(bench.ask(Method::GET, "/alerts", &headers, "").await).await;
    assert!(
        page.contains("All violations in web go to both and chat.") && page.contains(&web),
        "{page}"
    );
    for beyond in ["in db", "or db", "db-only", "db-1", &db, "Send a test"] {
        assert!(!page.contains(beyond), "{beyond}: {page}");
    }
}

#[tokio::test]
async fn who_is_limited_has_only_their_own_dead_letters_tried_again_and_sends_no_test() {
    let bench = bench_with(three_channels).await;
    let (web, db) = two_groups(&bench).await;
    // To a channel that is not configured: nothing but a person touches it.
    let dead = "INSERT INTO outbox (id, channel, body, created, next_attempt, given_up) \
         SELECT s.id, 'gone', X'', 0, 0, 1 FROM violation_steps s WHERE s.violation IN (?, ?)";
    let (one, other) = (web.clone(), db.clone());
    bench
        .app
        .store
        .write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query(dead).bind(one).bind(other);
                done.execute(&mut tx.connection).await?;
                Ok(())
            })
        })
        .await
        .unwrap();
    let (_, all) = bench
        .as_admin(
            Method::GET,
            "/api/v1/alerts?state=given-up&channel=gone",
            "",
        )
        .await;
    let id_of = |violation: &str| {
        let items = all["items"].as_array().unwrap();
        let found = items.iter().find(|it| it["violation"] == violation);
        found.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let limited = bench.token("ann", Role::Operator, &["web"]).await;
    for (violation, expected) in [(&db, StatusCode::NOT_FOUND), (&web, StatusCode::OK)] {
        let path = format!("/api/v1/alerts/{}/retry", id_of(violation));
        let body = r#"{"channel":"gone"}"#;
        let (status, answer) = bench.with_token(&limited, Method::POST, &path, body).await;
        assert_eq!(status, expected, "{answer}");
    }
    let path = "/api/v1/channels/both/test";
    let (status, refused) = bench.with_token(&limited, Method::POST, path, "{}").await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (StatusCode::FORBIDDEN, Some("beyond"))
    );
}

#[tokio::test]
async fn nobody_hands_on_more_than_they_have() {
    let bench = bench().await;
    let limited = bench.token("ann", Role::Operator, &["web"]).await;
    let (status, own) = bench
        .with_token(
            &limited,
            Method::POST,
            "/api/v1/tokens",
            r#"{"kind":"api","role":"viewer"}"#,
        )
        .await;
    assert_eq!(status, StatusCode::CREATED, "{own}");
    let written = own["token"].as_str().unwrap();
    let (_, me) = bench
        .with_token(written, Method::GET, "/api/v1/whoami", "")
        .await;
    assert_eq!(
        me["groups"],
        serde_json::json!(["web"]),
        "as far as its maker"
    );
    for body in [
        r#"{"kind":"api","role":"approver"}"#,
        r#"{"kind":"api","role":"admin"}"#,
        r#"{"kind":"api","role":"viewer","groups":["db"]}"#,
        r#"{"kind":"join","group":"db"}"#,
    ] {
        let (status, problem) = bench
            .with_token(&limited, Method::POST, "/api/v1/tokens", body)
            .await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::FORBIDDEN, &"beyond".into()),
            "{body}"
        );
    }
    let viewer = bench.token("bob", Role::Viewer, &[]).await;
    let (status, problem) = bench
        .with_token(
            &viewer,
            Method::POST,
            "/api/v1/tokens",
            r#"{"kind":"join"}"#,
        )
        .await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::FORBIDDEN, &"role".into())
    );
}

#[tokio::test]
async fn events_of_other_groups_are_not_heard() {
    let bench = bench().await;
    let limited = bench.token("ann", Role::Viewer, &["web"]).await;
    let bearer = format!("Bearer {limited}");
    let headers = [("authorization", bearer.as_str())];
    let answer = bench.ask(Method::GET, "/api/v1/events", &headers, "").await;
    let (web, db) = two_groups(&bench).await;
    // The one beyond reach first.
    let sender = bench.app.store.events();
    for node in [DB, WEB] {
        let id = node.to_owned();
        sender
            .send(crate::events::Event::Node(crate::events::NodeEvent { id }))
            .unwrap();
    }
    let mut body = answer.into_body();
    let mut heard = String::new();
    while !heard.contains("event: node") {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        heard.push_str(std::str::from_utf8(&frame).unwrap());
    }
    assert!(heard.contains(&web) && heard.contains(WEB), "{heard}");
    assert!(!heard.contains(&db) && !heard.contains(DB), "{heard}");
}
