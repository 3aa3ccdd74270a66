//! Tokens: who makes which, and how they end.

use super::*;

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
