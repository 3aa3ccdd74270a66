//! Signing in and out.

use super::*;

#[tokio::test]
async fn a_browser_signs_in_looks_around_and_signs_out() {
    let bench = bench().await;
    bench.add_account("ops", Role::Viewer).await;
    let (origin, form) = (ORIGIN, FORM);
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
    bench.add_account("ci", Role::Viewer).await;
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
        serde_json::json!({"user": "ci", "role": "viewer", "groups": [], "by": "token"})
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
