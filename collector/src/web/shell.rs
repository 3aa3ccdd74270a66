//! What stands around every page.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{DOCTYPE, Markup, html};

use crate::access::Person;

/// Scripts may not be evaluated and no style is injected: the content security policy forbids both.
const HTMX: &str = r#"{"includeIndicatorStyles":false,"allowEval":false,"allowScriptTags":false,"selfRequestsOnly":true,"historyCacheSize":0,"scrollIntoViewOnBoost":false}"#;

const PLACES: [(&str, &str); 10] = [
    ("/", "Overview"),
    ("/nodes", "Nodes"),
    ("/violations", "Violations"),
    ("/sessions", "Sessions"),
    ("/images", "Images"),
    ("/changes", "Changes"),
    ("/exceptions", "Exceptions"),
    ("/activity", "Activity"),
    ("/alerts", "Alerts"),
    ("/settings", "Settings"),
];

/// A whole page for somebody who is signed in.
#[must_use]
pub fn page(person: &Person, here: &str, title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(title, true))
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top { div {
                    (brand())
                    nav aria-label="Main" {
                        @for (path, name) in PLACES {
                            a href=(path) aria-current=[(path == here).then_some("page")] { (name) }
                        }
                    }
                    form.who method="post" action="/sign-out" {
                        span title={ "Role: " (person.role.as_str()) } { (super::text::plain(&person.user)) }
                        button.link type="submit" { "Sign out" }
                    }
                } }
                main #main hx-ext="sse" sse-connect="/api/v1/events" { (body) }
                (foot())
                div #announce.hidden aria-live="polite" {}
            }
        }
    }
}

/// A page without a head: sign-in, errors.
#[must_use]
pub fn alone(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(title, false))
            body { main #main { div.alone.sheet { (brand()) (body) } } }
        }
    }
}

fn head(title: &str, live: bool) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " · Pristine" }
            link rel="icon" href=(super::assets::href("mark.svg")) type="image/svg+xml";
            link rel="stylesheet" href=(super::assets::href("pristine.css"));
            @if live {
                meta name="htmx-config" content=(HTMX);
                script defer src=(super::assets::href("htmx.min.js")) {}
                script defer src=(super::assets::href("htmx-sse.min.js")) {}
            }
            script defer src=(super::assets::href("pristine.js")) {}
        }
    }
}

fn brand() -> Markup {
    html! { a.brand href="/" { img src=(super::assets::href("mark.svg")) alt="" width="20" height="20"; "Pristine" } }
}

fn foot() -> Markup {
    html! {
        footer {
            p {
                "Green says: the files at rest in scope, last signed and last read at the times shown, are the image’s. It does not speak of memory, of "
                "old programs still running, of ignored paths, of other mounts, or of machines that never enrolled."
            }
        }
    }
}

/// A part of a page that is fetched anew when something happens. `address` is the page's own, with its filters.
#[must_use]
pub fn live(id: &str, address: &str, events: &[&str], body: &Markup) -> Markup {
    // The first event is shown at once, and the last of a burst when it is over. A big fleet's nodes speak all the time.
    let pause = |event: &str| if event == "node" { 5 } else { 1 };
    let trigger = |event: &&str| {
        format!(
            "sse:{event} throttle:{0}s, sse:{event} delay:{0}s",
            pause(event)
        )
    };
    let triggers: Vec<String> = events
        .iter()
        .map(trigger)
        .chain(["refresh".to_owned()])
        .collect();
    html! {
        div id=(id) data-live hx-get=(address) hx-select={ "#" (id) } hx-swap="outerHTML" hx-trigger=(triggers.join(", ")) { (body) }
    }
}

/// An error as a page: what, why, what to do, and the request's id.
#[must_use]
pub fn trouble(status: StatusCode, code: &str, detail: &str, request_id: &str) -> Response {
    let title = match status {
        StatusCode::NOT_FOUND => "There is nothing here",
        StatusCode::FORBIDDEN => "You may not do this",
        StatusCode::SERVICE_UNAVAILABLE => "The collector cannot do this now",
        StatusCode::INTERNAL_SERVER_ERROR => "The collector could not do this",
        _ => "This request was refused",
    };
    let body = html! {
        h1 { (title) }
        p { (super::text::plain(detail)) }
        p { a href="/" { "To the overview" } }
        p.note { "Code " code { (code) } ", request " code { (request_id) } }
    };
    (status, alone(title, &body)).into_response()
}
