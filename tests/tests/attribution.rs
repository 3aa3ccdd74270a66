//! Who did it, in the signed statements of the real agent.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use attestation::{
    dsse::Envelope,
    statement::{Attestation, Session, Statement},
};
use pristine_tests::{
    collector::Options,
    left_out_without_root, roots,
    wait::{SOON, eventually},
    world::World,
};

/// A program under the name of a login service, which is what makes a login of what it starts.
fn login_service(folder: &Path) -> PathBuf {
    let service = folder.join("sshd");
    fs::copy("/bin/sh", &service).expect("a copy of the shell");
    service
}

/// The node's statements from the newest back, at most so many.
fn statements(world: &World, id: &str) -> Vec<Statement<Attestation>> {
    let node = world.people.get(&format!("/api/v1/nodes/{id}"));
    let mut next = node["statement"].as_str().map(str::to_owned);
    let mut statements = Vec::new();
    while let Some(digest) = next.take().filter(|_| statements.len() < 200) {
        let kept = world
            .people
            .ask("GET", &format!("/api/v1/evidence/{digest}"), None)
            .filter(|answer| answer.status == 200);
        let Some(kept) = kept else { break };
        let envelope = Envelope::from_json(&kept.body).expect("an envelope");
        let statement: Statement<Attestation> = envelope.peek().expect("an attestation");
        next = statement
            .predicate
            .previous
            .map(|digest| digest.to_string());
        statements.push(statement);
    }
    statements
}

/// All that was told of a login user's sessions, the oldest first.
fn told(world: &World, id: &str, auid: u32) -> Vec<Session> {
    statements(world, id)
        .into_iter()
        .rev()
        .flat_map(|statement| statement.predicate.sessions)
        .filter(|session| session.auid == auid)
        .collect()
}

fn has_no_logins() -> bool {
    let none = !Path::new("/proc/self/loginuid").exists();
    if none {
        eprintln!("left out: this kernel has no login users");
    }
    none
}

#[test]
fn a_login_of_root_is_told_at_once_and_what_it_changes_names_it() {
    if left_out_without_root("a login of root") || has_no_logins() {
        return;
    }
    // No heartbeat comes within this test.
    let world = World::with(&Options {
        interval: 600,
        ..Options::default()
    });
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    let id = world.id("web-1");
    let service = login_service(&world.path(""));

    let script = format!(
        "echo 0 > /proc/self/loginuid; /bin/sh -c 'read word; echo 8080 > {}; exit 3'; read word",
        root.join("etc/app/app.conf").display()
    );
    let mut login = Command::new(&service)
        .args(["-c", &script])
        .env("SSH_CONNECTION", "192.0.2.77 50000 192.0.2.1 22")
        .stdin(Stdio::piped())
        .spawn()
        .expect("a login");
    let session = eventually("the login is told", SOON, || {
        told(&world, &id, 0).into_iter().next()
    });
    assert_eq!(session.user.as_deref(), Some("root"));
    assert!(session.ended.is_none());

    let say = |login: &mut std::process::Child| {
        let mut stdin = login.stdin.as_ref().expect("piped");
        std::io::Write::write_all(&mut stdin, b"go\n").expect("a word to it");
    };
    say(&mut login);
    let violation = eventually("its change is told", SOON, || {
        world.people.open("difference", "./etc/app/app.conf")
    });
    let actor = &violation["actor"];
    assert_eq!(actor["session"], session.session, "{violation}");
    assert_eq!(actor["auid"], 0, "{violation}");
    assert_eq!(actor["confidence"], "high", "{violation}");
    assert!(actor["exe_sha256"].is_string(), "{violation}");

    say(&mut login);
    assert!(login.wait().expect("it ends").success());
    // What is over is told with the next statement; whoever waits for a process may hear of its end before the agent does.
    let undo = root.join("etc/app/app.conf");
    let all = eventually("the end is told", SOON, || {
        fs::write(&undo, "listen = 80\n").expect("a file");
        let all = told(&world, &id, 0);
        all.last()
            .is_some_and(|last| last.ended.is_some())
            .then_some(all)
    });
    assert!(all.iter().all(|told| told.session == session.session));
    let last = all.last().expect("a session");
    assert_eq!(last.from.as_deref(), Some("192.0.2.77"));
    let shell = fs::canonicalize("/bin/sh").expect("a shell");
    let command = all
        .iter()
        .flat_map(|told| &told.commands)
        .filter(|command| Path::new(&command.exe) == shell)
        .find(|command| command.exit.is_some())
        .expect("the shell that changed it");
    assert_eq!(command.exit, Some(3));
    assert_eq!(command.arguments, None);
    drop(agent);
}

#[test]
fn who_sets_a_login_user_for_itself_is_told_with_doubt_and_has_no_session() {
    if left_out_without_root("a forged login") || has_no_logins() {
        return;
    }
    let world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    let id = world.id("web-1");
    // The kernel tells nobody that a login user was set: of a process that has gone it is known only if it was looked at in time, so
    // both stay until they are told to go.
    let script = format!(
        "echo 4242 > /proc/self/loginuid; /bin/sh -c 'echo 8080 > {}; read go'; exit 0",
        root.join("etc/app/app.conf").display()
    );
    let mut forger = Command::new("/bin/sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    let violation = eventually("the change is told", SOON, || {
        world.people.open("difference", "./etc/app/app.conf")
    });
    assert_eq!(violation["actor"]["auid"], 4242, "{violation}");
    assert_eq!(violation["actor"]["confidence"], "low", "{violation}");
    assert_eq!(told(&world, &id, 4242), []);
    drop(forger.stdin.take());
    assert!(forger.wait().is_ok_and(|status| status.success()));
    drop(agent);
}
