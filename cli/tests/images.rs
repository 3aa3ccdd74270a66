//! `pristine image`: everything that needs no collector.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step is a failed test"
)]

mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use program::{World, is_root, names};
use serde_json::Value;

const FILE: &str = "web.mtree.zst";

#[test]
fn an_image_is_built_signed_verified_and_shown() {
    let world = World::new();
    world.key("k");
    let built = world
        .say("image build dir:root --name web --version 1.2 --epoch 7 -o web.mtree.zst --mount /data --expires 2099-01-01T00:00:00Z --repository R --commit C --author A --ref B --format json")
        .exits(0)
        .json();
    assert_eq!(built["signatures"], Value::Array(vec![]));
    world
        .say("image verify web.mtree.zst --publisher k.pub")
        .exits(1);
    let signed = world
        .say("image sign web.mtree.zst --key k --format json")
        .exits(0)
        .json();
    assert_eq!(signed["signatures"].as_array().unwrap().len(), 1);
    world
        .say("image sign web.mtree.zst --key k")
        .exits(0)
        .says("already");
    let verified = world
        .say("image verify web.mtree.zst --publisher k.pub --format json")
        .exits(0)
        .json();
    assert_eq!(verified["verified"], true);
    let shown = world
        .say("image show web.mtree.zst --format json")
        .exits(0)
        .json();
    assert_eq!(shown["name"], "web");
    assert_eq!(shown["version"], "1.2");
    assert_eq!(shown["epoch"], 7);
    assert_eq!(shown["entries"], 11);
    assert_eq!(shown["bytes"], 12);
    assert_eq!(shown["tree"].as_str().unwrap().len(), 64);
    assert_eq!(
        shown["source"],
        serde_json::json!({"repository": "R", "commit": "C", "ref": "B", "author": "A"})
    );
    assert_eq!(shown["signatures"][0]["keyid"].as_str().unwrap().len(), 64);
    assert_eq!(shown["mounts"][0], "./data");
}

#[test]
fn a_bare_manifest_shows_only_what_it_tells_itself() {
    let world = World::new();
    world.image(FILE, "k");
    fs::remove_file(world.path("web.mtree.zst.dsse.json")).unwrap();
    let shown = world
        .say("image show web.mtree.zst --format json")
        .exits(0)
        .json();
    let mut members: Vec<&String> = shown.as_object().unwrap().keys().collect();
    members.sort();
    assert_eq!(members, ["bytes", "entries", "tree"]);
    world
        .say("image verify web.mtree.zst --publisher k.pub")
        .exits(2);
    world.say("image sign web.mtree.zst --key k").exits(2);
}

#[test]
fn one_entry_comes_with_its_proof() {
    let world = World::new();
    world.image(FILE, "k");
    for given in ["/usr/bin/tool", "usr/bin/tool", "./usr/bin/tool"] {
        let shown = world
            .run(&["image", "show", FILE, given, "--format", "json"])
            .exits(0)
            .json();
        assert_eq!(shown["path"], "./usr/bin/tool");
        assert!(
            shown["entry"]
                .as_str()
                .unwrap()
                .starts_with("./usr/bin/tool type=file mode=")
        );
        assert_eq!(shown["proof"]["entry"], shown["entry"]);
        assert!(!shown["proof"]["siblings"].as_array().unwrap().is_empty());
    }
    let encoded = world
        .run(&[
            "image",
            "show",
            FILE,
            "./etc/new\\012line",
            "--format",
            "json",
        ])
        .exits(0)
        .json();
    assert_eq!(encoded["path"], "./etc/new\\012line");
    let absent = world
        .run(&["image", "show", FILE, "/nowhere", "--format", "json"])
        .exits(1)
        .json();
    assert_eq!(absent["entry"], Value::Null);
    assert_eq!(absent["proof"]["path"], "./nowhere");
}

#[test]
fn a_foreign_signature_and_a_changed_manifest_do_not_verify() {
    let world = World::new();
    world.image(FILE, "k");
    world.key("other");
    world
        .say("image verify web.mtree.zst --publisher other.pub")
        .exits(1);
    world
        .say("image verify web.mtree.zst --publisher k.pub other.pub")
        .exits(0);
    world
        .say("image verify web.mtree.zst --publisher k.pub other.pub --threshold 2")
        .exits(1);
    world
        .say("image verify web.mtree.zst --publisher k.pub --threshold 2")
        .exits(64);
    fs::write(world.path("root/etc/conf"), "a=2\n").unwrap();
    world
        .say("image build root --name web --version 2 -o two.mtree.zst")
        .exits(0);
    fs::copy(world.path("two.mtree.zst"), world.path(FILE)).unwrap();
    let told = world
        .say("image verify web.mtree.zst --publisher k.pub --format json")
        .exits(1)
        .json();
    assert_eq!(told["verified"], false);
    world
        .say("image show web.mtree.zst")
        .exits(2)
        .says("another manifest");
    world
        .say("image sign web.mtree.zst --key other")
        .exits(2)
        .says("will not sign");
    fs::write(world.path(FILE), "not zstd").unwrap();
    world
        .say("image verify web.mtree.zst --publisher k.pub")
        .exits(1);
}

#[test]
fn the_same_tree_gives_the_same_manifest() {
    let world = World::new();
    world
        .say("image build root --name a --version 1 -o one.mtree.zst")
        .exits(0);
    world
        .say("image build dir:root --name b --version 2 -o two.mtree.zst")
        .exits(0);
    assert_eq!(
        fs::read(world.path("one.mtree.zst")).unwrap(),
        fs::read(world.path("two.mtree.zst")).unwrap()
    );
}

#[test]
fn other_sources_are_named_and_refused() {
    let world = World::new();
    for scheme in [
        "oci",
        "oci-archive",
        "docker-archive",
        "tar",
        "squashfs",
        "erofs",
    ] {
        world
            .say(&format!(
                "image build {scheme}:x --name a --version 1 -o one.mtree.zst"
            ))
            .exits(2)
            .says("this build reads `dir:` only");
    }
    world
        .say("image build nowhere --name a --version 1 -o one.mtree.zst")
        .exits(2);
    world
        .say("image build root/etc/conf --name a --version 1 -o one.mtree.zst")
        .exits(2)
        .says("not a directory");
}

#[test]
fn an_output_inside_the_source_is_refused() {
    let world = World::new();
    world
        .say("image build root --name a --version 1 -o root/a.mtree.zst")
        .exits(2)
        .says("inside the source");
    std::os::unix::fs::symlink("root/etc", world.path("link")).unwrap();
    world
        .say("image build root --name a --version 1 -o link/a.mtree.zst")
        .exits(2)
        .says("inside the source");
    assert!(!world.path("root/a.mtree.zst").exists());
}

#[test]
fn an_identity_or_a_join_token_in_the_source_is_refused() {
    let world = World::new();
    let state = world.path("root/var/lib/pristine/agent");
    fs::create_dir_all(&state).unwrap();
    fs::write(
        state.join("node.key"),
        "-----BEGIN PRIVATE KEY-----\nA\n-----END PRIVATE KEY-----\n",
    )
    .unwrap();
    world
        .say("image build root --name a --version 1 -o a.mtree.zst")
        .exits(2)
        .says("identity")
        .says("node.key");
    world
        .say("image build root --name a --version 1 --scope host -o a.mtree.zst")
        .exits(2)
        .says("identity");
    fs::remove_dir_all(world.path("root/var")).unwrap();
    fs::write(
        world.path("root/etc/token"),
        "pristine-join.eyJqb2luIjpbXX0\n",
    )
    .unwrap();
    world
        .say("image build root --name a --version 1 -o a.mtree.zst")
        .exits(2)
        .says("join token")
        .says("etc/token");
    assert!(!world.path("a.mtree.zst").exists());
    fs::remove_file(world.path("root/etc/token")).unwrap();
    world
        .say("image build root --name a --version 1 -o a.mtree.zst")
        .exits(0);
}

#[test]
fn an_unreadable_file_leaves_no_output() {
    if is_root() {
        // No permission stops root; a socket in a path that is too deep would, but takes long to make.
        return;
    }
    let world = World::new();
    fs::set_permissions(
        world.path("root/etc/conf"),
        fs::Permissions::from_mode(0o000),
    )
    .unwrap();
    world
        .say("image build root --name a --version 1 -o a.mtree.zst")
        .exits(2)
        .says("etc/conf");
    assert_eq!(
        names(&world.path(""))
            .iter()
            .filter(|name| name.contains("mtree"))
            .count(),
        0
    );
}

#[test]
fn a_scope_file_decides_what_is_sealed() {
    let world = World::new();
    fs::write(
        world.path("s.json"),
        r#"[{"match": "etc/**", "expect": "local"}, {"match": "empty", "expect": "ignored"}]"#,
    )
    .unwrap();
    let built = world
        .say("image build root --name a --version 1 --scope s.json -o a.mtree.zst --format json")
        .exits(0)
        .json();
    assert_eq!(built["entries"], 6);
    fs::write(
        world.path("bad.json"),
        r#"[{"match": "a**", "expect": "local"}]"#,
    )
    .unwrap();
    world
        .say("image build root --name a --version 1 --scope bad.json -o a.mtree.zst")
        .exits(78)
        .says("bad.json");
    world
        .say("image build root --name a --version 1 --scope none.json -o a.mtree.zst")
        .exits(2);
}

#[test]
fn provenance_comes_from_the_checkout_it_is_called_in() {
    let world = World::new();
    let git = |words: &str| {
        let done = Command::new("git")
            .args(words.split(' '))
            .current_dir(world.path(""))
            .env("GIT_AUTHOR_NAME", "Ann")
            .env("GIT_AUTHOR_EMAIL", "ann@example.org")
            .env("GIT_COMMITTER_NAME", "Ann")
            .env("GIT_COMMITTER_EMAIL", "ann@example.org")
            .output();
        done.is_ok_and(|done| done.status.success())
    };
    if !git("init -q -b main") {
        return;
    }
    assert!(git(
        "remote add origin https://user:secret@example.org/web.git"
    ));
    assert!(git("commit -q --allow-empty -m one"));
    let built = world
        .say("image build root --name a --version 1 -o a.mtree.zst --format json")
        .exits(0)
        .json();
    assert_eq!(built["source"]["repository"], "https://example.org/web.git");
    assert_eq!(built["source"]["commit"].as_str().unwrap().len(), 40);
    assert_eq!(built["source"]["ref"], "refs/heads/main");
    assert_eq!(built["source"]["author"], "Ann <ann@example.org>");
}

#[test]
fn two_images_are_compared_by_path_and_field() {
    let world = World::new();
    world.image("one.mtree.zst", "k");
    world.say("image diff one.mtree.zst one.mtree.zst").exits(0);
    fs::write(world.path("root/etc/conf"), "a=22\n").unwrap();
    fs::remove_file(world.path("root/usr/bin/tool")).unwrap();
    fs::write(world.path("root/zz"), "new").unwrap();
    world
        .say("image build root --name web --version 2 --commit C2 -o two.mtree.zst")
        .exits(0);
    let told = world
        .say("image diff one.mtree.zst two.mtree.zst --format json")
        .exits(1)
        .json();
    assert_eq!(told["from"]["version"], "1");
    assert_eq!(told["to"]["version"], "2");
    assert_eq!(told["to"]["source"]["commit"], "C2");
    let differences = told["differences"].as_array().unwrap();
    let summary: Vec<(&str, Vec<&str>)> = differences
        .iter()
        .map(|one| {
            let fields = one["fields"]
                .as_array()
                .unwrap()
                .iter()
                .map(|field| field.as_str().unwrap())
                .collect();
            (one["path"].as_str().unwrap(), fields)
        })
        .collect();
    assert_eq!(
        summary,
        [
            ("./etc/conf", vec!["size", "sha256digest"]),
            ("./usr/bin/tool", vec!["removed"]),
            ("./zz", vec!["added"])
        ]
    );
    assert_eq!(differences[1]["found"], Value::Null);
    assert_eq!(differences[2]["expected"], Value::Null);
}

#[test]
fn coreutils_checks_the_checksums() {
    let world = World::new();
    world.image(FILE, "k");
    let spec = world
        .say("image export web.mtree.zst --as sha256sum")
        .exits(0);
    fs::write(world.path("sums"), &spec.stdout).unwrap();
    let check = || {
        Command::new("sha256sum")
            .args(["--strict", "-c", "../sums"])
            .current_dir(world.root())
            .output()
    };
    let Ok(checked) = check() else { return };
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
    fs::write(world.path("root/etc/conf"), "a=2\n").unwrap();
    assert!(!check().unwrap().status.success());
}

#[test]
fn mtree_and_bsdtar_read_the_export() {
    let world = World::new();
    let scope =
        r#"[{"match": "usr", "expect": "ignored"}, {"match": "usr/bin/**", "expect": "sealed"}]"#;
    fs::write(world.path("s.json"), scope).unwrap();
    world
        .say("image build root --name a --version 1 --scope s.json -o web.mtree.zst")
        .exits(0);
    let spec = world.say("image export web.mtree.zst --as mtree").exits(0);
    assert!(
        spec.text().contains("\n./usr type=dir\n"),
        "{}",
        spec.text()
    );
    fs::write(world.path("spec"), &spec.stdout).unwrap();
    if let Ok(listed) = Command::new("bsdtar")
        .args(["-tvf", "spec"])
        .current_dir(world.path(""))
        .output()
    {
        assert!(
            listed.status.success(),
            "{}",
            String::from_utf8_lossy(&listed.stderr)
        );
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(
            listed.contains("with space") && listed.contains("alias -> tool"),
            "{listed}"
        );
    }
    let check = || {
        Command::new("mtree")
            .args(["-p", "root", "-f", "spec"])
            .current_dir(world.path(""))
            .output()
    };
    let Ok(checked) = check() else { return };
    assert!(
        checked.status.success(),
        "{}{}",
        String::from_utf8_lossy(&checked.stdout),
        String::from_utf8_lossy(&checked.stderr)
    );
    fs::write(world.path("root/etc/new\nline"), "tampered").unwrap();
    assert!(!check().unwrap().status.success());
}

#[test]
fn json_export_has_every_entry_with_its_fields() {
    let world = World::new();
    world.image(FILE, "k");
    let all = world
        .say("image export web.mtree.zst --as json")
        .exits(0)
        .json();
    let entries = all["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 11);
    assert_eq!(entries[0]["path"], ".");
    let tool = entries
        .iter()
        .find(|entry| entry["path"] == "./usr/bin/tool")
        .unwrap();
    assert_eq!(tool["size"], 5);
    assert_eq!(tool["type"], "file");
    let shown = world
        .say("image show web.mtree.zst --format json")
        .exits(0)
        .json();
    assert_eq!(all["tree"], shown["tree"]);
}
