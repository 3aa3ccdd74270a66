//! What each node has pinned: held here so that a heartbeat that moves a growing file on needs no upload, asked for where it is
//! not, judged by persons where it is new or was changed.

mod accept;
mod store;
mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use attestation::digest::Digest;
use attestation::entry::Line;
use attestation::path::ImagePath;
use attestation::pins::{PinTrees, Pinned};
use attestation::scope::Scope;
use attestation::statement::{Attestation, Difference, FileRef};
use attestation::wire::{Request, RequestKind};
use sqlx::Row as _;

use crate::store::{Store, StoreError};

pub use self::accept::{Accept, accept, keep, refused, word};
pub use self::store::{PinView, Reviewed, list, mark_reviewed, put};
pub use self::upload::{stated, take_upload};

/// Lines in memory, of all nodes: about half a kilobyte each. A node that is not among them is read from the store.
const IN_MEMORY: u64 = 512 << 10;
/// Nodes asked for their pins at a time; one more is asked when it speaks again.
const WANTED: usize = 32_768;
/// Accepted lines that wait for one node; more are a conflict for the person who accepts.
pub(crate) const ACCEPTS: usize = 256;

/// Pinned lines with what is derived from them.
pub struct Held {
    /// The lines.
    pub lines: Pinned,
    /// Digest and size of them as a file.
    pub file: FileRef,
    /// Their trees under the scope of one image, named by the SHA-256 of its statement's payload.
    trees: Mutex<Option<(Digest, Arc<PinTrees>)>>,
}

impl Held {
    /// Lines, of which there is at least one.
    pub fn of(lines: Pinned) -> Option<Self> {
        let file = lines.file()?;
        Some(Self {
            lines,
            file,
            trees: Mutex::new(None),
        })
    }

    /// Their trees under an image's scope; computed once for an image.
    pub fn trees(&self, image: Digest, scope: &Scope) -> Arc<PinTrees> {
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, trees)) = &*trees
            && *of == image
        {
            return Arc::clone(trees);
        }
        let made = Arc::new(self.lines.trees(scope));
        *trees = Some((image, Arc::clone(&made)));
        made
    }
}

/// How what a statement says of its pins stands to what is held.
#[derive(Clone)]
pub enum Standing {
    /// It has none.
    None,
    /// Not held, nor what is held moved on: they are asked for.
    Missing(FileRef),
    /// Held.
    Held(Arc<Held>),
}

/// What a statement's pins are, from those held before it: the same, or moved on by what grew and by what was accepted.
pub fn stand(
    before: Option<&Arc<Held>>,
    said: &Attestation,
    differences: &[Difference],
    scope: Option<&Scope>,
    accepted: &[Accept],
) -> Standing {
    let Some(stated) = said.pins else {
        return Standing::None;
    };
    let (Some(before), Some(scope)) = (before, scope) else {
        return match before {
            Some(before) if before.file == stated => Standing::Held(Arc::clone(before)),
            _ => Standing::Missing(stated),
        };
    };
    if before.file == stated {
        return Standing::Held(Arc::clone(before));
    }
    if !before.lines.may_grow(&said.grown, scope) {
        return Standing::Missing(stated);
    }
    let mut lines = before.lines.clone();
    for grown in &said.grown {
        lines.put(&grown.path, Some(&grown.found));
    }
    // What was accepted and is still told as a difference has not become the pin yet.
    let differs = |path: &ImagePath| differences.iter().any(|it| it.path == *path);
    let settled: Vec<&Accept> = accepted.iter().filter(|it| !differs(&it.path)).collect();
    let with = |accepted: &[&Accept]| {
        let mut lines = lines.clone();
        for accept in accepted {
            lines.put(&accept.path, accept.found.as_ref());
        }
        Held::of(lines).filter(|held| held.file == stated)
    };
    let moved = with(&[]).or_else(|| with(&settled).filter(|_| !settled.is_empty()));
    match moved {
        Some(held) => Standing::Held(Arc::new(held)),
        None => Standing::Missing(stated),
    }
}

/// The pins at hand, and what nodes are asked about them with their next answers.
pub struct Pins {
    held: moka::sync::Cache<String, Arc<Held>>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Pins that a node has stated and that are not here.
    wanted: HashMap<String, Digest>,
    /// Lines that a person accepted, until the node says that they are its pins.
    accepts: HashMap<String, Vec<Accept>>,
}

impl Pins {
    /// With what persons accepted and no node has confirmed yet.
    pub async fn load(store: &Store) -> Result<Self, StoreError> {
        let mut accepts: HashMap<String, Vec<Accept>> = HashMap::new();
        for (node, accept) in accept::waiting(store).await? {
            accepts.entry(node).or_default().push(accept);
        }
        let weigh =
            |_: &String, held: &Arc<Held>| u32::try_from(held.lines.len()).unwrap_or(u32::MAX);
        Ok(Self {
            held: moka::sync::Cache::builder()
                .max_capacity(IN_MEMORY)
                .weigher(weigh)
                .build(),
            waiting: Mutex::new(Waiting {
                wanted: HashMap::new(),
                accepts,
            }),
        })
    }

    /// What is held of a node, from memory or from the store.
    pub async fn held(&self, store: &Store, node: &str) -> Result<Option<Arc<Held>>, StoreError> {
        if let Some(held) = self.held.get(node) {
            return Ok(Some(held));
        }
        let rows = sqlx::query("SELECT line FROM pins WHERE node = ?")
            .bind(node)
            .fetch_all(store.read_pool())
            .await?;
        let mut lines = Vec::with_capacity(rows.len());
        for row in rows {
            let text: String = row.try_get("line")?;
            let line = Line::parse(&text)
                .map_err(|error| StoreError::corrupt(format!("pins.line: {error}")))?;
            lines.push(line);
        }
        let Some(held) = Held::of(Pinned::of(lines)).map(Arc::new) else {
            return Ok(None);
        };
        self.held.insert(node.to_owned(), Arc::clone(&held));
        Ok(Some(held))
    }

    /// After a commit: what a node's last statement stands on, or what it is asked for.
    pub fn note(&self, node: &str, standing: &Standing) {
        match standing {
            Standing::None => self.held.invalidate(node),
            Standing::Held(held) => self.held.insert(node.to_owned(), Arc::clone(held)),
            Standing::Missing(_) => {}
        }
        let mut waiting = self.lock();
        match standing {
            Standing::Missing(file) if waiting.wanted.len() < WANTED => {
                waiting.wanted.insert(node.to_owned(), file.sha256);
            }
            _ => {
                waiting.wanted.remove(node);
            }
        }
    }

    /// What could not be committed is read anew.
    pub fn forget(&self, node: &str) {
        self.held.invalidate(node);
    }

    /// What a person accepted and the node has not confirmed.
    pub fn accepted(&self, node: &str) -> Vec<Accept> {
        self.lock().accepts.get(node).cloned().unwrap_or_default()
    }

    fn wait_for(&self, node: &str, accept: Accept) {
        let mut waiting = self.lock();
        let accepts = waiting.accepts.entry(node.to_owned()).or_default();
        accepts.retain(|it| it.path != accept.path);
        accepts.push(accept);
    }

    /// A violation is over: whatever was accepted of it needs no telling any more.
    pub fn over(&self, node: &str, violations: &[String]) {
        let mut waiting = self.lock();
        if let Some(accepts) = waiting.accepts.get_mut(node) {
            accepts.retain(|it| !violations.contains(&it.violation));
            if accepts.is_empty() {
                waiting.accepts.remove(node);
            }
        }
    }

    /// What a node is asked with this answer, again and again until it has done so: both are the same when done twice.
    pub fn due(&self, node: &str) -> Vec<Request> {
        let waiting = self.lock();
        let wanted = waiting.wanted.get(node).map(|sha256| Request {
            kind: RequestKind::Pins,
            sha256: Some(*sha256),
            path: None,
            found: None,
        });
        let accepts = waiting.accepts.get(node).into_iter().flatten();
        let accepts = accepts.map(|accept| Request {
            kind: RequestKind::Accept,
            sha256: None,
            path: Some(accept.path.clone()),
            found: accept.found.clone(),
        });
        wanted.into_iter().chain(accepts).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // Plain values: right at any moment.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use attestation::scope::{Expect, Rule};
    use attestation::statement::Grown;
    use attestation::time::Timestamp;
    use serde_json::json;

    use super::*;

    fn line(path: &str, content: &str) -> Line {
        let (size, digest) = (content.len(), Digest::of(content.as_bytes()));
        let text =
            format!("{path} type=file mode=0644 uid=0 gid=0 size={size} sha256digest={digest}");
        Line::parse(&text).unwrap()
    }

    fn scope() -> Scope {
        let rule = |glob: &str, expect| Rule {
            r#match: glob.to_owned(),
            expect,
            time: false,
        };
        Scope::new(vec![
            rule("etc/*", Expect::Local),
            rule("log/*", Expect::Growing),
        ])
        .unwrap()
    }

    fn held(lines: &[Line]) -> Arc<Held> {
        Arc::new(Held::of(Pinned::of(lines.iter().cloned())).unwrap())
    }

    fn said(pins: Option<FileRef>, grown: &[Line]) -> Attestation {
        let mut said: Attestation = serde_json::from_value(json!({
            "log": "l", "sequence": 1, "boot": "b", "issued": "2026-01-01T00:00:00.000000Z", "monotonic": 1, "entries": 1,
            "local": Digest::ZERO, "growing": Digest::ZERO, "agent": {"version": "0"},
            "coverage": {"watch": {"rung": "A", "limits": []}, "mounts": {"sha256": Digest::ZERO}},
        }))
        .unwrap();
        said.pins = pins;
        let grown = grown.iter().map(|line| Grown {
            path: line.path(),
            found: line.clone(),
        });
        said.grown = grown.collect();
        said
    }

    fn is_held(standing: &Standing, file: FileRef) -> bool {
        matches!(standing, Standing::Held(held) if held.file == file)
    }

    #[test]
    fn growth_moves_held_pins_on_and_nothing_else_is_believed() {
        let (host, old, new) = (
            line("./etc/h", "a"),
            line("./log/a", "1"),
            line("./log/a", "12"),
        );
        let before = held(&[host.clone(), old.clone()]);
        let after = held(&[host.clone(), new.clone()]).file;
        let stand = |said: &Attestation, accepted: &[Accept]| {
            super::stand(Some(&before), said, &[], Some(&scope()), accepted)
        };
        assert!(is_held(
            &stand(&said(Some(before.file), &[]), &[]),
            before.file
        ));
        assert!(is_held(
            &stand(&said(Some(after), std::slice::from_ref(&new)), &[]),
            after
        ));
        assert!(matches!(
            stand(&said(Some(after), &[]), &[]),
            Standing::Missing(_)
        ));
        assert!(matches!(stand(&said(None, &[]), &[]), Standing::None));
        let local = line("./etc/h", "ab");
        let lied = held(&[local.clone(), old]).file;
        let grown = said(Some(lied), std::slice::from_ref(&local));
        assert!(
            matches!(stand(&grown, &[]), Standing::Missing(_)),
            "a local file does not grow"
        );
        let accept = Accept {
            violation: "v".to_owned(),
            path: local.path(),
            found: Some(local.clone()),
        };
        let accepted = said(Some(lied), &[]);
        assert!(is_held(
            &stand(&accepted, std::slice::from_ref(&accept)),
            lied
        ));
        let still = [Difference {
            path: local.path(),
            expect: Expect::Local,
            expected: Some(host),
            found: Some(local),
            actor: None,
            at: Timestamp::from_micros(0),
        }];
        let standing = super::stand(Some(&before), &accepted, &still, Some(&scope()), &[accept]);
        assert!(
            matches!(standing, Standing::Missing(_)),
            "told as a difference still"
        );
    }
}
