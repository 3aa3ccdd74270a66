//! A violation as everybody outside sees it: API, journal, webhook, server-sent events and `up` share this one struct.

use attestation::scope::Expect;
use attestation::statement::Actor;
use attestation::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::resolution::Resolution;

/// How grave a violation is.
pub use attestation::severity::Severity;
/// What a violation is about.
pub use attestation::violation::ViolationKind as Kind;

/// What happened to a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// It began.
    Opened,
    /// Something about it changed: another `found`, another count.
    Updated,
    /// It ended.
    Resolved,
}

impl Step {
    /// As in JSON and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Updated => "updated",
            Self::Resolved => "resolved",
        }
    }

    /// The step that is written so, if any.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
    }
}

/// The image an expected state came from, and the commit that it was built from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Image)]
pub struct ImageView {
    /// The image's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The commit it was built from.
    pub commit: String,
    /// The repository of that commit.
    #[serde(default)]
    pub repository: String,
    /// Who made that commit.
    #[serde(default)]
    pub author: String,
    /// SHA-256 of the image statement's payload, hex.
    #[serde(default)]
    pub sha256: String,
}

/// Somebody has seen it, as it then was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Acknowledged {
    /// Who.
    pub by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What they said.
    pub reason: String,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Mount)]
pub struct MountView {
    /// What.
    pub source: String,
    /// The file system's type.
    pub r#type: String,
}

/// A violation, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Violation)]
pub struct ViolationView {
    /// UUIDv7.
    pub id: String,
    /// The node's id.
    pub node: String,
    /// The node's name.
    #[serde(default)]
    pub node_name: String,
    /// What it is about.
    #[schema(value_type = String)]
    pub kind: Kind,
    /// As shown (mtree encoding); null where the kind has none.
    pub path: Option<String>,
    /// The path's expectation.
    #[schema(value_type = Option<String>)]
    pub expect: Option<Expect>,
    /// Entry line as it should be.
    pub expected: Option<String>,
    /// Entry line as found.
    pub found: Option<String>,
    /// What differs.
    pub fields: Vec<String>,
    /// Who did it, where that is known.
    #[schema(value_type = Option<Object>)]
    pub actor: Option<Actor>,
    /// How much it matters.
    #[schema(value_type = String)]
    pub severity: Severity,
    /// When the collector heard of it.
    #[schema(value_type = String, format = DateTime)]
    pub opened: Timestamp,
    /// When the agent saw it.
    #[schema(value_type = String, format = DateTime)]
    pub detected: Timestamp,
    /// When anything about it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resolved: Option<Timestamp>,
    /// How it ended, in a sentence.
    pub resolution: Option<String>,
    /// And in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_as: Option<Resolution>,
    /// Where the expected state comes from.
    pub image: Option<ImageView>,
    /// How many, where the kind is `many` or `touched`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What is mounted, where the kind is `mount`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<MountView>,
    /// Who has seen it as it now is; another finding clears this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledged>,
    /// What else the kind has to say; `late: true` when a statement without a good challenge reported it.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schema(value_type = Object)]
    pub detail: serde_json::Map<String, serde_json::Value>,
}

impl ViolationView {
    /// Ends it: how in a word, and in a sentence.
    #[must_use]
    pub fn ended(mut self, at: Timestamp, how: Resolution, sentence: String) -> Self {
        self.updated = at;
        self.resolved = Some(at);
        self.resolution = Some(sentence);
        self.resolved_as = Some(how);
        self
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let node = if self.node_name.is_empty() {
            &self.node
        } else {
            &self.node_name
        };
        match (&self.path, self.count) {
            (Some(path), _) if !self.fields.is_empty() => format!(
                "{node}: {} {path} ({})",
                self.kind.as_str(),
                self.fields.join(", ")
            ),
            (Some(path), _) => format!("{node}: {} {path}", self.kind.as_str()),
            (None, Some(count)) => format!("{node}: {} ({count})", self.kind.as_str()),
            (None, None) => format!("{node}: {}", self.kind.as_str()),
        }
    }
}
