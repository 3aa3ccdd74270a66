//! Where the chain goes on: as read back after a start, or somewhere else.

use std::io;

use attestation::digest::Digest;

use super::segment::{Kind, Record};
use super::{ASIDE_FILES, Kept, Outgoing, Position, Spool, SpoolError, Stored};
use crate::durable;

impl Spool {
    /// Sets everything without a receipt aside, and goes on from another place of the chain. Returns what was set aside.
    pub fn reposition(&mut self, to: Position) -> Result<Vec<Outgoing>, SpoolError> {
        let cut = self.unsent;
        let mut aside = Vec::new();
        for kept in self.kept.iter().skip(self.first_unsent()) {
            aside.push(self.outgoing(kept)?);
        }
        self.keep_aside(&aside);
        let record = Record {
            kind: Kind::Repositioned,
            quiet: to.previous.is_some(),
            sequence: to.sequence,
            digest: to.previous.unwrap_or(Digest::ZERO),
        };
        if let Err(error) = self
            .write(&record, &cut.to_le_bytes())
            .and_then(|()| self.sync())
        {
            // Without the mark a restart would send what was set aside: the collector then refuses or knows it.
            self.failing = Some(error.to_string());
        }
        self.apply_reposition(cut, to);
        Ok(aside)
    }

    fn apply_reposition(&mut self, cut: u64, to: Position) {
        self.kept
            .retain(|kept| kept.sequence < cut.min(to.sequence));
        self.position = to;
        self.unsent = to.sequence;
    }

    /// Writes what was set aside as files, for a person; best effort, bounded.
    fn keep_aside(&self, aside: &[Outgoing]) {
        if aside.is_empty() {
            return;
        }
        let directory = self.directory.join("aside");
        let written = durable::private_directory(&directory).and_then(|()| {
            let held = std::fs::read_dir(&directory)?.count();
            for outgoing in aside.iter().take(ASIDE_FILES.saturating_sub(held)) {
                let name = format!("{:012}-{}.json", outgoing.sequence, outgoing.payload);
                durable::replace(&directory.join(name), &outgoing.envelope)?;
            }
            Ok(())
        });
        if let Err(error) = written {
            tracing::warn!(%error, "keep statements that were set aside");
        }
    }

    /// Reads a segment back in.
    pub(super) fn replay(&mut self, number: usize) -> io::Result<()> {
        let Some(segment) = self.segments.get_mut(number) else {
            return Ok(());
        };
        let records = segment.replay()?;
        for (record, offset, length, body) in records {
            match record.kind {
                Kind::Statement => {
                    // A hole, or a sequence told twice: what lies before it is no longer one run to send.
                    if self.position.sequence != record.sequence && !self.kept.is_empty() {
                        self.kept.retain(|kept| kept.sequence < record.sequence);
                    }
                    if self.kept.is_empty() && self.unsent == 0 {
                        self.unsent = record.sequence;
                    }
                    self.kept.push_back(Kept {
                        sequence: record.sequence,
                        payload: record.digest,
                        quiet: record.quiet,
                        length,
                        at: Stored::Disk {
                            segment: number,
                            offset,
                        },
                    });
                    self.position = Position {
                        sequence: record.sequence + 1,
                        previous: Some(record.digest),
                    };
                }
                Kind::Receipted => self.unsent = record.sequence,
                Kind::Repositioned => {
                    let to = Position {
                        sequence: record.sequence,
                        previous: record.quiet.then_some(record.digest),
                    };
                    self.apply_reposition(body, to);
                }
            }
        }
        Ok(())
    }
}
