//! Who is refused, in the activity log. A guesser knocks as often as they like, so the like is counted: the first time is written down at
//! once, what follows within a minute becomes one record with its number.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use attestation::time::Timestamp;
use serde_json::{Value, json};

use super::attempts::network;
use super::{By, Person};
use crate::activity::{self, Doing, Target};
use crate::clock;
use crate::store::{Store, StoreError};

/// Refusals that are alike are counted for so long.
const MINUTE_SECS: u64 = 60;
/// Different ones in a minute; beyond, the door is under attack and all others count as one.
const DIFFERENT: usize = 1_000;

/// What a request showed of who sends it.
#[derive(Debug)]
pub enum Presented {
    /// Nothing.
    Nothing,
    /// A session or a token that is good.
    Good(Person),
    /// One that was good once, with its person.
    NoLonger(Person, Why),
    /// One that never was.
    Stranger(Why),
}

/// Why somebody is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// No account has this name and password.
    Credentials,
    /// Too many tried.
    Attempts,
    /// No such token.
    NoToken,
    /// The token is past its time.
    Expired,
    /// The token was revoked.
    Revoked,
    /// The session was ended.
    Ended,
    /// The account is disabled.
    Disabled,
    /// A form that no page of ours made.
    Forged,
    /// The role does not allow it.
    Role,
}

impl Why {
    /// In words, for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "no account has this name and password",
            Self::Attempts => "too many attempts",
            Self::NoToken => "no such token",
            Self::Expired => "the token is past its time",
            Self::Revoked => "the token was revoked",
            Self::Ended => "the session was ended",
            Self::Disabled => "the account is disabled",
            Self::Forged => "the request does not come from a page of this collector",
            Self::Role => "the role does not allow it",
        }
    }

    /// What was tried.
    const fn action(self) -> &'static str {
        match self {
            Self::Credentials | Self::Attempts => "session.refuse",
            Self::NoToken | Self::Expired | Self::Revoked | Self::Ended | Self::Disabled => {
                "access.refuse"
            }
            Self::Forged | Self::Role => "request.refuse",
        }
    }
}

/// One refusal. Those that are equal are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refused {
    /// The account, where one is known; a name that is no account's is not kept: people type passwords there.
    pub user: String,
    /// How they showed who they are, where they did.
    pub by: By,
    /// The address, or the network that counts as one.
    pub from: Option<IpAddr>,
    /// Why.
    pub why: Why,
    /// The route, by its pattern.
    pub route: String,
}

impl Refused {
    /// Somebody who is known, or nobody.
    #[must_use]
    pub fn new(person: Option<&Person>, from: Option<IpAddr>, why: Why, route: &str) -> Self {
        Self {
            user: person.map(|it| it.user.clone()).unwrap_or_default(),
            by: person.map_or(By::Nobody, |it| it.by.clone()),
            from: from.map(network),
            why,
            route: route.to_owned(),
        }
    }
}

struct Counted {
    since: Timestamp,
    more: u64,
}

/// Counts what is refused.
#[derive(Default)]
pub struct Tally {
    counted: Mutex<HashMap<Option<Refused>, Counted>>,
}

impl Tally {
    /// Counts one; answers whether it is to be written down at once.
    pub fn count(&self, refused: &Refused, now: Timestamp) -> bool {
        let mut counted = self.lock();
        let known = counted.contains_key(&Some(refused.clone()));
        let key = (known || counted.len() < DIFFERENT).then(|| refused.clone());
        let first = key.is_some();
        match counted.entry(key) {
            Entry::Occupied(mut place) => {
                place.get_mut().more += 1;
                false
            }
            Entry::Vacant(place) => {
                let more = u64::from(!first);
                place.insert(Counted { since: now, more });
                first
            }
        }
    }

    /// What was counted and is to be written down: that of minutes that are over, or of all. Nothing stands for those beyond all bounds.
    pub fn due(&self, now: Timestamp, all: bool) -> Vec<(Option<Refused>, u64)> {
        let mut counted = self.lock();
        let over: Vec<Option<Refused>> = counted
            .iter()
            .filter(|(_, it)| all || now >= clock::after(it.since, MINUTE_SECS) || now < it.since)
            .map(|(key, _)| key.clone())
            .collect();
        over.into_iter()
            .filter_map(|key| {
                let more = counted.remove(&key)?.more;
                (more > 0).then_some((key, more))
            })
            .collect()
    }

    /// Counts one, and writes it down where it is the first of its kind. A store that refuses loses the record, not the refusal.
    pub async fn note(&self, store: &Store, refused: Refused) {
        let now = clock::now();
        if self.count(&refused, now) {
            report(write(store, vec![(Some(refused), 1)], now).await);
        }
    }

    /// Writes down what is due.
    pub async fn settle(&self, store: &Store, now: Timestamp, all: bool) {
        let due = self.due(now, all);
        if !due.is_empty() {
            report(write(store, due, now).await);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Option<Refused>, Counted>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write(
    store: &Store,
    refused: Vec<(Option<Refused>, u64)>,
    at: Timestamp,
) -> Result<(), StoreError> {
    store
        .write(move |tx| {
            Box::pin(async move {
                for (refused, count) in refused {
                    let mut who = Person::nobody(None);
                    let (mut action, mut reason, mut route) = (
                        "access.refuse",
                        "more than can be told apart",
                        String::new(),
                    );
                    if let Some(it) = refused {
                        (action, reason) = (it.why.action(), it.why.as_str());
                        (who.user, who.from, route) = (it.user, it.from, it.route);
                        who.by = it.by;
                    }
                    let doing = Doing {
                        who: &who,
                        at,
                        action,
                        target: Target::new("route", &route, &route),
                        before: Value::Null,
                        after: json!({"refused": reason}),
                        reason: None,
                    };
                    activity::record_times(tx, &doing, count).await?;
                }
                Ok(())
            })
        })
        .await
}

fn report(written: Result<(), StoreError>) {
    if let Err(error) = written {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "refusals are not in the activity log"
        );
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn refused(host: u16) -> Refused {
        let [high, low] = host.to_be_bytes();
        let from = IpAddr::from([192, 0, high, low]);
        Refused::new(None, Some(from), Why::Credentials, "/sign-in")
    }

    #[test]
    fn the_first_is_told_at_once_and_the_others_by_their_number() {
        let tally = Tally::default();
        assert!(tally.count(&refused(1), at(0)));
        for _ in 1..1_000 {
            assert!(!tally.count(&refused(1), at(1)));
        }
        assert!(
            tally.count(&refused(2), at(1)),
            "another address is another"
        );
        assert!(tally.due(at(59), false).is_empty(), "the minute lasts");
        assert_eq!(tally.due(at(60), false), [(Some(refused(1)), 999)]);
        assert!(tally.due(at(120), false).is_empty() && tally.due(at(120), true).is_empty());
        assert!(tally.count(&refused(1), at(121)), "a new minute");
    }

    #[test]
    fn what_cannot_be_told_apart_is_counted_all_the_same() {
        let tally = Tally::default();
        let told = (0..2_000)
            .filter(|host| tally.count(&refused(*host), at(0)))
            .count();
        assert_eq!(told, DIFFERENT);
        assert_eq!(tally.due(at(0), true), [(None, 1_000)]);
    }
}
