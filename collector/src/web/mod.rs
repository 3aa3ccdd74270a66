//! The pages. Each answers its question in its first line; they read without script, and are kept fresh by it.

pub mod acl;
mod activity;
mod alerts;
pub mod assets;
mod bands;
pub mod capability;
mod change;
mod changes;
mod decision;
mod exceptions;
mod form;
mod image;
mod images;
mod logins;
mod node;
mod node_decisions;
mod nodes;
mod overview;
mod paging;
mod pins;
mod review;
#[cfg(test)]
pub(crate) mod sample;
pub mod sentence;
mod settings;
pub mod shell;
mod sign_in;
pub mod state;
pub mod text;
pub mod value;
mod violation;
mod violations;

use axum::Router;
use axum::routing::{get, post};

use crate::door::people::People;

/// The routes of the pages. Who may see which stands in [`crate::access::roles::ROUTES`].
pub fn routes() -> Router<People> {
    Router::new()
        .route("/assets/{file}", get(assets::serve))
        .route("/sign-in", get(sign_in::form).post(sign_in::enter))
        .route("/sign-out", get(sign_in::leaving).post(sign_in::leave))
        .route("/", get(overview::page))
        .route("/nodes", get(nodes::page))
        .route("/nodes/{id}", get(node::page))
        .route("/nodes/{id}/approve", post(node_decisions::approve))
        .route("/nodes/{id}/suspend", post(node_decisions::suspend))
        .route("/nodes/{id}/resume", post(node_decisions::resume))
        .route("/nodes/{id}/ban", post(node_decisions::ban))
        .route(
            "/nodes/{id}/decommission",
            post(node_decisions::decommission),
        )
        .route("/nodes/{id}/rename", post(node_decisions::rename))
        .route("/nodes/{id}/group", post(node_decisions::group))
        .route("/nodes/{id}/rescan", post(node_decisions::rescan))
        .route("/nodes/{id}/pins", get(pins::page))
        .route("/nodes/{id}/pins/review", post(pins::review_all))
        .route("/violations", get(violations::page))
        .route("/violations/{id}", get(violation::page))
        .route("/violations/{id}/acknowledge", post(review::acknowledge))
        .route("/violations/{id}/resolve", post(review::resolve))
        .route("/violations/{id}/accept", post(review::accept))
        .route("/violations/{id}/false-alarm", post(review::false_alarm))
        .route("/violations/{id}/except", post(exceptions::request))
        .route("/sessions", get(logins::list))
        .route("/sessions/{id}", get(logins::page))
        .route("/images", get(images::page))
        .route("/activity", get(activity::page))
        .route("/activity/{id}", get(activity::record))
        .merge(settings::routes())
        .route("/images/{sha256}", get(image::page))
        .route("/images/{sha256}/differences", get(image::differences))
        .route("/images/{sha256}/assign", post(image::assign_to))
        .route("/images/{sha256}/revoke", post(image::revoke))
        .route("/changes", get(changes::page))
        .route("/changes/{id}", get(change::page))
        .route("/changes/{id}/approve", post(change::approve))
        .route("/changes/{id}/refuse", post(change::refuse))
        .route("/changes/{id}/withdraw", post(change::withdraw))
        .route("/exceptions", get(exceptions::page))
        .route("/exceptions/{id}", get(exceptions::one))
        .route("/exceptions/{id}/approve", post(exceptions::approve))
        .route("/exceptions/{id}/refuse", post(exceptions::refuse))
        .route("/exceptions/{id}/withdraw", post(exceptions::withdraw))
        .route("/exceptions/{id}/revoke", post(exceptions::revoke))
        .route("/alerts", get(alerts::page))
        .route("/alerts/{id}/retry", post(alerts::retry))
        .route("/alerts/channels/{name}/test", post(alerts::test))
}

/// A page's address with another value for one of its parameters; empty ones are left out.
#[must_use]
pub(crate) fn address(path: &str, parameters: &[(&str, &str)]) -> String {
    let escape = |text: &str| -> String {
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
    };
    let query: Vec<String> = parameters
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", escape(value)))
        .collect();
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", query.join("&"))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn filters_live_in_the_address() {
        assert_eq!(
            super::address("/nodes", &[("q", "a&b c"), ("status", ""), ("page", "2")]),
            "/nodes?q=a%26b%20c&page=2"
        );
        assert_eq!(super::address("/nodes", &[("q", "")]), "/nodes");
    }
}
