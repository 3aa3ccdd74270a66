//! Sessions as pages and API read them.

use attestation::statement::Actor;
use attestation::time::Timestamp;
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::LoginView;
use crate::access::Reach;
use crate::api::reads::{TouchedView, WITHIN};
use crate::state::AppState;
use crate::store::StoreError;
use crate::store::nodes::time;
use crate::violations::store as violation_store;
use crate::violations::view::ViolationView;

const SELECT: &str =
    "SELECT l.*, n.name AS node_name FROM logins l LEFT JOIN nodes n ON n.id = l.node";
/// A change is told a little after the session that made it has ended.
const AFTER: i64 = 60_000_000;

/// Which sessions are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Of this node.
    pub node: Option<&'a str>,
    /// Older than the one with this id.
    pub before: Option<&'a str>,
}

/// One command of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = Command)]
pub struct CommandView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Process id on the node.
    pub pid: u32,
    /// The executable, in the mtree encoding.
    pub exe: String,
    /// Its arguments, where the node's configuration tells them.
    pub arguments: Option<String>,
    /// Its exit status, where it has ended.
    pub exit: Option<i32>,
}

/// Sessions within reach, the newest first.
pub async fn list(
    app: &AppState,
    reach: &Reach,
    filter: Filter<'_>,
    limit: u32,
) -> Result<Vec<LoginView>, StoreError> {
    let sql = format!(
        "{SELECT} WHERE {WITHIN} AND l.id < ?2 AND (?3 IS NULL OR l.node = ?3) ORDER BY l.id DESC LIMIT ?4"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(reach.to_sql())
        .bind(filter.before.unwrap_or("~"))
        .bind(filter.node)
        .bind(limit)
        .fetch_all(app.store.read_pool())
        .await?;
    Ok(rows.iter().map(view).collect::<Result<_, _>>()?)
}

/// Logins of root itself within reach that began since a time, the newest first.
pub async fn of_root(
    app: &AppState,
    reach: &Reach,
    since: Timestamp,
    limit: u32,
) -> Result<Vec<LoginView>, StoreError> {
    let sql = format!(
        "{SELECT} WHERE {WITHIN} AND l.auid = 0 AND l.started >= ?2 ORDER BY l.started DESC LIMIT ?3"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(reach.to_sql())
        .bind(since.as_micros())
        .bind(limit)
        .fetch_all(app.store.read_pool())
        .await?;
    Ok(rows.iter().map(view).collect::<Result<_, _>>()?)
}

/// One session.
pub async fn named(app: &AppState, id: &str) -> Result<Option<LoginView>, StoreError> {
    let sql = format!("{SELECT} WHERE l.id = ?");
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(id)
        .fetch_optional(app.store.read_pool())
        .await?;
    Ok(row.as_ref().map(view).transpose()?)
}

/// The session in which somebody made a change: the newest of that number that had begun by then. Numbers begin anew at each boot.
pub async fn of_actor(
    app: &AppState,
    node: &str,
    actor: Option<&Actor>,
    at: Timestamp,
) -> Result<Option<LoginView>, StoreError> {
    let Some(session) = actor.and_then(|actor| actor.session) else {
        return Ok(None);
    };
    let sql = format!(
        "{SELECT} WHERE l.node = ?1 AND l.session = ?2 AND l.started <= ?3 ORDER BY l.started DESC LIMIT 1"
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(node)
        .bind(i64::from(session))
        .bind(at.as_micros().saturating_add(AFTER))
        .fetch_optional(app.store.read_pool())
        .await?;
    Ok(row.as_ref().map(view).transpose()?)
}

/// What was run, first to last, after a place in that order.
pub async fn commands(
    app: &AppState,
    login: &str,
    limit: u32,
) -> Result<Vec<CommandView>, StoreError> {
    let rows = sqlx::query("SELECT * FROM login_commands WHERE login = ? ORDER BY at, pid LIMIT ?")
        .bind(login)
        .bind(limit)
        .fetch_all(app.store.read_pool())
        .await?;
    let command = |row: &SqliteRow| {
        Ok::<_, sqlx::Error>(CommandView {
            at: Timestamp::from_micros(row.try_get("at")?),
            pid: small(row.try_get("pid")?),
            exe: row.try_get("exe")?,
            arguments: row.try_get("arguments")?,
            exit: row
                .try_get::<Option<i64>, _>("exit")?
                .and_then(|exit| i32::try_from(exit).ok()),
        })
    };
    Ok(rows.iter().map(command).collect::<Result<_, _>>()?)
}

/// What the session changed: violations and touched paths whose actor was in it.
pub async fn changes(
    app: &AppState,
    login: &LoginView,
    limit: u32,
) -> Result<(Vec<ViolationView>, Vec<TouchedView>), StoreError> {
    let from = login.started.as_micros().saturating_sub(AFTER);
    let to = login
        .ended
        .map_or(i64::MAX, |ended| ended.as_micros().saturating_add(AFTER));
    let sql = format!(
        "{} WHERE v.node = ? AND json_extract(v.actor, '$.session') = ? AND v.detected BETWEEN ? AND ? ORDER BY v.id DESC LIMIT ?",
        violation_store::SELECT
    );
    let pool = app.store.read_pool();
    let violations = sqlx::query(AssertSqlSafe(sql))
        .bind(&login.node)
        .bind(i64::from(login.session))
        .bind(from)
        .bind(to)
        .bind(limit)
        .fetch_all(pool)
        .await?;
    let touched = sqlx::query(
        "SELECT id, node, path, event, count, first, last, actor, reviewed FROM touched WHERE node = ? \
         AND json_extract(actor, '$.session') = ? AND last BETWEEN ? AND ? ORDER BY id DESC LIMIT ?",
    )
    .bind(&login.node)
    .bind(i64::from(login.session))
    .bind(from)
    .bind(to)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    Ok((
        violations
            .iter()
            .map(violation_store::view)
            .collect::<Result<_, _>>()?,
        touched
            .iter()
            .map(crate::api::reads::touched_view)
            .collect::<Result<_, _>>()?,
    ))
}

fn view(row: &SqliteRow) -> Result<LoginView, sqlx::Error> {
    let count = |column: &str| {
        row.try_get::<i64, _>(column)
            .map(|number| u64::try_from(number).unwrap_or(0))
    };
    Ok(LoginView {
        id: row.try_get("id")?,
        node: row.try_get("node")?,
        node_name: row
            .try_get::<Option<String>, _>("node_name")?
            .unwrap_or_default(),
        boot: row.try_get("boot")?,
        session: small(row.try_get("session")?),
        auid: small(row.try_get("auid")?),
        user: row.try_get("user")?,
        from: row.try_get("origin")?,
        tty: row.try_get("tty")?,
        started: Timestamp::from_micros(row.try_get("started")?),
        ended: time(row, "ended")?,
        commands: count("commands")?,
        dropped: count("dropped")?,
        told: Timestamp::from_micros(row.try_get("told")?),
    })
}

fn small(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
