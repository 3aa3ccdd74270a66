//! Between the engine, which signs, and the uplink, which sends: challenges one way, orders the same way, a bell each way.
//!
//! Bounded by construction: four challenges, and of each kind of order the newest.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use attestation::digest::Digest;
use attestation::entry::Line;
use attestation::path::ImagePath;
use attestation::statement::Gap;
use tokio::sync::Notify;

use crate::image::Candidate;
use crate::limits::Pressure;
use crate::pins::View;
use crate::reload::{EngineSettings, UplinkSettings};
use crate::watch::Waker;

/// The collector keeps a challenge for five minutes from when it made it; the last of them is left for the way.
const CHALLENGE_LIFE: Duration = Duration::from_secs(270);
/// The collector has no more open for one node.
const CHALLENGES: usize = attestation::wire::MAX_CHALLENGES;
/// Gaps told by the uplink that the engine has not taken yet.
const GAPS: usize = 16;
/// Pins of the last statements that are kept: growth may move them on while the collector asks for them.
const PINS: usize = 3;
/// Accepted lines that the engine has not taken yet; the collector tells them again.
const ACCEPTS: usize = 256;

/// What the uplink wants of the engine.
#[derive(Debug, Default)]
pub struct Orders {
    /// Compare with these images from now on; empty: the node has no assignment.
    pub references: Option<Vec<Candidate>>,
    /// Look at everything again.
    pub rescan: bool,
    /// Seconds between heartbeats.
    pub interval: Option<Duration>,
    /// Something between this node and the collector was lost.
    pub gaps: Vec<Gap>,
    /// What persons accepted at `local` and `growing` paths.
    pub accepts: Vec<(ImagePath, Option<Line>)>,
    /// The collector may not have what was told before: tell the differences in full.
    pub retell: bool,
    /// A challenge came while there was none.
    pub ready: bool,
    /// The node is not fresh though the collector answers: sign a quiet statement now.
    pub refresh: bool,
    /// The configuration was read again.
    pub settings: Option<EngineSettings>,
    /// How it stands with the memory, where that has changed or is grave.
    pub pressure: Option<Pressure>,
    /// Say goodbye and end.
    pub stop: bool,
}

/// The link; shared by both sides.
#[derive(Debug, Default)]
pub struct Link {
    state: Mutex<State>,
    bell: Condvar,
    /// Rung when a statement was signed, a challenge was taken, or the agent stops.
    pub uplink: Notify,
}

#[derive(Debug, Default)]
struct State {
    challenges: VecDeque<Challenge>,
    orders: Orders,
    pending: bool,
    waker: Option<Waker>,
    uplink: Option<UplinkSettings>,
    /// What the last statements say of the pins.
    pins: VecDeque<Arc<View>>,
}

#[derive(Debug)]
struct Challenge {
    nonce: String,
    until: Instant,
    used: bool,
}

impl Link {
    /// The challenge for a statement signed now. All statements of one request may carry the same one.
    pub fn challenge(&self, now: Instant) -> Option<String> {
        let mut state = self.lock();
        state.expire(now);
        let challenge = state.challenges.front_mut()?;
        challenge.used = true;
        Some(challenge.nonce.clone())
    }

    /// Statements are on their way: what they carry is used up, those signed from now on carry the next.
    pub fn sending(&self, now: Instant) {
        let mut state = self.lock();
        state.expire(now);
        state.challenges.retain(|challenge| !challenge.used);
    }

    /// A challenge came.
    pub fn challenged(&self, nonce: String, now: Instant) {
        let mut state = self.lock();
        state.expire(now);
        let first = state.challenges.is_empty();
        state.challenges.push_back(Challenge {
            nonce,
            until: now + CHALLENGE_LIFE,
            used: false,
        });
        while state.challenges.len() > CHALLENGES {
            state.challenges.pop_front();
        }
        if first {
            state.orders.ready = true;
            self.ring(state);
        }
    }

    /// How many challenges are in hand.
    pub fn challenges(&self, now: Instant) -> usize {
        let mut state = self.lock();
        state.expire(now);
        state.challenges.len()
    }

    /// Forgets every challenge: the collector no longer knows them.
    pub fn forget_challenges(&self) {
        self.lock().challenges.clear();
    }

    /// The pins as the statement that is about to be signed says them.
    pub fn hold_pins(&self, pins: Option<Arc<View>>) {
        let mut state = self.lock();
        let Some(pins) = pins else {
            state.pins.clear();
            return;
        };
        if state.pins.back().is_none_or(|last| last.file != pins.file) {
            state.pins.push_back(pins);
            while state.pins.len() > PINS {
                state.pins.pop_front();
            }
        }
    }

    /// The pins that one of the last statements names.
    pub fn pins(&self, sha256: &Digest) -> Option<Arc<View>> {
        let state = self.lock();
        let named = |view: &&Arc<View>| view.file.is_some_and(|file| file.sha256 == *sha256);
        state.pins.iter().rev().find(named).cloned()
    }

    /// Gives the engine something to do.
    pub fn order(&self, give: impl FnOnce(&mut Orders)) {
        let mut state = self.lock();
        give(&mut state.orders);
        state.orders.gaps.truncate(GAPS);
        state.orders.accepts.truncate(ACCEPTS);
        self.ring(state);
    }

    /// Gives the uplink another configuration.
    pub fn reload_uplink(&self, settings: UplinkSettings) {
        self.lock().uplink = Some(settings);
        self.uplink.notify_one();
    }

    /// The uplink's new configuration, once.
    pub fn take_uplink_settings(&self) -> Option<UplinkSettings> {
        self.lock().uplink.take()
    }

    /// Takes what there is to do.
    pub fn take_orders(&self) -> Orders {
        let mut state = self.lock();
        state.pending = false;
        let stop = state.orders.stop;
        // A stop is never taken back.
        std::mem::replace(
            &mut state.orders,
            Orders {
                stop,
                ..Orders::default()
            },
        )
    }

    /// Whether the agent is to end.
    pub fn is_stopping(&self) -> bool {
        self.lock().orders.stop
    }

    /// Waits for orders while nothing is watched.
    pub fn wait(&self, timeout: Duration) {
        let state = self.lock();
        if state.pending {
            return;
        }
        drop(
            self.bell
                .wait_timeout_while(state, timeout, |state| !state.pending)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// What wakes the engine while it waits for events.
    pub fn set_waker(&self, waker: Option<Waker>) {
        self.lock().waker = waker;
    }

    fn ring(&self, mut state: MutexGuard<'_, State>) {
        state.pending = true;
        let waker = state.waker.clone();
        drop(state);
        self.bell.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain values: right at any moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn expire(&mut self, now: Instant) {
        self.challenges.retain(|challenge| challenge.until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_one_request_share_a_challenge_and_the_next_take_the_spare() {
        let link = Link::default();
        let now = Instant::now();
        assert_eq!(link.challenge(now), None);
        link.challenged("a".to_owned(), now);
        link.challenged("b".to_owned(), now);
        assert!(link.take_orders().ready);
        assert_eq!(link.challenge(now).as_deref(), Some("a"));
        assert_eq!(link.challenge(now).as_deref(), Some("a"));
        link.sending(now);
        assert_eq!(link.challenge(now).as_deref(), Some("b"));
        assert_eq!(link.challenges(now), 1);
        assert_eq!(link.challenges(now + Duration::from_secs(300)), 0);
    }

    #[test]
    fn a_stop_stays() {
        let link = Link::default();
        link.order(|orders| orders.stop = true);
        assert!(link.take_orders().stop);
        assert!(link.is_stopping());
        link.wait(Duration::ZERO);
    }
}
