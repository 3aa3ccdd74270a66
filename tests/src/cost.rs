//! What a running program holds.

use std::{fmt, fs};

/// Memory and descriptors of one process at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Resident bytes that are its own: mapped files of the system are not.
    pub anonymous: u64,
    /// The most that was ever resident.
    pub peak: u64,
    /// Open descriptors.
    pub descriptors: u64,
}

impl Cost {
    /// Of the process `pid`, which runs.
    #[track_caller]
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
        let kibibytes = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let number = line.and_then(|line| line.split_whitespace().nth(1));
            number
                .and_then(|number| number.parse::<u64>().ok())
                .unwrap_or(0)
                * 1024
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("its descriptors")
            .count();
        Self {
            anonymous: kibibytes("RssAnon:"),
            peak: kibibytes("VmHWM:"),
            descriptors: descriptors as u64,
        }
    }

    /// Fails where it holds more than `before` and so much on top.
    #[track_caller]
    pub fn grew_at_most(&self, who: &str, before: &Self, mebibytes: u64, descriptors: u64) {
        assert!(
            self.anonymous <= before.anonymous + (mebibytes << 20),
            "{who} grew from {before} to {self}: more than {mebibytes} MiB"
        );
        assert!(
            self.descriptors <= before.descriptors + descriptors,
            "{who} grew from {before} to {self}: more than {descriptors} descriptors"
        );
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            to,
            "{:.1} MiB (peak {:.1}), {} descriptors",
            self.anonymous as f64 / 1_048_576.0,
            self.peak as f64 / 1_048_576.0,
            self.descriptors
        )
    }
}
