//! `pristine key generate`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step is a failed test"
)]

mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use program::World;

#[test]
fn a_pair_is_made_with_its_modes_and_told() {
    let world = World::new();
    for (algorithm, file) in [("ed25519", "a.pem"), ("p256", "b.pem")] {
        let told = world
            .say(&format!(
                "key generate --algorithm {algorithm} -o {file} --format json"
            ))
            .exits(0)
            .json();
        assert_eq!(told["algorithm"], algorithm);
        assert_eq!(told["private"], file);
        assert_eq!(told["public"], format!("{file}.pub"));
        assert_eq!(told["keyid"].as_str().unwrap().len(), 64);
        let mode =
            |name: &str| fs::metadata(world.path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(file), 0o600);
        assert!(
            fs::read_to_string(world.path(file))
                .unwrap()
                .contains("BEGIN PRIVATE KEY")
        );
        assert!(
            fs::read_to_string(world.path(&format!("{file}.pub")))
                .unwrap()
                .contains("BEGIN PUBLIC KEY")
        );
    }
}

#[test]
fn neither_half_is_ever_overwritten() {
    let world = World::new();
    world.key("k");
    let before = fs::read(world.path("k")).unwrap();
    world
        .say("key generate -o k")
        .exits(2)
        .says("exists already");
    assert_eq!(fs::read(world.path("k")).unwrap(), before);
    fs::remove_file(world.path("k")).unwrap();
    world
        .say("key generate -o k")
        .exits(2)
        .says("k.pub exists already");
    assert!(!world.path("k").exists());
}
