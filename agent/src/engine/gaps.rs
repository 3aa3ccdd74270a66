//! What is not seen: gaps until a rescan closes them, and what the watch cannot see at all.

use attestation::statement::{Gap, Rung, WatchCoverage};
use attestation::time::Timestamp;

use super::Engine;
use super::candidates;
use super::pace::DEADLINE;
use crate::limits::Pressure;

/// Gaps of one cause that follow each other are one; this many causes and places are enough to say.
const GAPS: usize = 64;

/// The gaps of this run, until each was told and is closed.
#[derive(Debug, Default)]
pub(super) struct Gaps(Vec<Kept>);

#[derive(Debug)]
struct Kept {
    gap: Gap,
    /// A statement has it as it is.
    told: bool,
    /// Everything was looked at since.
    closed: bool,
}

impl Gaps {
    fn open(&mut self, gap: Gap) {
        let same = self
            .0
            .iter_mut()
            .find(|kept| kept.gap.cause == gap.cause && kept.gap.paths == gap.paths);
        if let Some(kept) = same {
            kept.gap.from = kept.gap.from.min(gap.from);
            kept.gap.to = gap.to;
            (kept.told, kept.closed) = (false, false);
        } else if self.0.len() < GAPS {
            self.0.push(Kept {
                gap,
                told: false,
                closed: false,
            });
        }
    }

    /// What is missing is over since a time for all of a cause.
    pub(super) fn end(&mut self, cause: &str, at: Timestamp) {
        let of_cause = |kept: &&mut Kept| kept.gap.cause == cause && !kept.closed;
        for kept in self.0.iter_mut().filter(of_cause) {
            kept.gap.to = Some(at);
        }
    }

    /// Everything was looked at that these miss. One that no statement has told yet is told by the next one: a rescan is often
    /// faster. Returns whether any was closed.
    pub(super) fn close(&mut self, is_over: impl Fn(&Gap) -> bool) -> bool {
        let mut any = false;
        for kept in &mut self.0 {
            if !kept.closed && is_over(&kept.gap) {
                kept.closed = true;
                any = true;
            }
        }
        self.0.retain(|kept| !(kept.closed && kept.told));
        any
    }

    /// A statement has them all. Returns whether it was the last word on some: then the next one is due.
    pub(super) fn told(&mut self) -> bool {
        let before = self.0.len();
        self.0.retain(|kept| !kept.closed);
        for kept in &mut self.0 {
            kept.told = true;
        }
        self.0.len() < before
    }

    /// Whether something is not seen now, or was not looked at since.
    pub(super) fn any_open(&self) -> bool {
        self.0.iter().any(|kept| !kept.closed)
    }

    /// What a statement says.
    pub(super) fn list(&self) -> Vec<Gap> {
        self.0.iter().map(|kept| kept.gap.clone()).collect()
    }
}

impl Engine {
    pub(super) fn open_gap(&mut self, gap: Gap) {
        tracing::warn!(cause = %gap.cause, from = %gap.from, "gap");
        self.gaps.open(gap);
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
        coverage.limits.extend(candidates::limit(self.uncompared));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    fn causes(gaps: &Gaps) -> Vec<String> {
        gaps.list().into_iter().map(|gap| gap.cause).collect()
    }

    #[test]
    fn one_that_is_closed_before_a_statement_told_it_is_told_once() {
        let mut gaps = Gaps::default();
        gaps.open(gap(at(1), at(2), "overflow"));
        assert!(gaps.close(|_| true));
        assert!(!gaps.any_open());
        assert_eq!(causes(&gaps), ["overflow"]);
        assert!(!gaps.close(|_| true), "it is closed already");
        assert!(gaps.told(), "the next statement is without it");
        assert!(gaps.list().is_empty());
    }

    #[test]
    fn one_that_was_told_is_gone_when_it_is_closed() {
        let mut gaps = Gaps::default();
        gaps.open(gap(at(1), at(2), "overflow"));
        gaps.open(gap(at(1), at(9), "memory"));
        assert!(!gaps.told());
        assert!(gaps.close(|gap| gap.to.is_none_or(|to| to < at(5))));
        assert_eq!(causes(&gaps), ["memory"]);
        assert!(gaps.any_open());
    }

    #[test]
    fn one_that_opens_again_is_one_and_is_told_again() {
        let mut gaps = Gaps::default();
        gaps.open(gap(at(3), at(4), "overflow"));
        gaps.told();
        gaps.open(gap(at(1), at(9), "overflow"));
        assert!(gaps.close(|_| true));
        let list = gaps.list();
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].from, list[0].to), (at(1), Some(at(9))));
        assert!(gaps.told());
    }

    #[test]
    fn what_goes_on_is_open_until_it_ends() {
        let mut gaps = Gaps::default();
        let goes_on = Gap {
            to: None,
            ..gap(at(1), at(1), "canary")
        };
        gaps.open(goes_on);
        let until = |gap: &Gap| gap.to.is_some_and(|to| to <= at(5));
        assert!(!gaps.close(until));
        gaps.end("canary", at(4));
        assert!(gaps.close(until));
    }
}
