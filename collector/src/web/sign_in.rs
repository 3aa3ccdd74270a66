//! Signing in and out.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderValue, StatusCode, header};
use maud::{Markup, html};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::form::Filled;
use super::shell;
use crate::access::{Person, sessions};
use crate::api::Asked;
use crate::door::Peer;
use crate::door::people::People;
use crate::problem::ProblemResponse;

/// Where to go after signing in.
#[derive(Deserialize)]
pub(super) struct Next {
    next: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Entered {
    user: String,
    password: String,
    next: Option<String>,
}

/// Only a path of our own: a link from elsewhere must not lead people away.
fn own_path(next: Option<&str>) -> &str {
    next.filter(|path| {
        path.starts_with('/') && !path.starts_with("//") && !path.contains(['\\', '\r', '\n'])
    })
    .unwrap_or("/")
}

fn shown(next: &str, user: &str, trouble: Option<&str>) -> Markup {
    let body = html! {
        form method="post" action="/sign-in" {
            h1 { "Sign in" }
            input type="hidden" name="next" value=(next);
            label { "User" input name="user" value=(user) required autocomplete="username" autocapitalize="none" spellcheck="false" autofocus[user.is_empty()]; }
            label { "Password" input name="password" type="password" required autocomplete="current-password" autofocus[!user.is_empty()]; }
            @if let Some(trouble) = trouble { p.trouble role="alert" { (trouble) } }
            button.act.first type="submit" { "Sign in" }
        }
    };
    shell::alone("Sign in", &body)
}

/// `GET /sign-in`.
pub(super) async fn form(Asked(asked): Asked<Next>) -> Markup {
    shown(own_path(asked.next.as_deref()), "", None)
}

/// `POST /sign-in`.
pub(super) async fn enter(
    State(people): State<People>,
    peer: Option<Extension<Peer>>,
    Filled(entered): Filled<Entered>,
) -> Result<Response, ProblemResponse> {
    let next = own_path(entered.next.as_deref()).to_owned();
    let password = Zeroizing::new(entered.password);
    let from = peer.as_ref().map(|peer| peer.address.ip().to_canonical());
    let checked =
        crate::api::check_sign_in(&people, from, &entered.user, password, "/sign-in").await;
    let account = match checked {
        Ok(account) => account,
        Err(problem) => {
            return match problem.status {
                StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => {
                    let trouble = format!("{}.", capital(&problem.detail));
                    let page = shown(&next, &entered.user, Some(&trouble));
                    Ok((problem.status, page).into_response())
                }
                _ => Err(problem),
            };
        }
    };
    let tls = peer.is_some_and(|peer| peer.tls);
    let cookie = sessions::open(&people.app.store, account, from, tls).await?;
    Ok(with_cookie(Redirect::to(&next).into_response(), &cookie))
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}

/// `GET /sign-out`: a link cannot sign anybody out, so it asks.
pub(super) async fn leaving(Extension(person): Extension<Person>) -> Markup {
    let body = html! {
        h1 { "Sign out?" }
        p { "You are signed in as " b { (super::text::plain(&person.user)) } "." }
        form method="post" action="/sign-out" { button.act.first type="submit" { "Sign out" } }
    };
    shell::alone("Sign out", &body)
}

/// `POST /sign-out`.
pub(super) async fn leave(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    peer: Option<Extension<Peer>>,
) -> Result<Response, ProblemResponse> {
    sessions::close(&people.app.store, &person).await?;
    let tls = peer.is_some_and(|peer| peer.tls);
    Ok(with_cookie(
        Redirect::to("/sign-in").into_response(),
        &sessions::gone(tls),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_on_stays_on_this_collector() {
        assert_eq!(own_path(Some("/nodes?status=lost")), "/nodes?status=lost");
        for elsewhere in [
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "javascript:alert(1)",
            "",
        ] {
            assert_eq!(own_path(Some(elsewhere)), "/", "{elsewhere}");
        }
        assert_eq!(own_path(None), "/");
    }

    #[test]
    fn what_was_typed_comes_back_escaped_and_the_password_not_at_all() {
        let page = shown("/", "<b>\"x", Some("No.")).into_string();
        assert!(
            page.contains("&lt;b&gt;&quot;x") && page.contains("No."),
            "{page}"
        );
    }
}
