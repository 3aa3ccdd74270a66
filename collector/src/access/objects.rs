//! Whose object is it? The gate asks before every route that names one, so that no handler can forget to: what belongs to a node beyond
//! somebody's reach does not exist for them, whether they look at it or act on it.

use super::Reach;
use crate::store::{Store, StoreError};

/// How the group of an object is found by its id.
type Owner = &'static str;

/// Objects that belong to a group of nodes, by the word that their routes begin with.
const OWNED: &[(&str, Owner)] = &[
    ("nodes", "SELECT grp FROM nodes WHERE id = ?"),
    (
        "violations",
        "SELECT n.grp FROM violations v JOIN nodes n ON n.id = v.node WHERE v.id = ?",
    ),
    ("assignments", "SELECT grp FROM deployments WHERE id = ?"),
    ("changes", "SELECT grp FROM deployments WHERE id = ?"),
    (
        "exceptions",
        "SELECT coalesce(e.grp, n.grp) FROM exceptions e LEFT JOIN nodes n ON n.id = e.node WHERE e.id = ?",
    ),
    (
        "sessions",
        "SELECT n.grp FROM logins l JOIN nodes n ON n.id = l.node WHERE l.id = ?",
    ),
];

/// How the owner of what a route names is found; nothing for routes that name no object of a group.
fn owner(route: &str) -> Option<Owner> {
    let (kind, rest) = route
        .strip_prefix("/api/v1")
        .unwrap_or(route)
        .strip_prefix('/')?
        .split_once('/')?;
    rest.starts_with("{id}")
        .then(|| OWNED.iter().find(|(word, _)| *word == kind))
        .flatten()
        .map(|(_, owner)| *owner)
}

/// Whether what a route names is within reach. What is not there is not; the answer is the same.
pub(super) async fn within(
    store: &Store,
    reach: &Reach,
    route: &str,
    id: Option<&str>,
) -> Result<bool, StoreError> {
    let (Some(owner), Some(id)) = (owner(route).filter(|_| !reach.is_all()), id) else {
        return Ok(true);
    };
    let group: Option<String> = sqlx::query_scalar(owner)
        .bind(id)
        .fetch_optional(store.read_pool())
        .await?;
    Ok(group.is_some_and(|group| reach.reaches(&group)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::roles::ROUTES;

    /// What routes name that belongs to no group, or is judged by its handler: an image is everybody's, a token its maker's, evidence says
    /// itself whose it is, an alert may tell of nodes of several groups, a channel and accounts are for who reaches everything.
    const OTHERS: [&str; 9] = [
        "alerts",
        "channels",
        "assets",
        "images",
        "manifests",
        "evidence",
        "tokens",
        "accounts",
        "activity",
    ];

    #[test]
    fn every_route_that_names_an_object_says_whose_it_is() {
        for route in ROUTES.iter().filter(|route| route.path.contains('{')) {
            let path = route
                .path
                .trim_start_matches("/api/v1")
                .trim_start_matches('/');
            let word = path.split('/').find(|part| *part != "settings");
            let other = word.is_some_and(|word| OTHERS.contains(&word));
            assert!(
                owner(route.path).is_some() != other,
                "{}: add it to OWNED, or say here why it is nobody's",
                route.path
            );
        }
        assert!(owner("/nodes").is_none() && owner("/api/v1/sessions").is_none());
    }
}
