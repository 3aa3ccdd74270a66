//! Root works on a state as whom it belongs to: what root makes there the service could not read.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Whether this is root, and the state somebody else's: then this program begins anew as that user and group, and does not
/// return but with an error.
pub(super) fn take(state: &Path) -> io::Result<()> {
    let own = std::fs::metadata("/proc/self")?.uid();
    let Ok(found) = std::fs::metadata(state) else {
        // Who makes it owns it.
        return Ok(());
    };
    match other(own, found.uid(), found.gid()) {
        None => Ok(()),
        Some((uid, gid)) => Err(Command::new("/proc/self/exe")
            .args(std::env::args_os().skip(1))
            .uid(uid)
            .gid(gid)
            .exec()),
    }
}

/// The user and group to become, where there is another.
fn other(own: u32, uid: u32, gid: u32) -> Option<(u32, u32)> {
    (own == 0 && uid != 0).then_some((uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_becomes_somebody_else() {
        assert_eq!(other(0, 990, 980), Some((990, 980)));
        assert_eq!(other(0, 0, 0), None);
        assert_eq!(other(1000, 990, 980), None);
    }
}
