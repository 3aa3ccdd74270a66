//! The journal: one JSON object a line on standard output for each step of a violation, each change of a verdict and each login. It is read
//! back from the store, so what was committed but not printed before a crash is printed at the next start.

use std::io::Write;
use std::time::Duration;

use attestation::time::Timestamp;
use serde_json::{Value, json};
use sqlx::Row;
use tokio::sync::watch;

use crate::store::{Store, StoreError, meta_get, meta_set};

/// Lines printed before the mark is moved.
const BATCH: i64 = 256;
/// A look without being called, in case a call was missed.
const LOOK: Duration = Duration::from_secs(5);

/// Prints until told to stop, and then what is left.
pub async fn run(store: Store, mut shutdown: watch::Receiver<bool>) {
    loop {
        if let Err(error) = print_new(&store, &mut std::io::stdout()).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "journal not written"
            );
        }
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => break,
            () = store.journal_changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    if let Err(error) = print_new(&store, &mut std::io::stdout()).await {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "journal not written"
        );
    }
}

/// Prints what is past the marks, and moves them.
pub async fn print_new(store: &Store, out: &mut (dyn Write + Send)) -> Result<(), StoreError> {
    print_table(store, out, "journaled_steps", steps).await?;
    print_table(store, out, "journaled_verdicts", verdicts).await?;
    print_table(store, out, "journaled_logins", logins).await
}

type Lines = Vec<(i64, String)>;

async fn print_table<F, R>(
    store: &Store,
    out: &mut (dyn Write + Send),
    mark: &'static str,
    lines: F,
) -> Result<(), StoreError>
where
    F: Fn(Store, i64) -> R,
    R: Future<Output = Result<Lines, StoreError>>,
{
    loop {
        let after: i64 = meta_get(store, mark)
            .await?
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let new = lines(store.clone(), after).await?;
        let Some((last, _)) = new.last() else {
            return Ok(());
        };
        let last = *last;
        let mut text = String::new();
        for (_, line) in &new {
            text.push_str(line);
            text.push('\n');
        }
        if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "standard output takes no journal"
            );
            return Ok(());
        }
        store
            .write(move |tx| Box::pin(async move { meta_set(tx, mark, &last.to_string()).await }))
            .await?;
    }
}

async fn steps(store: Store, after: i64) -> Result<Lines, StoreError> {
    let rows = sqlx::query(
        "SELECT seq, id, step, at, record FROM violation_steps WHERE seq > ? ORDER BY seq LIMIT ?",
    )
    .bind(after)
    .bind(BATCH)
    .fetch_all(store.read_pool())
    .await?;
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        let (step, id, record): (String, String, String) = (
            row.try_get("step")?,
            row.try_get("id")?,
            row.try_get("record")?,
        );
        let at = Timestamp::from_micros(row.try_get("at")?);
        let mut line = json!({"at": at, "event": format!("violation.{step}"), "step": id});
        if let (Some(line), Ok(Value::Object(members))) =
            (line.as_object_mut(), serde_json::from_str(&record))
        {
            line.extend(members);
        }
        lines.push((row.try_get("seq")?, line.to_string()));
    }
    Ok(lines)
}

/// One line for each session, when it was first told.
async fn logins(store: Store, after: i64) -> Result<Lines, StoreError> {
    let rows = sqlx::query(
        "SELECT l.seq, l.id, l.node, n.name, l.session, l.auid, l.user, l.origin, l.tty, l.started, l.told FROM logins l \
         LEFT JOIN nodes n ON n.id = l.node WHERE l.seq > ? ORDER BY l.seq LIMIT ?",
    )
    .bind(after)
    .bind(BATCH)
    .fetch_all(store.read_pool())
    .await?;
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        let line = json!({
            "at": Timestamp::from_micros(row.try_get("told")?),
            "event": "session",
            "id": row.try_get::<String, _>("id")?,
            "node": row.try_get::<String, _>("node")?,
            "name": row.try_get::<Option<String>, _>("name")?,
            "session": row.try_get::<i64, _>("session")?,
            "auid": row.try_get::<i64, _>("auid")?,
            "user": row.try_get::<Option<String>, _>("user")?,
            "from": row.try_get::<Option<String>, _>("origin")?,
            "tty": row.try_get::<Option<String>, _>("tty")?,
            "started": Timestamp::from_micros(row.try_get("started")?),
        });
        lines.push((row.try_get("seq")?, line.to_string()));
    }
    Ok(lines)
}

async fn verdicts(store: Store, after: i64) -> Result<Lines, StoreError> {
    let rows = sqlx::query(
        "SELECT c.seq, c.node, n.name, c.at, c.sequence, c.verdict, c.was, c.reasons FROM verdict_changes c \
         LEFT JOIN nodes n ON n.id = c.node WHERE c.seq > ? ORDER BY c.seq LIMIT ?",
    )
    .bind(after)
    .bind(BATCH)
    .fetch_all(store.read_pool())
    .await?;
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        let reasons: String = row.try_get("reasons")?;
        let line = json!({
            "at": Timestamp::from_micros(row.try_get("at")?),
            "event": "verdict",
            "node": row.try_get::<String, _>("node")?,
            "name": row.try_get::<Option<String>, _>("name")?,
            "sequence": row.try_get::<i64, _>("sequence")?,
            "verdict": row.try_get::<Option<String>, _>("verdict")?,
            "was": row.try_get::<Option<String>, _>("was")?,
            "reasons": serde_json::from_str::<Value>(&reasons).unwrap_or(Value::Null),
        });
        lines.push((row.try_get("seq")?, line.to_string()));
    }
    Ok(lines)
}
