//! Manifests on disk: taken only when an image asks for them, read whole and compared before they count.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use attestation::digest::Digest;
use attestation::manifest::{self, LoadedManifest, ManifestError, ManifestReader};
use attestation::statement::{Image, Statement};
use axum::body::Body;
use http::StatusCode;
use http_body_util::BodyExt;
use sqlx::Row;
use tokio::io::AsyncWriteExt;

use crate::problem::ProblemResponse;
use crate::state::AppState;

/// Why a manifest file is not the one that an image names.
#[derive(Debug, thiserror::Error)]
pub enum ManifestFault {
    /// It cannot be opened or read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// A line is not as section 3 of FORMATS.md has it.
    #[error("it is no manifest")]
    Line(#[source] ManifestError),
    /// Its entries give another tree.
    #[error("its entries do not give the image's tree")]
    Tree,
    /// It has another size or another number of entries than the statement says.
    #[error("the statement says {what} {said}, the manifest has {found}")]
    Facts {
        /// What was compared.
        what: &'static str,
        /// What was signed.
        said: u64,
        /// What it is.
        found: u64,
    },
    /// Reading was broken off.
    #[error("reading it was broken off")]
    Interrupted,
}

pub(super) fn directory(state: &Path) -> PathBuf {
    state.join("manifests")
}

pub(super) fn path(directory: &Path, sha256: &Digest) -> PathBuf {
    directory.join(format!("{sha256}.mtree.zst"))
}

/// Where the manifest with that digest lies, if it is here.
pub fn file(state: &AppState, sha256: &Digest) -> PathBuf {
    path(state.images.directory(), sha256)
}

/// Reads a compressed manifest, at most to its signed size.
pub(super) fn read(path: &Path, uncompressed: u64) -> Result<LoadedManifest, ManifestFault> {
    let file = File::open(path).map_err(ManifestFault::Read)?;
    let plain = manifest::decompressor(BufReader::new(file), uncompressed);
    ManifestReader::new(plain)
        .load()
        .map_err(ManifestFault::Line)
}

/// Takes the manifest of a published image; answers whether it is new. Nothing counts before it was read whole.
pub async fn put_manifest(
    state: &AppState,
    sha256: Digest,
    body: Body,
) -> Result<bool, ProblemResponse> {
    let rows = sqlx::query("SELECT payload, envelope, complete FROM images WHERE manifest = ?")
        .bind(sha256.as_bytes().as_slice())
        .fetch_all(state.store.read_pool())
        .await?;
    if rows.is_empty() {
        return Err(ProblemResponse::not_found(
            "no published image has a manifest with that digest",
        ));
    }
    let Some(wanted) = rows
        .iter()
        .find(|row| !row.try_get::<bool, _>("complete").unwrap_or(false))
    else {
        return Ok(false);
    };
    let envelope: Vec<u8> = wanted.try_get("envelope")?;
    let payload = crate::store::nodes::digest(wanted, "payload")?.unwrap_or(Digest::ZERO);
    let (_, statement) =
        super::read_statement(payload, &envelope).map_err(|error| failed(&error))?;
    let named = &statement.predicate.manifest;
    if named.size > state.settings.limits.manifest {
        return Err(ProblemResponse::too_large(format!(
            "a manifest has at most {} bytes here",
            state.settings.limits.manifest
        )));
    }
    let temporary = state
        .images
        .directory()
        .join(format!(".{}", uuid::Uuid::now_v7()));
    let outcome = take(state, &temporary, &statement, body).await;
    if outcome.is_err()
        && let Err(error) = tokio::fs::remove_file(&temporary).await
    {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "temporary manifest not removed"
        );
    }
    outcome?;
    complete(state, payload).await?;
    Ok(true)
}

async fn take(
    state: &AppState,
    temporary: &Path,
    statement: &Statement<Image>,
    body: Body,
) -> Result<(), ProblemResponse> {
    let named = statement.predicate.manifest.clone();
    receive(temporary, body, named.size, &named.sha256).await?;
    let (from, to) = (
        temporary.to_owned(),
        path(state.images.directory(), &named.sha256),
    );
    let statement = statement.clone();
    tokio::task::spawn_blocking(move || -> Result<(), ProblemResponse> {
        let read = read(&from, named.uncompressed).map_err(|fault| unusable(&fault))?;
        compare(&statement, &read).map_err(|fault| unusable(&fault))?;
        std::fs::rename(&from, &to)
            .and_then(|()| {
                to.parent()
                    .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
            })
            .map_err(|error| {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "manifest not kept"
                );
                ProblemResponse::internal()
            })
    })
    .await
    .map_err(|_gone| ProblemResponse::internal())?
}

fn compare(statement: &Statement<Image>, read: &LoadedManifest) -> Result<(), ManifestFault> {
    let said = &statement.predicate;
    let facts = &read.facts;
    let numbers = [
        ("entries", said.entries, facts.entries),
        ("bytes", said.bytes, facts.bytes),
        (
            "manifest.uncompressed",
            said.manifest.uncompressed,
            facts.uncompressed,
        ),
    ];
    if let Some((what, said, found)) = numbers.into_iter().find(|(_, said, found)| said != found) {
        return Err(ManifestFault::Facts { what, said, found });
    }
    if statement.tree() == Some(facts.tree) {
        Ok(())
    } else {
        Err(ManifestFault::Tree)
    }
}

/// Writes the body to a file, no more than its signed size, and compares size and digest.
async fn receive(
    temporary: &Path,
    mut body: Body,
    size: u64,
    sha256: &Digest,
) -> Result<(), ProblemResponse> {
    use sha2::{Digest as _, Sha256};
    let not_written = |error: io::Error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "manifest not written"
        );
        if error.kind() == io::ErrorKind::StorageFull {
            ProblemResponse::from(crate::store::StoreError::Full)
        } else {
            ProblemResponse::internal()
        }
    };
    let mut out = tokio::fs::File::create_new(temporary)
        .await
        .map_err(not_written)?;
    let (mut hash, mut received) = (Sha256::new(), 0_u64);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_broken| ProblemResponse::malformed("the body broke off"))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        received = received.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if received > size {
            return Err(ProblemResponse::too_large(format!(
                "the statement says {size} bytes"
            )));
        }
        hash.update(data);
        out.write_all(data).await.map_err(not_written)?;
    }
    out.flush().await.map_err(not_written)?;
    out.sync_all().await.map_err(not_written)?;
    let found = Digest::from_bytes(hash.finalize().into());
    if received != size || found != *sha256 {
        return Err(ProblemResponse::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "manifest",
            format!(
                "the statement names {size} bytes with SHA-256 {sha256}; received {received} bytes with {found}"
            ),
        ));
    }
    Ok(())
}

async fn complete(state: &AppState, payload: Digest) -> Result<(), ProblemResponse> {
    state
        .store
        .write(move |tx| {
            Box::pin(async move {
                sqlx::query("UPDATE images SET complete = 1 WHERE payload = ?")
                    .bind(payload.as_bytes().as_slice())
                    .execute(&mut tx.connection)
                    .await?;
                Ok(())
            })
        })
        .await?;
    tracing::info!(image = %payload, "image complete");
    Ok(())
}

fn unusable(fault: &ManifestFault) -> ProblemResponse {
    let reason =
        std::error::Error::source(fault).map_or_else(String::new, |source| format!(": {source}"));
    ProblemResponse::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "manifest",
        format!("{fault}{reason}"),
    )
}

fn failed(error: &super::ImageError) -> ProblemResponse {
    tracing::error!(error = error as &dyn std::error::Error, "image not read");
    ProblemResponse::internal()
}
