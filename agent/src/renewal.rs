//! When a certificate is renewed: two thirds of its life being over, and whenever the collector does not take it any more.
//!
//! The time is the collector's, as its last answer had it: this node's clock may be a year off. Where nothing was heard
//! it is the node's; a clock that is ahead then costs a renewal too many, one that is behind is overruled by the door.

use std::time::{Duration, Instant};

use attestation::dsse::Envelope;
use attestation::key::{KeyError, NodeId, PrivateKey};
use attestation::statement::{Renewal, Statement};
use attestation::time::Timestamp;
use attestation::wire::RenewalRequest;

use crate::certificate::{self, Validity};

/// Between two tries, doubled with each that failed.
const LEAST: Duration = Duration::from_secs(2);
/// And never longer; a joining door is for a whole fleet.
const MOST: Duration = Duration::from_secs(600);
/// After a certificate whose life is not known.
const UNKNOWN_LIFE: Duration = Duration::from_secs(3600);

/// Why nothing can be asked for.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No certificate request could be made of the key.
    #[error("make a certificate request")]
    Request(#[from] rcgen::Error),
    /// The key does not sign.
    #[error("sign the request")]
    Sign(#[from] KeyError),
}

/// What is asked at the joining door.
pub fn request(node: &NodeId, key: &PrivateKey) -> Result<RenewalRequest, RequestError> {
    let csr = certificate::request(key, node)?;
    let statement = Statement::<Renewal>::of_node(node, &key.public(), Renewal { csr });
    Ok(RenewalRequest {
        statement: Envelope::sign(statement.to_payload(), key)?,
    })
}

/// When the next certificate is asked for.
#[derive(Debug)]
pub struct RenewalPlan {
    /// By the collector's time; nothing where the certificate cannot be read: at once.
    due: Option<Timestamp>,
    /// The agents' door does not take the one in hand.
    refused: bool,
    not_before: Option<Instant>,
    failures: u32,
}

impl RenewalPlan {
    /// For the certificate in hand.
    pub fn new(certificate: &str) -> Self {
        Self {
            due: Validity::of_pem(certificate).map(|validity| validity.two_thirds()),
            refused: false,
            not_before: None,
            failures: 0,
        }
    }

    /// Whether to ask now; `time` is the collector's, as well as it is known.
    pub fn is_due(&self, time: Timestamp, now: Instant) -> bool {
        let wanted = self.refused || self.due.is_none_or(|due| time >= due);
        wanted && self.not_before.is_none_or(|not_before| not_before <= now)
    }

    /// The agents' door did not take the certificate, whatever any clock says.
    pub fn refused(&mut self) {
        self.refused = true;
    }

    /// No certificate was had; `random` is anything.
    pub fn failed(&mut self, now: Instant, random: u32) {
        let wait = LEAST.saturating_mul(1 << self.failures.min(10)).min(MOST);
        self.failures = self.failures.saturating_add(1);
        let share = f64::from(random) / f64::from(u32::MAX);
        self.not_before = Some(now + wait.mul_f64(0.5 + share / 2.0));
    }

    /// A certificate was had. Whatever clocks say, the next one is not asked for before a third of its life.
    pub fn renewed(&mut self, certificate: &str, now: Instant) {
        let validity = Validity::of_pem(certificate);
        let life = validity
            .and_then(|validity| u64::try_from(validity.life()).ok())
            .map_or(UNKNOWN_LIFE, Duration::from_micros);
        *self = Self {
            not_before: Some(now + life / 3),
            ..Self::new(certificate)
        };
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use super::*;

    fn certificate(from: i32, to: i32) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::default();
        parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(to, 1, 1);
        parameters.self_signed(&key).unwrap().pem()
    }

    fn time(text: &str) -> Timestamp {
        format!("{text}T00:00:00.000000Z").parse().unwrap()
    }

    #[test]
    fn a_certificate_is_renewed_when_two_thirds_are_over_and_after() {
        let plan = RenewalPlan::new(&certificate(2020, 2023));
        let now = Instant::now();
        assert!(!plan.is_due(time("2021-12-30"), now));
        assert!(plan.is_due(time("2022-01-02"), now));
        assert!(plan.is_due(time("2030-01-01"), now));
        assert!(RenewalPlan::new("unreadable").is_due(time("1970-01-01"), now));
    }

    #[test]
    fn what_the_door_refuses_is_renewed_by_any_clock() {
        let mut plan = RenewalPlan::new(&certificate(2020, 2023));
        let now = Instant::now();
        plan.refused();
        assert!(plan.is_due(time("1970-01-01"), now));
    }

    #[test]
    fn failures_are_waited_for_longer_each_time_and_a_success_for_a_third_of_the_life() {
        let mut plan = RenewalPlan::new(&certificate(2020, 2023));
        let (late, now) = (time("2030-01-01"), Instant::now());
        for (random, waits) in [(u32::MAX, 2), (u32::MAX, 4), (0, 4), (u32::MAX, 16)] {
            plan.failed(now, random);
            let end = now + Duration::from_secs(waits);
            assert!(!plan.is_due(late, end - Duration::from_millis(1)));
            assert!(plan.is_due(late, end));
        }
        for _ in 0..40 {
            plan.failed(now, u32::MAX);
        }
        assert!(plan.is_due(late, now + MOST));
        plan.renewed(&certificate(2020, 2023), now);
        plan.refused();
        assert!(!plan.is_due(late, now + Duration::from_secs(300 * 86_400)));
        assert!(plan.is_due(late, now + Duration::from_secs(400 * 86_400)));
    }
}
