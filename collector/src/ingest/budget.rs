//! What a node may send: statements a second, bytes a day. In memory: a restart forgives.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::settings::Limits;

const DAY: Duration = Duration::from_secs(86_400);
/// A node that has kept quiet for so long after a refusal is calm again.
const CALM: Duration = Duration::from_secs(60);

/// The request is above the node's budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Seconds after which another try makes sense.
    pub retry_after: u64,
}

struct Use {
    since: Instant,
    bytes: u64,
    refused: Option<Instant>,
}

/// The budgets of all nodes.
pub struct Budgets {
    statements: DefaultKeyedRateLimiter<String>,
    bytes_per_day: u64,
    used: Mutex<HashMap<String, Use>>,
}

impl Budgets {
    /// As configured.
    pub fn new(limits: &Limits) -> Self {
        let of = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(of(limits.statements_per_second))
            .allow_burst(of(limits.statements_burst));
        Self {
            statements: RateLimiter::keyed(quota),
            bytes_per_day: limits.bytes_per_day,
            used: Mutex::default(),
        }
    }

    /// Takes a request's statements and plain bytes out of the budget, or refuses them all.
    pub fn spend(
        &self,
        node: &str,
        statements: usize,
        bytes: usize,
        now: Instant,
    ) -> Result<(), Exceeded> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = used.entry(node.to_owned()).or_insert(Use {
            since: now,
            bytes: 0,
            refused: None,
        });
        if now.duration_since(mine.since) >= DAY {
            (mine.since, mine.bytes) = (now, 0);
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let after = mine.bytes.saturating_add(bytes);
        if after > self.bytes_per_day {
            mine.refused = Some(now);
            return Err(Exceeded {
                retry_after: DAY
                    .saturating_sub(now.duration_since(mine.since))
                    .as_secs()
                    .clamp(1, 3_600),
            });
        }
        let wanted = u32::try_from(statements)
            .ok()
            .and_then(NonZeroU32::new)
            .unwrap_or(NonZeroU32::MIN);
        match self.statements.check_key_n(&node.to_owned(), wanted) {
            Ok(Ok(())) => {
                mine.bytes = after;
                Ok(())
            }
            Ok(Err(_)) | Err(_) => {
                mine.refused = Some(now);
                Err(Exceeded { retry_after: 5 })
            }
        }
    }

    /// Whether the node was last refused a while ago, or never.
    pub fn calm(&self, node: &str, now: Instant) -> bool {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.get(node)
            .and_then(|mine| mine.refused)
            .is_none_or(|refused| now.duration_since(refused) >= CALM)
    }

    /// Forgets nodes that have not been heard of for a day.
    pub fn sweep(&self, now: Instant) {
        self.statements.retain_recent();
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, mine| now.duration_since(mine.since) < DAY * 2);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_what_is_above_it_does_not() {
        let budgets = Budgets::new(&Limits {
            statements_burst: 600,
            bytes_per_day: 1_000,
            ..Limits::default()
        });
        let now = Instant::now();
        for _ in 0..2 {
            budgets.spend("a", 256, 100, now).unwrap();
        }
        assert!(budgets.calm("a", now));
        assert!(budgets.spend("a", 256, 100, now).is_err());
        assert!(!budgets.calm("a", now) && budgets.calm("a", now + CALM));
        assert!(budgets.spend("b", 1, 1_001, now).is_err(), "bytes of a day");
        budgets.spend("b", 1, 1_000, now).unwrap();
    }
}
