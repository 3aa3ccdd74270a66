//! Accounts, one's own password, and the settings page.

use super::*;

#[tokio::test]
async fn accounts_are_made_changed_and_disabled() {
    let bench = bench().await;
    let (status, made) = bench
        .as_admin(
            Method::POST,
            "/api/v1/accounts",
            r#"{"user":"ann","role":"operator","groups":["web"]}"#,
        )
        .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let password = made["password"].as_str().unwrap();
    let body = format!(r#"{{"user":"ann","password":"{password}"}}"#);
    let (_, session) = json(
        bench
            .ask(Method::POST, "/api/v1/sessions", &[], &body)
            .await,
    )
    .await;
    let token = session["token"].as_str().unwrap().to_owned();
    let (_, me) = bench
        .with_token(&token, Method::GET, "/api/v1/whoami", "")
        .await;
    assert_eq!(
        (&me["role"], &me["groups"]),
        (&"operator".into(), &serde_json::json!(["web"]))
    );
    // Less than its token may: the token ends.
    let (status, _) = bench
        .as_admin(
            Method::PATCH,
            "/api/v1/accounts/ann",
            r#"{"role":"viewer"}"#,
        )
        .await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = bench
        .with_token(&token, Method::GET, "/api/v1/whoami", "")
        .await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let told = bench.activity("action=account.role&target=ann").await;
    assert_eq!(told[0]["before"]["role"], "operator");
    assert_eq!(told[0]["after"]["role"], "viewer");
    for (path, method, body, expected) in [
        (
            "/api/v1/accounts",
            Method::POST,
            r#"{"user":"ann","role":"viewer"}"#,
            409,
        ),
        (
            "/api/v1/accounts",
            Method::POST,
            r#"{"user":"a b","role":"viewer"}"#,
            400,
        ),
        (
            "/api/v1/accounts",
            Method::POST,
            r#"{"user":"b","role":"viewer","password":"short"}"#,
            400,
        ),
        (
            "/api/v1/accounts/nobody",
            Method::PATCH,
            r#"{"role":"viewer"}"#,
            404,
        ),
        (
            "/api/v1/accounts/admin",
            Method::PATCH,
            r#"{"role":"viewer"}"#,
            409,
        ),
        ("/api/v1/accounts/admin/disable", Method::POST, "", 409),
    ] {
        let (status, problem) = bench.as_admin(method, path, body).await;
        assert_eq!(status.as_u16(), expected, "{path} {body}: {problem}");
    }
    let limited = bench.token("bob", Role::Admin, &["web"]).await;
    let (_, listed) = bench
        .with_token(&limited, Method::GET, "/api/v1/accounts", "")
        .await;
    let names: Vec<&str> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["user"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["ann"], "who is limited sees whom they may change");
    let body = r#"{"user":"eve","role":"admin"}"#;
    let (status, _) = bench
        .with_token(&limited, Method::POST, "/api/v1/accounts", body)
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn ones_own_password_ends_what_it_opened() {
    let bench = bench().await;
    bench.add_account("ann", Role::Viewer).await;
    let cookie = bench.sign_in("ann").await;
    let body = r#"{"user":"ann","password":"a long password"}"#;
    let (_, session) = json(bench.ask(Method::POST, "/api/v1/sessions", &[], body).await).await;
    let token = session["token"].as_str().unwrap().to_owned();
    let kept = bench.token("ann", Role::Viewer, &[]).await;
    let change =
        |current: &str| format!(r#"{{"current":"{current}","password":"another long one"}}"#);
    let (status, problem) = bench
        .with_token(
            &token,
            Method::POST,
            "/api/v1/password",
            &change("a wrong password"),
        )
        .await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::FORBIDDEN, &"credentials".into())
    );
    let headers = [("cookie", cookie.as_str()), ORIGIN, FORM];
    let form = "current=a+long+password&password=another+long+one";
    let answer = bench
        .ask(Method::POST, "/settings/password", &headers, form)
        .await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    let looked = bench
        .ask(Method::GET, "/", &[("cookie", cookie.as_str())], "")
        .await;
    assert_eq!(looked.status(), StatusCode::SEE_OTHER, "signed out");
    let status = async |token: &str| {
        bench
            .with_token(token, Method::GET, "/api/v1/whoami", "")
            .await
            .0
    };
    assert_eq!(
        status(&token).await,
        StatusCode::UNAUTHORIZED,
        "the password was exchanged for it"
    );
    assert_eq!(
        status(&kept).await,
        StatusCode::OK,
        "a program's token stays"
    );
}

#[tokio::test]
async fn everything_on_the_page_works_as_a_form() {
    let bench = bench().await;
    bench.add_account("root", Role::Admin).await;
    let cookie = bench.sign_in("root").await;
    let headers = [("cookie", cookie.as_str()), ORIGIN, FORM];
    let post = async |path: &str, form: &str| {
        let answer = bench.ask(Method::POST, path, &headers, form).await;
        (answer.status(), text(answer).await)
    };
    let page = bench.ask(Method::GET, "/settings", &headers[..1], "").await;
    let page = text(page).await;
    assert!(
        page.contains("You are root, an administrator for all nodes."),
        "{page}"
    );
    let (status, page) = post(
        "/settings/tokens",
        "label=grafana&role=viewer&groups=&days=30",
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert!(page.contains("pristine-api."), "{page}");
    let (status, page) = post("/settings/join-tokens", "group=web&uses=3&hours=24").await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert!(
        page.contains("pristine-agent enroll --token pristine-join."),
        "{page}"
    );
    let (status, page) = post("/settings/accounts", "user=ann&role=operator&groups=web").await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert!(page.contains("The password of ann."), "{page}");
    let (status, page) = post("/settings/accounts", "user=ann&role=operator&groups=web").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(
        page.contains("role=\"alert\""),
        "told where the form stands: {page}"
    );
    for (path, form) in [
        (
            "/settings/accounts/ann/role",
            "role=approver&groups=web%2C+db",
        ),
        ("/settings/accounts/ann/password", ""),
        ("/settings/accounts/ann/disable", ""),
        ("/settings/accounts/ann/enable", ""),
    ] {
        let (status, page) = post(path, form).await;
        assert_eq!(status, StatusCode::OK, "{path}: {page}");
    }
    let (_, accounts) = bench.as_admin(Method::GET, "/api/v1/accounts", "").await;
    let ann = accounts["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["user"] == "ann")
        .unwrap();
    assert_eq!(
        (&ann["role"], &ann["groups"]),
        (&"approver".into(), &serde_json::json!(["db", "web"]))
    );
    let (_, tokens) = bench.as_admin(Method::GET, "/api/v1/tokens", "").await;
    let grafana = tokens["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["label"] == "grafana")
        .unwrap();
    let path = format!(
        "/settings/tokens/{}/revoke",
        grafana["id"].as_str().unwrap()
    );
    assert_eq!(post(&path, "").await.0, StatusCode::OK);
    assert_eq!(
        post("/settings/tokens/nothing/revoke", "").await.0,
        StatusCode::NOT_FOUND
    );
}
