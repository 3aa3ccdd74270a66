//! The packages on a machine that boots: Debian 12 under qemu's software emulation, with systemd as PID 1 and a real sshd. It joins
//! by a token that is left for its first boot, is watched, changed in a login, rebooted, stopped and killed.
#![allow(missing_docs)]

use std::time::Duration;

use pristine_tests::{
    collector::Options,
    left_out_without_root,
    machine::{Disk, HOST, Machine, USER, leave, left_out_without_qemu},
    wait::eventually,
    world::World,
};
use serde_json::Value;

/// A scan, or an answer, under software emulation.
const SLOWLY: Duration = Duration::from_secs(300);
const NAME: &str = "machine";
const CHANGED: &str = "./etc/ssh/sshd_config";

#[test]
fn a_machine_joins_is_watched_rebooted_stopped_and_killed() {
    const TEST: &str = "a_machine_joins_is_watched_rebooted_stopped_and_killed";
    if left_out_without_root(TEST) || left_out_without_qemu(TEST) {
        return;
    }
    let world = World::with(&Options {
        interval: 10,
        names: vec![HOST.to_owned()],
        ..Options::default()
    });
    let disk = Disk::with_packages();
    // As a pipeline does it: the image is what was built, the token comes to the machine later.
    world.image(&disk.debian.root, "debian", "12.1", &["--scope", "host"]);
    leave(
        &disk.debian,
        "/etc/pristine/join-token",
        &world.join_token(),
    );
    let machine = disk.boot();

    let node = becomes(&world, "pristine");
    assert_eq!(world.people.violations("all"), Vec::<Value>::new());
    is_kept_by_systemd(&machine);
    is_told_who(&world, &machine);
    is_told_of_a_mount(&world, &machine);

    let violations = world.people.violations("all").len();
    machine.reboot();
    eventually("the node has spoken after its reboot", SLOWLY, || {
        let now = world.people.node(NAME)?;
        (now["last_attested"].as_str() > node["last_attested"].as_str()).then_some(())
    });
    let after = becomes(&world, "pristine");
    assert_eq!(after["id"], node["id"], "another identity after a reboot");
    assert_eq!(
        world.people.violations("all").len(),
        violations,
        "a reboot raised something: {:#?}",
        world.people.violations("open")
    );

    goes_and_comes(&world, &machine);
    is_restarted(&world, &machine);
    world.check();
}

fn becomes(world: &World, status: &str) -> Value {
    eventually(&format!("the machine is {status}"), SLOWLY, || {
        let node = world.people.node(NAME)?;
        (node["status"] == status).then_some(node)
    })
}

/// The unit's walls do not take sight away, and `check` finds nothing to mend.
fn is_kept_by_systemd(machine: &Machine) {
    let token = machine.ssh("sudo ls /etc/pristine").exits(0);
    assert!(!token.out.contains("join-token"), "{}", token.out);
    let status = machine
        .ssh("sudo pristine-agent status --format json")
        .exits(0)
        .json();
    eprintln!("status: {status:#}");
    let check = machine.ssh("sudo pristine-agent check").exits(0);
    eprintln!("{}", check.out);
    let journal = machine
        .ssh("sudo journalctl --no-pager -o cat -u pristine-agent")
        .exits(0);
    for wrong in [
        "EPERM",
        "Operation not permitted",
        "Function not implemented",
        "panicked",
        "not confined",
    ] {
        assert!(!journal.out.contains(wrong), "{wrong}:\n{}", journal.out);
    }
    // It has the journal's fields, or what is looked for next could not be there.
    machine
        .ssh("sudo journalctl --no-pager -o verbose -u pristine-agent | grep -q PRISTINE_TARGET=")
        .exits(0);
    // Every wall of the network process stands, as far as this kernel has it: Linux 6.1 has an older Landlock.
    machine
        .ssh(
            "sudo journalctl --no-pager -o verbose -u pristine-agent | grep PRISTINE_MISSING= \
             | grep -v 'landlock: this kernel knows part of it'",
        )
        .exits(1);
}

/// A change in a login by an ordinary user with `sudo`: the alert names user, executable and session.
fn is_told_who(world: &World, machine: &Machine) {
    let put_back = format!(
        "sudo cp -a {0} /run/sshd_config.kept && echo '# changed' | sudo tee -a {0}",
        "/etc/ssh/sshd_config"
    );
    machine.ssh(&put_back).exits(0);
    let opened = eventually("the change is a violation", SLOWLY, || {
        world.people.open("difference", CHANGED)
    });
    let actor = &opened["actor"];
    eprintln!("violation: {opened:#}");
    assert_eq!(actor["user"], USER, "{actor:#}");
    assert_eq!(actor["exe"], "/usr/bin/tee", "{actor:#}");
    assert!(actor["session"].is_number(), "{actor:#}");
    let id = opened["id"].as_str().expect("an id");
    let alert = eventually("the alert", SLOWLY, || world.webhook.find("opened", id));
    assert_eq!(alert.violation()["actor"]["user"], USER);
    // Put back as it was, times included.
    machine
        .ssh("sudo cp -a /run/sshd_config.kept /etc/ssh/sshd_config && sudo rm /run/sshd_config.kept")
        .exits(0);
    world.is_resolved(&opened, SLOWLY);
    becomes(world, "pristine");
}

/// Linux 6.1 has no events of mounts: the mount table is polled.
fn is_told_of_a_mount(world: &World, machine: &Machine) {
    let node = world.people.node(NAME).expect("the node");
    let limits = node["coverage"]["watch"]["limits"].to_string();
    assert!(
        limits.contains("who mounts something is not told"),
        "{limits}"
    );
    machine
        .ssh("sudo mount -t tmpfs tmpfs /usr/local/games")
        .exits(0);
    let opened = eventually("the mount is a violation", SLOWLY, || {
        world.people.open("mount", "./usr/local/games")
    });
    machine.ssh("sudo umount /usr/local/games").exits(0);
    world.is_resolved(&opened, SLOWLY);
    becomes(world, "pristine");
}

/// `systemctl stop` is a goodbye.
fn goes_and_comes(world: &World, machine: &Machine) {
    machine.ssh("sudo systemctl stop pristine-agent").exits(0);
    becomes(world, "stopped");
    machine.ssh("sudo systemctl start pristine-agent").exits(0);
    becomes(world, "pristine");
}

/// `kill -9` is a gap, and the agent is back within seconds.
fn is_restarted(world: &World, machine: &Machine) {
    let pid = || {
        let said = machine
            .ssh("systemctl show -P MainPID pristine-agent")
            .exits(0);
        said.out.trim().to_owned()
    };
    let before = pid();
    machine
        .ssh("sudo systemctl kill -s KILL --kill-whom=main pristine-agent")
        .exits(0);
    eventually(
        "systemd has started it again",
        Duration::from_secs(30),
        || {
            let now = pid();
            (now != before && now != "0").then_some(())
        },
    );
    let gap = eventually("the gap is told", SLOWLY, || {
        let all = world.people.violations("all");
        all.into_iter().find(|violation| violation["kind"] == "gap")
    });
    eprintln!("gap: {gap:#}");
    becomes(world, "pristine");
}
