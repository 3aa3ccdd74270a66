//! What no image may hold: an agent's identity, with which a copy could speak as the node, and a join token, with which
//! anybody could join. Both are looked for in the whole source, whatever the scope says: an ignored file is shipped too.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use attestation::join_token::JoinToken;
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

/// How closely a tree is looked through.
struct Look<'a> {
    skip: &'a dyn Fn(&Path) -> bool,
    limit: u64,
    has_token: fn(&[u8]) -> bool,
}

/// Looks through `root` on its own file system, into every text.
pub fn find(root: &Path) -> Option<Secret> {
    walk(
        root,
        &Look {
            skip: &|_path| false,
            limit: TEXT_LIMIT,
            has_token: holds_token,
        },
    )
}

/// Looks through `root` but for what `skip` leaves out, for keys, and for files that hold a token and nothing else.
pub fn find_plain(root: &Path, skip: &dyn Fn(&Path) -> bool) -> Option<Secret> {
    walk(
        root,
        &Look {
            skip,
            limit: TOKEN_LIMIT,
            has_token: is_token_file,
        },
    )
}

fn walk(root: &Path, look: &Look<'_>) -> Option<Secret> {
    let device = root.metadata().ok()?.dev();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        // What cannot be read is told by the scan itself.
        let Ok(names) = fs::read_dir(&directory) else {
            continue;
        };
        for name in names.flatten() {
            let path = name.path();
            let Ok(metadata) = path.symlink_metadata() else {
                continue;
            };
            if metadata.dev() != device || (look.skip)(&path) {
                continue;
            }
            if metadata.is_dir() {
                waiting.push(path);
            } else if metadata.is_file() {
                let found = examine(root, &path, metadata.len(), look);
                if found.is_some() {
                    return found;
                }
            }
        }
    }
    None
}

fn examine(root: &Path, path: &Path, size: u64, look: &Look<'_>) -> Option<Secret> {
    let below = path.strip_prefix(root).unwrap_or(path);
    let may_be_key = size <= KEY_LIMIT && (is_agent_state(below) || is_beside_identity(path));
    if size < LEAST || (size > look.limit && !may_be_key) {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(TEXT_LIMIT)
        .read_to_end(&mut bytes)
        .ok()?;
    if may_be_key && is_private_key(&bytes) {
        return Some(Secret::Identity(path.to_owned()));
    }
    (look.has_token)(&bytes).then(|| Secret::Token(path.to_owned()))
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
    use super::*;

    fn found(name: &str, content: &str) -> Option<Secret> {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        find(root.path())
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
