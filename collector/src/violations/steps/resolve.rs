//! How violations end by what a node says.

use attestation::appraisal::Verdict;

use super::{Change, Desk, MANY};
use crate::violations::view::{Kind, Step, ViolationView};

impl<I: FnMut() -> String> Desk<'_, '_, I> {
    pub(super) fn resolve(&mut self) {
        if !self.facts.fresh {
            return;
        }
        let mut gone: Vec<&ViolationView> = self
            .open
            .iter()
            .filter(|(key, _)| !self.seen.contains(*key))
            .map(|(_, violation)| *violation)
            .collect();
        gone.sort_by(|a, b| a.id.cmp(&b.id));
        for violation in gone {
            if let Some(resolution) = self.resolution(violation) {
                let mut resolved = violation.clone();
                resolved.resolved = Some(self.facts.received);
                resolved.updated = self.facts.received;
                resolved.resolution = Some(resolution.to_owned());
                self.changes.push(Change {
                    step: Step::Resolved,
                    violation: resolved,
                });
            }
        }
    }

    /// How an open violation of which the statement says nothing ends; none while it does not.
    fn resolution(&self, violation: &ViolationView) -> Option<&'static str> {
        let facts = self.facts;
        let coverage = &facts.attestation.coverage;
        // Its word about files is worth something: the tree was recomputed, and no second speaker is known.
        let good = matches!(
            facts.verdict,
            Some(Verdict::Pristine | Verdict::Incomplete | Verdict::Drifted)
        );
        let total = facts.attestation.differences_total.unwrap_or(0);
        let all_listed = total <= facts.differences.len() as u64;
        match violation.kind {
            Kind::Difference => (good && all_listed).then_some("as expected again"),
            Kind::Many => (good && total.max(facts.differences.len() as u64) <= MANY)
                .then_some("no longer above a thousand"),
            Kind::Mount => {
                let listed = coverage
                    .mounts
                    .unexpected_total
                    .is_none_or(|total| total <= coverage.mounts.unexpected.len() as u64);
                listed.then_some("no longer mounted")
            }
            Kind::Gap => coverage.gaps.is_empty().then_some("closed by a rescan"),
            Kind::Silence => Some("heard again"),
            Kind::Flood => facts.calm.then_some("within its budget again"),
            Kind::Unexplained => good.then_some("explained again"),
            Kind::Rollback | Kind::UnknownImage => (good
                || facts.verdict == Some(Verdict::Unexplained))
            .then_some("an allowed image again"),
            Kind::Touched | Kind::Fork | Kind::Replay | Kind::Rewind | Kind::Downgrade => None,
        }
    }
}
