#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::process::{Child, Command};

use attestation::scope::Scope;

use super::super::Collect;
use super::*;

fn sleeping() -> Child {
    Command::new("sleep").arg("600").spawn().unwrap()
}

fn lives(follower: &Follower, child: &Child) -> Option<String> {
    let process = follower.table.get(follower.table.newest(child.id())?)?;
    let (exe, _) = process.image.exe()?;
    process.ended.is_none().then(|| exe.path.clone())
}

/// The kernel gives up events when nobody takes them in time (`ENOBUFS`): provoked with little room.
#[test]
fn events_that_were_lost_are_told_and_made_up_for() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: the process connector needs root");
        return;
    }
    let root = Root::open(Path::new("/"), &Scope::sealed_all()).unwrap();
    let attribution = Attribution::new(true, Collect::Commands, false);
    let socket = match Socket::subscribe(64 << 10) {
        Ok(socket) => socket,
        Err(error) => return eprintln!("skipped: no process connector here: {error}"),
    };
    let mut follower = Follower::with(socket, &root, &attribution);
    let trouble = follower.trouble();
    let mut went = sleeping();
    follower.follow();
    assert!(lives(&follower, &went).is_some());
    let before = trouble.limits();
    went.kill().unwrap();
    went.wait().unwrap();
    let mut came = sleeping();
    for _ in 0..400 {
        assert!(Command::new("true").status().unwrap().success());
    }
    follower.follow();
    let (after, came_as) = (trouble.limits(), lives(&follower, &came));
    came.kill().unwrap();
    came.wait().unwrap();
    assert_ne!(before, after);
    assert!(
        after.concat().contains("process events were lost"),
        "{after:?}"
    );
    assert!(came_as.is_some_and(|exe| exe.ends_with("/sleep")));
    assert_eq!(
        lives(&follower, &went),
        None,
        "its end was among what was lost"
    );
}
