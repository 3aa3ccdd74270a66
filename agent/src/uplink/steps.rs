//! Doing to the chain what an answer makes necessary.

use std::sync::Arc;

use attestation::statement::Gap;
use attestation::wire::{MAX_STATEMENTS, Problem, Refused};

use super::decide::{Refusal, Step, by_problem, by_refused};
use super::{ExchangeError, Uplink};
use crate::clock;
use crate::spool::Position;
use crate::transport::TransportError;

impl Uplink {
    /// A request that was refused as a whole: either a step, or the error to wait after.
    pub(super) fn refused_whole(
        &mut self,
        problem: Box<Problem>,
        statements: usize,
    ) -> Result<ExchangeError, ExchangeError> {
        let chain = Arc::clone(&self.parts.chain);
        let refusal = by_problem(
            &problem,
            statements,
            |expected| chain.compare(expected),
            self.jump_announced,
        );
        Ok(match refusal {
            Refusal::Later => {
                // A budget lets few through while it does not let many.
                if problem.status == 429 {
                    self.statements = (statements / 4).clamp(1, MAX_STATEMENTS);
                }
                TransportError::Refused(problem).into()
            }
            Refusal::UnknownNode => ExchangeError::UnknownNode,
            Refusal::Split => {
                self.statements = 1;
                TransportError::Refused(problem).into()
            }
            Refusal::Step(step) => {
                self.perform(&step)?;
                TransportError::Refused(problem).into()
            }
        })
    }

    /// What follows from a statement that was not taken; `went_on` where those before it were. Whoever takes nothing of what
    /// it is sent is not asked again at once.
    pub(super) async fn refused_one(
        &mut self,
        refused: &Refused,
        went_on: bool,
    ) -> Result<(), ExchangeError> {
        tracing::warn!(code = %refused.code, index = refused.index, "the collector did not take a statement");
        if refused.code == "signature" && self.show_rotations().await {
            return Ok(());
        }
        let chain = Arc::clone(&self.parts.chain);
        let step = by_refused(
            &refused.code,
            refused.expected.as_ref(),
            |expected| chain.compare(expected),
            self.jump_announced,
        );
        let (status, detail) = match &step {
            Some(step) => {
                self.perform(step)?;
                (409, "not taken as it was")
            }
            None => (429, "not taken now"),
        };
        if step.is_some() && went_on {
            return Ok(());
        }
        let problem = Problem::new(status, refused.code.clone(), detail);
        Err(TransportError::Refused(Box::new(problem)).into())
    }

    /// Signing again and syncing take milliseconds, and only happen after a restore or a refusal.
    pub(super) fn perform(&mut self, step: &Step) -> Result<(), ExchangeError> {
        match step {
            Step::Continue => {}
            Step::Resend(sequence) => {
                tracing::warn!(
                    sequence,
                    "the collector was restored: sending again from there"
                );
                if !self.parts.chain.resend_from(*sequence) {
                    self.reposition(None, false, Some("lost"), 0)?;
                }
            }
            Step::Reposition {
                to,
                rewound,
                gap,
                skip,
            } => self.reposition(*to, *rewound, *gap, *skip)?,
        }
        Ok(())
    }

    fn reposition(
        &mut self,
        to: Option<Position>,
        rewound: bool,
        cause: Option<&'static str>,
        skip: usize,
    ) -> Result<(), ExchangeError> {
        let now = clock::now();
        let from = self.last_contact().unwrap_or(now);
        let gap = cause.map(|cause| Gap {
            from,
            to: Some(now),
            cause: cause.to_owned(),
            paths: Vec::new(),
            paths_total: None,
        });
        let told = self
            .parts
            .chain
            .reposition(to, rewound, gap.as_ref(), skip)?;
        tracing::warn!(
            rewound,
            cause,
            told,
            skip,
            ?to,
            "the chain goes on from another place"
        );
        self.jump_announced = cause == Some("lost");
        self.parts.link.order(|orders| {
            orders.retell = true;
            orders.gaps.extend(gap);
        });
        Ok(())
    }

    fn last_contact(&self) -> Option<attestation::time::Timestamp> {
        self.parts.board.snapshot().collector.last_contact
    }
}
