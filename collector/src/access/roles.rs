//! Who may do what: which rights a role has, and one table of the right that each route asks for. The people's door asks the table for every request; a route that does
//! not stand in it is refused, so a right is never gained by forgetting a check.

use http::Method;
use serde::{Deserialize, Serialize};

/// What somebody may do, in kinds. Each route of the table asks for one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// Sees what there is, and keeps the account and the tokens that are one's own.
    Read,
    /// Judges what was found: acknowledges, resolves, reviews pins, asks for rescans, tests an alert channel.
    Respond,
    /// Asks for a change that somebody else approves: an assignment, an exception, a window.
    Request,
    /// Answers for a change that somebody else asked for, and says who belongs to the fleet: lets nodes in, bans them.
    Approve,
    /// Keeps the list of nodes: join tokens, names, groups, suspending, decommissioning.
    Steward,
    /// Publishes images and their manifests, and revokes them.
    Publish,
    /// Accounts, the tokens of others, the collector's settings.
    Administer,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Read,
        Self::Respond,
        Self::Request,
        Self::Approve,
        Self::Steward,
        Self::Publish,
        Self::Administer,
    ];
}

/// What an account or a token is for. Roles are no ladder: who publishes an image does not assign it, who asks for a change does not
/// approve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Works with what is found, asks for changes, keeps the list of nodes.
    Operator,
    /// Approves what others ask for.
    Approver,
    /// A build pipeline: publishes images.
    Publisher,
    /// May everything, but for approving what they asked for themselves.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Viewer,
        Self::Operator,
        Self::Approver,
        Self::Publisher,
        Self::Admin,
    ];

    /// What it may do.
    #[must_use]
    pub const fn rights(self) -> &'static [Right] {
        match self {
            Self::Viewer => &[Right::Read],
            Self::Operator => &[Right::Read, Right::Respond, Right::Request, Right::Steward],
            Self::Approver => &[Right::Read, Right::Approve],
            Self::Publisher => &[Right::Read, Right::Publish],
            Self::Admin => &Right::ALL,
        }
    }

    /// Whether it may.
    #[must_use]
    pub fn may(self, right: Right) -> bool {
        self.rights().contains(&right)
    }

    /// Whether it may all that another may: who hands on rights hands on none that they lack.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        other.rights().iter().all(|right| self.may(*right))
    }

    /// As in JSON and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Publisher => "publisher",
            Self::Admin => "admin",
        }
    }

    /// The role that is written so, if any.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// What a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Open,
    /// Nothing from this machine itself, the right to read from elsewhere.
    LoopbackOrRead,
    /// A person or a pipeline with this right.
    May(Right),
    /// The same, and no limit to groups: what the route shows or does cannot be parted by them.
    Whole(Right),
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
const READ: Need = Need::May(Right::Read);
const RESPOND: Need = Need::May(Right::Respond);
const REQUEST: Need = Need::May(Right::Request);
const APPROVE: Need = Need::May(Right::Approve);
const STEWARD: Need = Need::May(Right::Steward);
const PUBLISH: Need = Need::May(Right::Publish);
const ADMINISTER: Need = Need::May(Right::Administer);

macro_rules! table {
    ($($method:ident $path:literal $need:expr;)*) => { &[$(Route { method: Method::$method, path: $path, need: $need }),*] };
}

/// Every route of the people's door.
pub const ROUTES: &[Route] = table! {
    GET "/livez" OPEN;
    GET "/readyz" OPEN;
    GET "/metrics" Need::LoopbackOrRead;
    GET "/assets/{file}" OPEN;
    GET "/sign-in" OPEN;
    POST "/sign-in" OPEN;
    GET "/sign-out" READ;
    POST "/sign-out" READ;
    GET "/" READ;
    GET "/nodes" READ;
    GET "/nodes/{id}" READ;
    POST "/nodes/{id}/approve" APPROVE;
    POST "/nodes/{id}/suspend" STEWARD;
    POST "/nodes/{id}/resume" STEWARD;
    POST "/nodes/{id}/ban" APPROVE;
    POST "/nodes/{id}/decommission" STEWARD;
    POST "/nodes/{id}/rename" STEWARD;
    POST "/nodes/{id}/group" STEWARD;
    POST "/nodes/{id}/rescan" RESPOND;
    GET "/nodes/{id}/pins" READ;
    POST "/nodes/{id}/pins/review" RESPOND;
    GET "/violations" READ;
    GET "/violations/{id}" READ;
    POST "/violations/{id}/acknowledge" RESPOND;
    POST "/violations/{id}/resolve" RESPOND;
    POST "/violations/{id}/accept" RESPOND;
    POST "/violations/{id}/false-alarm" RESPOND;
    POST "/violations/{id}/except" REQUEST;
    GET "/sessions" READ;
    GET "/sessions/{id}" READ;
    GET "/images" READ;
    GET "/images/{sha256}" READ;
    GET "/images/{sha256}/differences" READ;
    POST "/images/{sha256}/assign" REQUEST;
    POST "/images/{sha256}/revoke" PUBLISH;
    GET "/changes" READ;
    GET "/changes/{id}" READ;
    POST "/changes/{id}/approve" APPROVE;
    POST "/changes/{id}/refuse" APPROVE;
    POST "/changes/{id}/withdraw" REQUEST;
    GET "/exceptions" READ;
    GET "/exceptions/{id}" READ;
    POST "/exceptions/{id}/approve" APPROVE;
    POST "/exceptions/{id}/refuse" APPROVE;
    POST "/exceptions/{id}/withdraw" REQUEST;
    POST "/exceptions/{id}/revoke" APPROVE;
    GET "/activity" READ;
    GET "/activity/{id}" READ;
    GET "/settings" READ;
    POST "/settings/password" READ;
    POST "/settings/tokens" READ;
    POST "/settings/tokens/{id}/revoke" READ;
    POST "/settings/join-tokens" STEWARD;
    POST "/settings/accounts" ADMINISTER;
    POST "/settings/accounts/{user}/role" ADMINISTER;
    POST "/settings/accounts/{user}/password" ADMINISTER;
    POST "/settings/accounts/{user}/disable" ADMINISTER;
    POST "/settings/accounts/{user}/enable" ADMINISTER;
    POST "/api/v1/sessions" OPEN;
    DELETE "/api/v1/sessions" READ;
    GET "/api/v1/sessions" READ;
    GET "/api/v1/sessions/{id}" READ;
    GET "/api/v1/whoami" READ;
    GET "/api/v1/summary" READ;
    GET "/api/v1/nodes" READ;
    GET "/api/v1/nodes/{id}" READ;
    GET "/api/v1/nodes/{id}/differences" READ;
    POST "/api/v1/nodes/{id}/approve" APPROVE;
    POST "/api/v1/nodes/{id}/suspend" STEWARD;
    POST "/api/v1/nodes/{id}/resume" STEWARD;
    POST "/api/v1/nodes/{id}/ban" APPROVE;
    POST "/api/v1/nodes/{id}/decommission" STEWARD;
    POST "/api/v1/nodes/{id}/rename" STEWARD;
    POST "/api/v1/nodes/{id}/group" STEWARD;
    POST "/api/v1/nodes/{id}/rescan" RESPOND;
    GET "/api/v1/nodes/{id}/sessions" READ;
    GET "/api/v1/nodes/{id}/pins" READ;
    POST "/api/v1/nodes/{id}/pins/review" RESPOND;
    GET "/api/v1/violations" READ;
    GET "/api/v1/violations/{id}" READ;
    POST "/api/v1/violations/{id}/acknowledge" RESPOND;
    POST "/api/v1/violations/{id}/resolve" RESPOND;
    GET "/api/v1/touched" READ;
    GET "/api/v1/events" READ;
    GET "/api/v1/images" READ;
    POST "/api/v1/images" PUBLISH;
    GET "/api/v1/images/{sha256}" READ;
    GET "/api/v1/images/{sha256}/differences" READ;
    POST "/api/v1/images/{sha256}/revoke" PUBLISH;
    PUT "/api/v1/manifests/{sha256}" PUBLISH;
    GET "/api/v1/assignments" READ;
    POST "/api/v1/assignments" REQUEST;
    POST "/api/v1/assignments/{id}/approve" APPROVE;
    POST "/api/v1/assignments/{id}/refuse" APPROVE;
    POST "/api/v1/assignments/{id}/withdraw" REQUEST;
    GET "/api/v1/changes" READ;
    GET "/api/v1/changes/{id}" READ;
    GET "/api/v1/changes/{id}/nodes" READ;
    GET "/api/v1/exceptions" READ;
    POST "/api/v1/exceptions" REQUEST;
    GET "/api/v1/exceptions/{id}" READ;
    POST "/api/v1/exceptions/{id}/approve" APPROVE;
    POST "/api/v1/exceptions/{id}/refuse" APPROVE;
    POST "/api/v1/exceptions/{id}/withdraw" REQUEST;
    POST "/api/v1/exceptions/{id}/revoke" APPROVE;
    GET "/api/v1/tokens" READ;
    POST "/api/v1/tokens" READ;
    DELETE "/api/v1/tokens/{id}" READ;
    POST "/api/v1/password" READ;
    GET "/api/v1/accounts" ADMINISTER;
    POST "/api/v1/accounts" ADMINISTER;
    PATCH "/api/v1/accounts/{user}" ADMINISTER;
    POST "/api/v1/accounts/{user}/password" ADMINISTER;
    POST "/api/v1/accounts/{user}/disable" ADMINISTER;
    POST "/api/v1/accounts/{user}/enable" ADMINISTER;
    GET "/api/v1/activity" READ;
    GET "/api/v1/activity/{id}" READ;
    GET "/alerts" READ;
    POST "/alerts/{id}/retry" RESPOND;
    POST "/alerts/channels/{name}/test" Need::Whole(Right::Respond);
    GET "/api/v1/alerts" READ;
    POST "/api/v1/alerts/{id}/retry" RESPOND;
    GET "/api/v1/channels" READ;
    POST "/api/v1/channels/{name}/test" Need::Whole(Right::Respond);
    GET "/api/v1/evidence/{sha256}" READ;
    GET "/api/v1/openapi.json" READ;
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
    fn whatever_changes_something_asks_for_more_than_to_read() {
        for route in ROUTES {
            // One's own: the session, the password, tokens that may no more than oneself.
            let own = ["/sign-in", "/sign-out", "/api/v1/sessions"].contains(&route.path)
                || route.path.ends_with("v1/password")
                || route.path.ends_with("settings/password")
                || route.path.contains("/tokens");
            if route.method != Method::GET && !own {
                assert!(
                    !matches!(route.need, OPEN | Need::LoopbackOrRead | READ),
                    "{} {}",
                    route.method,
                    route.path
                );
            }
        }
    }

    #[test]
    fn roles_are_no_ladder() {
        let rights = |right| {
            Role::ALL
                .into_iter()
                .filter(|role| role.may(right))
                .map(Role::as_str)
                .collect::<Vec<_>>()
        };
        assert_eq!(rights(Right::Read).len(), Role::ALL.len());
        assert_eq!(rights(Right::Respond), ["operator", "admin"]);
        assert_eq!(rights(Right::Request), ["operator", "admin"]);
        assert_eq!(rights(Right::Steward), ["operator", "admin"]);
        assert_eq!(rights(Right::Approve), ["approver", "admin"]);
        assert_eq!(rights(Right::Publish), ["publisher", "admin"]);
        assert_eq!(rights(Right::Administer), ["admin"]);
        assert!(Role::Operator.covers(Role::Viewer) && !Role::Operator.covers(Role::Approver));
        assert!(Role::ALL.into_iter().all(|role| Role::Admin.covers(role)));
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
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
        assert_eq!(need(&Method::HEAD, "/nodes"), Some(READ));
    }
}
