//! Round after round over all paths, in their order; and how old the oldest reading is. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use attestation::path::ImagePath;
use attestation::time::Timestamp;

/// A place is noted at most this often; what lies between counts as read when it was begun.
const APART: Duration = Duration::from_secs(600);
/// Places that are noted; with more the times are only coarser.
const NOTED: usize = 256;

/// The number of a scope, and a path in it; nothing: before the first.
pub(super) type Place = Option<(usize, ImagePath)>;

/// Where reading stands.
#[derive(Clone, Debug)]
pub(super) struct Rounds {
    round: u64,
    next: Place,
    /// Where reading stood at a time, the oldest first. Together they reach back one round at most.
    noted: VecDeque<(u64, Place, Timestamp)>,
    whole: bool,
}

impl Rounds {
    /// Begins after a place, where an earlier run stood.
    pub(super) fn after(place: Place) -> Self {
        Self {
            round: 0,
            next: place,
            noted: VecDeque::new(),
            whole: false,
        }
    }

    /// After which place to read next.
    pub(super) fn next(&self) -> &Place {
        &self.next
    }

    /// What comes next is read from now on.
    pub(super) fn begin(&mut self, now: Timestamp) {
        let apart = i64::try_from(APART.as_micros()).unwrap_or(i64::MAX);
        let near = self
            .noted
            .back()
            .is_some_and(|(_, _, at)| now.micros_since(*at) < apart);
        if near || self.noted.len() >= NOTED {
            return;
        }
        self.noted.push_back((self.round, self.next.clone(), now));
    }

    /// Everything through a place is read; nothing: through the last, and the next round begins.
    pub(super) fn read_through(&mut self, place: Place) {
        if place.is_none() {
            self.round += 1;
        }
        self.next = place;
        let again = |(round, place, _): &(u64, Place, Timestamp)| (*round + 1, place.clone());
        let here = (self.round, self.next.clone());
        self.whole |= self.noted.front().is_some_and(|first| here >= again(first));
        while self
            .noted
            .get(1)
            .is_some_and(|second| here >= again(second))
        {
            self.noted.pop_front();
        }
    }

    /// When the oldest reading was made, once everything was read.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let (_, _, at) = self.noted.front()?;
        self.whole.then_some(*at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_micros(minutes * 60_000_000)
    }

    fn place(name: &str) -> Place {
        ImagePath::from_bytes(name.as_bytes())
            .ok()
            .map(|path| (0, path))
    }

    /// Reads through these places, one after the other, in twenty minutes each.
    fn play(rounds: &mut Rounds, from: i64, names: &[&str]) -> Vec<Option<i64>> {
        let mut minute = from;
        let mut oldest = Vec::new();
        for name in names {
            rounds.begin(at(minute));
            minute += 20;
            rounds.read_through(if name.is_empty() { None } else { place(name) });
            let minutes = |time: Timestamp| time.as_micros() / 60_000_000;
            oldest.push(rounds.oldest().map(minutes));
        }
        oldest
    }

    #[test]
    fn the_oldest_reading_is_known_after_a_round_and_moves_on_with_the_next() {
        let mut rounds = Rounds::after(None);
        let told = play(&mut rounds, 0, &["b", "d", ""]);
        assert_eq!(told, [None, None, Some(0)]);
        let told = play(&mut rounds, 60, &["b", "c", "d", ""]);
        assert_eq!(told, [Some(20), Some(20), Some(40), Some(60)]);
    }

    #[test]
    fn a_round_that_began_in_the_middle_is_whole_when_it_comes_there_again() {
        let mut rounds = Rounds::after(place("c"));
        let told = play(&mut rounds, 0, &["d", "", "b", "c"]);
        assert_eq!(told, [None, None, None, Some(0)]);
        let told = play(&mut rounds, 80, &["d", ""]);
        assert_eq!(told, [Some(20), Some(40)]);
    }

    #[test]
    fn however_long_it_goes_on_it_notes_a_bounded_number_of_places() {
        let mut rounds = Rounds::after(None);
        for minute in 0..20_000_i64 {
            rounds.begin(at(minute));
            let name = format!("{:05}", minute % 2_000);
            rounds.read_through(if minute % 2_000 == 1_999 {
                None
            } else {
                place(&name)
            });
            assert!(rounds.noted.len() <= NOTED);
            if minute > 2_000 {
                let age = minute - rounds.oldest().map_or(0, |at| at.as_micros() / 60_000_000);
                assert!((1_990..=2_020).contains(&age), "{age} at {minute}");
            }
        }
    }
}
