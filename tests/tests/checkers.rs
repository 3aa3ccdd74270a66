//! Tools that are not ours read our files and agree.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use pristine_tests::{
    is_root,
    program::{Said, python, script, tool},
    roots,
    world::{Image, World, statement_of},
};
use serde_json::Value;

/// The biggest root that this user may read whole.
fn root(world: &World) -> PathBuf {
    if is_root() {
        roots::debian(&world.path("root"))
    } else {
        roots::small(&world.path("root"))
    }
}

fn exported(world: &World, image: &Image) -> PathBuf {
    let said = world
        .run([
            OsStr::new("image"),
            "export".as_ref(),
            image.file.as_os_str(),
            "--as".as_ref(),
            "mtree".as_ref(),
        ])
        .exits(0);
    let spec = world.path("spec.mtree");
    fs::write(&spec, said.out).expect("the spec");
    spec
}

#[test]
fn mtree_checks_the_exported_manifest_and_finds_a_tampered_file() {
    let world = World::start();
    let root = root(&world);
    let image = world.signed(&root, "base", "1.0", &[]);
    let spec = exported(&world, &image);
    let check = || {
        Said::by(
            Command::new("mtree")
                .arg("-p")
                .arg(&root)
                .arg("-f")
                .arg(&spec),
        )
    };
    let clean = check();
    assert_eq!(
        clean.code, 0,
        "mtree finds the untouched root other than it is:\n{}{}",
        clean.out, clean.err
    );
    let (path, shown) = if is_root() {
        ("usr/bin/env", "usr/bin/env")
    } else {
        ("usr/bin/tool-07", "usr/bin/tool-07")
    };
    let mut bytes = fs::read(root.join(path)).expect("a file");
    bytes[0] ^= 1;
    fs::write(root.join(path), bytes).expect("a tampered file");
    let found = check();
    assert_ne!(found.code, 0);
    assert!(
        found.out.contains(shown) && found.out.to_lowercase().contains("sha256"),
        "{}",
        found.out
    );
}

#[test]
fn bsdtar_lists_every_entry_of_the_exported_manifest() {
    let world = World::start();
    let root = root(&world);
    let image = world.signed(&root, "base", "1.0", &[]);
    let spec = exported(&world, &image);
    let listed = tool("bsdtar", [OsStr::new("-tvf"), spec.as_os_str()]);
    let shown = world.run([
        OsStr::new("image"),
        "show".as_ref(),
        image.file.as_os_str(),
        "--format".as_ref(),
        "json".as_ref(),
    ]);
    let entries = shown.exits(0).json()["entries"].as_u64().expect("a number");
    assert_eq!(listed.lines().count() as u64, entries);
}

#[test]
fn securesystemslib_verifies_our_envelopes_and_in_toto_our_statements() {
    let world = World::start();
    let root = roots::small(&world.path("root"));
    let ed25519 = world.image(&root, "base", "1.0", &[]);
    let p256 = world.path("p256");
    world
        .run([
            OsStr::new("key"),
            "generate".as_ref(),
            "--algorithm".as_ref(),
            "p256".as_ref(),
            "-o".as_ref(),
            p256.as_os_str(),
        ])
        .exits(0);
    let both = world.signed(&root, "base", "1.1", &[]);
    world
        .run([
            OsStr::new("image"),
            "sign".as_ref(),
            both.file.as_os_str(),
            "--key".as_ref(),
            p256.as_os_str(),
        ])
        .exits(0);
    let public = world.publisher().with_extension("pub");
    verified(&[(&statement_of(&ed25519.file), &public)]);
    verified(&[
        (&statement_of(&both.file), &public),
        (&statement_of(&both.file), &p256.with_extension("pub")),
    ]);

    let agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    let id = world.id("web-1");
    let (evidence, key) = (world.path("evidence.json"), world.path("node.pub"));
    let node = world.people.get(&format!("/api/v1/nodes/{id}"));
    let private = fs::read_to_string(agent.state().join("node.key")).expect("the node's key");
    let private = attestation::key::PrivateKey::from_pem(&private).expect("PKCS#8 PEM");
    fs::write(&key, private.public().to_pem()).expect("a key");
    let newest = node["statement"]
        .as_str()
        .unwrap_or_else(|| panic!("no digest of the newest statement in {node}"));
    let kept = world
        .people
        .ask("GET", &format!("/api/v1/evidence/{newest}"), None)
        .expect("an answer");
    assert_eq!(kept.status, 200);
    fs::write(&evidence, &kept.body).expect("an envelope");
    verified(&[(&evidence, &key)]);
    drop(agent);
}

fn verified(pairs: &[(&Path, &Path)]) {
    for (envelope, key) in pairs {
        let checked = Said::by(
            Command::new(python())
                .arg(script("envelope.py"))
                .arg(envelope)
                .arg(key),
        )
        .exits(0);
        eprintln!("{}", checked.out.trim_end());
        let mut tampered: Value =
            serde_json::from_slice(&fs::read(envelope).expect("an envelope")).expect("JSON");
        let payload = tampered["payload"].as_str().expect("a payload").to_owned();
        let other = if payload.ends_with("fQ==") {
            payload.replace("fQ==", "IH0=")
        } else {
            format!("IC{}", &payload[2..])
        };
        tampered["payload"] = other.into();
        let file = key.with_extension("tampered");
        fs::write(&file, tampered.to_string()).expect("a tampered envelope");
        let checked = Said::by(
            Command::new(python())
                .arg(script("envelope.py"))
                .arg(&file)
                .arg(key),
        );
        assert_ne!(checked.code, 0, "a tampered envelope verifies");
    }
}

#[test]
fn a_second_implementation_gives_the_same_tree_digests() {
    let world = World::start();
    let root = root(&world);
    let image = world.signed(&root, "base", "1.0", &[]);
    let shown = world.run([
        OsStr::new("image"),
        "show".as_ref(),
        image.file.as_os_str(),
        "--format".as_ref(),
        "json".as_ref(),
    ]);
    let tree = shown.exits(0).json()["tree"]
        .as_str()
        .expect("a tree")
        .to_owned();
    let plain = world.path("plain.mtree");
    tool(
        "zstd",
        [
            OsStr::new("-q"),
            "-d".as_ref(),
            image.file.as_os_str(),
            "-o".as_ref(),
            plain.as_os_str(),
        ],
    );
    let second = Said::by(
        Command::new(python())
            .arg(script("tree_digest.py"))
            .arg(&plain),
    )
    .exits(0);
    assert_eq!(second.out.trim(), tree);
    let scanned = world
        .run([
            OsStr::new("scan"),
            root.as_os_str(),
            "--format".as_ref(),
            "json".as_ref(),
        ])
        .exits(0)
        .json();
    assert_eq!(scanned["tree"], tree.as_str());
}
