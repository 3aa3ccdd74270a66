//! Whoever is refused stands in the activity log: a forged form, a token past its time, a disabled account with a live session, and
//! however many wrong passwords.

use super::*;
use crate::access::refused::Tally;

impl Bench {
    async fn settled(&self) {
        let tally: &Tally = &self.app.refused;
        tally
            .settle(&self.app.store, crate::clock::now(), true)
            .await;
    }
}

fn said(record: &Value) -> &str {
    record["after"]["refused"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_forged_form_is_refused_and_told() {
    let bench = bench().await;
    bench.add_account("ops", Role::Admin).await;
    let cookie = bench.sign_in("ops").await;
    let elsewhere = ("origin", "http://evil.example");
    for headers in [
        vec![("cookie", cookie.as_str()), FORM],
        vec![("cookie", cookie.as_str()), FORM, elsewhere],
    ] {
        let body = "user=mallory&role=admin";
        let answer = bench
            .ask(Method::POST, "/settings/accounts", &headers, body)
            .await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    }
    bench.settled().await;
    let told = bench.activity("who=ops&action=request.refuse").await;
    let count: u64 = told.iter().filter_map(|it| it["count"].as_u64()).sum();
    assert_eq!(count, 2, "{told:?}");
    assert_eq!(told[0]["target"], "/settings/accounts");
    assert_eq!(told[0]["from"], "192.0.2.7");
    assert!(
        said(&told[0]).contains("does not come from a page"),
        "{told:?}"
    );
    let (_, accounts) = bench.as_admin(Method::GET, "/api/v1/accounts", "").await;
    assert!(!accounts.to_string().contains("mallory"));
}

#[tokio::test]
async fn a_token_past_its_time_is_refused_and_told() {
    let bench = bench().await;
    let new = NewToken {
        user: "ann".to_owned(),
        role: Role::Admin,
        reach: Reach::all(),
        label: "short".to_owned(),
        expires: Some(crate::clock::after(crate::clock::now(), 0)),
        login: false,
    };
    let late = tokens::issue(&bench.app.store, &Person::local("test"), new).await;
    let late = late.unwrap().written.to_string();
    let (status, _) = bench
        .with_token(&late, Method::GET, "/api/v1/nodes", "")
        .await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let told = bench.activity("who=ann&action=access.refuse").await;
    assert_eq!(said(&told[0]), "the token is past its time");
    let id = late.split('.').nth(1).unwrap();
    assert_eq!(told[0]["by"], format!("token {id}"));
}

#[tokio::test]
async fn a_disabled_account_is_out_with_its_session_and_its_tokens() {
    let bench = bench().await;
    bench.add_account("ann", Role::Operator).await;
    let cookie = bench.sign_in("ann").await;
    let live = [("cookie", cookie.as_str())];
    let (status, made) = json(
        bench
            .ask(
                Method::POST,
                "/api/v1/sessions",
                &[],
                r#"{"user":"ann","password":"a long password"}"#,
            )
            .await,
    )
    .await;
    assert_eq!(status, StatusCode::CREATED);
    let token = made["token"].as_str().unwrap();
    assert_eq!(
        bench.ask(Method::GET, "/", &live, "").await.status(),
        StatusCode::OK
    );
    let (status, _) = bench
        .as_admin(Method::POST, "/api/v1/accounts/ann/disable", "")
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        bench.ask(Method::GET, "/", &live, "").await.status(),
        StatusCode::SEE_OTHER
    );
    assert_eq!(
        bench
            .with_token(token, Method::GET, "/api/v1/nodes", "")
            .await
            .0,
        StatusCode::UNAUTHORIZED
    );
    let told = bench.activity("who=ann&action=access.refuse").await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.iter().all(|it| said(it) == "the account is disabled"),
        "{told:?}"
    );
    // And back: what ended stays ended.
    bench
        .as_admin(Method::POST, "/api/v1/accounts/ann/enable", "")
        .await;
    assert_eq!(
        bench.ask(Method::GET, "/", &live, "").await.status(),
        StatusCode::SEE_OTHER
    );
    bench.sign_in("ann").await;
}

#[tokio::test]
async fn a_thousand_wrong_passwords_open_nothing_and_are_all_counted() {
    let bench = bench().await;
    bench.add_account("ann", Role::Operator).await;
    // From where she has signed in before.
    bench.sign_in("ann").await;
    let body = |password: &str| format!(r#"{{"user":"ann","password":"{password}"}}"#);
    let from = async |address: &str, user: &str, password: &str| {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/api/v1/sessions")
            .header(header::HOST, HOST)
            .body(Body::from(body(password).replace("ann", user)))
            .unwrap();
        bench.send(address, request).await.status()
    };
    for number in 0..1_000 {
        let status = from("198.51.100.9", "ann", &format!("guess {number}")).await;
        assert!(
            matches!(
                status,
                StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS
            ),
            "{number}: {status}"
        );
    }
    // Nobody is kept out elsewhere, she herself neither.
    let right = "a long password";
    assert_eq!(from("192.0.2.7", "ann", right).await, StatusCode::CREATED);
    bench.add_account("bob", Role::Viewer).await;
    assert_eq!(from("203.0.113.5", "bob", right).await, StatusCode::CREATED);
    bench.settled().await;
    let told = bench.activity("who=ann&action=session.refuse").await;
    let count: u64 = told.iter().filter_map(|it| it["count"].as_u64()).sum();
    assert_eq!(count, 1_000, "{told:?}");
    assert!(
        told.len() < 20,
        "the like is counted together: {}",
        told.len()
    );
    assert!(
        told.iter().all(|it| it["from"] == "198.51.100.9"),
        "{told:?}"
    );
}

#[tokio::test]
async fn what_is_typed_where_the_name_belongs_is_not_kept() {
    let bench = bench().await;
    let body = r#"{"user":"my secret password","password":"x"}"#;
    let answer = bench.ask(Method::POST, "/api/v1/sessions", &[], body).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let told = bench.activity("action=session.refuse").await;
    assert_eq!(told[0]["user"], "");
    assert!(!format!("{told:?}").contains("my secret"), "{told:?}");
}
