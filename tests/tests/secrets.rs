//! What no image may hold is found wherever it lies: an agent's identity and join tokens, also in what the scope does not seal.

use std::{fs, path::Path, process::Command};

use pristine_tests::{
    program::{Said, command},
    roots,
};
use tempfile::TempDir;

const TOKEN: &str = "pristine-join.abcdef\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

fn folder() -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix("pristine-test-")
        .tempdir()
        .expect("a temporary folder");
    roots::small(&folder.path().join("root"));
    folder
}

fn put(folder: &TempDir, name: &str, content: &str) {
    let path = folder.path().join("root").join(name);
    fs::create_dir_all(path.parent().expect("a directory")).expect("the directory");
    fs::write(path, content).expect("the file");
}

fn build(folder: &TempDir, source: &str, more: &[&str]) -> Said {
    let words = ["image", "build", source, "--name", "base", "--version", "1"];
    Said::by(
        command("pristine")
            .current_dir(folder.path())
            .args(words)
            .args(["-o", "base.mtree.zst"])
            .args(more),
    )
}

/// The build says what lies where, and writes nothing.
#[track_caller]
fn refused(folder: &TempDir, source: &str, more: &[&str], what: &str, name: &str) {
    let said = build(folder, source, more).exits(2);
    assert!(
        said.err.contains(what) && said.err.contains(name),
        "{}",
        said.err
    );
    assert!(!folder.path().join("base.mtree.zst").exists());
}

#[test]
fn a_token_is_found_whatever_the_scope_says_of_it() {
    let folder = folder();
    put(&folder, "srv/setup/token", TOKEN);
    refused(&folder, "dir:root", &[], "a join token", "srv/setup/token");
    for expect in ["local", "growing", "ignored"] {
        let scope = format!(r#"[{{"match":"srv/**","expect":"{expect}"}}]"#);
        fs::write(folder.path().join("scope.json"), scope).expect("a scope");
        let scoped = ["--scope", "scope.json"];
        refused(
            &folder,
            "dir:root",
            &scoped,
            "a join token",
            "srv/setup/token",
        );
    }
}

#[test]
fn a_token_is_found_behind_what_one_read_brings() {
    let folder = folder();
    let token = format!("pristine-join.eyJ{}", "A".repeat(80));
    let before = "# a comment as long as they get\n".repeat(20_000);
    put(
        &folder,
        "srv/setup.sh",
        &format!("{before}enroll {token}\n"),
    );
    refused(&folder, "dir:root", &[], "a join token", "srv/setup.sh");
}

#[test]
fn an_identity_is_found_and_another_key_is_none() {
    let folder = folder();
    put(&folder, "etc/ssl/private/web.key", KEY);
    build(&folder, "dir:root", &[]).exits(0);
    fs::remove_file(folder.path().join("base.mtree.zst")).expect("the image removed");
    put(&folder, "var/lib/pristine/agent/node.key", KEY);
    refused(&folder, "dir:root", &[], "an agent's identity", "node.key");
}

/// The image of the machine itself stays there: a file that is a token, or a node's key, would still speak for it.
#[test]
fn up_refuses_a_root_with_a_secret_in_it() {
    let folder = folder();
    let up = || {
        Said::by(
            command("pristine")
                .current_dir(folder.path())
                .args(["up", "--root", "root", "--state", "state"])
                .args(["--ops", "127.0.0.1:0", "--agents", "127.0.0.1:0"])
                .args(["--join", "127.0.0.1:0"]),
        )
        .exits(2)
    };
    put(
        &folder,
        "var/lib/setup/token",
        &format!("pristine-join.eyJ{}\n", "A".repeat(80)),
    );
    let said = up();
    assert!(said.err.contains("var/lib/setup/token"), "{}", said.err);
    fs::remove_file(folder.path().join("root/var/lib/setup/token")).expect("the token removed");
    put(&folder, "srv/pristine/agent/node.key", KEY);
    let said = up();
    assert!(
        said.err.contains("srv/pristine/agent/node.key"),
        "{}",
        said.err
    );
}

/// A file system that a program serves is read on a thread of its own.
#[test]
fn a_token_is_found_in_what_a_program_serves() {
    let folder = folder();
    put(&folder, "srv/setup/token", TOKEN);
    let served = folder.path().join("served");
    fs::create_dir(&served).expect("a mount point");
    let Some(_served) = Served::mount(&folder.path().join("root"), &served) else {
        return;
    };
    refused(
        &folder,
        "dir:served",
        &[],
        "a join token",
        "srv/setup/token",
    );
}

struct Served(std::path::PathBuf);

impl Served {
    fn mount(root: &Path, at: &Path) -> Option<Self> {
        let mounted = Command::new("bindfs")
            .args([root, at])
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("skipped: needs bindfs, and the right to mount");
            return None;
        }
        Some(Self(at.to_owned()))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).status());
    }
}
