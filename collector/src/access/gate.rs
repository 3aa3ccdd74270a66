//! The gate before every route of the people's door: who is it, and does the table of roles let them.

use std::net::IpAddr;

use axum::RequestExt as _;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::refused::{Presented, Refused, Why};
use super::roles::{self, Need, Right, Role};
use super::{AccessError, By, Person, objects, sessions, tokens};
use crate::clock;
use crate::door::Peer;
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::Store;

/// Lets a request through, with its [`Person`] as an extension where there is one, or answers it. Who is refused stands in the activity log.
pub async fn gate(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
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
    let from = peer.as_ref().map(|peer| peer.address.ip().to_canonical());
    let presented = match identify(&app.store, request.headers(), tls).await {
        Ok(presented) => presented,
        Err(error) => return ProblemResponse::from(error).into_response(),
    };
    let person = match admit(&request, presented, need, from, tls, &path) {
        Ok(person) => person,
        Err(turned) => {
            if let Some(refused) = turned.refused {
                app.refused.note(&app.store, refused).await;
            }
            return turned.answer;
        }
    };
    if let Some(person) = person {
        if let Err(problem) = within(&app.store, &person, &path, &mut request).await {
            return problem.into_response();
        }
        request.extensions_mut().insert(person);
    }
    next.run(request).await
}

/// Somebody who is not let through.
struct Turned {
    answer: Response,
    refused: Option<Refused>,
}

/// Who is let through: whoever the table lets, and who sends no form from elsewhere.
fn admit(
    request: &Request,
    presented: Presented,
    need: Need,
    from: Option<IpAddr>,
    tls: bool,
    path: &str,
) -> Result<Option<Person>, Box<Turned>> {
    let refuse = |person: Option<&Person>, why| Refused::new(person, from, why, path);
    let (person, why) = match presented {
        Presented::Nothing => (None, None),
        Presented::Good(person) => (Some(Person { from, ..person }), None),
        Presented::NoLonger(person, why) => (None, Some(refuse(Some(&person), why))),
        Presented::Stranger(why) => (None, Some(refuse(None, why))),
    };
    let loopback = from.is_some_and(|from| from.is_loopback());
    match verdict(need, person.as_ref(), loopback) {
        Ok(()) => {}
        Err(StatusCode::UNAUTHORIZED) => {
            let answer = unknown(request);
            return Err(Box::new(Turned {
                answer,
                refused: why,
            }));
        }
        Err(_forbidden) => {
            let refused = Some(refuse(person.as_ref(), Why::Role));
            let answer = may_not(person.as_ref(), need).into_response();
            return Err(Box::new(Turned { answer, refused }));
        }
    }
    let by_token = matches!(&person, Some(person) if matches!(person.by, By::Token(_)));
    let with_token = by_token || (person.is_none() && path == "/api/v1/sessions");
    if !request.method().is_safe() && !with_token && !sessions::same_origin(request.headers(), tls)
    {
        let refused = Some(refuse(person.as_ref(), Why::Forged));
        let answer = ProblemResponse::new(
            StatusCode::FORBIDDEN,
            "origin",
            "the request does not come from a page of this collector",
        )
        .into_response();
        return Err(Box::new(Turned { answer, refused }));
    }
    Ok(person)
}

fn verdict(need: Need, person: Option<&Person>, loopback: bool) -> Result<(), StatusCode> {
    if need == Need::Open || (need == Need::LoopbackOrRead && loopback) {
        return Ok(());
    }
    match person {
        None => Err(StatusCode::UNAUTHORIZED),
        Some(person) if person.may(right(need)) && reaches(need, person) => Ok(()),
        Some(_) => Err(StatusCode::FORBIDDEN),
    }
}

fn right(need: Need) -> Right {
    match need {
        Need::Open | Need::LoopbackOrRead => Right::Read,
        Need::May(right) | Need::Whole(right) => right,
    }
}

fn reaches(need: Need, person: &Person) -> bool {
    !matches!(need, Need::Whole(_)) || person.reach.is_all()
}

/// 404 for what belongs to a node beyond the person's reach.
async fn within(
    store: &Store,
    person: &Person,
    path: &str,
    request: &mut Request,
) -> Result<(), ProblemResponse> {
    let named = request
        .extract_parts::<RawPathParams>()
        .await
        .map_err(|error| ProblemResponse::not_found(error.body_text()))?;
    let id = named.iter().next().map(|(_, id)| id.to_owned());
    if objects::within(store, &person.reach, path, id.as_deref()).await? {
        Ok(())
    } else {
        Err(ProblemResponse::not_found(
            "there is nothing under this name",
        ))
    }
}

/// 403, with those who may.
fn may_not(person: Option<&Person>, need: Need) -> ProblemResponse {
    if person.is_some_and(|person| person.may(right(need))) {
        let detail = "this is about all nodes: only who is limited to no group may see or do it";
        return ProblemResponse::new(StatusCode::FORBIDDEN, "beyond", detail);
    }
    lacks(
        person.map_or("", |person| person.role.as_str()),
        right(need),
    )
}

/// The refusal of somebody whose role lacks a right; names the roles that have it.
pub(crate) fn lacks(role: &str, right: Right) -> ProblemResponse {
    let who: Vec<&str> = Role::ALL
        .into_iter()
        .filter(|role| role.may(right))
        .map(Role::as_str)
        .collect();
    ProblemResponse::new(
        StatusCode::FORBIDDEN,
        "role",
        format!(
            "the role `{role}` may not do this; `{}` may",
            who.join("`, `")
        ),
    )
}

/// A token where one is sent, else the browser's session. A token that is no good is not made up for by a cookie.
async fn identify(store: &Store, headers: &HeaderMap, tls: bool) -> Result<Presented, AccessError> {
    let now = clock::now();
    match headers.get(header::AUTHORIZATION) {
        None => sessions::person(store, headers, tls, now).await,
        Some(value) => match value.to_str().ok().and_then(bearer) {
            Some(token) => tokens::person(store, token, now).await,
            None => Ok(Presented::Stranger(Why::NoToken)),
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
    use crate::access::Reach;

    #[test]
    fn the_table_decides_and_nobody_is_not_a_viewer() {
        let admin = Need::May(Right::Administer);
        let of = |role, groups: &[&str]| Person {
            role,
            reach: Reach::of(groups.iter().map(|group| (*group).to_owned())),
            ..Person::local("ann")
        };
        let (viewer, all) = (of(Role::Viewer, &[]), of(Role::Admin, &[]));
        let web = of(Role::Admin, &["web"]);
        let (nobody, no) = (Err(StatusCode::UNAUTHORIZED), Err(StatusCode::FORBIDDEN));
        for (need, person, loopback, expected) in [
            (Need::Open, None, false, Ok(())),
            (admin, None, true, nobody),
            (admin, Some(&viewer), true, no),
            (admin, Some(&all), false, Ok(())),
            (admin, Some(&web), false, Ok(())),
            (Need::Whole(Right::Read), Some(&web), false, no),
            (Need::Whole(Right::Read), Some(&viewer), false, Ok(())),
            (Need::Whole(Right::Respond), Some(&viewer), false, no),
            (Need::LoopbackOrRead, None, true, Ok(())),
            (Need::LoopbackOrRead, None, false, nobody),
        ] {
            assert_eq!(
                verdict(need, person, loopback),
                expected,
                "{need:?} {person:?}"
            );
        }
        assert_eq!(may_not(Some(&web), Need::Whole(Right::Read)).code, "beyond");
        assert_eq!(may_not(Some(&viewer), admin).code, "role");
    }

    #[test]
    fn the_way_back_is_escaped() {
        assert_eq!(escape("/nodes?q=a&s=b c"), "/nodes%3Fq%3Da%26s%3Db%20c");
        assert_eq!(bearer("bearer  x"), Some("x"));
        assert_eq!(bearer("Basic x"), None);
    }
}
