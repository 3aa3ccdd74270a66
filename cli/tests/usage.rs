//! What holds for every command: exit codes, help, version, the shape of messages.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step is a failed test"
)]

mod program;

use program::World;

#[test]
fn a_command_line_that_makes_no_sense_is_64() {
    let world = World::new();
    for line in [
        "",
        "nonsense",
        "scan",
        "key generate",
        "key generate -o k --algorithm rsa",
        "image export x",
        "image export x --as yaml",
        "token create",
        "token create --join --role viewer",
        "token create --join --ttl soon",
        "up --ops nowhere",
        "up --rebase --image x",
        "scan root --publisher k",
        "login ftp://example.org --token x",
    ] {
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        world.run(&words).exits(64);
    }
}

#[test]
fn help_and_version_are_results() {
    let world = World::new();
    let version = world.say("--version").exits(0);
    assert!(
        version.text().starts_with("pristine 0.1.0 ("),
        "{}",
        version.text()
    );
    assert!(world.say("scan --help").exits(0).text().contains("Example"));
}

#[test]
fn completion_is_a_script_for_each_shell() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            world
                .say(&format!("completion {shell}"))
                .exits(0)
                .text()
                .contains("pristine")
        );
    }
    world.say("completion tcsh").exits(64);
}

#[test]
fn without_a_token_people_are_told_to_sign_in() {
    let world = World::new();
    for line in [
        "whoami",
        "node list",
        "violation list",
        "token list",
        "image list",
    ] {
        world.say(line).exits(78).says("pristine login");
    }
    world.say("logout").exits(0);
}

#[test]
fn a_collector_out_of_reach_is_2() {
    let world = World::new();
    let mut command = world.command(&["whoami"]);
    command
        .env("PRISTINE_URL", "http://127.0.0.1:1")
        .env("PRISTINE_TOKEN", "t");
    program::finish(command)
        .exits(2)
        .says("cannot reach the collector");
}
