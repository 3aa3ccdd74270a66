//! The thinnest thread through all of it: when this breaks, nothing else matters.

use std::fs;

use pristine_tests::{
    change::change,
    roots,
    sighting::{Sighting, is_violation_step},
    wait::{SOON, eventually},
    world::{AUTHOR, COMMIT, World},
};

#[test]
fn a_change_on_a_node_is_told_everywhere_and_resolved_when_it_is_undone() {
    let world = World::start();
    let root = roots::small(&world.path("root"));
    let image = world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent("web-1", &root);
    let node = world.wait_for_status("web-1", "pristine");
    assert_eq!(node["image"]["commit"], COMMIT, "{node}");
    assert_eq!(node["violations"], 0, "{node}");
    assert!(world.people.page("/").shows("web-1") || world.people.page("/nodes").shows("web-1"));

    let before = fs::read(root.join("etc/app/app.conf")).expect("a file");
    let doer = change(&root, "write(b'etc/app/app.conf', b'listen = 8080\\n')");
    let told = Sighting {
        kind: "difference",
        path: "./etc/app/app.conf",
        fields: &["size", "sha256digest"],
        expected: Some("size=12"),
        found: Some("size=14"),
        page: &["base", "1.0", &COMMIT[..12], "Release pipeline"],
    };
    let violation = told.everywhere(&world, Some(&doer).filter(|_| pristine_tests::is_root()));
    assert_eq!(violation["image"]["commit"], COMMIT);
    assert_eq!(violation["image"]["author"], AUTHOR);
    assert_eq!(violation["image"]["sha256"], image.sha256);
    assert_eq!(world.wait_for_status("web-1", "drifted")["violations"], 1);
    drop(doer);

    let undo = change(
        &root,
        &format!(
            "write(b'etc/app/app.conf', {:?}.encode())",
            String::from_utf8_lossy(&before)
        ),
    );
    let id = violation["id"].as_str().expect("an id");
    let resolved = eventually("it is resolved", SOON, || {
        world
            .people
            .violation(id)
            .filter(|v| !v["resolved"].is_null())
    });
    assert!(!resolved["resolution"].is_null(), "{resolved}");
    drop(undo);
    world.wait_for_status("web-1", "pristine");
    eventually("the webhook is told", SOON, || {
        world.webhook.find("resolved", id)
    });
    eventually("the journal is told", SOON, || {
        let journal = world.collector.journal();
        journal.into_iter().find(|line| {
            is_violation_step(line) && line["event"] == "violation.resolved" && line["id"] == id
        })
    });
    eventually("what was put back stays for review", SOON, || {
        let touched = world.people.list("/api/v1/touched");
        touched
            .into_iter()
            .find(|t| t["path"] == "./etc/app/app.conf")
    });
    assert!(agent.stop().success());
    world.wait_for_status("web-1", "stopped");
    world.check();
}
