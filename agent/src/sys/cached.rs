//! How much of a file the page cache holds.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Of `cachestat(2)`, Linux 6.5; one number on every architecture but alpha.
const CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range`; a length of 0 reaches to the end of the file.
#[repr(C)]
struct Range {
    offset: u64,
    length: u64,
}

/// `struct cachestat`.
#[repr(C)]
#[derive(Default)]
struct Pages {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Pages of the file that are cached; nothing where the kernel does not say.
pub fn cached_pages(file: BorrowedFd<'_>) -> Option<u64> {
    let range = Range {
        offset: 0,
        length: 0,
    };
    let mut pages = Pages::default();
    // SAFETY: both structures have the kernel's layout and outlive the call; the descriptor is borrowed and so open; a
    // kernel without the call says so.
    let result = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_raw_fd(),
            &raw const range,
            &raw mut pages,
            0_u32,
        )
    };
    (result == 0).then_some(pages.cached)
}
