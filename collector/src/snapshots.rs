//! Snapshots: the whole manifest of a node that has more differences than a statement lists. The newest one is asked for,
//! checked against the attested tree, kept, and compared with the image whenever somebody wants to see every difference.

mod compare;
mod receive;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use attestation::digest::Digest;
use attestation::statement::Difference;
use attestation::time::Timestamp;
use attestation::wire::{Request, RequestKind};
use sqlx::Row;

use crate::images;
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::nodes::{digest, number, to_sql};
use crate::store::{NodeRow, Store, StoreError, Writing};

pub use self::receive::put;

/// A snapshot that does not come is asked for again after this.
const AGAIN: Duration = Duration::from_secs(30);

/// Snapshots that nodes have named and that are not here yet; one a node.
#[derive(Clone, Default)]
pub struct Snapshots {
    /// One a node: as many as there are nodes.
    wanted: Arc<Mutex<HashMap<String, Wanted>>>,
    /// One is checked at a time: its entries are in memory then.
    checking: Arc<tokio::sync::Mutex<()>>,
}

struct Wanted {
    sha256: Digest,
    asked: Option<Instant>,
}

impl Snapshots {
    /// What is not here yet by the store.
    pub async fn load(store: &Store) -> Result<Self, StoreError> {
        let rows = sqlx::query("SELECT node, sha256 FROM snapshots WHERE held IS NULL")
            .fetch_all(store.read_pool())
            .await?;
        let snapshots = Self::default();
        for row in &rows {
            if let Some(sha256) = digest(row, "sha256")? {
                snapshots.want(row.try_get("node")?, sha256);
            }
        }
        Ok(snapshots)
    }

    /// What a node is asked for with this answer.
    pub fn due(&self, node: &str, now: Instant) -> Option<Request> {
        let mut wanted = self.lock();
        let it = wanted.get_mut(node)?;
        if it
            .asked
            .is_some_and(|asked| now.saturating_duration_since(asked) < AGAIN)
        {
            return None;
        }
        it.asked = Some(now);
        Some(Request {
            kind: RequestKind::Snapshot,
            sha256: Some(it.sha256),
            path: None,
            found: None,
        })
    }

    fn want(&self, node: String, sha256: Digest) {
        let asked = None;
        self.lock().insert(node, Wanted { sha256, asked });
    }

    /// A node lists every difference again: nothing is asked for.
    pub fn forget(&self, node: &str) {
        self.lock().remove(node);
    }

    fn have(&self, node: &str, sha256: &Digest) {
        let mut wanted = self.lock();
        if wanted.get(node).is_some_and(|it| it.sha256 == *sha256) {
            wanted.remove(node);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a statement says of the snapshot that it names.
pub struct Named {
    /// SHA-256 of the plain manifest.
    pub sha256: Digest,
    /// Its size.
    pub size: u64,
    /// The statement's sequence.
    pub sequence: u64,
    /// The attested tree.
    pub tree: Digest,
    /// The image that it compares with.
    pub image: Digest,
}

/// Keeps what a taken statement names, in its transaction; the snapshot is wanted from then on, unless it is here.
pub async fn named(
    tx: &mut Writing,
    snapshots: &Snapshots,
    node: &str,
    named: Named,
    at: Timestamp,
) -> Result<(), StoreError> {
    let known: Option<Vec<u8>> = sqlx::query_scalar("SELECT sha256 FROM snapshots WHERE node = ?")
        .bind(node)
        .fetch_optional(&mut tx.connection)
        .await?;
    if known.as_deref() == Some(named.sha256.as_bytes().as_slice()) {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO snapshots (node, sha256, size, sequence, tree, image, named) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
         ON CONFLICT (node) DO UPDATE SET sha256 = ?2, size = ?3, sequence = ?4, tree = ?5, image = ?6, named = ?7, held = NULL, \
         total = NULL",
    )
    .bind(node)
    .bind(named.sha256.as_bytes().as_slice())
    .bind(to_sql(named.size))
    .bind(to_sql(named.sequence))
    .bind(named.tree.as_bytes().as_slice())
    .bind(named.image.as_bytes().as_slice())
    .bind(at.as_micros())
    .execute(&mut tx.connection)
    .await?;
    snapshots.want(node.to_owned(), named.sha256);
    Ok(())
}

/// A row of `snapshots`.
struct Held {
    sha256: Digest,
    size: u64,
    tree: Digest,
    image: Digest,
    named: Timestamp,
    held: bool,
}

async fn row(store: &Store, node: &str) -> Result<Option<Held>, StoreError> {
    let row = sqlx::query("SELECT * FROM snapshots WHERE node = ?")
        .bind(node)
        .fetch_optional(store.read_pool())
        .await?;
    let Some(row) = row else { return Ok(None) };
    let wanted = |name| -> Result<Digest, StoreError> {
        digest(&row, name)?.ok_or_else(|| StoreError::corrupt(format!("snapshots.{name}")))
    };
    let held: Option<i64> = row.try_get("held")?;
    Ok(Some(Held {
        sha256: wanted("sha256")?,
        size: number(&row, "size")?.unwrap_or(0),
        tree: wanted("tree")?,
        image: wanted("image")?,
        named: Timestamp::from_micros(row.try_get("named")?),
        held: held.is_some(),
    }))
}

fn directory(state: &Path) -> PathBuf {
    state.join("snapshots")
}

fn file(state: &Path, node: &str, sha256: &Digest) -> PathBuf {
    directory(state).join(format!("{node}-{sha256}.mtree.zst"))
}

/// Some of all differences of a node, in the order of their paths.
pub struct Page {
    /// From the one asked for on.
    pub items: Vec<Difference>,
    /// Whether there are more.
    pub more: bool,
}

/// Every difference of a node by its snapshot; none where its newest statement lists them all, or the snapshot is not here.
pub async fn differences(
    state: &AppState,
    node: &NodeRow,
    listed: &[Difference],
    from: usize,
    limit: usize,
) -> Result<Option<Page>, ProblemResponse> {
    if node.differences <= listed.len() as u64 {
        return Ok(None);
    }
    let Some(held) = row(&state.store, &node.id).await? else {
        return Ok(None);
    };
    if !held.held || Some(held.tree) != node.tree || Some(held.image) != node.image {
        return Ok(None);
    }
    let Some(image) = image(state, &held.image).await? else {
        return Ok(None);
    };
    let sides = compare::Sides {
        image: images::file(state, &image.statement.predicate.manifest.sha256),
        image_size: image.statement.predicate.manifest.uncompressed,
        snapshot: file(&state.settings.state, &node.id, &held.sha256),
        snapshot_size: held.size,
    };
    let told: HashMap<_, _> = listed
        .iter()
        .map(|difference| (difference.path.clone(), difference.clone()))
        .collect();
    let named = held.named;
    let page =
        tokio::task::spawn_blocking(move || compare::page(&sides, &told, named, from, limit))
            .await
            .map_err(|_gone| ProblemResponse::internal())?;
    page.map(Some).map_err(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "snapshot and image not compared"
        );
        ProblemResponse::internal()
    })
}

/// What is in the second image and not so in the first, in the order of the paths.
///
/// # Errors
/// Where one of the manifests cannot be read.
pub async fn between(
    state: &AppState,
    one: &images::LoadedImage,
    other: &images::LoadedImage,
    from: usize,
    limit: usize,
) -> Result<Page, ProblemResponse> {
    let manifest = |image: &images::LoadedImage| {
        let named = &image.statement.predicate.manifest;
        (images::file(state, &named.sha256), named.uncompressed)
    };
    let ((image, image_size), (snapshot, snapshot_size)) = (manifest(one), manifest(other));
    let sides = compare::Sides {
        image,
        image_size,
        snapshot,
        snapshot_size,
    };
    let at = other.statement.predicate.created;
    let page = tokio::task::spawn_blocking(move || {
        compare::page(&sides, &HashMap::new(), at, from, limit)
    })
    .await
    .map_err(|_gone| ProblemResponse::internal())?;
    page.map_err(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "two images not compared"
        );
        ProblemResponse::internal()
    })
}

async fn image(
    state: &AppState,
    payload: &Digest,
) -> Result<Option<Arc<images::LoadedImage>>, ProblemResponse> {
    state.images.get(payload).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "image not loaded");
        ProblemResponse::internal()
    })
}
