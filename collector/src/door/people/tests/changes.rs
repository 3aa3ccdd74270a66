//! Changes and exceptions through the whole door.

use super::*;

#[tokio::test]
async fn changes_and_exceptions_say_the_next_step_while_there_are_none() {
    let bench = bench().await;
    for (path, says) in [
        ("/changes", "Assign an image to a group"),
        (
            "/exceptions",
            "ask for an exception on the page of its violation",
        ),
        ("/exceptions?state=waiting", "No exception fits this filter"),
    ] {
        let (status, page) = bench.page(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {page}");
        assert!(page.contains(says), "{path}: {page}");
    }
    let none = format!("/changes/{}", uuid::Uuid::now_v7());
    assert_eq!(bench.page(&none).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_exception_is_asked_for_at_a_violation_and_ends_it() {
    let bench = bench().await;
    let mut violation = crate::web::sample::violation();
    violation.image = None;
    bench.add_node(&violation.node, "web-17").await;
    let id = violation.id.clone();
    bench.add_violation(violation).await;
    let (_, page) = bench.page(&format!("/violations/{id}")).await;
    assert!(page.contains("Ask for an exception"), "{page}");
    let ends = crate::clock::after(crate::clock::now(), 3_600);
    let body = format!(r#"{{"violation":"{id}","reason":"until <b>then</b>","ends":"{ends}"}}"#);
    let (status, held) = bench
        .as_admin(Method::POST, "/api/v1/exceptions", &body)
        .await;
    // The only account that may approve: its own word is enough, and it is shown so.
    assert_eq!(
        (status, held["state"].as_str()),
        (StatusCode::CREATED, Some("approved")),
        "{held}"
    );
    assert_eq!(held["ended"], 1);
    let (status, again) = bench
        .as_admin(Method::POST, "/api/v1/exceptions", &body)
        .await;
    assert_eq!(
        (status, again["code"].as_str()),
        (StatusCode::CONFLICT, Some("no-exception")),
        "{again}"
    );
    let (_, over) = bench
        .as_admin(Method::GET, &format!("/api/v1/violations/{id}"), "")
        .await;
    assert_eq!(over["resolved_as"], "excepted", "{over}");
    let (_, page) = bench
        .page(&format!("/exceptions/{}", held["id"].as_str().unwrap()))
        .await;
    assert!(
        page.contains("same person") && page.contains("until &lt;b&gt;then"),
        "{page}"
    );
    assert!(page.contains("Revoke"), "{page}");
}
