//! More differences than a statement lists: the gravest are told at once, and all of them when the snapshot is there.

use std::{collections::BTreeSet, fs, path::Path};

use attestation::digest::Digest;
use pristine_tests::{
    node::Node,
    roots,
    wait::{LATER, SOON, eventually},
    world::World,
};

/// Files that are changed; a statement lists at most 4,096.
const FILES: usize = 5_000;

fn paths(differences: &[serde_json::Value]) -> BTreeSet<String> {
    let path = |it: &serde_json::Value| it["path"].as_str().expect("a path").to_owned();
    differences.iter().map(path).collect()
}

#[test]
fn five_thousand_changed_files_are_all_known_though_no_statement_lists_them() {
    let world = World::start();
    let root = roots::small(&world.path("root"));
    let folder = root.join("srv/many");
    fs::create_dir_all(&folder).expect("a folder");
    write(&folder, "as built");
    world.image(&root, "base", "1.0", &[]);
    let agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    write(&folder, "changed");
    fs::write(root.join("usr/bin/tool-01"), "#!/bin/sh\nevil\n").expect("a change");
    let id = world.id("web-1");
    let path = format!("/api/v1/nodes/{id}/differences");
    // Between two pages the list may move on from the statement's to the snapshot's: then it is asked again.
    let all = eventually("every difference is known, each once", LATER, || {
        let all = world.people.list(&path);
        (paths(&all).len() > FILES).then_some(all)
    });
    let paths = paths(&all);
    assert_eq!((paths.len(), all.len()), (FILES + 1, FILES + 1));
    for n in 0..FILES {
        let path = format!("./srv/many/{n:05}");
        assert!(paths.contains(&path), "{path} is missing");
    }
    let one = all
        .iter()
        .find(|it| it["path"] == "./srv/many/04999")
        .expect("the last of them");
    let digest = Digest::of(b"changed 4999\n").to_string();
    assert!(
        one["found"].as_str().is_some_and(|it| it.contains(&digest)),
        "{one:#}"
    );
    let many = eventually("one violation for all", SOON, || {
        let open = world.people.violations("open");
        open.into_iter().find(|it| it["kind"] == "many")
    });
    assert_eq!(many["count"], FILES + 1, "{many:#}");
    assert_eq!(
        many["detail"]["gravest"][0], "./usr/bin/tool-01",
        "the gravest first: {many:#}"
    );
    write(&folder, "as built");
    eventually("no longer above a thousand", LATER, || {
        let open = world.people.violations("open");
        (!open.iter().any(|it| it["kind"] == "many")).then_some(())
    });
    drop(agent);
    world.check();
}

/// What was not asked for, and what is not what was named, is not taken.
#[test]
fn a_file_that_nobody_asked_for_is_not_taken() {
    let world = World::start();
    let node = Node::join(&world, "odd-node-17");
    let sent = node.send(&[node.statement(|_| {})]).expect("an answer");
    assert_eq!(sent.status, 200);
    let digest = Digest::of(b"#mtree\n");
    let answer = node
        .put(
            &format!("/agent/v1/snapshots/{digest}"),
            b"#mtree\n".to_vec(),
        )
        .expect("an answer");
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["code"], "not-asked-for");
    world.check();
}

fn write(folder: &Path, content: &str) {
    for n in 0..FILES {
        fs::write(folder.join(format!("{n:05}")), format!("{content} {n}\n")).expect("a file");
    }
}
