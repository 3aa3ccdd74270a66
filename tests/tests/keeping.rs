//! What the collector's operator does on its machine: accounts for when nobody can sign in, a backup while it runs, putting it back,
//! and finding out whether store, log and evidence agree.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use pristine_tests::{
    program::{Said, command, python},
    roots,
    wait::{LATER, SOON, eventually},
    world::World,
};
use serde_json::{Value, json};

const NODE: &str = "web-1";

fn collector(world: &World, arguments: &[&str]) -> Said {
    let config = world.path("collector").join("collector.toml");
    Said::by(
        command("pristine-collector")
            .args(arguments)
            .args(["--format", "json", "--config"])
            .arg(config),
    )
}

fn sql(store: &Path, statement: &str) {
    let program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.executescript(sys.argv[2]); c.commit()";
    let mut python = Command::new(python());
    python.args(["-c", program]).arg(store).arg(statement);
    Said::by(&mut python).exits(0);
}

#[test]
fn a_backup_made_while_it_runs_is_put_back_and_the_nodes_send_what_it_lacks() {
    let mut world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let agent = world.agent(NODE, &root);
    world.wait_for_status(NODE, "pristine");
    fs::write(root.join("usr/bin/tool-03"), "changed\n").expect("a change");
    let is_open = |world: &World, path: &'static str| {
        eventually(path, LATER, || world.people.open("difference", path));
    };
    is_open(&world, "./usr/bin/tool-03");

    let file = world.path("backup.tar.zst");
    let name = file.to_str().expect("a name").to_owned();
    let made = collector(&world, &["backup", &name]).exits(0).json();
    assert!(made["files"].as_u64() > Some(8), "{made}");
    let mode = fs::metadata(&file).expect("a backup").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds the keys");
    let again = collector(&world, &["backup", &name]).exits(2);
    assert!(again.err.contains("backup.tar.zst"), "{}", again.err);
    assert!(
        collector(&world, &["restore", &name])
            .exits(2)
            .err
            .contains("holds a collector")
    );

    fs::write(root.join("usr/bin/tool-04"), "after the backup\n").expect("a change");
    is_open(&world, "./usr/bin/tool-04");
    let before = world.people.node(NODE).expect("the node")["sequence"].as_u64();
    let checked = collector(&world, &["check"]).exits(0).json();
    assert!(checked["statements"].as_u64() > Some(2), "{checked}");
    assert_eq!(checked["findings"], json!([]));

    world.collector.kill();
    fs::rename(world.collector.state(), world.path("lost")).expect("a lost disk");
    let back = collector(&world, &["restore", &name]).exits(0).json();
    assert_eq!(back["files"], made["files"]);
    world.collector.begin();
    eventually("the node goes on where it was", LATER, || {
        let node = world.people.node(NODE)?;
        (node["sequence"].as_u64() > before).then_some(())
    });
    is_open(&world, "./usr/bin/tool-03");
    is_open(&world, "./usr/bin/tool-04");
    drop(agent);
    let checked = collector(&world, &["check"]).exits(0).json();
    assert_eq!(checked["findings"], json!([]));
    world.check();
}

#[test]
fn a_store_that_somebody_changed_does_not_agree() {
    let mut world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent(NODE, &root);
    world.wait_for_status(NODE, "pristine");
    fs::write(root.join("usr/bin/tool-03"), "changed\n").expect("a change");
    eventually("told", LATER, || {
        world.people.open("difference", "./usr/bin/tool-03")
    });
    assert!(agent.stop().success());
    world.collector.stop();
    collector(&world, &["check"]).exits(0);
    let store = world.collector.state().join("store.db");
    let kept = fs::read(&store).expect("the store");
    let manifests = world.collector.state().join("manifests");
    // Guards first, as whoever changes history has to; and what is found then.
    let rewritten: [(&str, &str); 6] = [
        ("DROP TRIGGER log_no_update;", "append-only"),
        (
            "DROP TRIGGER evidence_no_update; UPDATE evidence SET bytes = (SELECT bytes FROM evidence WHERE kind = 'image') WHERE kind = 'attestation';",
            "evidence",
        ),
        (
            "DROP TRIGGER log_no_delete; DELETE FROM log WHERE id = (SELECT max(id) - 1 FROM log WHERE type = 'attestation');",
            "log",
        ),
        ("DELETE FROM attestations WHERE sequence = 1;", "log"),
        (
            "UPDATE receipts SET envelope = (SELECT envelope FROM receipts LIMIT 1);",
            "receipt",
        ),
        (
            "UPDATE violations SET resolved = 1 WHERE resolved IS NULL;",
            "violation",
        ),
    ];
    for (statement, check) in rewritten {
        sql(&store, statement);
        let found = collector(&world, &["check"]).exits(1).json();
        let findings = found["findings"].as_array().expect("findings");
        assert!(
            findings.iter().any(|it| it["check"] == check),
            "{statement}\n{found:#}"
        );
        fs::write(&store, &kept).expect("the store as it was");
    }
    let manifest = fs::read_dir(&manifests).expect("manifests").next();
    let manifest = manifest.expect("one").expect("one").path();
    fs::write(&manifest, "another").expect("another manifest");
    let found = collector(&world, &["check"]).exits(1).json();
    assert_eq!(found["findings"][0]["check"], "manifest", "{found:#}");
}

#[test]
fn accounts_are_made_changed_and_disabled_beside_a_running_collector() {
    let world = World::start();
    let door = world.people.stranger();
    let signs_in = |user: &str, password: &str| {
        let body = json!({"user": user, "password": password});
        let answer = door.ask("POST", "/api/v1/sessions", Some(&body));
        answer.expect("an answer").status
    };
    let made = collector(&world, &["user", "add", "ann"]).exits(0).json();
    let first = made["password"].as_str().expect("a password").to_owned();
    assert!((200..300).contains(&signs_in("ann", &first)));
    collector(&world, &["user", "add", "ann"]).exits(2);
    collector(&world, &["user", "passwd", "nobody"]).exits(2);

    let file = world.path("password");
    fs::write(&file, "correct horse battery staple\n").expect("a password");
    let name = file.to_str().expect("a name").to_owned();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("a mode");
    let loose = collector(&world, &["user", "passwd", "ann", "--password-file", &name]).exits(78);
    assert!(loose.err.contains("others may read"), "{}", loose.err);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
    let set = collector(&world, &["user", "passwd", "ann", "--password-file", &name]).exits(0);
    assert_eq!(set.json().get("password"), None, "it is known already");
    assert_eq!(signs_in("ann", &first), 401);
    assert!((200..300).contains(&signs_in("ann", "correct horse battery staple")));

    collector(&world, &["user", "disable", "ann"]).exits(0);
    assert_eq!(signs_in("ann", "correct horse battery staple"), 401);
    let listed = collector(&world, &["user", "list"]).exits(0).json();
    let ann = listed.as_array().expect("accounts").iter();
    let ann: Vec<&Value> = ann.filter(|it| it["user"] == "ann").collect();
    assert!(ann[0]["disabled"].is_string(), "{listed}");
    // Who did it, where nobody has signed in: the user of that machine.
    let store = world.collector.state().join("store.db");
    let program = "import sqlite3, sys; print(*[' '.join(r) for r in sqlite3.connect(sys.argv[1]).execute(\"SELECT action, target, user FROM actions WHERE target = 'ann' ORDER BY id\")], sep='\\n')";
    let mut python = Command::new(python());
    let noted = Said::by(python.args(["-c", program]).arg(store)).exits(0);
    let uid = rustix::process::geteuid().as_raw();
    let lines: Vec<String> = ["add", "password", "disable"]
        .iter()
        .map(|done| format!("account.{done} ann uid {uid} on the collector"))
        .collect();
    assert_eq!(noted.out.trim(), lines.join("\n"));
    eventually("still ready", SOON, || {
        door.ask("GET", "/readyz", None).filter(|a| a.status == 200)
    });
}
