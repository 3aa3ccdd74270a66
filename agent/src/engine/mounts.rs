//! What is mounted under the root, and what of it nobody expects.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Instant;

use attestation::mounts::{self, Mount};
use attestation::path::ImagePath;
use attestation::statement::{Actor, Gap, UnexpectedMount};

use super::Engine;
use super::gaps::gap;
use crate::clock;
use crate::monitor::Event;
use crate::scan::{Root, everybodys_mount_table};

/// The cause of a gap while a file system in scope is not yet watched and read.
pub(super) const MOUNT: &str = "mount";

impl Engine {
    pub(super) fn check_mounts(&mut self) {
        self.open_anew_if_outdated();
        let Some((group, compared)) = self.nearest(clock::now()) else {
            return;
        };
        let table = match everybodys_mount_table(&self.parts.root) {
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
            // A mount over a directory is a directory: what of it has content is what lies below.
            let place = OsStr::from_bytes(mount.path.as_bytes());
            let is_harmless = mounts::hides_nothing_sealed(&mount.path, &group.scope)
                && self.parts.root.join(place).is_dir();
            if !known && !is_harmless && !unexpected(std::slice::from_ref(mount)).is_empty() {
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

impl Engine {
    /// Another file system came to a mount point that scope names, or went from it: all is opened anew, so that it is
    /// watched and read before it counts. Until then it is a gap.
    fn open_anew_if_outdated(&mut self) {
        let beginning = self.beginning.as_ref();
        let newest = beginning
            .map(super::begin::Beginning::root)
            .or(self.eyes.as_ref().map(|eyes| &eyes.root));
        let points = newest.map(Root::outdated).unwrap_or_default();
        if points.is_empty() || self.wanted.is_some() {
            return;
        }
        let candidates = match beginning {
            Some(beginning) => beginning.candidates().to_vec(),
            None => {
                let groups = self.groups.iter().flat_map(|group| &group.compared);
                groups.map(|compared| compared.candidate.clone()).collect()
            }
        };
        let now = clock::now();
        self.open_gap(Gap {
            paths: points,
            to: None,
            ..gap(self.last_good.min(now), now, MOUNT)
        });
        self.since = Some(now);
        self.monitor.event(Instant::now(), Event::Changed);
        self.wanted = Some(candidates);
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
