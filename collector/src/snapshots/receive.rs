//! Taking a snapshot: only the one that was asked for, no larger than was signed, and only if it gives the attested tree.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use attestation::digest::Digest;
use attestation::manifest::{ManifestReader, decompressor};
use axum::body::Body;
use http::StatusCode;
use http_body_util::BodyExt;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use super::{Held, compare, directory, file, row};
use crate::clock;
use crate::images;
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::nodes::to_sql;

/// The largest snapshot, plain: about four million entries.
const PLAIN: u64 = 512 << 20;
/// Lines that are mostly digests do not become longer by compression, but for what surrounds them.
const AROUND: u64 = 64 << 10;

/// Takes a node's snapshot; answers whether it is new.
pub async fn put(
    state: &AppState,
    node: &str,
    sha256: Digest,
    body: Body,
) -> Result<bool, ProblemResponse> {
    let not_asked = || {
        ProblemResponse::new(
            StatusCode::NOT_FOUND,
            "not-asked-for",
            "the collector has not asked for this file",
        )
    };
    let wanted = row(&state.store, node).await?.ok_or_else(not_asked)?;
    if wanted.sha256 != sha256 {
        return Err(not_asked());
    }
    if wanted.held {
        return Ok(false);
    }
    if wanted.size > PLAIN {
        return Err(ProblemResponse::too_large(format!(
            "a snapshot has at most {PLAIN} bytes here"
        )));
    }
    let home = directory(&state.settings.state);
    crate::files::private_directory(&home).map_err(|error| internal(&error))?;
    let temporary = home.join(format!(".{}", uuid::Uuid::now_v7()));
    let taken = take(state, node, &wanted, &temporary, body).await;
    if taken.is_err()
        && let Err(error) = tokio::fs::remove_file(&temporary).await
    {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "temporary snapshot not removed"
        );
    }
    let total = taken?;
    keep(state, node, sha256, total).await?;
    Ok(true)
}

async fn take(
    state: &AppState,
    node: &str,
    wanted: &Held,
    temporary: &Path,
    body: Body,
) -> Result<u64, ProblemResponse> {
    receive(temporary, body, wanted.size.saturating_add(AROUND)).await?;
    let image = super::image(state, &wanted.image)
        .await?
        .ok_or_else(|| unusable("the image that it is compared with is not here"))?;
    let home = directory(&state.settings.state);
    let to = file(&state.settings.state, node, &wanted.sha256);
    let sides = compare::Sides {
        image: images::file(state, &image.statement.predicate.manifest.sha256),
        image_size: image.statement.predicate.manifest.uncompressed,
        snapshot: temporary.to_owned(),
        snapshot_size: wanted.size,
    };
    let _one_at_a_time = state.snapshots.checking.lock().await;
    let (sha256, tree, prefix) = (wanted.sha256, wanted.tree, format!("{node}-"));
    tokio::task::spawn_blocking(move || -> Result<u64, ProblemResponse> {
        check(&sides, &sha256, &tree)?;
        let total = compare::count(&sides).map_err(|error| unusable(&error.to_string()))?;
        // Only the newest of a node is kept.
        forget(&home, &prefix);
        std::fs::rename(&sides.snapshot, &to)
            .and_then(|()| File::open(&home)?.sync_all())
            .map_err(|error| internal(&error))?;
        Ok(total)
    })
    .await
    .map_err(|_gone| ProblemResponse::internal())?
}

/// The plain bytes must be those that were named, and their entries give the tree that was attested.
fn check(sides: &compare::Sides, sha256: &Digest, tree: &Digest) -> Result<(), ProblemResponse> {
    let file = File::open(&sides.snapshot).map_err(|error| internal(&error))?;
    let plain = Hashed {
        plain: decompressor(BufReader::new(file), sides.snapshot_size),
        hasher: Sha256::new(),
    };
    let mut plain = BufReader::with_capacity(64 << 10, plain);
    let loaded = ManifestReader::of_snapshot(&mut plain)
        .load()
        .map_err(|error| unusable(&error.to_string()))?;
    let found = Digest::from_bytes(plain.into_inner().hasher.finalize().into());
    if found != *sha256 {
        return Err(unusable("its plain bytes have another digest"));
    }
    if loaded.facts.tree != *tree {
        return Err(unusable("its entries do not give the attested tree"));
    }
    Ok(())
}

/// Hashes what is read through it.
struct Hashed<R> {
    plain: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.plain.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

fn forget(home: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(home) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix)
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "old snapshot not removed"
            );
        }
    }
}

async fn receive(temporary: &Path, mut body: Body, limit: u64) -> Result<(), ProblemResponse> {
    let mut out = tokio::fs::File::create_new(temporary)
        .await
        .map_err(|error| internal(&error))?;
    let mut received = 0_u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_broken| ProblemResponse::malformed("the body broke off"))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        received = received.saturating_add(data.len() as u64);
        if received > limit {
            return Err(ProblemResponse::too_large(
                "it is longer than its plain size".to_owned(),
            ));
        }
        out.write_all(data)
            .await
            .map_err(|error| internal(&error))?;
    }
    out.flush().await.map_err(|error| internal(&error))?;
    out.sync_all().await.map_err(|error| internal(&error))
}

async fn keep(
    state: &AppState,
    node: &str,
    sha256: Digest,
    total: u64,
) -> Result<(), ProblemResponse> {
    let (id, now) = (node.to_owned(), clock::now());
    state
        .store
        .write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE snapshots SET held = ?, total = ? WHERE node = ? AND sha256 = ?",
                )
                .bind(now.as_micros())
                .bind(to_sql(total))
                .bind(id)
                .bind(sha256.as_bytes().as_slice())
                .execute(&mut tx.connection)
                .await?;
                Ok(())
            })
        })
        .await?;
    state.snapshots.have(node, &sha256);
    tracing::info!(node, total, "every difference of the node is known");
    Ok(())
}

fn unusable(reason: &str) -> ProblemResponse {
    ProblemResponse::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "snapshot",
        reason.to_owned(),
    )
}

fn internal(error: &(dyn std::error::Error + 'static)) -> ProblemResponse {
    tracing::error!(error, "snapshot not kept");
    ProblemResponse::internal()
}
