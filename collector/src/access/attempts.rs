//! How often somebody may try to sign in: per address and per account, so that neither one guesser nor many find a password by trying.
//! Who guesses at an account keeps its owner out nowhere that they have signed in from: such an address has tries of its own.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Tries at once from one address, then one in three seconds.
const BY_ADDRESS: (u32, Duration) = (20, Duration::from_secs(3));
/// Tries at once on one account, then one in six seconds.
const BY_ACCOUNT: (u32, Duration) = (10, Duration::from_secs(6));
/// Addresses and accounts remembered; when that many are active the door is under attack and newcomers wait.
const REMEMBERED: usize = 20_000;

/// Counts tries to sign in.
pub struct Attempts {
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    accounts: DefaultKeyedRateLimiter<String>,
    /// Of accounts from where they have signed in.
    at_home: DefaultKeyedRateLimiter<(String, IpAddr)>,
    homes: Mutex<HashSet<(String, IpAddr)>>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            addresses: RateLimiter::keyed(quota(BY_ADDRESS)),
            accounts: RateLimiter::keyed(quota(BY_ACCOUNT)),
            at_home: RateLimiter::keyed(quota(BY_ACCOUNT)),
            homes: Mutex::default(),
        }
    }
}

fn quota((burst, period): (u32, Duration)) -> Quota {
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    Quota::with_period(period)
        .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
        .allow_burst(burst)
}

impl Attempts {
    /// Counts one try.
    ///
    /// # Errors
    /// The seconds to wait when it is one too many.
    pub fn count(&self, address: IpAddr, account: &str) -> Result<(), u64> {
        try_key(&self.addresses, &network(address))?;
        let place = place(address, account);
        if self.homes().contains(&place) {
            try_key(&self.at_home, &place)
        } else {
            try_key(&self.accounts, &place.0)
        }
    }

    /// Remembers where somebody signed in from, while this process runs.
    pub fn remember(&self, address: IpAddr, account: &str) {
        let mut homes = self.homes();
        if homes.len() >= REMEMBERED {
            homes.clear();
        }
        homes.insert(place(address, account));
    }

    fn homes(&self) -> std::sync::MutexGuard<'_, HashSet<(String, IpAddr)>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(address: IpAddr, account: &str) -> (String, IpAddr) {
    (account.chars().take(64).collect(), network(address))
}

/// Whoever has one IPv6 address has the 2^64 of its network.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        four @ IpAddr::V4(_) => four,
    }
}

fn try_key<K: Hash + Eq + Clone>(limiter: &DefaultKeyedRateLimiter<K>, key: &K) -> Result<(), u64> {
    if limiter.len() >= REMEMBERED {
        limiter.retain_recent();
        if limiter.len() >= REMEMBERED {
            return Err(60);
        }
    }
    limiter.check_key(key).map_err(|until| {
        until
            .wait_time_from(DefaultClock::default().now())
            .as_secs()
            + 1
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn one_account_runs_out_before_its_address_does() {
        let attempts = Attempts::default();
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..BY_ACCOUNT.0 {
            assert_eq!(attempts.count(here, "ops"), Ok(()));
        }
        let wait = attempts.count(here, "ops").unwrap_err();
        assert!((1..=7).contains(&wait), "{wait}");
        assert_eq!(attempts.count(here, "other"), Ok(()));
    }

    #[test]
    fn a_guesser_keeps_nobody_out_of_where_they_have_been() {
        let attempts = Attempts::default();
        let home: IpAddr = "192.0.2.1".parse().unwrap();
        attempts.remember(home, "ops");
        let tried = (0..200)
            .filter(|host| {
                attempts
                    .count(IpAddr::from([198, 51, 100, *host]), "ops")
                    .is_ok()
            })
            .count();
        assert!((1..200).contains(&tried), "{tried}");
        let elsewhere: IpAddr = "203.0.113.1".parse().unwrap();
        assert!(attempts.count(elsewhere, "ops").is_err());
        for _ in 0..BY_ACCOUNT.0 {
            assert_eq!(attempts.count(home, "ops"), Ok(()));
        }
        assert!(attempts.count(home, "ops").is_err(), "nor is it open there");
    }

    #[test]
    fn one_network_counts_as_one_address() {
        let attempts = Attempts::default();
        let at = |host: u32| -> IpAddr { format!("2001:db8::{host:x}").parse().unwrap() };
        let taken = (0..40)
            .filter(|host| attempts.count(at(*host), &format!("user{host}")).is_ok())
            .count();
        assert_eq!(taken, BY_ADDRESS.0 as usize);
    }
}
