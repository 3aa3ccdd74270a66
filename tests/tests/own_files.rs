//! The agent lies in the root that it attests: its program, unit, configuration and key are files there like any other, and every
//! statement names what it runs with.

use std::{fs, path::Path};

use attestation::digest::Digest;
use pristine_tests::{
    agent::Agent,
    change::change,
    left_out_without_root, program, roots,
    rows::Rows,
    sighting::{Sighting, content, difference},
    wait::{BY_EVENT, LATER, eventually},
    world::World,
};
use rustix::process::Signal;
use serde_json::Value;

const PROGRAM: &str = "usr/bin/pristine-agent";
const UNIT: &str = "usr/lib/systemd/system/pristine-agent.service";
const CONFIG: &str = "etc/pristine/agent.toml";
const STATE: &str = "var/lib/pristine/agent";

const fn longer(path: &str) -> Sighting<'_> {
    let file = Some("type=file");
    difference(path, &["size", "sha256digest"], file, file)
}

/// A root as the packages leave it, with the built-in scope, and the agent in it.
fn begin(world: &World, root: &Path) -> Agent {
    for file in [PROGRAM, UNIT, CONFIG] {
        let folder = root.join(file);
        fs::create_dir_all(folder.parent().expect("a folder")).expect("a folder");
    }
    fs::create_dir_all(root.join("var/lib/pristine")).expect("a folder");
    fs::copy(program::built().join("pristine-agent"), root.join(PROGRAM)).expect("a program");
    let unit =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd/pristine-agent.service");
    fs::copy(unit, root.join(UNIT)).expect("a unit");
    world.image(root, "base", "1.0", &["--scope", "host"]);
    let (folder, state) = (root.join("etc/pristine"), root.join(STATE));
    let door = &world.collector.doors.agents;
    let mut agent = Agent::with_state(&folder, "web-1", root, door, &state, "interval = 1\n");
    agent.enroll(&world.join_token()).exits(0);
    fs::remove_file(folder.join("join.token")).ok();
    agent.runner = vec![root.join(PROGRAM).into_os_string()];
    agent.begin();
    world.wait_for_status("web-1", "pristine");
    agent
}

fn digest(path: &Path) -> String {
    Digest::of(&fs::read(path).expect("a file")).to_string()
}

/// What the node's statements say of the agent.
fn stated(world: &World, what: &str) -> Value {
    let node = world.people.node("web-1").expect("the node");
    node["agent"][what].clone()
}

#[track_caller]
fn is_of(violation: &Value, expect: &str, severity: &str) {
    assert_eq!(violation["expect"], expect, "{violation:#}");
    assert_eq!(violation["severity"], severity, "{violation:#}");
}

#[test]
fn a_change_of_what_the_agent_is_made_of_is_told_by_the_agent_that_runs() {
    if left_out_without_root("an agent in the root that it attests") {
        return;
    }
    let world = World::start();
    let root = roots::small(&world.path("root"));
    let mut agent = begin(&world, &root);
    let running = (digest(&root.join(PROGRAM)), digest(&root.join(CONFIG)));
    let mut rows = Rows::of("the agent's own files");

    rows.row("its program: another one in its place", || {
        let doer = change(
            &root,
            // Its last bytes are a table that nobody needs to run it.
            "new = at(b'usr/bin/.new'); shutil.copy(at(b'usr/bin/pristine-agent'), new)
with open(new, 'r+b') as file: file.seek(-4, 2); file.write(b'more')
os.rename(new, at(b'usr/bin/pristine-agent'))",
        );
        // Tens of megabytes are read beside everything else.
        let told = content(&format!("./{PROGRAM}")).in_the_api(&world, LATER, Some(&doer));
        is_of(&told, "sealed", "critical");
        assert_eq!(stated(&world, "exe_sha256"), running.0, "it is what runs");
    });
    rows.row("its unit", || {
        let doer = change(&root, &format!("again(b'{UNIT}', b'#')"));
        let told = content(&format!("./{UNIT}")).in_the_api(&world, BY_EVENT, Some(&doer));
        is_of(&told, "sealed", "critical");
        assert!(told["actor"]["cmdline"].is_string(), "{told:#}");
    });
    rows.row(
        "its configuration: told, and named by every statement from when it holds",
        || {
            let doer = change(
                &root,
                // With arguments of sessions command lines are still known, and not told of whoever changes something.
                &format!("write(b'{CONFIG}', b'cmdline = false\\narguments = true\\n', os.O_WRONLY | os.O_APPEND)"),
            );
            let told = longer(&format!("./{CONFIG}")).in_the_api(&world, BY_EVENT, Some(&doer));
            is_of(&told, "local", "critical");
            assert_eq!(
                stated(&world, "config_sha256"),
                running.1,
                "it is what holds"
            );
            agent.signal(Signal::HUP);
            let now = digest(&root.join(CONFIG));
            eventually("the new configuration is named", LATER, || {
                (stated(&world, "config_sha256") == now).then_some(())
            });
        },
    );
    rows.row("its key", || {
        let key = root.join(STATE).join("node.key");
        let before = fs::read(&key).expect("a key");
        let path = format!("{STATE}/node.key");
        let doer = change(
            &root,
            &format!("write(b'{path}', b'#', os.O_WRONLY | os.O_APPEND)"),
        );
        let told = longer(&format!("./{path}")).in_the_api(&world, BY_EVENT, Some(&doer));
        assert_eq!(told["expect"], "local", "{told:#}");
        assert!(told["actor"]["cmdline"].is_null(), "{told:#}");
        fs::write(&key, before).expect("the key");
        world.is_resolved(&told, BY_EVENT);
    });
    rows.row("started again it names the program that it is then", || {
        assert!(agent.stop().success());
        agent.begin();
        let now = digest(&root.join(PROGRAM));
        assert_ne!(now, running.0);
        eventually("the other program is named", LATER, || {
            (stated(&world, "exe_sha256") == now).then_some(())
        });
    });
    assert!(agent.stop().success());
    world.check();
    rows.end();
}
