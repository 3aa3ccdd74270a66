//! What is mounted under the root, and what of it nobody expects.

use std::collections::BTreeSet;
use std::time::Instant;

use attestation::mounts::{self, Mount};
use attestation::path::ImagePath;
use attestation::statement::{Actor, UnexpectedMount};

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
        let unexpected = |table: &[Mount]| mounts::unexpected(table, &group.scope, &image.mounts);
        let mut found: Vec<UnexpectedMount> = unexpected(&table)
            .into_iter()
            .map(|mount| {
                let actor = self.mounters.get(&mount.path).cloned();
                told(mount, actor)
            })
            .collect();
        for foreign in &self.foreign {
            let mount = &foreign.mount;
            let known = found.iter().any(|known| {
                (&known.path, &known.source, &known.r#type)
                    == (&mount.path, &mount.source, &mount.fstype)
            });
            if !known && !unexpected(std::slice::from_ref(mount)).is_empty() {
                found.push(told(mount.clone(), Some(foreign.actor.clone())));
            }
        }
        keep_actors(&self.unexpected, &mut found);
        let digest = mounts::table_digest(&table);
        if (&found, digest) != (&self.unexpected, self.mounts) {
            self.unexpected = found;
            self.mounts = digest;
            self.monitor.event(Instant::now(), Event::Changed);
        }
        // Of what is no longer mounted nobody asks who mounted it.
        let there: BTreeSet<ImagePath> = table.into_iter().map(|mount| mount.path).collect();
        self.mounters.retain(|path, _| there.contains(path));
    }
}

fn told(mount: Mount, actor: Option<Actor>) -> UnexpectedMount {
    UnexpectedMount {
        path: mount.path,
        source: mount.source,
        r#type: mount.fstype,
        actor,
    }
}

/// A mount that was told before is still by whom it was; one that is not known now is not forgotten.
fn keep_actors(before: &[UnexpectedMount], after: &mut [UnexpectedMount]) {
    for mount in after.iter_mut().filter(|mount| mount.actor.is_none()) {
        let same = before.iter().find(|old| {
            (&old.path, &old.source, &old.r#type) == (&mount.path, &mount.source, &mount.r#type)
        });
        mount.actor = same.and_then(|old| old.actor.clone());
    }
}
