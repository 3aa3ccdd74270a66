//! The gate before every route of the people's door: who is it, and does the table of roles let them.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::roles::{self, Need, Role};
use super::{AccessError, By, Person, sessions, tokens};
use crate::clock;
use crate::door::Peer;
use crate::problem::ProblemResponse;
use crate::store::Store;

/// Lets a request through, with its [`Person`] as an extension where there is one, or answers it.
pub async fn gate(State(store): State<Store>, mut request: Request, next: Next) -> Response {
    let Some(path) = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned())
    else {
        // No route: what follows answers 404 and tells nothing.
        return next.run(request).await;
    };
    let Some(need) = roles::need(request.method(), &path) else {
        return ProblemResponse::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method",
            format!("{path} has no {}", request.method()),
        )
        .into_response();
    };
    let peer = request.extensions().get::<Peer>().cloned();
    let tls = peer.as_ref().is_some_and(|peer| peer.tls);
    let person = match identify(&store, request.headers(), tls).await {
        Ok(person) => person,
        Err(error) => return ProblemResponse::from(error).into_response(),
    };
    let loopback = peer
        .as_ref()
        .is_some_and(|peer| peer.address.ip().to_canonical().is_loopback());
    match verdict(need, person.as_ref().map(|person| person.role), loopback) {
        Ok(()) => {}
        Err(StatusCode::UNAUTHORIZED) => return unknown(&request),
        Err(status) => {
            let role = person.map_or("", |person| person.role.as_str());
            return ProblemResponse::new(
                status,
                "role",
                format!("the role `{role}` may not do this; an administrator may"),
            )
            .into_response();
        }
    }
    let with_token = matches!(
        &person,
        Some(Person {
            by: By::Token(_),
            ..
        })
    ) || (person.is_none() && path == "/api/v1/sessions");
    if !request.method().is_safe() && !with_token && !sessions::same_origin(request.headers(), tls)
    {
        return ProblemResponse::new(
            StatusCode::FORBIDDEN,
            "origin",
            "the request does not come from a page of this collector",
        )
        .into_response();
    }
    if let Some(person) = person {
        request.extensions_mut().insert(person);
    }
    next.run(request).await
}

fn verdict(need: Need, role: Option<Role>, loopback: bool) -> Result<(), StatusCode> {
    let least = match need {
        Need::Open => return Ok(()),
        Need::LoopbackOrViewer if loopback => return Ok(()),
        Need::LoopbackOrViewer => Role::Viewer,
        Need::SignedIn(least) => least,
    };
    match role {
        None => Err(StatusCode::UNAUTHORIZED),
        Some(role) if role >= least => Ok(()),
        Some(_) => Err(StatusCode::FORBIDDEN),
    }
}

/// A token where one is sent, else the browser's session. A token that is no good is not made up for by a cookie.
async fn identify(
    store: &Store,
    headers: &HeaderMap,
    tls: bool,
) -> Result<Option<Person>, AccessError> {
    let now = clock::now();
    match headers.get(header::AUTHORIZATION) {
        None => sessions::person(store, headers, tls, now).await,
        Some(value) => match value.to_str().ok().and_then(bearer) {
            Some(token) => tokens::person(store, token, now).await,
            None => Ok(None),
        },
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Programs get 401; a browser is shown the way to the sign-in page, and back from there.
fn unknown(request: &Request) -> Response {
    let path = request.uri().path();
    let page = !path.starts_with("/api/")
        && *request.method() == Method::GET
        && !request.headers().contains_key(header::AUTHORIZATION);
    if page && path != "/metrics" {
        let asked = request
            .uri()
            .path_and_query()
            .map_or("/", |asked| asked.as_str());
        let to = if asked == "/" {
            "/sign-in".to_owned()
        } else {
            format!("/sign-in?next={}", escape(asked))
        };
        let name = if request.headers().contains_key("hx-request") {
            "hx-redirect"
        } else {
            "location"
        };
        let status = if name == "location" {
            StatusCode::SEE_OTHER
        } else {
            StatusCode::UNAUTHORIZED
        };
        let mut response = status.into_response();
        if let Ok(value) = HeaderValue::from_str(&to) {
            response
                .headers_mut()
                .insert(http::HeaderName::from_static(name), value);
        }
        return response;
    }
    let detail =
        "sign in first: send `Authorization: Bearer TOKEN` with a token that is still good";
    let mut response =
        ProblemResponse::new(StatusCode::UNAUTHORIZED, "sign-in", detail).into_response();
    response.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Bearer realm=\"pristine\""),
    );
    response
}

/// Percent-encodes what would end a query's value.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_decides_and_nobody_is_not_a_viewer() {
        let admin = Need::SignedIn(Role::Admin);
        assert_eq!(verdict(Need::Open, None, false), Ok(()));
        assert_eq!(verdict(admin, None, true), Err(StatusCode::UNAUTHORIZED));
        assert_eq!(
            verdict(admin, Some(Role::Viewer), true),
            Err(StatusCode::FORBIDDEN)
        );
        assert_eq!(verdict(admin, Some(Role::Admin), false), Ok(()));
        assert_eq!(verdict(Need::LoopbackOrViewer, None, true), Ok(()));
        assert_eq!(
            verdict(Need::LoopbackOrViewer, None, false),
            Err(StatusCode::UNAUTHORIZED)
        );
    }

    #[test]
    fn the_way_back_is_escaped() {
        assert_eq!(escape("/nodes?q=a&s=b c"), "/nodes%3Fq%3Da%26s%3Db%20c");
        assert_eq!(bearer("bearer  x"), Some("x"));
        assert_eq!(bearer("Basic x"), None);
    }
}
