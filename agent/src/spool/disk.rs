//! Which segment a record goes to, and when one is used over again.

use std::io;

use attestation::digest::Digest;

use super::segment::{self, Kind, Record};
use super::{MEMORY_BYTES, MEMORY_STATEMENTS, Spool, Stored};

impl Spool {
    /// Writes what is only in memory, in order, and syncs.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let mut settled = Vec::new();
        let mut outcome = Ok(());
        for index in 0..self.kept.len() {
            let Some(kept) = self.kept.get_mut(index) else {
                break;
            };
            let Stored::Memory(bytes) = &mut kept.at else {
                continue;
            };
            let bytes = std::mem::take(bytes);
            let record = Record {
                kind: Kind::Statement,
                quiet: kept.quiet,
                sequence: kept.sequence,
                digest: kept.payload,
            };
            let written = self
                .write(&record, &bytes)
                .and_then(|()| self.last_place(bytes.len()));
            if let Some(kept) = self.kept.get_mut(index) {
                kept.at = Stored::Memory(bytes);
            }
            match written {
                Ok(place) => settled.push((index, place)),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        // What was written before the disk refused counts, and is not written again.
        self.sync()?;
        for (index, (segment, offset)) in settled {
            if let Some(kept) = self.kept.get_mut(index) {
                kept.at = Stored::Disk { segment, offset };
            }
        }
        outcome
    }

    pub(super) fn last_place(&self, length: usize) -> io::Result<(usize, u64)> {
        let number = self.used.back().copied().ok_or(io::ErrorKind::NotFound)?;
        let segment = self.segments.get(number).ok_or(io::ErrorKind::NotFound)?;
        Ok((
            number,
            segment
                .end()
                .saturating_sub(u64::try_from(length).unwrap_or(0)),
        ))
    }

    pub(super) fn write(&mut self, record: &Record, body: &[u8]) -> io::Result<()> {
        if !self.current_has_room(segment::record_bytes(body.len())) {
            self.begin_segment()?;
        }
        let number = self.used.back().copied().ok_or(io::ErrorKind::NotFound)?;
        let segment = self
            .segments
            .get_mut(number)
            .ok_or(io::ErrorKind::NotFound)?;
        segment.append(record, body)
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        let Some(segment) = self
            .used
            .back()
            .and_then(|number| self.segments.get(*number))
        else {
            return Ok(());
        };
        segment.sync()
    }

    pub(super) fn begin_segment(&mut self) -> io::Result<()> {
        // What the last segment holds must be on disk before its end is taken for the end of the spool.
        self.sync()?;
        if self.free.is_empty() && self.oldest_is_receipted() {
            self.recycle_oldest();
        }
        let number = self.free.pop().ok_or(io::ErrorKind::StorageFull)?;
        let begun = match self.segments.get_mut(number) {
            Some(segment) => segment.begin(self.generation + 1),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        if let Err(error) = begun {
            self.free.push(number);
            return Err(error);
        }
        self.generation += 1;
        self.used.push_back(number);
        // A segment that is used over again takes the marks with it: say them again in the new one.
        let unsent = Record {
            kind: Kind::Receipted,
            quiet: false,
            sequence: self.unsent,
            digest: Digest::ZERO,
        };
        match self.segments.get_mut(number) {
            Some(segment) => segment.append(&unsent, &[]),
            None => Ok(()),
        }
    }

    pub(super) fn current_has_room(&self, needed: u64) -> bool {
        self.used
            .back()
            .and_then(|number| self.segments.get(*number))
            .is_some_and(|segment| segment.room() >= needed)
    }

    pub(super) fn memory_has_room(&self, more: usize) -> bool {
        let (mut statements, mut bytes) = (0_usize, more);
        for kept in self.kept.iter().rev() {
            let Stored::Memory(held) = &kept.at else {
                break;
            };
            statements += 1;
            bytes = bytes.saturating_add(held.len());
        }
        statements <= MEMORY_STATEMENTS && bytes <= MEMORY_BYTES
    }

    /// Whether the oldest segment may be used over again: it is not the one being written to, and holds nothing that
    /// waits, nor the newest statement.
    pub(super) fn oldest_is_receipted(&self) -> bool {
        if self.used.len() < 2 {
            return false;
        }
        let Some(oldest) = self.used.front() else {
            return false;
        };
        let newest = self.position.sequence.saturating_sub(1);
        self.kept
            .iter()
            .filter(|kept| matches!(kept.at, Stored::Disk { segment, .. } if segment == *oldest))
            .all(|kept| kept.sequence < self.unsent && kept.sequence < newest)
    }

    pub(super) fn recycle_oldest(&mut self) {
        let Some(oldest) = self.used.pop_front() else {
            return;
        };
        self.kept
            .retain(|kept| !matches!(kept.at, Stored::Disk { segment, .. } if segment == oldest));
        self.free.push(oldest);
        self.order_free();
    }

    /// Segments with space of their own are used first, also where the disk is full.
    pub(super) fn order_free(&mut self) {
        let segments = &self.segments;
        self.free.sort_by_key(|number| {
            let allocated = segments
                .get(*number)
                .is_some_and(|segment| segment.not_preallocated().is_none());
            (allocated, std::cmp::Reverse(*number))
        });
    }
}
