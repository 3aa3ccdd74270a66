//! What a node's bands are made from.

use attestation::statement::Gap;
use attestation::time::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Band, Piece, Range, overlay};
use crate::state::AppState;
use crate::store::StoreError;

/// Pieces of one band that are drawn: more could not be told apart.
const DRAWN: i64 = 500;

/// Every band of a node in that time.
///
/// # Errors
/// What the store refuses.
pub(in crate::web) async fn read(
    app: &AppState,
    node: &str,
    group: &str,
    range: Range,
) -> Result<Vec<Band>, StoreError> {
    let (gaps, silences, marks, cut) = violations(app, node, range).await?;
    let away = downtimes(app, range).await?;
    let mut unseen = silences;
    unseen.extend(away);
    let (states, more) = states(app, node, range).await?;
    let band = |name, pieces, cut| Band { name, pieces, cut };
    let (deployed, more_deployed) = deployments(app, group, range).await?;
    let (logins, more_logins) = logins(app, node, range).await?;
    Ok(vec![
        band("State", overlay(states, &unseen, range), more),
        band("Gaps", gaps, cut),
        band("Violations", marks, cut),
        band("Logins", logins, more_logins),
        band("Deployments", deployed, more_deployed),
    ])
}

fn time(row: &SqliteRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    row.try_get(column).map(Timestamp::from_micros)
}

fn ended(row: &SqliteRow, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    let micros: Option<i64> = row.try_get(column)?;
    Ok(micros.map(Timestamp::from_micros))
}

/// Whether one more than is drawn came; it is taken away.
fn cut<T>(rows: &mut Vec<T>) -> bool {
    let most = usize::try_from(DRAWN).unwrap_or(usize::MAX);
    let more = rows.len() > most;
    rows.truncate(most);
    more
}

/// What it was found to be, one piece for each verdict, the one before the range first.
async fn states(
    app: &AppState,
    node: &str,
    range: Range,
) -> Result<(Vec<Piece>, bool), StoreError> {
    let mut rows = sqlx::query(
        "SELECT at, verdict FROM verdict_changes WHERE node = ?1 AND at < ?3 \
         AND seq >= coalesce((SELECT max(seq) FROM verdict_changes WHERE node = ?1 AND at <= ?2), 0) ORDER BY seq DESC LIMIT ?4",
    )
    .bind(node)
    .bind(range.from.as_micros())
    .bind(range.to.as_micros())
    .bind(DRAWN + 1)
    .fetch_all(app.store.read_pool())
    .await?;
    let more = cut(&mut rows);
    let mut pieces = Vec::new();
    let mut until = None;
    for row in &rows {
        let from = time(row, "at")?;
        let verdict: Option<String> = row.try_get("verdict")?;
        let word = verdict.unwrap_or_else(|| "pending".to_owned());
        pieces.push(Piece {
            from,
            to: until,
            says: word.replace('-', " "),
            word,
            href: None,
        });
        until = Some(from);
    }
    pieces.reverse();
    Ok((pieces, more))
}

type OfViolations = (Vec<Piece>, Vec<Piece>, Vec<Piece>, bool);

/// Gaps, silences, and a mark for each violation.
async fn violations(app: &AppState, node: &str, range: Range) -> Result<OfViolations, StoreError> {
    let mut rows = sqlx::query(
        "SELECT id, kind, path, severity, detected, resolved, detail FROM violations WHERE node = ?1 AND detected < ?3 \
         AND (resolved IS NULL OR resolved >= ?2) ORDER BY detected DESC LIMIT ?4",
    )
    .bind(node)
    .bind(range.from.as_micros())
    .bind(range.to.as_micros())
    .bind(DRAWN + 1)
    .fetch_all(app.store.read_pool())
    .await?;
    let more = cut(&mut rows);
    let (mut gaps, mut silences, mut marks) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows.iter().rev() {
        let (id, kind): (String, String) = (row.try_get("id")?, row.try_get("kind")?);
        let (from, to) = (time(row, "detected")?, ended(row, "resolved")?);
        let href = Some(format!("/violations/{id}"));
        match kind.as_str() {
            "silence" => silences.push(Piece {
                from,
                to,
                word: "lost".to_owned(),
                says: "silent".to_owned(),
                href,
            }),
            "gap" => {
                let detail: String = row.try_get("detail")?;
                gaps.extend(of_gap(&detail, from, to, href.as_deref()));
            }
            _ => marks.push(Piece {
                from: from.max(range.from),
                to: Some(from.max(range.from)),
                word: row.try_get("severity")?,
                says: says(&kind, &row.try_get::<String, _>("path")?),
                href,
            }),
        }
    }
    Ok((gaps, silences, marks, more))
}

fn says(kind: &str, path: &str) -> String {
    if path.is_empty() {
        kind.replace('-', " ")
    } else {
        format!("{}: {path}", kind.replace('-', " "))
    }
}

/// The gaps that a violation tells of; from its own times where it does not list them.
fn of_gap(detail: &str, from: Timestamp, to: Option<Timestamp>, href: Option<&str>) -> Vec<Piece> {
    let gaps: Vec<Gap> = serde_json::from_str::<serde_json::Value>(detail)
        .ok()
        .and_then(|detail| serde_json::from_value(detail.get("gaps")?.clone()).ok())
        .unwrap_or_default();
    let piece = |from, to, cause: &str| Piece {
        from,
        to,
        word: "stale".to_owned(),
        says: format!("not seen: {cause}"),
        href: href.map(str::to_owned),
    };
    if gaps.is_empty() {
        return vec![piece(from, to, "a gap")];
    }
    gaps.iter()
        // A gap that the last statement left open ends with its violation.
        .map(|gap| piece(gap.from, gap.to.or(to), &gap.cause))
        .collect()
}

/// When this collector did not run: nobody knows what nodes said then until they say it again.
async fn downtimes(app: &AppState, range: Range) -> Result<Vec<Piece>, StoreError> {
    let rows = sqlx::query(
        "SELECT coalesce(stopped, last_alive) AS ended, lead(started) OVER (ORDER BY started) AS next FROM collector_runs ORDER BY started DESC LIMIT ?",
    )
    .bind(DRAWN)
    .fetch_all(app.store.read_pool())
    .await?;
    let mut pieces = Vec::new();
    for row in &rows {
        let (from, to) = (time(row, "ended")?, ended(row, "next")?);
        if to.is_some_and(|to| to > range.from && to > from) && from < range.to {
            pieces.push(Piece {
                from: from.max(range.from),
                to,
                word: "stopped".to_owned(),
                says: "the collector did not run".to_owned(),
                href: None,
            });
        }
    }
    Ok(pieces)
}

async fn deployments(
    app: &AppState,
    group: &str,
    range: Range,
) -> Result<(Vec<Piece>, bool), StoreError> {
    let mut rows = sqlx::query(
        "SELECT a.from_time, i.name, i.version FROM assignments a LEFT JOIN images i ON i.payload = a.image \
         WHERE a.grp = ?1 AND a.from_time >= ?2 AND a.from_time < ?3 ORDER BY a.from_time DESC LIMIT ?4",
    )
    .bind(group)
    .bind(range.from.as_micros())
    .bind(range.to.as_micros())
    .bind(DRAWN + 1)
    .fetch_all(app.store.read_pool())
    .await?;
    let more = cut(&mut rows);
    let pieces = rows.iter().rev().map(|row| {
        let from = time(row, "from_time")?;
        let (name, version): (Option<String>, Option<String>) =
            (row.try_get("name")?, row.try_get("version")?);
        Ok(Piece {
            from,
            to: Some(from),
            word: "resolved".to_owned(),
            says: format!(
                "{} {} assigned",
                name.unwrap_or_default(),
                version.unwrap_or_default()
            ),
            href: Some("/images".to_owned()),
        })
    });
    Ok((pieces.collect::<Result<_, sqlx::Error>>()?, more))
}

async fn logins(
    app: &AppState,
    node: &str,
    range: Range,
) -> Result<(Vec<Piece>, bool), StoreError> {
    let mut rows = sqlx::query(
        "SELECT id, user, auid, started, ended FROM logins WHERE node = ?1 AND started < ?3 AND (ended IS NULL OR ended >= ?2) \
         ORDER BY started DESC LIMIT ?4",
    )
    .bind(node)
    .bind(range.from.as_micros())
    .bind(range.to.as_micros())
    .bind(DRAWN + 1)
    .fetch_all(app.store.read_pool())
    .await?;
    let more = cut(&mut rows);
    let pieces = rows.iter().rev().map(|row| {
        let (id, auid): (String, i64) = (row.try_get("id")?, row.try_get("auid")?);
        let user: Option<String> = row.try_get("user")?;
        Ok(Piece {
            from: time(row, "started")?.max(range.from),
            to: ended(row, "ended")?,
            word: if auid == 0 { "medium" } else { "low" }.to_owned(),
            says: format!(
                "login of {}",
                user.unwrap_or_else(|| format!("user {auid}"))
            ),
            href: Some(format!("/sessions/{id}")),
        })
    });
    Ok((pieces.collect::<Result<_, sqlx::Error>>()?, more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_ends_with_its_violation_where_the_statement_left_it_open() {
        let (from, to) = (Timestamp::from_micros(10), Timestamp::from_micros(90));
        let open = r#"{"gaps": [{"from": "1970-01-01T00:00:00.000020Z", "cause": "overflow"}]}"#;
        let pieces = of_gap(open, from, Some(to), None);
        assert_eq!((pieces[0].from.as_micros(), pieces[0].to), (20, Some(to)));
        assert_eq!(pieces[0].says, "not seen: overflow");
        assert_eq!(of_gap("{}", from, None, None)[0].from, from);
        assert_eq!(of_gap("no json", from, None, None).len(), 1);
    }
}
