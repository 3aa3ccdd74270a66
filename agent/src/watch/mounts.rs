//! Being told that the mount table changed.

use std::fs::File;
use std::io;

/// Opens the table whose changes `poll` tells as `POLLPRI | POLLERR`.
pub(super) fn open_table() -> io::Result<File> {
    File::open("/proc/self/mountinfo")
}
