//! The memory that the agent allows itself. Above four fifths of it what is only kept for speed is given up; above all of
//! it the agent says so in what it attests. It never ends itself: what it sees would be lost.
//!
//! The limit is the configuration's `[limits] memory`, or what the control group allows, whichever is less.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Memory changes slowly, and looking costs a few system calls.
pub const EVERY: Duration = Duration::from_secs(10);

/// How it stands with the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pressure {
    /// Enough, or no limit.
    #[default]
    None,
    /// Above four fifths: give up what is only kept for speed.
    Ease,
    /// Above all of it.
    Over,
}

/// What was measured, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Resident memory of the agent and its network process.
    pub resident: u64,
    /// What the configuration allows.
    pub configured: Option<u64>,
    /// What the control group holds now and would not give back when asked: the kernel's queues for us among it.
    pub group: Option<u64>,
    /// What it allows.
    pub group_limit: Option<u64>,
}

impl Measured {
    /// What follows.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        let own = self.configured.map(|limit| (self.resident, limit));
        let group = self.group.zip(self.group_limit);
        own.into_iter()
            .chain(group)
            .map(|(used, limit)| grade(used, limit))
            .fold(Pressure::None, worse)
    }
}

fn grade(used: u64, limit: u64) -> Pressure {
    if used > limit {
        Pressure::Over
    } else if used > limit / 5 * 4 {
        Pressure::Ease
    } else {
        Pressure::None
    }
}

fn worse(left: Pressure, right: Pressure) -> Pressure {
    match (left, right) {
        (Pressure::Over, _) | (_, Pressure::Over) => Pressure::Over,
        (Pressure::Ease, _) | (_, Pressure::Ease) => Pressure::Ease,
        _ => Pressure::None,
    }
}

/// The control group of this process, where it has a memory limit of its own.
#[must_use]
pub fn own_group() -> Option<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let group = Path::new("/sys/fs/cgroup").join(path);
    // The root group has none.
    group.join("memory.max").exists().then_some(group)
}

/// What a control group holds and allows; the lower of its two limits.
#[must_use]
pub fn of_group(group: &Path) -> (Option<u64>, Option<u64>) {
    let number = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(group.join(name)).ok()?;
        text.trim().parse().ok()
    };
    let limits = [number("memory.high"), number("memory.max")];
    let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let held = number("memory.current").map(|all| all.saturating_sub(given_back(&stat)));
    (held, limits.into_iter().flatten().min())
}

/// Bytes of `memory.stat` that the kernel takes back before anybody is short of memory: whoever reads a whole file system has all
/// of its pages in the group, up to the limit.
fn given_back(stat: &str) -> u64 {
    const RECLAIMABLE: [&str; 3] = ["active_file", "inactive_file", "slab_reclaimable"];
    let lines = stat.lines().filter_map(|line| line.split_once(' '));
    lines
        .filter(|(name, _)| RECLAIMABLE.contains(name))
        .filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_limit_counts() {
        let measured = |resident, configured, group, group_limit| {
            Measured {
                resident,
                configured,
                group,
                group_limit,
            }
            .pressure()
        };
        assert_eq!(measured(1 << 40, None, None, None), Pressure::None);
        assert_eq!(measured(79, Some(100), None, None), Pressure::None);
        assert_eq!(measured(81, Some(100), None, None), Pressure::Ease);
        assert_eq!(measured(101, Some(100), None, None), Pressure::Over);
        assert_eq!(measured(10, Some(100), Some(90), Some(100)), Pressure::Ease);
        assert_eq!(measured(10, None, Some(190), Some(100)), Pressure::Over);
        assert_eq!(measured(10, None, Some(190), None), Pressure::None);
    }

    #[test]
    fn a_groups_limit_is_the_lower_of_two() {
        let scratch = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(scratch.path().join(name), text).unwrap();
        write("memory.current", "50\n");
        write("memory.max", "200\n");
        write("memory.high", "max\n");
        assert_eq!(of_group(scratch.path()), (Some(50), Some(200)));
        write("memory.high", "100\n");
        assert_eq!(of_group(scratch.path()), (Some(50), Some(100)));
        write(
            "memory.stat",
            "anon 3\nfile 40\ninactive_file 30\nactive_file 10\nslab_reclaimable 4\nslab_unreclaimable 3\n",
        );
        assert_eq!(of_group(scratch.path()), (Some(6), Some(100)));
        assert_eq!(of_group(Path::new("/nowhere")), (None, None));
    }
}
