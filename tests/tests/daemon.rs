//! The daemon: its network process, what it gives up, what it tells the service manager, and what `check` finds.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use pristine_tests::{
    agent::Agent,
    collector::Options,
    left_out_without_root,
    manager::Manager,
    program::Said,
    roots,
    wait::{LATER, SOON, eventually},
    world::World,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The value of a field in `/proc/PID/status`.
fn held(pid: u64, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.map_or_else(String::new, |rest| {
        rest.trim_start_matches(':').trim().to_owned()
    })
}

/// How a thread of this name is weighed, once it is there: `nice`, and the class of its I/O as `ionice` says it.
fn weight(pid: u64, name: &str) -> Option<(i64, String)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let stat = threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok())
        .find(|stat| stat.contains(&format!("({name})")))?;
    let fields: Vec<_> = stat.split_whitespace().collect();
    let class = Said::by(Command::new("ionice").args(["-p", fields[0]])).out;
    Some((fields[18].parse().ok()?, class.trim().to_owned()))
}

/// The network process once it is ready, by `status`.
fn network_process(agent: &Agent, after: u64) -> u64 {
    eventually("the network process is ready", LATER, || {
        let status = agent.status()?;
        let network = &status["network"];
        (network["starts"].as_u64()? > after && network["confined"] == true)
            .then(|| network["pid"].as_u64())
            .flatten()
    })
}

#[test]
fn the_network_is_a_process_without_rights_and_the_agent_holds_what_it_needs() {
    if left_out_without_root("the daemon's processes") {
        return;
    }
    let world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");

    let network = network_process(&agent, 0);
    assert_ne!(held(network, "Uid"), "0\t0\t0\t0");
    assert!(!held(network, "Uid").split('\t').any(|uid| uid == "0"));
    assert!(!held(network, "Gid").split('\t').any(|gid| gid == "0"));
    assert_eq!(held(network, "Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(held(network, set), "0000000000000000", "{set}");
    }
    assert_eq!(held(network, "NoNewPrivs"), "1");
    assert_eq!(held(network, "Seccomp"), "2");
    let status = agent.status().expect("a status");
    assert_eq!(status["network"]["missing"], serde_json::json!([]));
    // Nothing of the agent's is open in it: two sockets, a pipe, its own.
    let key = agent.state().join("node.key");
    for fd in fs::read_dir(format!("/proc/{network}/fd")).expect("descriptors") {
        let target = fs::read_link(fd.expect("a descriptor").path()).unwrap_or_default();
        assert!(!target.starts_with(agent.state()), "{target:?}");
        assert_ne!(target, key);
    }

    let own = u64::from(agent.pid().expect("a process"));
    assert_eq!(held(own, "NoNewPrivs"), "1");
    let permitted = u64::from_str_radix(&held(own, "CapPrm"), 16).expect("a set");
    let bounding = u64::from_str_radix(&held(own, "CapBnd"), 16).expect("a set");
    // Among what it gave up: loading modules, writing any file, making devices, booting.
    for bit in [1_u32, 16, 17, 22, 27] {
        assert_eq!(permitted >> bit & 1, 0, "capability {bit}");
        assert_eq!(
            bounding >> bit & 1,
            0,
            "capability {bit} of the bounding set"
        );
    }
    let idle = (19, "idle".to_owned());
    eventually("what reads content again gives way", SOON, || {
        (weight(own, "reread")? == idle).then_some(())
    });
    let limits = fs::read_to_string(format!("/proc/{own}/limits")).expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core"));
    assert!(core.is_some_and(|line| line.split_whitespace().nth(4) == Some("0")));

    // It ends with the agent, however that ends.
    agent.kill();
    eventually("the network process is gone", SOON, || {
        (!Path::new(&format!("/proc/{network}")).exists()
            || held(network, "State").starts_with('Z'))
        .then_some(())
    });
    world.check();
}

#[test]
fn a_network_process_that_is_killed_comes_back_and_nothing_is_lost() {
    if left_out_without_root("the daemon's processes") {
        return;
    }
    let world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    let pid = agent.pid();
    for round in 0..3_u64 {
        let network = network_process(&agent, round);
        let file = root.join(format!("usr/bin/tool-{round:02}"));
        let process = i32::try_from(network).ok().and_then(Pid::from_raw);
        kill_process(process.expect("a process"), Signal::KILL).expect("a kill");
        fs::write(&file, "changed while nobody could tell\n").expect("a change");
        let path = format!("./usr/bin/tool-{round:02}");
        eventually("the change is told", LATER, || {
            world.people.open("difference", &path)
        });
    }
    assert_eq!(agent.pid(), pid);
    assert!(agent.runs(), "the agent itself goes on");
    let open: Vec<Value> = world.people.violations("open");
    let kinds: Vec<&str> = open.iter().filter_map(|v| v["kind"].as_str()).collect();
    assert!(
        kinds.iter().all(|kind| *kind == "difference"),
        "nothing but the changes is told: {kinds:?}"
    );
    world.check();
}

#[test]
fn a_service_manager_hears_of_readiness_life_reloads_and_the_end() {
    // No heartbeat comes by itself: what wakes the agent is what it owes to the service manager, and then its own interval.
    let world = World::with(&Options {
        interval: 600,
        ..Options::default()
    });
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let folder = world.path("web-1");
    let door = world.collector.doors.agents.clone();
    let mut agent = Agent::configured(&folder, "web-1", &root, &door, "");
    agent.enroll(&world.join_token()).exits(0);
    // A sign of life is due four times as often as it is waited for.
    let manager = Manager::listening(&world.path("notify"), Duration::from_secs(4));
    agent.begin_with(&manager.environment());
    assert_eq!(manager.hears(), "READY=1");
    world.wait_for_status("web-1", "pristine");
    drop(manager.heard());
    for _ in 0..3 {
        assert!(manager.hears_life());
    }
    let before = agent.status().expect("a status");

    // What can change does, without a goodbye; what is wrong is told and not taken.
    let config = fs::read_to_string(agent.config()).expect("a configuration");
    let right = format!("{config}interval = 1\ncmdline = false\n");
    fs::write(agent.config(), &right).expect("a write");
    agent.signal(Signal::HUP);
    let reloading = manager.hears();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading:?}"
    );
    assert_eq!(manager.hears(), "READY=1");
    fs::write(agent.config(), format!("{config}intervall = 1\n")).expect("a write");
    agent.signal(Signal::HUP);
    assert!(manager.hears().starts_with("RELOADING=1"));
    assert_eq!(manager.hears(), "READY=1");
    // What asks for the status reads the file too.
    fs::write(agent.config(), &right).expect("a write");
    let sequence = |status: &Value| status["sequence"].as_u64().unwrap_or(0);
    // More than the reload itself makes the agent say.
    let after = eventually("heartbeats come each second", SOON, || {
        let after = agent.status()?;
        (sequence(&after) > sequence(&before) + 5).then_some(after)
    });
    assert_eq!(after["pid"], before["pid"]);
    assert_eq!(after["since"], before["since"], "the watch had no break");
    assert_eq!(world.people.violations("all"), Vec::<Value>::new());

    assert!(agent.stop().success());
    assert_eq!(manager.hears(), "STOPPING=1");
    world.wait_for_status("web-1", "stopped");
    world.check();
}

/// The finding of a name in what `check` printed.
fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    let findings = report["findings"].as_array().expect("findings");
    findings
        .iter()
        .find(|finding| finding["name"] == name)
        .unwrap_or_else(|| panic!("no finding {name} in {report:#}"))
}

#[test]
fn a_good_node_is_ready_and_a_broken_one_is_told_what_to_do() {
    if left_out_without_root("what a node lacks") {
        return;
    }
    let mut world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    let check = |code| Said::by(agent.command("check").args(["--format", "json"])).exits(code);
    let report = check(0).json();
    assert_eq!(report["ready"], true);
    for name in [
        "configuration",
        "permissions",
        "privileges",
        "state",
        "identity",
        "collector",
        "clock",
        "joining door",
        "network process",
        "agent",
        "agent's rights",
        "watch",
        "process events",
        "landlock",
        "seccomp",
    ] {
        assert_eq!(finding(&report, name)["grade"], "ok", "{report:#}");
    }
    for name in [
        "mount events",
        "below mounts",
        "statx",
        "leases",
        "login uids",
        "unit",
    ] {
        assert_ne!(finding(&report, name)["grade"], "fail", "{report:#}");
    }
    let text = Said::by(&mut agent.command("check")).exits(0).out;
    assert!(
        text.lines()
            .last()
            .is_some_and(|line| line.starts_with("this node is ready"))
    );

    // A collector that is not there.
    world.collector.stop();
    let report = check(1).json();
    let collector = finding(&report, "collector");
    assert_eq!(collector["grade"], "fail");
    let remedy = collector["remedy"].as_str().unwrap_or_default();
    assert!(remedy.contains("nothing listens there"), "{remedy}");
    world.collector.begin();

    // A configuration that others may replace, and one that is wrong.
    let folder = agent.config().parent().expect("a folder").to_owned();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("a mode");
    let report = check(1).json();
    assert_eq!(finding(&report, "permissions")["grade"], "fail");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("a mode");
    let config = fs::read_to_string(agent.config()).expect("a configuration");
    fs::write(agent.config(), format!("{config}colectors = []\n")).expect("a write");
    let report = check(1).json();
    let found = finding(&report, "configuration")["found"]
        .as_str()
        .unwrap_or_default();
    assert!(found.contains("did you mean \"collectors\"?"), "{found}");

    // A node that has not joined.
    let door = world.collector.doors.agents.clone();
    let stranger = Agent::configured(&world.path("web-2"), "web-2", &root, &door, "");
    let report = Said::by(stranger.command("check").args(["--format", "json"]))
        .exits(1)
        .json();
    assert_eq!(finding(&report, "identity")["grade"], "fail");
    let remedy = finding(&report, "identity")["remedy"]
        .as_str()
        .unwrap_or_default();
    assert!(remedy.contains("enroll"), "{remedy}");
}
