//! Which channels hear of a violation: a plain decision over what it is about.

use attestation::path::ImagePath;
use attestation::scope::Expect;

use crate::access::Reach;
use crate::settings::AlertRoute;
use crate::store::NodeState;
use crate::violations::view::{Kind, Severity, ViolationView};

/// What routes look at.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The violation's kind.
    pub kind: Kind,
    /// How grave it is.
    pub severity: Severity,
    /// Where, as shown (mtree encoding), if anywhere.
    pub path: Option<&'a str>,
    /// The node's group.
    pub group: &'a str,
}

impl<'a> About<'a> {
    /// Of a violation on a node of `group`.
    pub fn of(violation: &'a ViolationView, group: &'a str) -> Self {
        Self {
            kind: violation.kind,
            severity: violation.severity,
            path: violation.path.as_deref(),
            group,
        }
    }
}

/// Whether anybody hears of what happens on a node in this state: not of one that a person has suspended. It is recorded all the same.
pub fn is_heard(state: NodeState) -> bool {
    state != NodeState::Suspended
}

/// Whether `channel` hears of it: every channel of everything where there is no route, else by any route that names it.
pub fn hears(channel: &str, about: &About<'_>, routes: &[AlertRoute]) -> bool {
    routes.is_empty()
        || routes
            .iter()
            .any(|route| route.channels.iter().any(|name| name == channel) && matches(route, about))
}

fn matches(route: &AlertRoute, about: &About<'_>) -> bool {
    about.severity >= route.severity
        && (route.kinds.is_empty() || route.kinds.contains(&about.kind))
        && (route.groups.is_empty() || route.groups.iter().any(|group| group == about.group))
        && route.paths.as_ref().is_none_or(|paths| {
            about
                .path
                .and_then(|path| ImagePath::parse(path).ok())
                .is_some_and(|path| paths.decide(&path).expect == Expect::Sealed)
        })
}

/// A route as somebody sees it: of the groups that it names those within their reach, and no route where none of them is.
pub fn within(route: &AlertRoute, reach: &Reach) -> Option<AlertRoute> {
    let reached = |group: &&String| reach.reaches(group);
    let groups: Vec<String> = route.groups.iter().filter(reached).cloned().collect();
    let is_seen = route.groups.is_empty() || !groups.is_empty();
    is_seen.then(|| AlertRoute {
        groups,
        ..route.clone()
    })
}

/// A route as people read it.
pub fn words(route: &AlertRoute) -> String {
    let mut text = match route.severity {
        Severity::Critical => "Critical violations".to_owned(),
        Severity::Low => "All violations".to_owned(),
        least => format!("Violations that are {least} or graver"),
    };
    if !route.kinds.is_empty() {
        let kinds: Vec<&str> = route.kinds.iter().map(|kind| kind.as_str()).collect();
        text = format!("{text} of kind {}", listed(&kinds, "or"));
    }
    if !route.groups.is_empty() {
        let groups: Vec<&str> = route.groups.iter().map(String::as_str).collect();
        text = format!("{text} in {}", listed(&groups, "or"));
    }
    if let Some(paths) = &route.paths {
        let globs: Vec<&str> = paths
            .rules()
            .iter()
            .filter(|rule| rule.expect == Expect::Sealed)
            .map(|rule| rule.r#match.as_str())
            .collect();
        text = format!("{text} at {}", listed(&globs, "or"));
    }
    let channels: Vec<&str> = route.channels.iter().map(String::as_str).collect();
    format!("{text} go to {}.", listed(&channels, "and"))
}

/// `a`, `a or b`, `a, b or c`.
fn listed(names: &[&str], last: &str) -> String {
    match names {
        [] => "nobody".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;
    use crate::config::path_rules;

    fn route(channels: &[&str]) -> AlertRoute {
        AlertRoute {
            channels: channels.iter().map(|name| (*name).to_owned()).collect(),
            severity: Severity::Low,
            groups: Vec::new(),
            kinds: Vec::new(),
            paths: None,
        }
    }

    const ABOUT: About<'static> = About {
        kind: Kind::Difference,
        severity: Severity::High,
        path: Some("./etc/ssh/sshd_config"),
        group: "web",
    };

    #[test]
    fn without_a_route_everybody_hears_everything() {
        assert!(hears("any", &ABOUT, &[]));
    }

    #[test]
    fn every_condition_of_a_route_must_hold_and_any_route_is_enough() {
        let narrow = AlertRoute {
            severity: Severity::High,
            groups: vec!["web".to_owned(), "db".to_owned()],
            kinds: vec![Kind::Difference],
            paths: Some(path_rules(&["etc/ssh", "**/*.so"]).unwrap()),
            ..route(&["pager"])
        };
        let routes = [narrow, route(&["mail"])];
        assert!(hears("pager", &ABOUT, &routes) && hears("mail", &ABOUT, &routes));
        assert!(
            !hears("chat", &ABOUT, &routes),
            "no route names this channel"
        );
        let others = [
            About {
                severity: Severity::Medium,
                ..ABOUT
            },
            About {
                group: "lab",
                ..ABOUT
            },
            About {
                kind: Kind::Touched,
                ..ABOUT
            },
            About {
                path: Some("./etc/motd"),
                ..ABOUT
            },
            About {
                path: None,
                ..ABOUT
            },
        ];
        for about in others {
            assert!(!hears("pager", &about, &routes), "{about:?}");
            assert!(hears("mail", &about, &routes), "{about:?}");
        }
        let library = About {
            path: Some("./usr/lib/x.so"),
            severity: Severity::Critical,
            ..ABOUT
        };
        assert!(hears("pager", &library, &routes));
    }

    #[test]
    fn a_suspended_node_is_recorded_and_not_told() {
        assert!(!is_heard(NodeState::Suspended));
        assert!(is_heard(NodeState::Active) && is_heard(NodeState::Retired));
    }

    #[test]
    fn who_is_limited_sees_of_a_route_the_groups_that_they_reach() {
        let of = |groups: &[&str]| Reach::of(groups.iter().map(|group| (*group).to_owned()));
        let narrow = AlertRoute {
            groups: vec!["web".to_owned(), "db".to_owned()],
            ..route(&["pager"])
        };
        let seen = |route: &AlertRoute, groups: &[&str]| {
            within(route, &of(groups)).map(|route| words(&route))
        };
        let both = "All violations in web or db go to pager.";
        assert_eq!(seen(&narrow, &[]).as_deref(), Some(both));
        let web = "All violations in web go to pager.";
        assert_eq!(seen(&narrow, &["web", "lab"]).as_deref(), Some(web));
        assert_eq!(seen(&narrow, &["lab"]), None);
        let wide = "All violations go to mail.";
        assert_eq!(seen(&route(&["mail"]), &["lab"]).as_deref(), Some(wide));
    }

    #[test]
    fn a_route_reads_as_a_sentence() {
        assert_eq!(words(&route(&["mail"])), "All violations go to mail.");
        let narrow = AlertRoute {
            severity: Severity::High,
            groups: vec!["web".to_owned(), "db".to_owned()],
            kinds: vec![Kind::Difference, Kind::Mount, Kind::Touched],
            paths: Some(path_rules(&["etc/**"]).unwrap()),
            ..route(&["pager", "mail"])
        };
        assert_eq!(
            words(&narrow),
            "Violations that are high or graver of kind difference, mount or touched in web or db at etc/** go to pager and mail."
        );
    }
}
