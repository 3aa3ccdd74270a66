//! The activity log as pages and API read it.

use attestation::time::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use crate::access::Person;
use crate::store::{Store, StoreError};

/// What a search is made of.
const LETTERS: usize = 3;

/// One record.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ActivityRecord)]
pub struct Record {
    /// UUIDv7.
    pub id: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who: the account, or the one that a token speaks for; empty for somebody who is not known.
    pub user: String,
    /// How they showed it: `session …`, `token …`, `join-token …`, `local`; empty where they did not.
    pub by: String,
    /// From which address.
    pub from: Option<String>,
    /// What they did, in two stable words.
    pub action: String,
    /// What the target is, in a word.
    pub kind: String,
    /// The target's id.
    pub target: String,
    /// What the target was called.
    pub name: String,
    /// The node that it is about.
    pub node: Option<String>,
    /// The group of nodes that it is about.
    pub group: Option<String>,
    /// What was so before.
    #[schema(value_type = Option<serde_json::Value>)]
    pub before: Option<Value>,
    /// What is so since.
    #[schema(value_type = Option<serde_json::Value>)]
    pub after: Option<Value>,
    /// Why.
    pub reason: Option<String>,
    /// How often, where the like is counted together.
    pub count: u64,
}

/// Which records are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter<'a> {
    /// By whom.
    pub who: Option<&'a str>,
    /// What was done: `node.ban`.
    pub action: Option<&'a str>,
    /// Of which kind the target is.
    pub kind: Option<&'a str>,
    /// The target, or the node that it is about, by id or name.
    pub target: Option<&'a str>,
    /// Since then.
    pub from: Option<Timestamp>,
    /// Before then.
    pub to: Option<Timestamp>,
    /// With this text anywhere; one of fewer than three letters is a name.
    pub text: Option<&'a str>,
    /// Where the page before ended.
    pub cursor: Option<&'a str>,
}

/// In which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As pages show them.
    NewestFirst,
    /// As an export has them.
    OldestFirst,
}

/// Records that a person may read: all for who reaches every node, else what is about nodes within reach and what they did themselves.
///
/// # Errors
/// What the store refuses.
pub async fn list(
    store: &Store,
    person: &Person,
    filter: &Filter<'_>,
    order: Order,
    limit: u32,
) -> Result<Vec<Record>, StoreError> {
    let phrase = filter.text.filter(|text| text.chars().count() >= LETTERS);
    let mut query = QueryBuilder::<Sqlite>::new(match phrase {
        // By row number, which is the order of writing: the index goes through its findings in it.
        Some(_) => {
            "SELECT a.* FROM actions_text t JOIN actions a ON a.rowid = t.rowid WHERE t.text MATCH "
        }
        None => "SELECT a.* FROM actions a WHERE true",
    });
    match (phrase, filter.text) {
        (Some(phrase), _) => {
            query.push_bind(format!("\"{}\"", phrase.replace('"', "\"\"")));
        }
        (None, Some(short)) => {
            query.push(" AND (a.user = ").push_bind(short);
            query.push(" OR a.name = ").push_bind(short);
            query.push(" OR a.target = ").push_bind(short).push(")");
        }
        (None, None) => {}
    }
    within(&mut query, person);
    narrow(&mut query, filter);
    let than = match order {
        Order::NewestFirst => "<",
        Order::OldestFirst => ">",
    };
    if let Some(cursor) = filter.cursor {
        if phrase.is_some() {
            query.push(" AND t.rowid ").push(than);
            query
                .push(" (SELECT rowid FROM actions WHERE id = ")
                .push_bind(cursor)
                .push(")");
        } else {
            query.push(" AND a.id ").push(than).push_bind(cursor);
        }
    }
    query.push(if phrase.is_some() {
        " ORDER BY t.rowid"
    } else {
        " ORDER BY a.id"
    });
    query.push(match order {
        Order::NewestFirst => " DESC LIMIT ",
        Order::OldestFirst => " LIMIT ",
    });
    query.push_bind(limit);
    let rows = query.build().fetch_all(store.read_pool()).await?;
    rows.iter().map(record).collect()
}

/// One record, where the person may read it.
///
/// # Errors
/// What the store refuses.
pub async fn named(store: &Store, person: &Person, id: &str) -> Result<Option<Record>, StoreError> {
    let mut query = QueryBuilder::<Sqlite>::new("SELECT a.* FROM actions a WHERE a.id = ");
    query.push_bind(id);
    within(&mut query, person);
    let row = query.build().fetch_optional(store.read_pool()).await?;
    row.as_ref().map(record).transpose()
}

/// What a filter asks for, but for its text and its place.
fn narrow(query: &mut QueryBuilder<Sqlite>, filter: &Filter<'_>) {
    if let Some(who) = filter.who {
        query.push(" AND a.user = ").push_bind(who);
    }
    if let Some(action) = filter.action {
        query.push(" AND a.action = ").push_bind(action);
    }
    if let Some(kind) = filter.kind {
        query.push(" AND a.kind = ").push_bind(kind);
    }
    if let Some(target) = filter.target {
        query.push(" AND (a.target = ").push_bind(target);
        query.push(" OR a.node = ").push_bind(target);
        query.push(" OR a.name = ").push_bind(target).push(")");
    }
    if let Some(from) = filter.from {
        query.push(" AND a.id >= ").push_bind(since(from));
    }
    if let Some(to) = filter.to {
        query.push(" AND a.id < ").push_bind(since(to));
    }
}

fn within(query: &mut QueryBuilder<Sqlite>, person: &Person) {
    if let Some(groups) = person.reach.to_sql() {
        query
            .push(" AND (a.user = ")
            .push_bind(person.user.as_str());
        query
            .push(" OR a.grp IN (SELECT value FROM json_each(")
            .push_bind(groups)
            .push(")))");
    }
}

/// The least id that a record of this time can have: ids begin with the milliseconds in which they were made.
fn since(at: Timestamp) -> String {
    let millis = u64::try_from(at.as_micros().div_euclid(1_000)).unwrap_or(0) & 0xffff_ffff_ffff;
    format!("{:08x}-{:04x}-7", millis >> 16, millis & 0xffff)
}

fn record(row: &SqliteRow) -> Result<Record, StoreError> {
    let value = |column: &str| -> Result<Option<Value>, StoreError> {
        let text: Option<String> = row.try_get(column)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    };
    // Before a record had an after it had a detail.
    let detail =
        value("detail")?.filter(|detail| detail.as_object().is_some_and(|it| !it.is_empty()));
    Ok(Record {
        id: row.try_get("id")?,
        at: Timestamp::from_micros(row.try_get("at")?),
        user: row.try_get("user")?,
        by: row.try_get("via")?,
        from: row.try_get("origin")?,
        action: row.try_get("action")?,
        kind: row.try_get("kind")?,
        target: row.try_get("target")?,
        name: row.try_get("name")?,
        node: row.try_get("node")?,
        group: row.try_get("grp")?,
        before: value("was")?,
        after: value("became")?.or(detail),
        reason: row.try_get("reason")?,
        count: u64::try_from(row.try_get::<i64, _>("count")?).unwrap_or(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_found_by_the_ids_of_its_records() {
        let at = Timestamp::from_micros(1_764_379_200_123_456);
        let made = uuid::Uuid::new_v7(uuid::Timestamp::from_unix(
            uuid::NoContext,
            1_764_379_200,
            123_000_000,
        ));
        let floor = since(at);
        assert!(floor < made.to_string(), "{floor} {made}");
        assert_eq!(floor[..13], made.to_string()[..13]);
        let later = since(Timestamp::from_micros(1_764_379_200_124_000));
        assert!(made.to_string() < later, "{later}");
    }
}
