//! A node's pinned lines: what its `local` and `growing` paths are (FORMATS.md 5.2), as agent and collector must agree on them.
//!
//! As a file they are a manifest (section 3) without comments; `pins.sha256` and `pins.size` are those of its plain bytes.

use std::collections::BTreeMap;
use std::io::BufRead;

use crate::digest::Digest;
use crate::entry::{Kind, Line};
use crate::manifest::{ManifestError, ManifestReader, ManifestWriter};
use crate::path::ImagePath;
use crate::scope::{Expect, Scope};
use crate::statement::{FileRef, Grown};
use crate::tree::Tree;

/// The most lines; what is above is a standing limit of the node.
pub const MAX_LINES: usize = 4_096;
/// The most plain bytes: a kilobyte a line, though most take a quarter of that. Twice this is still one body (section 5.4).
pub const MAX_BYTES: u64 = 4 << 20;

/// Why bytes are no pinned lines.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// They are no manifest.
    #[error("pinned lines")]
    Manifest(#[from] ManifestError),
    /// There are too many.
    #[error("more than {MAX_LINES} pinned lines")]
    TooMany,
    /// They are not the file that was asked for.
    #[error("the pinned lines are not those that the node has stated")]
    Another,
}

/// Pinned lines by their path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    lines: BTreeMap<ImagePath, Line>,
}

/// The trees that pinned lines make under a scope.
#[derive(Clone, Debug, Default)]
pub struct PinTrees {
    /// Of the `local` lines.
    pub local: Tree,
    /// Of the `growing` ones.
    pub growing: Tree,
}

impl Pinned {
    /// The lines by their paths.
    pub fn of(lines: impl IntoIterator<Item = Line>) -> Self {
        let lines = lines.into_iter().map(|line| (line.path(), line)).collect();
        Self { lines }
    }

    /// Reads the plain file, which must be the stated one.
    pub fn read(plain: impl BufRead, stated: &FileRef) -> Result<Self, PinsError> {
        let mut reader = ManifestReader::new(plain);
        let mut lines = BTreeMap::new();
        while let Some(line) = reader.next_line()? {
            if lines.len() >= MAX_LINES {
                return Err(PinsError::TooMany);
            }
            let line = line.to_line();
            lines.insert(line.path(), line);
        }
        let pinned = Self { lines };
        if pinned.file() != Some(*stated) {
            // Also where there are comments: the file has one form.
            return Err(PinsError::Another);
        }
        Ok(pinned)
    }

    /// The plain file.
    pub fn plain(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        let written = ManifestWriter::new(&mut plain, &[]).and_then(|mut writer| {
            for line in self.lines.values() {
                writer.line(line)?;
            }
            writer.finish()
        });
        match written {
            Ok(_) => plain,
            Err(_) => unreachable!("lines in the order of their paths, each read, into memory"),
        }
    }

    /// Digest and size of the plain file; none while nothing is pinned.
    pub fn file(&self) -> Option<FileRef> {
        if self.lines.is_empty() {
            return None;
        }
        let plain = self.plain();
        Some(FileRef {
            sha256: Digest::of(&plain),
            size: plain.len() as u64,
        })
    }

    /// Pins a line, or nothing at a path. A line whose content was not read is not taken.
    pub fn put(&mut self, path: &ImagePath, line: Option<&Line>) {
        match line {
            Some(line) if line.borrowed().is_unread() => {}
            Some(line) => {
                self.lines.insert(path.clone(), line.clone());
            }
            None => {
                self.lines.remove(path);
            }
        }
    }

    /// The line of a path.
    pub fn get(&self, path: &ImagePath) -> Option<&Line> {
        self.lines.get(path)
    }

    /// All of them, in the order of a walk.
    pub fn iter(&self) -> impl Iterator<Item = (&ImagePath, &Line)> {
        self.lines.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The trees under a scope. A line whose path the scope neither calls `local` nor `growing` is in none.
    pub fn trees(&self, scope: &Scope) -> PinTrees {
        let (mut local, mut growing) = (Vec::new(), Vec::new());
        for (path, line) in &self.lines {
            let leaf = (path.key(), line.leaf());
            match scope.decide(path).expect {
                Expect::Local => local.push(leaf),
                Expect::Growing => growing.push(leaf),
                Expect::Sealed | Expect::Ignored => {}
            }
        }
        PinTrees {
            local: Tree::from_leaves(local),
            growing: Tree::from_leaves(growing),
        }
    }

    /// Whether what a statement says to have grown moves these lines on: each is another path's first line, or its own grown.
    pub fn may_grow(&self, grown: &[Grown], scope: &Scope) -> bool {
        grown.iter().all(|grown| {
            grown.found.path() == grown.path
                && scope.decide(&grown.path).expect == Expect::Growing
                && self
                    .get(&grown.path)
                    .is_none_or(|before| grew(before, &grown.found))
        })
    }
}

/// Whether a file only grew: more bytes and thus another digest, nothing else. Its time, where it is recorded, moves with it.
pub fn grew(before: &Line, after: &Line) -> bool {
    let (mut before, after) = (before.entry(), after.entry());
    let longer = match (&before.kind, &after.kind) {
        (
            Kind::File {
                size,
                sha256: Some(_),
            },
            Kind::File {
                size: now,
                sha256: Some(_),
            },
        ) => now > size,
        _ => false,
    };
    before.kind.clone_from(&after.kind);
    before.time = after.time;
    longer && before == after
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;
    use crate::scope::Rule;

    fn file(path: &str, content: &[u8], more: &str) -> Line {
        let (size, digest) = (content.len(), Digest::of(content));
        let text =
            format!("{path} type=file mode={more} uid=0 gid=0 size={size} sha256digest={digest}");
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
            rule("var/log/**", Expect::Growing),
        ])
        .unwrap()
    }

    #[test]
    fn only_more_bytes_is_growth() {
        let old = file("./var/log/a", b"one\n", "0640");
        assert!(grew(&old, &file("./var/log/a", b"one\ntwo\n", "0640")));
        for other in [
            old.clone(),
            file("./var/log/a", b"one", "0640"),
            file("./var/log/a", b"two\n", "0640"),
            file("./var/log/a", b"one\ntwo\n", "0644"),
            Line::parse("./var/log/a type=dir mode=0755 uid=0 gid=0").unwrap(),
            Line::parse("./var/log/a type=file mode=0640 uid=0 gid=0 size=900").unwrap(),
        ] {
            assert!(!grew(&old, &other), "{other}");
        }
    }

    #[test]
    fn the_file_is_a_manifest_and_comes_back() {
        let pinned = Pinned::of([
            file("./var/log/a", b"1", "0640"),
            file("./etc/hostname", b"2", "0644"),
        ]);
        let plain = pinned.plain();
        assert!(plain.starts_with(b"#mtree\n./etc/hostname "));
        let stated = pinned.file().unwrap();
        assert_eq!(stated.size, plain.len() as u64);
        assert_eq!(Pinned::read(&plain[..], &stated).unwrap(), pinned);
        let wrong = FileRef {
            sha256: Digest::ZERO,
            ..stated
        };
        assert!(matches!(
            Pinned::read(&plain[..], &wrong),
            Err(PinsError::Another)
        ));
        assert_eq!(Pinned::default().file(), None);
    }

    #[test]
    fn growth_moves_lines_on_and_scope_sorts_them() {
        let mut pinned = Pinned::of([
            file("./var/log/a", b"1", "0640"),
            file("./etc/hostname", b"2", "0644"),
            file("./usr/x", b"3", "0644"),
        ]);
        let trees = pinned.trees(&scope());
        assert_eq!((trees.local.len(), trees.growing.len()), (1, 1));
        let grown = |path: &str, line: &Line| Grown {
            path: path.parse().unwrap(),
            found: line.clone(),
        };
        let more = file("./var/log/a", b"12", "0640");
        let new = file("./var/log/b", b"", "0640");
        let both = [grown("./var/log/a", &more), grown("./var/log/b", &new)];
        assert!(pinned.may_grow(&both, &scope()));
        let local = file("./etc/hostname", b"23", "0644");
        assert!(!pinned.may_grow(&[grown("./etc/hostname", &local)], &scope()));
        assert!(!pinned.may_grow(&[grown("./var/log/a", &new)], &scope()));
        for grown in &both {
            pinned.put(&grown.path, Some(&grown.found));
        }
        assert_eq!(pinned.get(&new.path()), Some(&new));
        assert_eq!(pinned.len(), 4);
        pinned.put(&new.path(), None);
        assert_eq!(pinned.len(), 3);
    }
}
