//! Somebody who hears the content of small files as it is read, so that nothing is read twice to be looked through.

use attestation::path::ImagePath;

/// Hears the content of each file that is read and not larger than a limit, whole, once for each time that it is read. Called from
/// the threads that read.
#[derive(Clone, Copy)]
pub struct Hearer<'h> {
    /// Bytes. A file of up to so many is kept in memory while it is read.
    pub limit: u64,
    /// Gets where the file lies, and what is in it.
    pub hear: &'h (dyn Fn(&ImagePath, &[u8]) + Sync),
}

/// What one reader tells a hearer.
pub(super) struct Hearing<'h> {
    hearer: Hearer<'h>,
    /// Of a file that does not come at once.
    kept: Vec<u8>,
}

impl<'h> Hearing<'h> {
    pub(super) fn new(hearer: Hearer<'h>) -> Self {
        Self {
            hearer,
            kept: Vec::new(),
        }
    }

    /// A file is read now; nothing where it is too large to be heard.
    pub(super) fn begin<'a>(&'a mut self, path: &'a ImagePath, size: u64) -> Option<Heard<'a>> {
        let size = usize::try_from(size).ok()?;
        self.kept.clear();
        (size as u64 <= self.hearer.limit).then_some(Heard {
            hear: self.hearer.hear,
            path,
            size,
            kept: &mut self.kept,
        })
    }
}

/// A file that is being read and heard.
pub(super) struct Heard<'a> {
    hear: &'a (dyn Fn(&ImagePath, &[u8]) + Sync),
    path: &'a ImagePath,
    size: usize,
    kept: &'a mut Vec<u8>,
}

impl Heard<'_> {
    /// The next bytes; those of a file that comes at once are not copied.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        if bytes.len() == self.size {
            (self.hear)(self.path, bytes);
        } else {
            self.kept.extend_from_slice(bytes);
        }
    }

    /// That was all, also where the file ended before its size.
    pub(super) fn end(self) {
        if !self.kept.is_empty() {
            (self.hear)(self.path, self.kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn heard(limit: u64, size: u64, parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let told = Mutex::new(Vec::new());
        let hear = |_: &ImagePath, bytes: &[u8]| {
            if let Ok(mut told) = told.lock() {
                told.push(bytes.to_vec());
            }
        };
        let mut hearing = Hearing::new(Hearer { limit, hear: &hear });
        if let Some(mut heard) = hearing.begin(&ImagePath::root(), size) {
            for part in parts {
                heard.hear(part);
            }
            heard.end();
        }
        told.into_inner().unwrap_or_default()
    }

    #[test]
    fn a_file_is_heard_whole_and_once_however_it_comes() {
        assert_eq!(heard(9, 4, &[b"abcd"]), [b"abcd"]);
        assert_eq!(heard(9, 4, &[b"ab", b"c", b"d"]), [b"abcd"]);
        assert_eq!(heard(9, 4, &[b"ab"]), [b"ab"], "it was cut meanwhile");
        assert!(heard(9, 0, &[]).is_empty());
    }

    #[test]
    fn a_file_above_the_limit_is_not_heard() {
        assert_eq!(heard(4, 4, &[b"abcd"]).len(), 1);
        assert!(heard(3, 4, &[b"abcd"]).is_empty());
    }
}
