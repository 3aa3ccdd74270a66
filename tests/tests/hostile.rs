//! Hostile input at the agents' door, from somebody who holds a real node's key: refused with a clear code, counted, nothing stored,
//! and the node goes on afterwards.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use attestation::{
    digest::Digest,
    dsse::Envelope,
    key::{Algorithm, PrivateKey},
    scope::Expect,
    statement::{Difference, Subject},
};
use flate2::{Compression, write::GzEncoder};
use pristine_tests::{
    node::{Node, anonymous, now, post, refusal, self_signed},
    people::Answer,
    roots,
    wait::{SOON, eventually},
    world::World,
};
use serde_json::{Value, json};

/// The name of the node that is used for everything here.
const NAME: &str = "odd-node-17";
const ATTESTATIONS: &str = "/agent/v1/attestations";

/// A world with one node that has been taken seriously once.
fn world_with_node() -> (World, Node) {
    let world = World::start();
    let node = Node::join(&world, NAME);
    goes_on(&node);
    (world, node)
}

/// The node's next statement is taken as if nothing had been.
#[track_caller]
fn goes_on(node: &Node) {
    let answer = node.send(&[node.statement(|_| {})]).expect("an answer");
    assert_eq!(
        refusal(&answer),
        None,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    assert_eq!(answer.json()["fresh"], true);
}

/// The statement is refused with a code, counted, not stored, and the node goes on.
#[track_caller]
fn is_refused(world: &World, node: &Node, statement: &Envelope) -> String {
    let counted = refusals(world);
    let expected = node.challenge().expected;
    let answer = node
        .send(std::slice::from_ref(statement))
        .expect("an answer");
    let code = refusal(&answer)
        .unwrap_or_else(|| panic!("taken: {}", String::from_utf8_lossy(&answer.body)));
    assert!(
        !code.starts_with("HTTP"),
        "no code: {}",
        String::from_utf8_lossy(&answer.body)
    );
    assert_eq!(
        evidence(world, &statement.payload_digest()).status,
        404,
        "{code}: it was stored"
    );
    assert_eq!(
        node.challenge().expected,
        expected,
        "{code}: it moved the sequence"
    );
    assert!(refusals(world) > counted, "{code}: it was not counted");
    goes_on(node);
    code
}

/// A body is turned away whole, counted, and the node goes on.
#[track_caller]
fn body_is_refused(
    world: &World,
    node: &Node,
    what: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> u16 {
    let counted = refusals(world);
    let expected = node.challenge().expected;
    // A door may answer and close before it has read everything; then the sender sees a broken connection.
    let answer = node.post(ATTESTATIONS, headers, body);
    if let Some(answer) = &answer {
        assert!(
            (400..500).contains(&answer.status),
            "{what}: {} {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        assert_eq!(answer.content_type, "application/problem+json", "{what}");
        assert!(
            answer.json()["code"].is_string(),
            "{what}: no code in {}",
            answer.json()
        );
    }
    assert_eq!(
        node.challenge().expected,
        expected,
        "{what}: it moved the sequence"
    );
    eventually(&format!("{what} is counted"), SOON, || {
        (refusals(world) > counted).then_some(())
    });
    goes_on(node);
    answer.map_or(0, |answer| answer.status)
}

fn refusals(world: &World) -> f64 {
    world.people.metric("pristine_ingest_refused", &[])
}

fn evidence(world: &World, digest: &Digest) -> Answer {
    world
        .people
        .ask("GET", &format!("/api/v1/evidence/{digest}"), None)
        .expect("an answer")
}

fn violation(world: &World, kind: &str) -> Value {
    eventually(&format!("a violation of kind {kind}"), SOON, || {
        world
            .people
            .violations("all")
            .into_iter()
            .find(|violation| violation["kind"] == kind)
    })
}

#[test]
fn statements_that_are_not_this_nodes_own_or_not_the_next_are_refused() {
    let (world, node) = world_with_node();
    let other = Node::join(&world, "other");
    goes_on(&other);

    let good = node.statement(|_| {});
    let mut broken: Value = serde_json::from_slice(&good.to_json()).expect("JSON");
    let mut sig = broken["signatures"][0]["sig"]
        .as_str()
        .expect("a signature")
        .to_owned();
    sig.replace_range(4..5, if &sig[4..5] == "A" { "B" } else { "A" });
    broken["signatures"][0]["sig"] = sig.into();
    let broken: Envelope = serde_json::from_value(broken).expect("an envelope");
    eprintln!("wrong signature: {}", is_refused(&world, &node, &broken));

    let key = PrivateKey::generate(Algorithm::Ed25519).expect("a key");
    let foreign =
        Envelope::sign(node.statement(|_| {}).payload().to_vec(), &key).expect("a signature");
    eprintln!("other key: {}", is_refused(&world, &node, &foreign));
    let unsigned = Envelope::unsigned(node.statement(|_| {}).payload().to_vec());
    eprintln!("no signature: {}", is_refused(&world, &node, &unsigned));

    let theirs = other.statement(|_| {});
    eprintln!(
        "another node's bytes: {}",
        is_refused(&world, &node, &theirs)
    );
    let about =
        node.statement(|s| s.subject = vec![Subject::of_tree(other.id.to_string(), &Digest::ZERO)]);
    eprintln!("about another node: {}", is_refused(&world, &node, &about));
    let jump = node.statement(|s| s.predicate.sequence += 5);
    assert_eq!(is_refused(&world, &node, &jump), "sequence");
    let expected = node.challenge().expected;
    let answer = node
        .send(&[node.statement(|s| s.predicate.sequence += 5)])
        .expect("an answer")
        .json();
    let told = if answer["refused"].is_null() {
        &answer["expected"]
    } else {
        &answer["refused"]["expected"]
    };
    assert_eq!(told["sequence"], expected.sequence, "{answer}");
    let unchained = node.statement(|s| s.predicate.previous = Some(Digest::of(b"another history")));
    eprintln!("another history: {}", is_refused(&world, &node, &unchained));

    goes_on(&other);
    world.check();
}

#[test]
fn bodies_that_are_not_requests_are_refused() {
    let (world, node) = world_with_node();
    let good = json!({ "statements": [node.statement(|_| {})] })
        .to_string()
        .into_bytes();
    let refused = |what: &str, headers: &[(&str, &str)], body: Vec<u8>| {
        body_is_refused(&world, &node, what, headers, body)
    };

    refused("a truncated body", &[], good[..good.len() / 2].to_vec());
    refused("an empty body", &[], Vec::new());
    refused(
        "garbage",
        &[],
        (0..4096u32)
            .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2])
            .collect(),
    );
    refused(
        "a member named twice",
        &[],
        br#"{"statements":[],"statements":[]}"#.to_vec(),
    );
    refused("another shape", &[], br#"{"statements":{"a":1}}"#.to_vec());
    refused(
        "deep nesting",
        &[],
        [vec![b'['; 100_000], vec![b']'; 100_000]].concat(),
    );
    refused(
        "257 statements",
        &[],
        json!({ "statements": vec![node.statement(|_| {}); 257] })
            .to_string()
            .into_bytes(),
    );
    assert_eq!(
        refused("more than 8 MiB", &[], vec![b' '; 9 << 20]) % 413,
        0
    );

    let gzip: &[(&str, &str)] = &[("content-encoding", "gzip")];
    refused("truncated gzip", gzip, gzipped(&good)[..20].to_vec());
    refused("gzip that is none", gzip, good.clone());
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    std::io::copy(&mut std::io::repeat(b' ').take(1 << 30), &mut bomb).expect("compression");
    let bomb = bomb.finish().expect("compression");
    let began = Instant::now();
    assert_eq!(refused("a decompression bomb", gzip, bomb.clone()) % 413, 0);
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "the bomb took {:?}",
        began.elapsed()
    );
    refused("a bomb in a bomb", gzip, gzipped(&bomb));
    refused("an unknown encoding", &[("content-encoding", "br")], good);
    world.check();
}

#[test]
fn raw_bytes_at_the_agents_door_end_the_connection_and_nothing_else() {
    let (world, node) = world_with_node();
    let began = Instant::now();
    let head = format!(
        "POST {ATTESTATIONS} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    );
    let declared = node
        .shout(format!("{head}Content-Length: 10737418240\r\n\r\n{{\"statements\": [").as_bytes());
    assert!(
        declared.starts_with("HTTP/1.1 413"),
        "10 GB declared: {declared}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "it waited for 10 GB: {:?}",
        began.elapsed()
    );
    goes_on(&node);

    let twice = node
        .shout(format!("{head}Content-Length: 5\r\nContent-Length: 50\r\n\r\nhello").as_bytes());
    assert!(
        twice.is_empty() || twice.starts_with("HTTP/1.1 4"),
        "two lengths: {twice}"
    );
    let chunk =
        node.shout(format!("{head}Transfer-Encoding: chunked\r\n\r\nzzzz\r\nhello").as_bytes());
    assert!(
        chunk.is_empty() || chunk.starts_with("HTTP/1.1 4"),
        "a bad chunk: {chunk}"
    );
    let noise: Vec<u8> = (0..65_536u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let said = node.shout(&noise);
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 4"),
        "noise: {said}"
    );
    goes_on(&node);

    let mut plain = TcpStream::connect(node.door.trim_start_matches("https://")).expect("the door");
    plain
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    // The door may close while this is still being written.
    plain.write_all(&noise).ok();
    let mut said = Vec::new();
    plain.read_to_end(&mut said).ok();
    assert!(
        said.len() < 1024,
        "{} bytes for noise without TLS",
        said.len()
    );
    goes_on(&node);
    world.check();
}

#[test]
fn the_same_bytes_again_get_the_same_receipt() {
    let (world, node) = world_with_node();
    let statement = node.statement(|_| {});
    let first = node
        .send(std::slice::from_ref(&statement))
        .expect("an answer")
        .json();
    let expected = node.challenge().expected;
    let again = node
        .send(std::slice::from_ref(&statement))
        .expect("an answer")
        .json();
    assert!(first["receipts"][0].is_object());
    assert_eq!(first["receipts"], again["receipts"]);
    assert_eq!(node.challenge().expected, expected, "nothing new");
    goes_on(&node);
    let later = node.send(&[statement]).expect("an answer").json();
    assert_eq!(first["receipts"], later["receipts"]);
    assert!(
        world.people.violations("all").is_empty(),
        "{:#?}",
        world.people.violations("all")
    );
}

#[test]
fn a_fork_is_told_with_both_envelopes_kept() {
    let (world, node) = world_with_node();
    let challenge = node.challenge();
    let one = node.statement_after(
        &challenge.expected,
        Some(challenge.challenge.clone()),
        |_| {},
    );
    let answer = node.send(std::slice::from_ref(&one)).expect("an answer");
    assert_eq!(refusal(&answer), None);
    let two = node.statement_after(&challenge.expected, Some(challenge.challenge), |s| {
        s.predicate.monotonic += 1
    });
    let answer = node.send(std::slice::from_ref(&two)).expect("an answer");
    eprintln!("fork: {} {}", answer.status, answer.json());
    let told = violation(&world, "fork");
    assert_eq!(told["node"], node.id.to_string());
    eventually("the webhook is told", SOON, || {
        world
            .webhook
            .find("opened", told["id"].as_str().expect("an id"))
    });
    for envelope in [&one, &two] {
        let kept = evidence(&world, &envelope.payload_digest());
        assert_eq!(kept.status, 200);
        let kept = Envelope::from_json(&kept.body).expect("an envelope");
        assert_eq!(kept.payload(), envelope.payload());
        assert!(kept.check(&[node.key.public()], 1).is_ok());
    }
    world.check();
}

#[test]
fn another_nodes_bytes_are_told_as_a_replay() {
    let (world, node) = world_with_node();
    let other = Node::join(&world, "other");
    goes_on(&other);
    is_refused(&world, &node, &other.statement(|_| {}));
    let told = violation(&world, "replay");
    eventually("the webhook is told", SOON, || {
        world
            .webhook
            .find("opened", told["id"].as_str().expect("an id"))
    });
    world.check();
}

#[test]
fn differences_that_do_not_explain_the_tree_are_stored_and_unexplained() {
    let (world, node) = world_with_node();
    let root = roots::small(&world.path("root"));
    let image = world.image(&root, "base", "1.0", &[]);
    let shown = world.run([
        std::ffi::OsStr::new("image"),
        "show".as_ref(),
        image.file.as_os_str(),
        "--format".as_ref(),
        "json".as_ref(),
    ]);
    let shown = shown.exits(0).json();
    let tree: Digest = shown["tree"]
        .as_str()
        .expect("a tree")
        .parse()
        .expect("a digest");
    let payload: Digest = image.sha256.parse().expect("a digest");
    let entries = shown["entries"].as_u64().expect("a number");
    let honest =
        |statement: &mut attestation::statement::Statement<attestation::statement::Attestation>| {
            statement.predicate.image = Some(payload);
            statement.predicate.entries = entries;
            statement.subject = vec![Subject::of_tree(node.id.to_string(), &tree)];
        };
    let verdict = |statement: Envelope| {
        let digest = statement.payload_digest();
        let answer = node.send(&[statement]).expect("an answer");
        assert_eq!(refusal(&answer), None, "{}", answer.json());
        assert_eq!(
            evidence(&world, &digest).status,
            200,
            "right key and in sequence: always stored"
        );
        answer.json()["verdict"].clone()
    };
    assert_eq!(verdict(node.statement(honest)), "pristine");
    let other_tree = node.statement(|s| {
        honest(s);
        s.subject = vec![Subject::of_tree(
            node.id.to_string(),
            &Digest::of(b"another tree"),
        )];
    });
    assert_eq!(verdict(other_tree), "unexplained");
    violation(&world, "unexplained");
    let line = |text: &str| Some(attestation::entry::Line::parse(text).expect("a line"));
    let left_out = node.statement(|s| {
        honest(s);
        s.predicate.differences = vec![Difference {
            path: "./usr/sbin/backdoor".parse().expect("a path"),
            expect: Expect::Sealed,
            expected: None,
            found: line("./usr/sbin/backdoor type=dir mode=0755 uid=0 gid=0"),
            actor: None,
            at: now(),
        }];
    });
    assert_eq!(verdict(left_out), "unexplained");
    assert_eq!(verdict(node.statement(honest)), "pristine");
    world.check();
}

#[test]
fn a_stale_or_unknown_challenge_makes_nobody_fresh() {
    let (world, node) = world_with_node();
    let used = node.challenge();
    let first = node.statement_after(&used.expected, Some(used.challenge.clone()), |_| {});
    assert_eq!(
        node.send(&[first]).expect("an answer").json()["fresh"],
        true
    );
    let unknown = "5".repeat(used.challenge.len());
    for challenge in [
        None,
        Some(unknown),
        Some(used.challenge.clone()),
        Some(String::new()),
    ] {
        let expected = node.challenge().expected;
        let statement = node.statement_after(&expected, challenge.clone(), |_| {});
        let answer = node.send(&[statement]).expect("an answer");
        assert_eq!(refusal(&answer), None, "{challenge:?}: history is taken");
        assert_eq!(answer.json()["fresh"], false, "{challenge:?}");
    }
    // Nothing fresh any more: history alone fills no silence.
    let name = node.id.to_string();
    let status = || world.people.node(&name).map(|node| node["status"].clone());
    eprintln!("after the last fresh statement: {:?}", status());
    eventually(
        "the silence is told in spite of history",
        Duration::from_secs(60),
        || {
            let expected = node.challenge().expected;
            node.send(&[node.statement_after(&expected, None, |_| {})]);
            std::thread::sleep(Duration::from_millis(500));
            world
                .people
                .violations("open")
                .into_iter()
                .find(|v| v["kind"] == "silence")
        },
    );
    goes_on(&node);
    eventually("it is heard again", SOON, || {
        (!world
            .people
            .violations("open")
            .iter()
            .any(|v| v["kind"] == "silence"))
        .then_some(())
    });
}

#[test]
fn each_door_opens_to_its_own_people_only() {
    let (world, node) = world_with_node();
    let (doors, token) = (&world.collector.doors, &world.collector.first.token);
    let bearer = format!("Bearer {token}");
    let good =
        || serde_json::to_vec(&json!({ "statements": [node.statement(|_| {})] })).expect("JSON");

    for (who, client) in [
        ("nobody", anonymous(&world)),
        ("a self-signed one", self_signed(&world)),
    ] {
        let url = format!("{}{ATTESTATIONS}", node.door);
        assert!(
            post(&client, &url, &[], good()).is_none(),
            "{who} got through the handshake of the agents' door"
        );
        assert!(
            post(&client, &url, &[("authorization", &bearer)], good()).is_none(),
            "{who} with an API token"
        );
    }
    for path in [
        "/api/v1/nodes",
        "/api/v1/violations",
        "/",
        "/nodes",
        "/metrics",
        "/join/v1/enrolment",
    ] {
        let at_agents = node
            .get(&format!("{}{path}", node.door))
            .expect("an answer");
        assert!(
            [401, 403, 404, 405].contains(&at_agents.status),
            "{path} at the agents' door: {}",
            at_agents.status
        );
        let at_join = node
            .get(&format!("{}{path}", doors.join.trim_end_matches('/')))
            .expect("an answer");
        assert!(
            [401, 403, 404, 405].contains(&at_join.status),
            "{path} at the joining door: {}",
            at_join.status
        );
    }
    let at_join = node
        .get(&format!(
            "{}/agent/v1/assignment",
            doors.join.trim_end_matches('/')
        ))
        .expect("an answer");
    assert!(
        [401, 403, 404].contains(&at_join.status),
        "{}",
        at_join.status
    );
    let stranger = world.people.stranger();
    for path in [
        "/api/v1/nodes",
        "/api/v1/violations",
        "/api/v1/touched",
        "/api/v1/whoami",
        "/api/v1/events",
        "/api/v1/images",
    ] {
        assert_eq!(
            stranger.ask("GET", path, None).expect("an answer").status,
            401,
            "{path}"
        );
    }
    for path in ["/", "/nodes", &format!("/nodes/{}", node.id)] {
        let page = stranger.page(path);
        assert!(
            !page.html.contains(NAME),
            "{path} without sign-in shows nodes"
        );
    }
    let agent_path = stranger
        .ask("POST", ATTESTATIONS, Some(&json!({ "statements": [] })))
        .expect("an answer");
    assert!(
        [401, 403, 404, 405].contains(&agent_path.status),
        "{}",
        agent_path.status
    );
    goes_on(&node);
}

fn gzipped(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("compression");
    encoder.finish().expect("compression")
}
