//! `pristine scan`, alone and against an image.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step is a failed test"
)]

mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use program::{World, is_root};
use serde_json::Value;

const FILE: &str = "web.mtree.zst";

#[test]
fn a_scan_alone_tells_the_tree_of_the_image() {
    let world = World::new();
    world.image(FILE, "k");
    let scanned = world.say("scan root --format json").exits(0).json();
    let shown = world
        .say("image show web.mtree.zst --format json")
        .exits(0)
        .json();
    for member in ["tree", "entries", "bytes"] {
        assert_eq!(scanned[member], shown[member], "{member}");
    }
    assert!(scanned["seconds"].is_f64());
    assert_eq!(scanned["unreadable"], Value::Array(vec![]));
    assert!(scanned["mounts"].is_array());
    assert!(scanned.get("verdict").is_none());
    world.say("scan nowhere").exits(2);
    world.say("scan root/etc/conf").exits(2);
}

#[test]
fn an_unchanged_tree_is_pristine() {
    let world = World::new();
    world.image(FILE, "k");
    let told = world
        .say("scan root --image web.mtree.zst --publisher k.pub --format json")
        .exits(0)
        .json();
    assert_eq!(told["verdict"], "pristine");
    assert_eq!(told["differences"], Value::Array(vec![]));
    assert_eq!(told["image"]["name"], "web");
    assert_eq!(told["image"]["version"], "1");
    assert_eq!(told["image"]["tree"], told["tree"]);
}

#[test]
fn every_change_is_told_with_its_fields() {
    let world = World::new();
    world.image(FILE, "k");
    let root = world.root();
    fs::set_permissions(
        root.join("usr/bin/tool"),
        fs::Permissions::from_mode(0o4755),
    )
    .unwrap();
    fs::write(root.join("etc/conf"), "a=2\n").unwrap();
    fs::remove_file(root.join("usr/bin/alias")).unwrap();
    std::os::unix::fs::symlink("conf", root.join("usr/bin/alias")).unwrap();
    fs::remove_file(root.join("etc/with space")).unwrap();
    fs::create_dir(root.join("etc/with space")).unwrap();
    fs::write(root.join("added"), "x").unwrap();
    fs::remove_dir(root.join("empty")).unwrap();
    let told = world
        .say("scan root --image web.mtree.zst --format json")
        .exits(1)
        .says("signatures are not checked")
        .json();
    assert_eq!(told["verdict"], "drifted");
    let differences = told["differences"].as_array().unwrap();
    let fields = |path: &str| -> Vec<&str> {
        let one = differences
            .iter()
            .find(|one| one["path"] == path)
            .unwrap_or_else(|| panic!("{path}"));
        assert_eq!(one["expect"], "sealed");
        one["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| field.as_str().unwrap())
            .collect()
    };
    assert_eq!(fields("./usr/bin/tool"), ["mode"]);
    assert_eq!(fields("./etc/conf"), ["sha256digest"]);
    assert_eq!(fields("./usr/bin/alias"), ["link"]);
    assert!(fields("./etc/with\\040space").contains(&"type"));
    assert_eq!(fields("./added"), ["added"]);
    assert_eq!(fields("./empty"), ["removed"]);
    assert_eq!(differences.len(), 6);
    let text = world.say("scan root --image web.mtree.zst").exits(1).text();
    assert!(text.contains("~ ./usr/bin/tool  mode"), "{text}");
}

#[test]
fn local_and_growing_are_counted_not_compared() {
    let world = World::new();
    fs::write(world.path("s.json"), r#"[{"match": "etc/conf", "expect": "local"}, {"match": "usr/bin/tool", "expect": "growing"}]"#).unwrap();
    world
        .say("image build root --name a --version 1 --scope s.json -o a.mtree.zst")
        .exits(0);
    fs::write(world.path("root/etc/conf"), "other").unwrap();
    fs::write(world.path("root/usr/bin/tool"), "").unwrap();
    let told = world
        .say("scan root --image a.mtree.zst --format json")
        .exits(0)
        .json();
    assert_eq!((&told["local"], &told["growing"]), (&1.into(), &1.into()));
}

#[test]
fn statement_scope_and_signatures_have_their_rules() {
    let world = World::new();
    world.image(FILE, "k");
    world.key("other");
    fs::write(
        world.path("s.json"),
        r#"[{"match": "etc/**", "expect": "ignored"}]"#,
    )
    .unwrap();
    world
        .say("scan root --image web.mtree.zst --scope s.json")
        .exits(64);
    world
        .say("scan root --image web.mtree.zst --publisher other.pub")
        .exits(1)
        .says("does not verify");
    world.say("scan root --image none.mtree.zst").exits(2);
    fs::write(world.path("root/etc/conf"), "a=2\n").unwrap();
    world
        .say("image build root --name web --version 2 -o two.mtree.zst")
        .exits(0);
    fs::rename(world.path("two.mtree.zst"), world.path(FILE)).unwrap();
    world
        .say("scan root --image web.mtree.zst")
        .exits(2)
        .says("another manifest");
}

#[test]
fn a_bare_manifest_takes_a_scope() {
    let world = World::new();
    fs::write(
        world.path("s.json"),
        r#"[{"match": "etc/**", "expect": "ignored"}]"#,
    )
    .unwrap();
    world
        .say("image build root --name a --version 1 --scope s.json -o a.mtree.zst")
        .exits(0);
    fs::remove_file(world.path("a.mtree.zst.dsse.json")).unwrap();
    world
        .say("scan root --image a.mtree.zst --scope s.json")
        .exits(0);
    let told = world
        .say("scan root --image a.mtree.zst --format json")
        .exits(1)
        .json();
    assert_eq!(told["image"]["name"], Value::Null);
    world.key("k");
    world
        .say("scan root --image a.mtree.zst --publisher k.pub")
        .exits(2);
}

#[test]
fn what_cannot_be_read_is_incomplete_unless_something_differs_as_well() {
    if is_root() {
        return;
    }
    let world = World::new();
    world.image(FILE, "k");
    fs::set_permissions(world.path("root/etc"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(
        world.path("root/usr/bin"),
        fs::Permissions::from_mode(0o000),
    )
    .unwrap();
    let told = world
        .say("scan root --image web.mtree.zst --format json")
        .exits(2)
        .json();
    assert_eq!(told["verdict"], "incomplete");
    assert_eq!(told["unreadable"][0]["path"], "./usr/bin");
    world.say("scan root").exits(2);
    fs::write(world.path("root/etc/conf"), "a=2\n").unwrap();
    let told = world
        .say("scan root --image web.mtree.zst --format json")
        .exits(1)
        .json();
    assert_eq!(told["verdict"], "drifted");
    assert_eq!(told["differences"].as_array().unwrap().len(), 1);
    fs::set_permissions(
        world.path("root/usr/bin"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
}
