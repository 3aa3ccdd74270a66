//! What differs between an image and a snapshot, by reading both once, side by side: a page is held in memory, never more.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

use attestation::entry::Line;
use attestation::manifest::{ManifestError, ManifestReader, decompressor};
use attestation::path::ImagePath;
use attestation::scope::Expect;
use attestation::statement::Difference;
use attestation::time::Timestamp;

use super::Page;

/// Why two manifests are not compared.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompareError {
    /// One of them cannot be opened.
    #[error("open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// One of them is no manifest any more.
    #[error("read a manifest")]
    Read(#[from] ManifestError),
}

/// Both files, compressed, and their plain sizes.
pub(super) struct Sides {
    pub(super) image: PathBuf,
    pub(super) image_size: u64,
    pub(super) snapshot: PathBuf,
    pub(super) snapshot_size: u64,
}

/// `limit` differences from the one with number `from` on. What the node listed itself is told as it told it: with who and
/// when; of the others the snapshot's time is known.
pub(super) fn page(
    sides: &Sides,
    told: &HashMap<ImagePath, Difference>,
    at: Timestamp,
    from: usize,
    limit: usize,
) -> Result<Page, CompareError> {
    let mut page = Page {
        items: Vec::new(),
        more: false,
    };
    let mut number = 0;
    each(sides, |path, expected, found| {
        number += 1;
        if number <= from {
            return true;
        }
        if page.items.len() >= limit {
            page.more = true;
            return false;
        }
        let listed = told.get(&path).filter(|it| it.found == found);
        let difference = listed.cloned().unwrap_or(Difference {
            path,
            expect: Expect::Sealed,
            expected,
            found,
            actor: None,
            at,
        });
        page.items.push(difference);
        true
    })?;
    Ok(page)
}

/// How many there are.
pub(super) fn count(sides: &Sides) -> Result<u64, CompareError> {
    let mut number = 0;
    each(sides, |_, _, _| {
        number += 1;
        true
    })?;
    Ok(number)
}

/// Gives every difference in the order of the paths, until the answer is no.
fn each(
    sides: &Sides,
    mut give: impl FnMut(ImagePath, Option<Line>, Option<Line>) -> bool,
) -> Result<(), CompareError> {
    let mut image = ManifestReader::new(open(&sides.image, sides.image_size)?);
    let mut snapshot = ManifestReader::of_snapshot(open(&sides.snapshot, sides.snapshot_size)?);
    let (mut expected, mut found) = (next(&mut image)?, next(&mut snapshot)?);
    loop {
        let order = match (&expected, &found) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((expected, _)), Some((found, _))) => expected.cmp(found),
        };
        let before = if order.is_le() { expected.take() } else { None };
        let now = if order.is_ge() { found.take() } else { None };
        if before.is_some() {
            expected = next(&mut image)?;
        }
        if now.is_some() {
            found = next(&mut snapshot)?;
        }
        let path = before
            .as_ref()
            .or(now.as_ref())
            .map(|(path, _)| path.clone());
        let (before, now) = (before.map(|(_, line)| line), now.map(|(_, line)| line));
        if let Some(path) = path
            && before != now
            && !give(path, before, now)
        {
            return Ok(());
        }
    }
}

fn open(path: &std::path::Path, size: u64) -> Result<impl BufRead, CompareError> {
    let file = File::open(path).map_err(|source| CompareError::Open {
        path: path.to_owned(),
        source,
    })?;
    Ok(decompressor(BufReader::new(file), size))
}

fn next<R: BufRead>(
    reader: &mut ManifestReader<R>,
) -> Result<Option<(ImagePath, Line)>, CompareError> {
    Ok(reader
        .next_line()?
        .map(|line| (line.path(), line.to_line())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use std::io::Write as _;

    use attestation::manifest::Compressor;

    use super::*;

    fn packed(directory: &std::path::Path, name: &str, lines: &[&str]) -> (PathBuf, u64) {
        let path = directory.join(name);
        let mut out = Compressor::new(File::create(&path).unwrap()).unwrap();
        writeln!(out, "#mtree").unwrap();
        for line in lines {
            writeln!(out, "{line}").unwrap();
        }
        let (_, _, size) = out.finish().unwrap();
        (path, size)
    }

    #[test]
    fn every_difference_is_found_once_and_in_pages() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = |path: &str, mode: &str| format!("{path} type=dir mode={mode} uid=0 gid=0");
        let image = [
            dir(".", "0755"),
            dir("./a", "0755"),
            dir("./b", "0755"),
            dir("./d", "0755"),
        ];
        let there = [
            dir(".", "0755"),
            dir("./b", "0700"),
            "./c type=file mode=0600 uid=0 gid=0 size=9".to_owned(),
            dir("./d", "0755"),
            dir("./e", "0755"),
        ];
        let lines = |all: &[String]| {
            all.iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .clone()
                .join("\n")
        };
        let (image, image_size) = packed(scratch.path(), "image", &[&lines(&image)]);
        let (snapshot, snapshot_size) = packed(scratch.path(), "snapshot", &[&lines(&there)]);
        let sides = Sides {
            image,
            image_size,
            snapshot,
            snapshot_size,
        };
        assert_eq!(count(&sides).unwrap(), 4);
        let at = Timestamp::from_micros(7);
        let page = |from, limit| page(&sides, &HashMap::new(), at, from, limit).unwrap();
        let shown = |page: &Page| {
            page.items
                .iter()
                .map(|it| it.path.to_string())
                .collect::<Vec<_>>()
        };
        let all = page(0, 10);
        assert_eq!(shown(&all), ["./a", "./b", "./c", "./e"]);
        assert!(!all.more);
        assert!(all.items[0].found.is_none() && all.items[3].expected.is_none());
        let first = page(0, 3);
        assert!(first.more);
        assert_eq!(shown(&first), ["./a", "./b", "./c"]);
        assert_eq!(shown(&page(3, 3)), ["./e"]);
    }
}
