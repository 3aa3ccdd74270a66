//! Files that the collector asks for.

use attestation::digest::Digest;

use super::{ExchangeError, Uplink};
use crate::transport::TransportError;
use crate::{journal, snapshot};

impl Uplink {
    /// Puts the snapshot that was asked for, if it still is the newest.
    pub(super) async fn upload_snapshot(&mut self, sha256: Digest) -> Result<(), ExchangeError> {
        let path = snapshot::file(&self.parts.state, &sha256);
        let length = std::fs::metadata(&path).map_or(0, |held| held.len());
        if length > snapshot::FILE_BYTES {
            tracing::error!(length, "the snapshot is larger than any that is uploaded");
            return Ok(());
        }
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::debug!(%error, %sha256, "the snapshot asked for is not kept any more");
                return Ok(());
            }
        };
        let url = format!("{}/agent/v1/snapshots/{sha256}", self.base());
        match self.parts.transport.put(url, bytes).await {
            Ok(()) => {
                tracing::info!(%sha256, length, "the snapshot is at the collector");
                Ok(())
            }
            Err(error @ TransportError::Refused(_)) => {
                let error = journal::chain(&error);
                tracing::warn!(%error, %sha256, "the collector does not take the snapshot");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}
