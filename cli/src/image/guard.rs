//! What no image may hold: an agent's identity, with which a copy could speak as the node, and a join token, with which
//! anybody could join. Both are looked for in the whole source, whatever the scope says: an ignored file is shipped too.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use attestation::join_token::JoinToken;
use attestation::path::ImagePath;
use attestation::scope::{Expect, Scope};
use memchr::memmem;

use crate::exit::Failure;

const TOKEN: &[u8] = b"pristine-join.";
/// A token lies in a text file of some kind; what is larger is not looked through.
const TEXT_LIMIT: u64 = 1 << 20;
/// The longest token there is.
const TOKEN_LIMIT: u64 = 8192;
/// Neither a key nor a token is shorter.
const LEAST: u64 = 16;
/// A key file is small.
const KEY_LIMIT: u64 = 64 << 10;

/// What was found where.
#[derive(Debug, PartialEq, Eq)]
pub enum Secret {
    /// A node's private key.
    Identity(PathBuf),
    /// A join token.
    Token(PathBuf),
}

impl Secret {
    fn path(&self) -> &Path {
        let (Self::Identity(path) | Self::Token(path)) = self;
        path
    }
}

impl From<Secret> for Failure {
    fn from(secret: Secret) -> Self {
        let (what, path) = match &secret {
            Secret::Identity(path) => ("an agent's identity", path),
            Secret::Token(path) => ("a join token", path),
        };
        Self::new(format!("the source holds {what}"))
            .why(format!("{} would be in every copy of the image", path.display()))
            .remedy("remove it from the tree; agents are enrolled on the node, after it was made from the image")
    }
}

/// Looks for secrets in what a scan reads, and keeps the first by its path.
pub struct Guard<'r> {
    root: &'r Path,
    /// The largest file that may hold a token.
    limit: u64,
    has_token: fn(&[u8]) -> bool,
    found: Mutex<Option<Secret>>,
}

impl<'r> Guard<'r> {
    /// For an image that is shipped: looks into every text.
    pub fn of_image(root: &'r Path) -> Self {
        Self::new(root, TEXT_LIMIT, holds_token)
    }

    /// For the image of a machine, which stays there: looks for keys, and for files that hold a token and nothing else.
    pub fn of_machine(root: &'r Path) -> Self {
        Self::new(root, TOKEN_LIMIT, is_token_file)
    }

    fn new(root: &'r Path, limit: u64, has_token: fn(&[u8]) -> bool) -> Self {
        Self {
            root,
            limit,
            has_token,
            found: Mutex::new(None),
        }
    }

    /// What is larger holds no secret that is looked for.
    pub fn limit(&self) -> u64 {
        self.limit.max(KEY_LIMIT)
    }

    /// What was found.
    pub fn found(self) -> Option<Secret> {
        self.found
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The content of a file.
    pub fn hear(&self, path: &ImagePath, content: &[u8]) {
        self.examine(Path::new(OsStr::from_bytes(path.as_bytes())), content);
    }

    /// Looks through what a scope ignores of the root's own file system, which no scan reads.
    pub fn walk_ignored(&self, scope: &Scope) {
        if !(scope.rules().iter()).any(|rule| rule.expect == Expect::Ignored) {
            return;
        }
        let Ok(device) = self.root.metadata().map(|root| root.dev()) else {
            return;
        };
        let mut waiting = vec![(PathBuf::new(), scope.start())];
        while let Some((directory, state)) = waiting.pop() {
            // What cannot be read is told by the scan itself.
            let Ok(names) = fs::read_dir(self.root.join(&directory)) else {
                continue;
            };
            for name in names.flatten() {
                let below = state.child(name.file_name().as_bytes());
                let path = directory.join(name.file_name());
                let Ok(kind) = name.file_type() else { continue };
                let is_here = || name.metadata().is_ok_and(|there| there.dev() == device);
                if kind.is_dir() && is_here() {
                    waiting.push((path, below));
                } else if kind.is_file() && below.decision().expect == Expect::Ignored && is_here()
                {
                    self.read(&path);
                }
            }
        }
    }

    fn read(&self, below: &Path) {
        let mut content = Vec::new();
        // What the scope ignores may well be unreadable; of what is larger the first part says so.
        let read = File::open(self.root.join(below))
            .and_then(|file| file.take(self.limit() + 1).read_to_end(&mut content));
        if read.is_ok() {
            self.examine(below, &content);
        }
    }

    fn examine(&self, below: &Path, content: &[u8]) {
        let size = content.len() as u64;
        if size < LEAST {
            return;
        }
        let path = || self.root.join(below);
        let secret = if size <= KEY_LIMIT
            && is_private_key(content)
            && (is_agent_state(below) || is_beside_identity(&path()))
        {
            Secret::Identity(path())
        } else if size <= self.limit && (self.has_token)(content) {
            Secret::Token(path())
        } else {
            return;
        };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if (found.as_ref()).is_none_or(|before| secret.path() < before.path()) {
            *found = Some(secret);
        }
    }
}

/// A key file as such; a program that speaks of keys is none.
fn is_private_key(bytes: &[u8]) -> bool {
    let first = bytes
        .trim_ascii_start()
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    first.starts_with(b"-----BEGIN ") && memmem::find(first, b"PRIVATE KEY-----").is_some()
}

/// The agent's state lies in `…/pristine/agent`, and in `…/pristine/up/agent` where one command runs everything.
fn is_agent_state(path: &Path) -> bool {
    let names: Vec<&[u8]> = path.iter().map(OsStrExt::as_bytes).collect();
    let Some(start) = names.iter().position(|name| *name == b"pristine") else {
        return false;
    };
    names
        .get(start..)
        .is_some_and(|below| below.contains(&b"agent".as_slice()))
}

/// Wherever the state lies: the agent keeps its key beside what it was given when it joined.
fn is_beside_identity(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "node.key")
        && path
            .with_file_name("identity.json")
            .symlink_metadata()
            .is_ok()
}

/// A file that is a token.
fn is_token_file(bytes: &[u8]) -> bool {
    let text = bytes.trim_ascii();
    text.starts_with(TOKEN) && is_token(text)
}

/// A token as such, or a file that holds nothing but what looks like one. The bare prefix in a program or a manual page
/// is no token.
fn holds_token(bytes: &[u8]) -> bool {
    memmem::find_iter(bytes, TOKEN).any(|start| {
        let after = start + TOKEN.len();
        let body: Vec<u8> = bytes.get(after..).map_or_else(Vec::new, |tail| {
            tail.iter()
                .copied()
                .take_while(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
                .collect()
        });
        let end = after + body.len();
        let is_alone = !body.is_empty()
            && bytes
                .get(..start)
                .is_some_and(|head| head.trim_ascii().is_empty())
            && bytes
                .get(end..)
                .is_some_and(|tail| tail.trim_ascii().is_empty());
        is_alone || is_token(bytes.get(start..end).unwrap_or_default())
    })
}

fn is_token(text: &[u8]) -> bool {
    // Base64url of a JSON object begins with `eyJ`.
    let looks_so = text
        .strip_prefix(TOKEN)
        .is_some_and(|body| body.starts_with(b"eyJ") && body.len() >= 64);
    looks_so || std::str::from_utf8(text).is_ok_and(|text| text.parse::<JoinToken>().is_ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use attestation::scope::Rule;

    use super::*;

    fn found(name: &str, content: &str) -> Option<Secret> {
        let guard = Guard::of_image(Path::new("/root"));
        guard.hear(&ImagePath::from_bytes(name).unwrap(), content.as_bytes());
        guard.found()
    }

    #[test]
    fn what_the_scope_ignores_is_looked_through_and_the_rest_left_to_the_scan() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["var/cache/a", "etc"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        for name in ["var/cache/a/token", "var/cache/b", "etc/token"] {
            fs::write(root.path().join(name), "pristine-join.abcdef\n").unwrap();
        }
        let found = |rules: &[&str]| {
            let rule = |pattern: &&str| Rule {
                r#match: (*pattern).to_owned(),
                expect: Expect::Ignored,
                time: false,
            };
            let guard = Guard::of_image(root.path());
            guard.walk_ignored(&Scope::new(rules.iter().map(rule).collect()).unwrap());
            guard.found()
        };
        assert_eq!(found(&[]), None);
        assert_eq!(found(&["usr/**"]), None);
        assert_eq!(
            found(&["var/cache/**"]),
            Some(Secret::Token(root.path().join("var/cache/a/token"))),
            "the first by its path"
        );
    }

    #[test]
    fn a_nodes_key_is_found_in_the_agents_state_alone() {
        let pem = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(matches!(
            found("var/lib/pristine/agent/node.key", pem),
            Some(Secret::Identity(_))
        ));
        assert!(matches!(
            found("var/lib/pristine/up/agent/keys/node.pem", pem),
            Some(Secret::Identity(_))
        ));
        assert_eq!(found("etc/ssh/host_key", pem), None);
    }

    #[test]
    fn a_token_is_found_alone_and_in_a_script() {
        let body = "A".repeat(80);
        assert!(matches!(
            found("root/token", "pristine-join.abcdef\n"),
            Some(Secret::Token(_))
        ));
        let script = format!("#!/bin/sh\npristine-agent enroll --token pristine-join.eyJ{body}\n");
        assert!(matches!(
            found("root/setup.sh", &script),
            Some(Secret::Token(_))
        ));
    }

    #[test]
    fn the_prefix_in_a_manual_is_no_token() {
        assert_eq!(
            found(
                "usr/share/doc/x",
                "a token begins with pristine-join. and goes on"
            ),
            None
        );
        assert_eq!(
            found(
                "usr/share/doc/x",
                "usage: enroll --token pristine-join.TOKEN [--name N]"
            ),
            None
        );
    }
}
