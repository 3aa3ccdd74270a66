//! Block devices under a root whose nodes come while it is watched.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode};

use super::tests_beside::{OnDevice, report, write_raw};
use super::*;

/// One more node of a device, where nodes are looked for; it ends with the test.
struct Node(PathBuf);

impl Node {
    fn new(of: &Path) -> Option<Self> {
        let device = fs::metadata(of).unwrap().rdev();
        let path = PathBuf::from(format!("/dev/pristine-test-{}", std::process::id()));
        match rustix::fs::mknodat(CWD, &path, FileType::BlockDevice, Mode::RWXU, device) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                eprintln!("skipped: no device node may be made here: {error}");
                None
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

#[test]
fn a_node_that_is_made_of_a_device_below_is_told_and_what_is_written_through_it() {
    let Some(OnDevice { watch, image, .. }) = &OnDevice::new() else {
        return;
    };
    let Some(node) = Node::new(&image.device) else {
        return;
    };
    let shown = node.0.to_string_lossy();
    let told = |by_us: bool| {
        report(watch, |report| match report {
            Report::RawWrite(write) => {
                let here = write.node.as_bytes() == shown.trim_start_matches('/').as_bytes();
                (here && (write.actor.pid == std::process::id()) == by_us).then_some(write.actor)
            }
            _ => None,
        })
    };
    // It may have been written before anybody could look.
    told(true);
    write_raw(&node.0);
    assert!(told(false).pid > 0);
}
