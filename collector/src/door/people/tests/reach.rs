//! What is beyond somebody's reach does not exist for them.

use super::*;

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
