//! Login sessions as a node's statements tell them, put together by the collector: who, from where, what was run, what was changed.

use attestation::{
    digest::Digest,
    entry::Line,
    statement::{Actor, Session, SessionCommand, Touched},
    time::Timestamp,
};
use pristine_tests::{
    node::{Node, now},
    wait::{SOON, eventually},
    world::World,
};
use serde_json::json;

fn session(started: Timestamp, ran: &[(&str, Option<i32>)]) -> Session {
    let command = |(at, (exe, exit)): (usize, &(&str, Option<i32>))| SessionCommand {
        at: Timestamp::from_micros(started.as_micros() + i64::try_from(at).expect("few")),
        pid: 100 + u32::try_from(at).expect("few"),
        exe: (*exe).to_owned(),
        arguments: None,
        exit: *exit,
    };
    Session {
        session: 7,
        auid: 0,
        user: Some("root".to_owned()),
        from: Some("192.0.2.1".to_owned()),
        tty: Some("pts/0".to_owned()),
        started,
        ended: None,
        commands: ran.iter().enumerate().map(command).collect(),
        dropped: 0,
    }
}

#[test]
fn a_login_is_told_at_once_and_grows_with_each_statement() {
    let world = World::start();
    let node = Node::join(&world, "web-1");
    let began = now();
    let first = node.statement(|statement| {
        statement.predicate.sessions = vec![session(
            began,
            &[("/usr/bin/bash", None), ("/usr/bin/vi", None)],
        )];
    });
    let answer = node.send(&[first]).expect("an answer");
    assert_eq!(answer.status, 200);
    let id = node.id.to_string();
    let listed = world.people.list(&format!("/api/v1/nodes/{id}/sessions"));
    assert_eq!(listed.len(), 1, "{listed:#?}");
    assert_eq!(
        listed,
        world.people.list(&format!("/api/v1/sessions?node={id}"))
    );
    let login = &listed[0];
    assert_eq!(
        (&login["user"], &login["from"]),
        (&json!("root"), &json!("192.0.2.1"))
    );
    let line = eventually("the journal tells of the login", SOON, || {
        let journal = world.collector.journal();
        journal.into_iter().find(|line| line["event"] == "session")
    });
    assert_eq!(
        (&line["id"], &line["name"]),
        (&login["id"], &json!("web-1"))
    );

    // The shell goes on, the editor has ended and left a trace, the session is over.
    let second = node.statement(|statement| {
        let mut more = session(
            began,
            &[
                ("/usr/bin/bash", Some(0)),
                ("/usr/bin/vi", Some(1)),
                ("/usr/bin/rm", Some(0)),
            ],
        );
        more.ended = Some(now());
        more.dropped = 3;
        statement.predicate.sessions = vec![more];
        statement.predicate.touched = vec![Touched {
            path: "./etc/motd".parse().expect("a path"),
            event: "modify".to_owned(),
            count: 1,
            first: now(),
            last: now(),
            actor: Some(Actor {
                pid: 101,
                session: Some(7),
                ..Actor::default()
            }),
        }];
    });
    assert_eq!(node.send(&[second]).expect("an answer").status, 200);
    let own = login["id"].as_str().expect("an id");
    let whole = world.people.get(&format!("/api/v1/sessions/{own}"));
    let ran: Vec<_> = whole["ran"].as_array().expect("commands").iter().collect();
    assert_eq!(ran.len(), 3, "{whole:#}");
    assert_eq!(
        (&ran[1]["exe"], &ran[1]["exit"]),
        (&json!("/usr/bin/vi"), &json!(1))
    );
    assert_eq!(whole["dropped"], 3);
    assert!(!whole["ended"].is_null());
    assert_eq!(whole["touched"][0]["path"], "./etc/motd", "{whole:#}");
    assert_eq!(
        world.people.list("/api/v1/sessions").len(),
        1,
        "still the same session"
    );

    let page = world.people.page(&format!("/sessions/{own}"));
    assert!(page.shows("192.0.2.1") && page.shows("/usr/bin/vi") && page.shows("/etc/motd"));
    assert!(world.people.page("/sessions").shows("web-1"));
    assert!(world.people.page("/").shows("Logins of root"));
    let touched = world.people.violations("open");
    let violation = touched[0]["id"].as_str().expect("an id");
    let page = world.people.page(&format!("/violations/{violation}"));
    assert!(page.shows("Everything this session did"));
    world.check();
}

#[test]
fn pins_that_nobody_asked_for_are_not_taken() {
    let world = World::start();
    let node = Node::join(&world, "web-1");
    let line = Line::parse("./run/pipe type=fifo mode=0600 uid=0 gid=0").expect("a line");
    let pinned = attestation::pins::Pinned::of([line]);
    let file = pinned.file().expect("a file");
    let mut packed = Vec::new();
    attestation::manifest::compress(pinned.plain().as_slice(), &mut packed).expect("memory");
    let path = format!("/agent/v1/pins/{}", file.sha256);
    assert_eq!(
        node.put(&path, packed.clone()).expect("an answer").status,
        404
    );
    let statement = node.statement(|statement| statement.predicate.pins = Some(file));
    let answer = node.send(&[statement]).expect("an answer").json();
    assert_eq!(
        answer["requests"],
        json!([{"kind": "pins", "sha256": file.sha256}]),
        "{answer}"
    );
    assert_eq!(
        node.put(&path, b"garbage".to_vec())
            .expect("an answer")
            .status,
        400
    );
    let other = format!("/agent/v1/pins/{}", Digest::of(b"other"));
    assert_eq!(
        node.put(&other, packed.clone()).expect("an answer").status,
        404
    );
    assert_eq!(
        node.put(&path, packed.clone()).expect("an answer").status,
        201
    );
    assert_eq!(
        node.put(&path, packed).expect("an answer").status,
        200,
        "already here"
    );
    let mut much = file;
    much.size = 1 << 40;
    much.sha256 = Digest::of(b"much");
    let statement = node.statement(|statement| statement.predicate.pins = Some(much));
    assert_eq!(node.send(&[statement]).expect("an answer").status, 200);
    let path = format!("/agent/v1/pins/{}", much.sha256);
    assert_eq!(node.put(&path, vec![0]).expect("an answer").status, 413);
    world.check();
}
