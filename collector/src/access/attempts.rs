//! How often somebody may try to sign in: per address and per account, so that neither one guesser nor many find a password by trying.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
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
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            addresses: RateLimiter::keyed(quota(BY_ADDRESS)),
            accounts: RateLimiter::keyed(quota(BY_ACCOUNT)),
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
        try_key(&self.accounts, &account.chars().take(64).collect())
    }
}

/// Whoever has one IPv6 address has the 2^64 of its network.
fn network(address: IpAddr) -> IpAddr {
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
    fn one_network_counts_as_one_address() {
        let attempts = Attempts::default();
        let at = |host: u32| -> IpAddr { format!("2001:db8::{host:x}").parse().unwrap() };
        let taken = (0..40)
            .filter(|host| attempts.count(at(*host), &format!("user{host}")).is_ok())
            .count();
        assert_eq!(taken, BY_ADDRESS.0 as usize);
    }
}
