//! Names of users, from the root's own `/etc/passwd`: never from the machine that the agent happens to run on.

use std::collections::HashMap;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use attestation::statement::Actor;
use rustix::fs::{Mode, OFlags};

use crate::scan::Root;

/// Bytes read of the file; users beyond have no name.
const PASSWD_LIMIT: u64 = 4 * 1024 * 1024;
/// How long the names are believed before the file is read again.
const FRESH: Duration = Duration::from_secs(10);

/// The name that the root's `/etc/passwd` has for a user id.
#[must_use]
pub fn user_name(root: &Root, uid: u32) -> Option<String> {
    read(root).remove(&uid)
}

/// Names kept for a short while.
#[derive(Debug, Default)]
pub struct Users {
    names: HashMap<u32, String>,
    read: Option<Instant>,
}

impl Users {
    /// Fills in the name of the login user, or without a login of the real one.
    pub fn name(&mut self, root: &Root, actor: &mut Actor) {
        let Some(uid) = actor.auid.or(actor.uid) else {
            return;
        };
        if self.read.is_none_or(|read| read.elapsed() > FRESH) {
            self.names = read(root);
            self.read = Some(Instant::now());
        }
        actor.user = self.names.get(&uid).cloned();
    }
}

fn read(root: &Root) -> HashMap<u32, String> {
    let mut content = Vec::new();
    if let Some(file) = open(root) {
        // What was read before an error is as good as any.
        drop(
            std::fs::File::from(file)
                .take(PASSWD_LIMIT)
                .read_to_end(&mut content),
        );
    }
    parse(&content)
}

fn open(root: &Root) -> Option<OwnedFd> {
    if root.server(b"etc/passwd").is_some() {
        // A user without a name holds nobody up.
        return None;
    }
    let (directory, _) = root.open_directory(b"etc").ok()?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(directory, c"passwd", flags, Mode::empty()).ok()
}

fn parse(content: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in String::from_utf8_lossy(content).lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(uid)) = (fields.next(), fields.nth(1)) else {
            continue;
        };
        if let Ok(uid) = uid.parse() {
            names.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_an_id_counts() {
        let names = parse(b"root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbad line\nme:x:1000:1000::/:/bin/sh\n");
        assert_eq!(names.get(&0).map(String::as_str), Some("root"));
        assert_eq!(names.get(&1000).map(String::as_str), Some("me"));
        assert_eq!(names.len(), 2);
    }
}
