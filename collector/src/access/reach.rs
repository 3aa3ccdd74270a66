//! How far somebody reaches: all nodes, or those of some groups. Reads take it and leave out what is beyond; what is beyond does not
//! exist for whoever asks, so that an answer tells nothing of it.

use std::collections::BTreeSet;

use serde::{Serialize, Serializer};

use crate::problem::ProblemResponse;
use crate::store::{NodeRow, StoreError};

/// Groups that one account or token may be limited to: what a person can oversee.
pub const MOST: usize = 64;

/// The groups of nodes that somebody sees and acts on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach(Option<BTreeSet<String>>);

impl Reach {
    /// Every node, also those of groups to come.
    #[must_use]
    pub const fn all() -> Self {
        Self(None)
    }

    /// These groups; all where none is named.
    pub fn of(groups: impl IntoIterator<Item = String>) -> Self {
        let groups: BTreeSet<String> = groups.into_iter().collect();
        Self((!groups.is_empty()).then_some(groups))
    }

    /// As it is written in the store.
    pub(crate) fn parse(text: &str) -> Result<Self, StoreError> {
        let groups: Vec<String> = serde_json::from_str(text)
            .map_err(|_bad| StoreError::corrupt(format!("reach {text:?}")))?;
        Ok(Self::of(groups))
    }

    /// The groups by name; empty for all.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flatten().map(String::as_str)
    }

    /// Whether it has no limit.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the nodes of a group are within it.
    #[must_use]
    pub fn reaches(&self, group: &str) -> bool {
        self.0.as_ref().is_none_or(|groups| groups.contains(group))
    }

    /// Whether everything that another reaches is within it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(theirs)) => theirs.is_subset(mine),
        }
    }

    /// For a query: null for all, else a JSON list. `(?1 IS NULL OR n.grp IN (SELECT value FROM json_each(?1)))`
    #[must_use]
    pub fn to_sql(&self) -> Option<String> {
        self.0
            .as_ref()
            .map(|groups| serde_json::json!(groups).to_string())
    }

    /// As it is kept in the store: a JSON list, empty for all.
    pub(crate) fn to_row(&self) -> String {
        self.to_sql().unwrap_or_else(|| "[]".to_owned())
    }

    /// A node, where it is within reach.
    ///
    /// # Errors
    /// 404, the same as for a node that is not there.
    pub fn within<N: AsRef<NodeRow>>(&self, node: Option<N>) -> Result<N, ProblemResponse> {
        node.filter(|node| self.reaches(&node.as_ref().group))
            .ok_or_else(|| ProblemResponse::not_found("there is no node with this id"))
    }
}

impl Serialize for Reach {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.groups())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    fn of(groups: &[&str]) -> Reach {
        Reach::of(groups.iter().map(|group| (*group).to_owned()))
    }

    #[test]
    fn no_group_named_is_no_limit_and_a_limit_reaches_what_it_names() {
        assert!(of(&[]).is_all() && of(&[]).reaches("anything"));
        let web = of(&["web", "edge"]);
        assert!(web.reaches("web") && !web.reaches("db") && !web.reaches("web2"));
        assert_eq!(web.to_sql().unwrap(), r#"["edge","web"]"#);
        assert_eq!(Reach::parse(&web.to_row()).unwrap(), web);
        assert_eq!(Reach::parse(&Reach::all().to_row()).unwrap(), Reach::all());
    }

    #[test]
    fn nobody_hands_on_more_than_they_reach() {
        let (all, web, both) = (of(&[]), of(&["web"]), of(&["web", "db"]));
        assert!(all.covers(&web) && all.covers(&all) && both.covers(&web));
        assert!(!web.covers(&all) && !web.covers(&both) && !both.covers(&of(&["web", "x"])));
    }

    #[test]
    fn a_node_beyond_reach_is_answered_like_none() {
        let at = attestation::time::Timestamp::from_micros(0);
        let state = crate::store::NodeState::Active;
        let row = NodeRow::new(
            "a".into(),
            "a".into(),
            "db".into(),
            state,
            String::new(),
            at,
        );
        let beyond = of(&["web"]).within(Some(row.clone())).unwrap_err();
        let none = of(&["web"]).within(None::<NodeRow>).unwrap_err();
        assert_eq!(
            (beyond.status, beyond.code, beyond.detail),
            (none.status, none.code, none.detail)
        );
        assert_eq!(of(&["db"]).within(Some(row)).unwrap().id, "a");
    }
}
