//! The least that a watcher of a whole file system can be: the agent's group, mask and pause, and nothing done with what is read.

use std::{os::fd::AsFd, path::Path, time::Duration};

use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

const GROUP: u32 = libc::FAN_CLASS_NOTIF
    | libc::FAN_REPORT_FID
    | libc::FAN_REPORT_DFID_NAME
    | libc::FAN_REPORT_TARGET_FID
    | libc::FAN_UNLIMITED_QUEUE
    | libc::FAN_CLOEXEC
    | libc::FAN_NONBLOCK;
const MASK: u64 = libc::FAN_MODIFY
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_ATTRIB
    | libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_RENAME
    | libc::FAN_ONDIR;
const PAUSE: Duration = Duration::from_millis(5);

/// Listens to the file system that holds `path` until it is killed; says `ready` when it does.
pub fn listen(path: &Path) {
    let group = Fanotify::init(InitFlags::from_bits_retain(GROUP), EventFFlags::empty())
        .expect("a fanotify group: only root may have one");
    let folder = std::fs::File::open(path).expect("a folder");
    let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
    let mask = MaskFlags::from_bits_retain(MASK);
    group
        .mark(flags, mask, folder.as_fd(), None::<&Path>)
        .expect("a mark on the file system");
    println!("ready");
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let mut descriptors = [PollFd::new(&group, PollFlags::IN)];
        poll(&mut descriptors, None).expect("events");
        loop {
            match rustix::io::read(&group, &mut *buffer) {
                Ok(_) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => panic!("read events: {error}"),
            }
        }
        std::thread::sleep(PAUSE);
    }
}
