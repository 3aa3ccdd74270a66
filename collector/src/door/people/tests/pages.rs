//! Lists, pages and events.

use super::*;

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
