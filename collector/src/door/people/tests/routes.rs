//! What every route answers to every role, and to nobody.

use super::*;
use crate::access::roles::{Need, ROUTES, Right};

#[tokio::test]
async fn every_route_asks_for_what_the_table_says_and_for_no_less() {
    let bench = bench().await;
    let mut tokens = Vec::new();
    for role in Role::ALL {
        tokens.push((role, bench.token("somebody", role, &[]).await));
    }
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
        let refused = [
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::METHOD_NOT_ALLOWED,
        ];
        let nobody = with(None).await;
        let right = match route.need {
            Need::Open => {
                assert!(nobody != StatusCode::METHOD_NOT_ALLOWED, "{name}: {nobody}");
                continue;
            }
            Need::LoopbackOrRead => Right::Read,
            Need::May(right) | Need::Whole(right) => right,
        };
        assert!(
            nobody == StatusCode::UNAUTHORIZED || nobody == StatusCode::SEE_OTHER,
            "{name} lets nobody in: {nobody}"
        );
        for (role, token) in &tokens {
            let answered = with(Some(token)).await;
            if role.may(right) {
                assert!(!refused.contains(&answered), "{name} {role:?}: {answered}");
            } else {
                assert_eq!(answered, StatusCode::FORBIDDEN, "{name} {role:?}");
            }
        }
    }
    bench.running.stop();
}

#[tokio::test]
async fn a_limit_to_groups_closes_what_the_table_says_and_no_more() {
    let bench = bench().await;
    let limited = bench.token("somebody", Role::Admin, &["web"]).await;
    let mut closed = Vec::new();
    for route in ROUTES {
        let name = format!("{} {}", route.method, route.path);
        if route.need == Need::Open || name == "DELETE /api/v1/sessions" {
            continue;
        }
        let bearer = format!("Bearer {limited}");
        let headers = [
            ("content-type", "application/json"),
            ("authorization", bearer.as_str()),
        ];
        let path = concrete(route.path);
        let answer = bench.ask(route.method.clone(), &path, &headers, "{}").await;
        let refused = answer.status() == StatusCode::FORBIDDEN;
        assert_eq!(refused, matches!(route.need, Need::Whole(_)), "{name}");
        if refused {
            closed.push(name);
        }
    }
    // A test reaches everybody whom a channel tells.
    let tests = [
        "POST /alerts/channels/{name}/test",
        "POST /api/v1/channels/{name}/test",
    ];
    assert_eq!(closed, tests);
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
