//! Whether store, log and evidence agree: what `check` looks at, read in one snapshot while a collector may run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::statement::{Attestation, Receipt};
use futures_util::TryStreamExt;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Row};

use crate::init::store_file;
use crate::keys::{CollectorKeys, KeysError};

/// Findings that are listed; the rest is counted. Whoever has so many needs no longer list.
const LISTED: usize = 1_000;
/// What the migrations make so that nothing is changed or removed.
const GUARDS: [&str; 8] = [
    "actions_no_delete",
    "actions_no_update",
    "evidence_no_delete",
    "evidence_no_update",
    "log_no_delete",
    "log_no_update",
    "violation_steps_no_delete",
    "violation_steps_no_update",
];

/// Why nothing was found out.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is no store.
    #[error("{} holds no collector", .0.display())]
    Nothing(std::path::PathBuf),
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[from] sqlx::Error),
    /// The receipts' key cannot be read.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// Something that does not agree.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was compared.
    pub check: &'static str,
    /// What it is about.
    pub of: String,
    /// What is wrong with it.
    pub found: String,
}

/// What was looked at, and what was found.
#[derive(Debug, Default, Serialize)]
pub struct Checked {
    /// Signed envelopes and other evidence whose digest was computed.
    pub evidence: u64,
    /// Statements whose place in their node's chain was looked at.
    pub statements: u64,
    /// Of these, quiet ones whose evidence was pruned after its time.
    pub pruned: u64,
    /// Receipts whose signature was verified.
    pub receipts: u64,
    /// Leaves of the log.
    pub leaves: u64,
    /// Violations compared with their last step.
    pub violations: u64,
    /// Manifests read.
    pub manifests: u64,
    /// What does not agree.
    pub findings: Vec<Finding>,
    /// Findings beyond those listed.
    pub more: u64,
}

impl Checked {
    /// Whether everything agrees.
    pub fn agrees(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, check: &'static str, of: impl Into<String>, found: impl Into<String>) {
        if self.findings.len() < LISTED {
            self.findings.push(Finding {
                check,
                of: of.into(),
                found: found.into(),
            });
        } else {
            self.more += 1;
        }
    }
}

/// Looks at everything that a state directory holds.
pub async fn check(state: &Path) -> Result<Checked, CheckError> {
    let file = store_file(state);
    if !file.exists() {
        return Err(CheckError::Nothing(state.to_owned()));
    }
    let keys = CollectorKeys::load(state)?;
    let mut connection = SqliteConnectOptions::new()
        .filename(&file)
        .pragma("query_only", "ON")
        .busy_timeout(Duration::from_secs(10))
        .disable_statement_logging()
        .connect()
        .await?;
    let at = &mut connection;
    // One snapshot for everything: a running collector writes on beside it.
    sqlx::query("BEGIN").execute(&mut *at).await?;
    let mut checked = Checked::default();
    database(at, &mut checked).await?;
    evidence(at, &mut checked).await?;
    chains(at, &mut checked).await?;
    pruned(at, &mut checked).await?;
    receipts(at, &keys, &mut checked).await?;
    log(at, &mut checked).await?;
    violations(at, &mut checked).await?;
    manifests(at, state, &mut checked).await?;
    sqlx::query("ROLLBACK").execute(&mut *at).await?;
    sqlx::Connection::close(connection).await?;
    Ok(checked)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file itself, and the triggers that keep its tables append-only.
async fn database(at: &mut SqliteConnection, checked: &mut Checked) -> Result<(), sqlx::Error> {
    for pragma in ["PRAGMA integrity_check(100)", "PRAGMA foreign_key_check"] {
        for row in sqlx::query(pragma).fetch_all(&mut *at).await? {
            let said: String = row.try_get(0)?;
            if said != "ok" {
                checked.find("database", pragma, said);
            }
        }
    }
    let there: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            .fetch_all(&mut *at)
            .await?;
    for guard in GUARDS {
        if !there.iter().any(|name| name == guard) {
            checked.find("append-only", guard, "this trigger is gone");
        }
    }
    Ok(())
}

/// Evidence is named by the digest of what it holds: an envelope's payload, or the plain text of pins.
async fn evidence(at: &mut SqliteConnection, checked: &mut Checked) -> Result<(), sqlx::Error> {
    let mut rows = sqlx::query("SELECT sha256, kind, bytes FROM evidence").fetch(at);
    while let Some(row) = rows.try_next().await? {
        checked.evidence += 1;
        let (named, kind): (&[u8], &str) = (row.try_get(0)?, row.try_get(1)?);
        let bytes: &[u8] = row.try_get(2)?;
        let found = if kind == "pins" {
            // Named by the digest of what was uploaded.
            Ok(Digest::of(bytes))
        } else {
            Envelope::from_json(bytes).map(|envelope| envelope.payload_digest())
        };
        match found {
            Ok(digest) if digest.as_bytes().as_slice() == named => {}
            Ok(digest) => checked.find("evidence", hex(named), format!("it is {digest} ({kind})")),
            Err(error) => checked.find("evidence", hex(named), format!("{kind}: {error}")),
        }
    }
    Ok(())
}

/// Each node's receipted statements, in the order in which they were logged: each names the one before it. Where a node and the
/// collector lost the way between, a violation says so.
async fn chains(at: &mut SqliteConnection, checked: &mut Checked) -> Result<(), sqlx::Error> {
    let jumps = sqlx::query("SELECT node, detail FROM violations WHERE kind = 'rewind'")
        .fetch_all(&mut *at)
        .await?;
    let mut told = BTreeSet::new();
    for row in jumps {
        let detail: serde_json::Value =
            serde_json::from_str(row.try_get("detail")?).unwrap_or_default();
        if let Some(sequence) = detail["sequence"].as_i64() {
            told.insert((row.try_get::<String, _>("node")?, sequence));
        }
    }
    let mut last: HashMap<String, (i64, Digest)> = HashMap::new();
    let mut rows = sqlx::query(
        "SELECT l.node, l.sequence, l.digest, e.bytes, a.pruned FROM log l LEFT JOIN receipts r ON r.payload = l.digest \
         LEFT JOIN attestations a ON a.node = l.node AND a.sequence = l.sequence AND a.payload = l.digest \
         LEFT JOIN evidence e ON e.sha256 = l.digest \
         WHERE l.type = 'attestation' AND (r.payload IS NOT NULL OR a.pruned IS NOT NULL) ORDER BY l.id",
    )
    .fetch(at);
    while let Some(row) = rows.try_next().await? {
        checked.statements += 1;
        let (node, sequence): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        let of = format!("{node} {sequence}");
        if row.try_get::<Option<i64>, _>(4)?.is_some() {
            // What it said is gone; the next one names its payload, and `pruned` looks at whether it was to go.
            let next = last.get(&node).map_or(0, |(at, _)| at + 1);
            if sequence != next {
                checked.find(
                    "chain",
                    &of,
                    format!("it does not follow {}, and was pruned", next - 1),
                );
            }
            let digest: [u8; 32] = row.try_get::<&[u8], _>(2)?.try_into().unwrap_or_default();
            last.insert(node, (sequence, Digest::from_bytes(digest)));
            continue;
        }
        let Some(bytes) = row.try_get::<Option<&[u8]>, _>(3)? else {
            checked.find("chain", of, "its evidence is not here");
            continue;
        };
        let Some((envelope, said)) = Envelope::from_json(bytes).ok().and_then(|envelope| {
            let said = envelope.peek::<Attestation>().ok()?.predicate;
            Some((envelope, said))
        }) else {
            checked.find("chain", of, "its evidence is no attestation");
            continue;
        };
        let before = last.get(&node);
        let next = before.map_or(0, |(at, _)| at + 1);
        let follows = said.previous == before.map(|(_, digest)| *digest);
        if i64::try_from(said.sequence) != Ok(sequence) {
            checked.find("chain", &of, format!("it says {}", said.sequence));
        } else if (sequence != next || !follows) && !told.contains(&(node.clone(), sequence)) {
            checked.find(
                "chain",
                &of,
                format!("it does not follow {}, and nothing says why", next - 1),
            );
        }
        last.insert(node, (sequence, envelope.payload_digest()));
    }
    Ok(())
}

/// What was pruned is what the log says was pruned: one leaf a batch, over the payloads of its statements.
async fn pruned(at: &mut SqliteConnection, checked: &mut Checked) -> Result<(), sqlx::Error> {
    let mut batches: BTreeMap<i64, Vec<Digest>> = BTreeMap::new();
    let mut rows = sqlx::query(
        "SELECT pruned, payload FROM attestations WHERE pruned IS NOT NULL ORDER BY pruned, node, sequence",
    )
    .fetch(&mut *at);
    while let Some(row) = rows.try_next().await? {
        checked.pruned += 1;
        let payload: [u8; 32] = row.try_get::<&[u8], _>(1)?.try_into().unwrap_or_default();
        batches
            .entry(row.try_get(0)?)
            .or_default()
            .push(Digest::from_bytes(payload));
    }
    drop(rows);
    for (leaf, payloads) in batches {
        let told: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT digest FROM log WHERE id = ? AND type = 'collector'")
                .bind(leaf)
                .fetch_optional(&mut *at)
                .await?;
        let is = crate::retention::digest_of(&payloads);
        if told.as_deref() != Some(is.as_bytes().as_slice()) {
            checked.find(
                "pruned",
                format!("leaf {leaf}"),
                format!(
                    "{} statements are gone that it does not stand for",
                    payloads.len()
                ),
            );
        }
    }
    Ok(())
}

/// Every receipt is signed by this collector's key, and is for the statement that it is stored with.
async fn receipts(
    at: &mut SqliteConnection,
    keys: &CollectorKeys,
    checked: &mut Checked,
) -> Result<(), sqlx::Error> {
    let key = [keys.receipt.public()];
    let mut rows = sqlx::query("SELECT payload, envelope FROM receipts").fetch(at);
    while let Some(row) = rows.try_next().await? {
        checked.receipts += 1;
        let (payload, envelope): (&[u8], &[u8]) = (row.try_get(0)?, row.try_get(1)?);
        let verified = Envelope::from_json(envelope)
            .map_err(|error| error.to_string())
            .and_then(|it| it.verify::<Receipt>(&key, 1).map_err(|e| e.to_string()));
        match verified {
            Ok(receipt) => {
                let of = receipt.statement().payload_digest();
                if of.is_none_or(|of| of.as_bytes().as_slice() != payload) {
                    checked.find("receipt", hex(payload), "it is for another statement");
                }
            }
            Err(error) => checked.find("receipt", hex(payload), error),
        }
    }
    Ok(())
}

/// Every statement has its leaf and every leaf its statement, and no leaf is missing from the row of numbers.
async fn log(at: &mut SqliteConnection, checked: &mut Checked) -> Result<(), sqlx::Error> {
    let row = sqlx::query("SELECT count(*), coalesce(min(id), 1), coalesce(max(id), 0) FROM log")
        .fetch_one(&mut *at)
        .await?;
    let (count, first, last): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    checked.leaves = u64::try_from(count).unwrap_or(0);
    if first != 1 || last - first + 1 != count {
        checked.find(
            "log",
            format!("{first} to {last}"),
            format!("{count} leaves: some are missing"),
        );
    }
    let statements = "SELECT node, sequence, payload FROM attestations";
    let leaves = "SELECT node, sequence, digest FROM log WHERE type = 'attestation'";
    for (these, those, found) in [
        (
            statements,
            leaves,
            "it is stored and has no leaf in the log",
        ),
        (leaves, statements, "it has a leaf and is not stored"),
    ] {
        let sql = format!("{these} EXCEPT {those}");
        let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut *at);
        while let Some(row) = rows.try_next().await? {
            let (node, sequence): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            checked.find("log", format!("{node} {sequence}"), found);
        }
    }
    Ok(())
}

/// A violation is open or over as its last step says.
async fn violations(at: &mut SqliteConnection, checked: &mut Checked) -> Result<(), sqlx::Error> {
    let mut rows = sqlx::query(
        "SELECT v.id, v.resolved IS NOT NULL AS over, (SELECT s.step FROM violation_steps s \
         WHERE s.violation = v.id ORDER BY s.seq DESC LIMIT 1) AS step FROM violations v",
    )
    .fetch(at);
    while let Some(row) = rows.try_next().await? {
        checked.violations += 1;
        let (id, over): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
        let step: Option<String> = row.try_get(2)?;
        if step.is_none() || over != (step.as_deref() == Some("resolved")) {
            let is = if over { "over" } else { "open" };
            let step = step.unwrap_or_else(|| "none".to_owned());
            checked.find(
                "violation",
                id,
                format!("it is {is}, its last step: {step}"),
            );
        }
    }
    Ok(())
}

/// The manifest of every complete image is here and is the one that was signed.
async fn manifests(
    at: &mut SqliteConnection,
    state: &Path,
    checked: &mut Checked,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query("SELECT DISTINCT manifest FROM images WHERE complete = 1")
        .fetch_all(at)
        .await?;
    for row in rows {
        checked.manifests += 1;
        let named = hex(row.try_get(0)?);
        let file = state.join("manifests").join(format!("{named}.mtree.zst"));
        match digest_of(&file) {
            Ok(found) if found == named => {}
            Ok(found) => checked.find("manifest", named, format!("the file is {found}")),
            Err(error) => checked.find("manifest", named, error.to_string()),
        }
    }
    Ok(())
}

fn digest_of(file: &Path) -> io::Result<String> {
    let mut file = File::open(file)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            got => hash.update(&buffer[..got]),
        }
    }
}
