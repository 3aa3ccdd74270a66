//! What is not seen: gaps until a rescan closes them, and what the watch cannot see at all.

use attestation::statement::{Gap, Rung, WatchCoverage};
use attestation::time::Timestamp;

use super::Engine;
use super::pace::DEADLINE;
use crate::limits::Pressure;

/// Gaps of one cause that follow each other are one; this many causes and places are enough to say.
const GAPS: usize = 64;

impl Engine {
    pub(super) fn open_gap(&mut self, gap: Gap) {
        tracing::warn!(cause = %gap.cause, from = %gap.from, "gap");
        let same = self
            .gaps
            .iter_mut()
            .find(|open| open.cause == gap.cause && open.paths == gap.paths);
        if let Some(open) = same {
            open.from = open.from.min(gap.from);
            open.to = gap.to;
        } else if self.gaps.len() < GAPS {
            self.gaps.push(gap);
        }
    }

    pub(super) fn coverage(&self) -> WatchCoverage {
        let mut coverage = match &self.eyes {
            Some(eyes) => {
                let mut coverage = eyes.watch.coverage();
                for limit in eyes.root.limits() {
                    if !coverage.limits.contains(&limit) {
                        coverage.limits.push(limit);
                    }
                }
                coverage
            }
            None => WatchCoverage {
                rung: Rung::None,
                limits: Vec::new(),
                limits_total: None,
            },
        };
        if self.pressure == Pressure::Over {
            let limit = "more memory is used than allowed: raise `[limits] memory` or the unit's";
            coverage.limits.push(limit.to_owned());
        }
        coverage.limits.extend(self.pins.limit());
        if self.pins_renewed {
            coverage
                .limits
                .push("the pins on disk were damaged and taken anew at this start".into());
        }
        if let Some(failing) = &self.pins_failing {
            let limit = format!("the pins cannot be kept on disk: {failing}");
            coverage.limits.push(limit);
        }
        if self.parts.reread_cpu <= 0.0 {
            coverage.limits.push(
                "content is read again only when that is asked for: limits.reread_cpu is 0".into(),
            );
        } else if let Some(takes) = self.round_takes.filter(|takes| *takes > DEADLINE) {
            let hours = takes.as_secs().div_ceil(3600);
            coverage.limits.push(format!(
                "reading all content again takes about {hours} hours within limits.reread_cpu"
            ));
        }
        if let Some(failing) = self.parts.chain.state().failing {
            coverage
                .limits
                .push(format!("the spool's disk takes no write: {failing}"));
        }
        coverage
    }
}

/// A gap that is over, but not yet closed.
pub(super) fn gap(from: Timestamp, to: Timestamp, cause: &str) -> Gap {
    Gap {
        from,
        to: Some(to),
        cause: cause.to_owned(),
        paths: Vec::new(),
        paths_total: None,
    }
}
