//! Who may do what: one enum of roles and one table of routes. The people's door asks the table for every request; a route that does
//! not stand in it is refused, so a right is never gained by forgetting a check.

use http::Method;
use serde::{Deserialize, Serialize};

/// What an account or a token may do. The order is the order of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything, changes nothing.
    Viewer,
    /// Publishes, assigns, approves, makes tokens.
    Admin,
}

impl Role {
    /// As in JSON and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Admin => "admin",
        }
    }

    /// The role that is written so, if any.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "viewer" => Some(Self::Viewer),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

/// What a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Open,
    /// Nothing from this machine itself, a viewer from elsewhere.
    LoopbackOrViewer,
    /// A person or a pipeline with at least this role.
    SignedIn(Role),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Route {
    /// The method; `HEAD` goes with `GET`.
    pub method: Method,
    /// The pattern as the router has it.
    pub path: &'static str,
    /// What it asks for.
    pub need: Need,
}

const OPEN: Need = Need::Open;
const VIEWER: Need = Need::SignedIn(Role::Viewer);
const ADMIN: Need = Need::SignedIn(Role::Admin);

macro_rules! table {
    ($($method:ident $path:literal $need:expr;)*) => { &[$(Route { method: Method::$method, path: $path, need: $need }),*] };
}

/// Every route of the people's door.
pub const ROUTES: &[Route] = table! {
    GET "/livez" OPEN;
    GET "/readyz" OPEN;
    GET "/metrics" Need::LoopbackOrViewer;
    GET "/assets/{file}" OPEN;
    GET "/sign-in" OPEN;
    POST "/sign-in" OPEN;
    GET "/sign-out" VIEWER;
    POST "/sign-out" VIEWER;
    GET "/" VIEWER;
    GET "/nodes" VIEWER;
    GET "/nodes/{id}" VIEWER;
    GET "/nodes/{id}/pins" VIEWER;
    POST "/nodes/{id}/pins/review" ADMIN;
    GET "/violations" VIEWER;
    GET "/violations/{id}" VIEWER;
    POST "/violations/{id}/acknowledge" ADMIN;
    POST "/violations/{id}/resolve" ADMIN;
    POST "/violations/{id}/accept" ADMIN;
    GET "/sessions" VIEWER;
    GET "/sessions/{id}" VIEWER;
    GET "/images" VIEWER;
    POST "/api/v1/sessions" OPEN;
    DELETE "/api/v1/sessions" VIEWER;
    GET "/api/v1/sessions" VIEWER;
    GET "/api/v1/sessions/{id}" VIEWER;
    GET "/api/v1/whoami" VIEWER;
    GET "/api/v1/summary" VIEWER;
    GET "/api/v1/nodes" VIEWER;
    GET "/api/v1/nodes/{id}" VIEWER;
    GET "/api/v1/nodes/{id}/differences" VIEWER;
    POST "/api/v1/nodes/{id}/approve" ADMIN;
    POST "/api/v1/nodes/{id}/group" ADMIN;
    POST "/api/v1/nodes/{id}/rescan" ADMIN;
    GET "/api/v1/nodes/{id}/sessions" VIEWER;
    GET "/api/v1/nodes/{id}/pins" VIEWER;
    POST "/api/v1/nodes/{id}/pins/review" ADMIN;
    GET "/api/v1/violations" VIEWER;
    GET "/api/v1/violations/{id}" VIEWER;
    POST "/api/v1/violations/{id}/acknowledge" ADMIN;
    POST "/api/v1/violations/{id}/resolve" ADMIN;
    GET "/api/v1/touched" VIEWER;
    GET "/api/v1/events" VIEWER;
    GET "/api/v1/images" VIEWER;
    POST "/api/v1/images" ADMIN;
    GET "/api/v1/images/{sha256}" VIEWER;
    PUT "/api/v1/manifests/{sha256}" ADMIN;
    GET "/api/v1/assignments" VIEWER;
    POST "/api/v1/assignments" ADMIN;
    GET "/api/v1/tokens" ADMIN;
    POST "/api/v1/tokens" ADMIN;
    DELETE "/api/v1/tokens/{id}" ADMIN;
    GET "/api/v1/alerts" VIEWER;
    GET "/api/v1/evidence/{sha256}" VIEWER;
};

/// What a request to a route of the router asks for; `None` when the table does not know it.
#[must_use]
pub fn need(method: &Method, path: &str) -> Option<Need> {
    let method = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    ROUTES
        .iter()
        .find(|route| route.method == method && route.path == path)
        .map(|route| route.need)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changes_something_asks_for_an_administrator() {
        for route in ROUTES {
            let own = matches!(route.path, "/sign-in" | "/sign-out" | "/api/v1/sessions");
            if route.method != Method::GET && !own {
                assert_eq!(route.need, ADMIN, "{} {}", route.method, route.path);
            }
        }
    }

    #[test]
    fn no_route_stands_twice_and_unknown_ones_have_no_answer() {
        for (at, route) in ROUTES.iter().enumerate() {
            assert!(
                !ROUTES[..at]
                    .iter()
                    .any(|other| other.method == route.method && other.path == route.path),
                "{}",
                route.path
            );
        }
        assert_eq!(need(&Method::PATCH, "/nodes"), None);
        assert_eq!(need(&Method::HEAD, "/nodes"), Some(VIEWER));
    }
}
