//! What is mounted under the root, and what of it nobody expects.

use std::time::Instant;

use attestation::mounts;
use attestation::statement::UnexpectedMount;

use super::Engine;
use crate::clock;
use crate::monitor::Event;
use crate::scan::mount_table;

impl Engine {
    pub(super) fn check_mounts(&mut self) {
        let Some((group, compared)) = self.nearest(clock::now()) else {
            return;
        };
        let table = match mount_table(&self.parts.root) {
            Ok(table) => table,
            Err(error) => {
                tracing::warn!(%error, "read the mount table");
                return;
            }
        };
        let image = &compared.candidate.reference.statement.predicate;
        let unexpected: Vec<UnexpectedMount> =
            mounts::unexpected(&table, &group.scope, &image.mounts)
                .into_iter()
                .map(|mount| UnexpectedMount {
                    path: mount.path,
                    source: mount.source,
                    r#type: mount.fstype,
                    actor: None,
                })
                .collect();
        let digest = mounts::table_digest(&table);
        if (&unexpected, digest) != (&self.unexpected, self.mounts) {
            self.unexpected = unexpected;
            self.mounts = digest;
            self.monitor.event(Instant::now(), Event::Changed);
        }
    }
}
