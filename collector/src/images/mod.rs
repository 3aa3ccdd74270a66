//! Images: published statements, their manifests on disk, and their trees in memory, shared by all nodes that are that image.

mod manifests;
mod publish;
mod revoke;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::statement::{Image, Statement};
use attestation::tree::Tree;
use sqlx::Row;
use tokio::sync::Mutex;

use crate::store::{Store, StoreError};
use crate::violations::view::ImageView;

pub use self::manifests::{ManifestFault, file, put_manifest};
pub use self::publish::{Published, publish};
pub use self::revoke::{Revoked, revoke};

/// Entries of all images in memory: 150 bytes each, so at most about a gigabyte.
const ENTRIES_IN_MEMORY: u64 = 8 << 20;

/// An image, ready to be compared with.
pub struct LoadedImage {
    /// SHA-256 of its statement's payload.
    pub payload: Digest,
    /// The statement; its signatures were checked when it was published.
    pub statement: Statement<Image>,
    /// The envelope, as published.
    pub envelope: Envelope,
    /// The entries of its manifest.
    pub tree: Tree,
    /// Whether it was revoked.
    pub revoked: bool,
}

impl LoadedImage {
    /// As people see it.
    pub fn view(&self) -> ImageView {
        let source = &self.statement.predicate.source;
        ImageView {
            name: self.statement.name().unwrap_or_default().to_owned(),
            version: self.statement.predicate.version.clone(),
            commit: source.commit.clone().unwrap_or_default(),
            repository: source.repository.clone().unwrap_or_default(),
            author: source.author.clone().unwrap_or_default(),
            sha256: self.payload.to_string(),
        }
    }
}

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored under that digest is no image statement.
    #[error("image {payload} cannot be read from the store: {reason}")]
    Statement {
        /// Which.
        payload: Digest,
        /// Why not.
        reason: String,
    },
    /// The manifest on disk is not the one that was published.
    #[error("manifest of image {payload} cannot be used")]
    Manifest {
        /// Which.
        payload: Digest,
        /// Why not.
        #[source]
        source: ManifestFault,
    },
}

/// Images by the SHA-256 of their statement's payload.
#[derive(Clone)]
pub struct ImageCache {
    loaded: moka::sync::Cache<Digest, Arc<LoadedImage>>,
    /// One is loaded at a time: a restart with ten thousand nodes must not read one manifest ten thousand times.
    loading: Arc<Mutex<()>>,
    store: Store,
    directory: PathBuf,
}

impl ImageCache {
    /// Over the manifests below a state directory.
    pub fn new(store: Store, state: &Path) -> Self {
        let loaded = moka::sync::Cache::builder()
            .max_capacity(ENTRIES_IN_MEMORY)
            .weigher(|_, image: &Arc<LoadedImage>| {
                u32::try_from(image.tree.len()).unwrap_or(u32::MAX).max(1)
            })
            .build();
        Self {
            loaded,
            loading: Arc::new(Mutex::new(())),
            store,
            directory: manifests::directory(state),
        }
    }

    /// An image whose manifest is here; none where it is not.
    pub async fn get(&self, payload: &Digest) -> Result<Option<Arc<LoadedImage>>, ImageError> {
        if let Some(image) = self.loaded.get(payload) {
            return Ok(Some(image));
        }
        let _one_at_a_time = self.loading.lock().await;
        if let Some(image) = self.loaded.get(payload) {
            return Ok(Some(image));
        }
        let row =
            sqlx::query("SELECT envelope, revoked FROM images WHERE payload = ? AND complete = 1")
                .bind(payload.as_bytes().as_slice())
                .fetch_optional(self.store.read_pool())
                .await
                .map_err(StoreError::from)?;
        let Some(row) = row else { return Ok(None) };
        let bytes: Vec<u8> = row.try_get("envelope").map_err(StoreError::from)?;
        let revoked: Option<i64> = row.try_get("revoked").map_err(StoreError::from)?;
        let (envelope, statement) = read_statement(*payload, &bytes)?;
        let manifest = statement.predicate.manifest.clone();
        let path = manifests::path(&self.directory, &manifest.sha256);
        let (wanted, payload) = (manifest.uncompressed, *payload);
        let read = tokio::task::spawn_blocking(move || manifests::read(&path, wanted))
            .await
            .unwrap_or(Err(ManifestFault::Interrupted))
            .map_err(|source| ImageError::Manifest { payload, source })?;
        if Some(read.facts.tree) != statement.tree() {
            return Err(ImageError::Manifest {
                payload,
                source: ManifestFault::Tree,
            });
        }
        let image = Arc::new(LoadedImage {
            payload,
            statement,
            envelope,
            tree: read.tree,
            revoked: revoked.is_some(),
        });
        self.loaded.insert(payload, Arc::clone(&image));
        Ok(Some(image))
    }

    /// Drops an image that has changed in the store; one that is being loaded as it was before is waited for.
    pub async fn forget(&self, payload: &Digest) {
        let _none_is_loaded = self.loading.lock().await;
        self.loaded.invalidate(payload);
    }

    /// Where the manifests lie.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

fn read_statement(
    payload: Digest,
    bytes: &[u8],
) -> Result<(Envelope, Statement<Image>), ImageError> {
    let bad = |reason: String| ImageError::Statement { payload, reason };
    let envelope = Envelope::from_json(bytes).map_err(|error| bad(error.to_string()))?;
    let statement = envelope
        .peek::<Image>()
        .map_err(|error| bad(error.to_string()))?;
    Ok((envelope, statement))
}
