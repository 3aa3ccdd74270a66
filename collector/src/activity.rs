//! The activity log: what people and pipelines did. A row for pages and scripts, and a leaf of the log that stands for it; both are
//! written in the transaction that does it, and neither is ever changed.

mod read;

use attestation::digest::Digest;
use attestation::time::Timestamp;
use serde_json::{Value, json};

pub use self::read::{Filter, Order, Record, list, named};

use crate::access::Person;
use crate::log::{self, Leaf};
use crate::store::{NodeRow, StoreError, Writing};

/// What something was done to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `node`, `violation`, `account`, `token`, `image`, `assignment`, …: a word.
    pub kind: &'static str,
    /// Its id, or its name where that is its id.
    pub id: &'a str,
    /// What people call it, as it was called then; may be empty.
    pub name: &'a str,
    /// The node that it is about, if it is about one.
    pub node: Option<&'a str>,
    /// The group of nodes that it is about: who does not reach it does not read of it.
    pub group: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Something that is about no node.
    #[must_use]
    pub const fn new(kind: &'static str, id: &'a str, name: &'a str) -> Self {
        Self {
            kind,
            id,
            name,
            node: None,
            group: None,
        }
    }

    /// A node.
    #[must_use]
    pub fn node(node: &'a NodeRow) -> Self {
        Self::new("node", &node.id, &node.name).on(node)
    }

    /// About this node.
    #[must_use]
    pub fn on(mut self, node: &'a NodeRow) -> Self {
        (self.node, self.group) = (Some(node.id.as_str()), Some(node.group.as_str()));
        self
    }

    /// About the nodes of this group.
    #[must_use]
    pub const fn in_group(mut self, group: &'a str) -> Self {
        self.group = Some(group);
        self
    }
}

/// One thing that somebody does.
pub struct Doing<'a> {
    /// Who, how they showed it, and from where.
    pub who: &'a Person,
    /// When.
    pub at: Timestamp,
    /// What, in two stable words: `node.rescan`, `violation.resolve`.
    pub action: &'static str,
    /// To what.
    pub target: Target<'a>,
    /// What of it was so before; null where there is nothing to say.
    pub before: Value,
    /// What of it is so now; null where there is nothing to say.
    pub after: Value,
    /// Why, where somebody was asked.
    pub reason: Option<&'a str>,
}

/// Writes it down, inside the transaction that does it.
pub async fn record(tx: &mut Writing, doing: &Doing<'_>) -> Result<(), StoreError> {
    record_times(tx, doing, 1).await
}

/// The same for what happened so often that it is counted together.
pub async fn record_times(
    tx: &mut Writing,
    doing: &Doing<'_>,
    count: u64,
) -> Result<(), StoreError> {
    let (who, target) = (doing.who, &doing.target);
    let (via, from) = (who.by.shown(), who.from.map(|from| from.to_string()));
    let written = |value: &Value| (!value.is_null()).then(|| value.to_string());
    sqlx::query(
        "INSERT INTO actions (id, at, user, action, target, detail, via, origin, kind, name, node, grp, was, became, reason, count) \
         VALUES (?, ?, ?, ?, ?, '{}', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(uuid::Uuid::now_v7().to_string())
    .bind(doing.at.as_micros())
    .bind(&who.user)
    .bind(doing.action)
    .bind(target.id)
    .bind(&via)
    .bind(&from)
    .bind(target.kind)
    .bind(target.name)
    .bind(target.node)
    .bind(target.group)
    .bind(written(&doing.before))
    .bind(written(&doing.after))
    .bind(doing.reason)
    .bind(i64::try_from(count).unwrap_or(i64::MAX))
    .execute(&mut tx.connection)
    .await?;
    let said = [&doing.before, &doing.after].map(|value| written(value).unwrap_or_default());
    let [before, after] = &said;
    let reason = doing.reason.unwrap_or_default();
    let words = [
        who.user.as_str(),
        doing.action,
        target.kind,
        target.name,
        target.id,
        reason,
        before,
        after,
    ];
    searchable(tx, &words.join(" ")).await?;
    let more = json!({
        "action": doing.action, "by": who.user, "via": via, "from": from, "target": target.id, "kind": target.kind,
        "before": doing.before, "after": doing.after, "reason": doing.reason, "count": count,
    });
    leaf(tx, doing.at, target.node, more).await
}

/// What the record that was just written is found by.
async fn searchable(tx: &mut Writing, text: &str) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO actions_text (rowid, text) VALUES (last_insert_rowid(), ?)")
        .bind(text)
        .execute(&mut tx.connection)
        .await?;
    Ok(())
}

async fn leaf(
    tx: &mut Writing,
    at: Timestamp,
    node: Option<&str>,
    more: Value,
) -> Result<(), StoreError> {
    let leaf = Leaf {
        kind: "action",
        at,
        node,
        sequence: None,
        digest: Digest::of(more.to_string().as_bytes()),
        more,
    };
    log::append(tx, &leaf).await
}
