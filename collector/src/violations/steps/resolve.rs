//! How violations end by what a node says.

use attestation::appraisal::Verdict;
use attestation::scope::Expect;

use super::{Change, Desk, MANY};
use crate::violations::resolution::Resolution;
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
            if let Some((how, told)) = self.resolution(violation) {
                let resolved = violation.clone().ended(self.facts.received, how, told);
                self.changes.push(Change {
                    step: Step::Resolved,
                    violation: resolved,
                });
            }
        }
    }

    /// How an open violation of which the statement says nothing ends; none while it does not.
    fn resolution(&self, violation: &ViolationView) -> Option<(Resolution, String)> {
        let facts = self.facts;
        let coverage = &facts.attestation.coverage;
        // Its word about files is worth something: the tree was recomputed, and no second speaker is known.
        let good = matches!(
            facts.verdict,
            Some(Verdict::Pristine | Verdict::Incomplete | Verdict::Drifted)
        );
        let total = facts.attestation.differences_total.unwrap_or(0);
        let all_listed = total <= facts.differences.len() as u64;
        let said = |so: bool, how: Resolution, told: &str| so.then(|| (how, told.to_owned()));
        match violation.kind {
            Kind::Difference if good => self
                .accounted(violation)
                .or_else(|| all_listed.then(|| self.as_expected(violation, "as expected again"))),
            Kind::Difference => None,
            Kind::Many => (good && self.to_be_judged() <= MANY)
                .then(|| self.as_expected(violation, "no longer above a thousand")),
            Kind::Mount => {
                let listed = coverage
                    .mounts
                    .unexpected_total
                    .is_none_or(|total| total <= coverage.mounts.unexpected.len() as u64);
                said(listed, Resolution::Reverted, "no longer mounted")
            }
            Kind::Gap => said(
                coverage.gaps.is_empty(),
                Resolution::Closed,
                "closed by a rescan",
            ),
            Kind::Silence => said(true, Resolution::Heard, "heard again"),
            Kind::Flood => said(facts.calm, Resolution::Calmed, "within its budget again"),
            Kind::Unexplained => said(good, Resolution::Explained, "explained again"),
            Kind::Rollback | Kind::UnknownImage => said(
                good || facts.verdict == Some(Verdict::Unexplained),
                Resolution::Allowed,
                "an allowed image again",
            ),
            Kind::Touched | Kind::Fork | Kind::Replay | Kind::Rewind | Kind::Downgrade => None,
        }
    }

    /// How a violation ends whose difference still stands and needs nobody's judgement now.
    fn accounted(&self, violation: &ViolationView) -> Option<(Resolution, String)> {
        let path = violation.path.as_deref()?.parse().ok()?;
        self.facts.accounted.get(&path)?.resolution()
    }

    /// By the image that it was told against, or by another that has it so.
    fn as_expected(&self, violation: &ViolationView, told: &str) -> (Resolution, String) {
        let own = matches!(violation.expect, Some(Expect::Local | Expect::Growing));
        match (&violation.image, &self.facts.image) {
            (Some(before), Some(now)) if before.sha256 != now.sha256 && !own => {
                let told = format!("rolled out: {} {} has it so", now.name, now.version);
                (Resolution::RolledOut, told)
            }
            _ => (Resolution::Reverted, told.to_owned()),
        }
    }
}
