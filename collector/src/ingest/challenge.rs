//! Challenges: random, bound to a node and to a time, good once, for the statements of one request. In memory only: after a
//! restart every open one is unknown, and agents ask for another.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use attestation::digest::Digest;
use attestation::time::Timestamp;
use attestation::wire::{CHALLENGE_SECONDS, MAX_CHALLENGES};
use ring::rand::{SecureRandom, SystemRandom};

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("no random bytes for a challenge")]
pub struct NoRandom;

/// A challenge as it is told to the agent.
pub struct Issued {
    /// 64 hex digits.
    pub challenge: String,
    /// Until when it is good, by the collector's clock.
    pub expires: Timestamp,
}

struct Open {
    challenge: Digest,
    /// By the monotonic clock: a wall clock set back must not make a challenge younger.
    expires: Instant,
}

/// All open challenges. Bounded: at most four for each node that has a certificate.
#[derive(Default)]
pub struct Challenges {
    open: Mutex<HashMap<String, VecDeque<Open>>>,
    random: SystemRandomSource,
}

struct SystemRandomSource(SystemRandom);

impl Default for SystemRandomSource {
    fn default() -> Self {
        Self(SystemRandom::new())
    }
}

/// Challenges taken for a request; given back when its statements could not be stored.
pub struct Taken {
    node: String,
    taken: Vec<Open>,
}

impl Challenges {
    /// Issues one. Where four are open the oldest gives way.
    pub fn issue(&self, node: &str, now: Timestamp, instant: Instant) -> Result<Issued, NoRandom> {
        let mut bytes = [0_u8; 32];
        self.random.0.fill(&mut bytes).map_err(|_none| NoRandom)?;
        let challenge = Digest::from_bytes(bytes);
        let mut open = self.lock();
        let of_node = open.entry(node.to_owned()).or_default();
        of_node.retain(|it| it.expires > instant);
        while of_node.len() >= MAX_CHALLENGES {
            of_node.pop_front();
        }
        of_node.push_back(Open {
            challenge,
            expires: instant + lifetime(),
        });
        Ok(Issued {
            challenge: challenge.to_string(),
            expires: now.saturating_add_secs(CHALLENGE_SECONDS),
        })
    }

    /// Takes those of a request's challenges that are open: they can never be taken again.
    pub fn take<'c>(
        &self,
        node: &str,
        wanted: impl Iterator<Item = &'c str>,
        instant: Instant,
    ) -> Taken {
        let mut taken = Vec::new();
        let mut open = self.lock();
        if let Some(of_node) = open.get_mut(node) {
            for challenge in wanted.filter_map(|text| text.parse::<Digest>().ok()) {
                if let Some(at) = of_node.iter().position(|it| it.challenge == challenge)
                    && let Some(found) = of_node.remove(at)
                    && found.expires > instant
                {
                    taken.push(found);
                }
            }
        }
        Taken {
            node: node.to_owned(),
            taken,
        }
    }

    /// Gives them back: nothing was stored, and the agent sends the same bytes again.
    pub fn give_back(&self, taken: Taken) {
        let mut open = self.lock();
        let of_node = open.entry(taken.node).or_default();
        for it in taken.taken {
            if of_node.len() < MAX_CHALLENGES {
                of_node.push_front(it);
            }
        }
    }

    /// Whether the node asked within the last five minutes and has not used it: it lives, though it says nothing yet.
    pub fn waits(&self, node: &str, instant: Instant) -> bool {
        self.lock()
            .get(node)
            .is_some_and(|of_node| of_node.iter().any(|it| it.expires > instant))
    }

    /// Drops what nobody can use any more.
    pub fn sweep(&self, instant: Instant) {
        self.lock().retain(|_, of_node| {
            of_node.retain(|it| it.expires > instant);
            !of_node.is_empty()
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, VecDeque<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Whether a statement's challenge is among them.
    pub fn holds(&self, challenge: Option<&str>) -> bool {
        challenge
            .and_then(|text| text.parse::<Digest>().ok())
            .is_some_and(|challenge| self.taken.iter().any(|it| it.challenge == challenge))
    }
}

fn lifetime() -> Duration {
    Duration::from_secs(u64::try_from(CHALLENGE_SECONDS).unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn issue(challenges: &Challenges, node: &str, instant: Instant) -> String {
        challenges
            .issue(node, Timestamp::from_micros(0), instant)
            .unwrap()
            .challenge
    }

    fn good(challenges: &Challenges, node: &str, challenge: &str, instant: Instant) -> bool {
        challenges
            .take(node, std::iter::once(challenge), instant)
            .holds(Some(challenge))
    }

    #[test]
    fn a_challenge_is_good_once_for_its_node_and_for_five_minutes() {
        let (challenges, start) = (Challenges::default(), Instant::now());
        let one = issue(&challenges, "a", start);
        assert!(!good(&challenges, "b", &one, start), "another node's");
        assert!(challenges.waits("a", start) && !challenges.waits("b", start));
        assert!(!challenges.waits("a", start + Duration::from_secs(300)));
        assert!(good(&challenges, "a", &one, start));
        assert!(!challenges.waits("a", start));
        assert!(!good(&challenges, "a", &one, start), "used");
        let old = issue(&challenges, "a", start);
        assert!(
            !good(&challenges, "a", &old, start + Duration::from_secs(300)),
            "old"
        );
        assert!(!good(&challenges, "a", &"0".repeat(64), start), "unknown");
        assert!(!good(&challenges, "a", "no hex", start), "garbage");
    }

    #[test]
    fn four_are_open_and_asking_for_one_voids_none_of_them() {
        let (challenges, start) = (Challenges::default(), Instant::now());
        let all: Vec<String> = (0..5).map(|_| issue(&challenges, "a", start)).collect();
        assert!(
            !good(&challenges, "a", &all[0], start),
            "the fifth took the first one's place"
        );
        for challenge in &all[1..] {
            assert!(good(&challenges, "a", challenge, start));
        }
    }

    #[test]
    fn what_could_not_be_stored_gives_its_challenge_back() {
        let (challenges, start) = (Challenges::default(), Instant::now());
        let one = issue(&challenges, "a", start);
        let taken = challenges.take("a", std::iter::once(one.as_str()), start);
        assert!(taken.holds(Some(&one)));
        challenges.give_back(taken);
        assert!(good(&challenges, "a", &one, start));
    }
}
