//! The commands that ask a collector, against a door that answers as one does and remembers what it was asked.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step is a failed test"
)]

mod program;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::thread;

use program::{Run, World, finish};
use serde_json::{Value, json};

/// One request as it came.
#[derive(Clone, Debug)]
struct Asked {
    line: String,
    token: String,
    body: Vec<u8>,
}

impl Asked {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

struct Collector {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Collector {
    /// Answers each request by its method and path, without the query.
    fn answering(answer: impl Fn(&str) -> (u16, Value) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &answer, &kept);
            }
        });
        Self { url, asked }
    }

    fn run(&self, world: &World, line: &str) -> Run {
        let mut command = world.command(&line.split(' ').collect::<Vec<_>>());
        command
            .env("PRISTINE_URL", &self.url)
            .env("PRISTINE_TOKEN", "secret-token");
        finish(command)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, answer: &impl Fn(&str) -> (u16, Value), kept: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let (mut length, mut token) = (0, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        if header.trim().is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').unwrap();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "authorization" => token = value.trim().trim_start_matches("Bearer ").to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    let path = line.split('?').next().unwrap().to_owned();
    kept.lock().unwrap().push(Asked { line, token, body });
    let (status, value) = answer(&path);
    let body = if value.is_null() {
        String::new()
    } else {
        value.to_string()
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
}

fn list(items: &Value) -> (u16, Value) {
    (200, json!({ "items": items, "next": null }))
}

#[test]
fn a_sign_in_keeps_its_token_for_the_user_alone() {
    let world = World::new();
    let collector = Collector::answering(|asked| match asked {
        "POST /api/v1/sessions" => (
            201,
            json!({"token": "fresh", "expires": "2030-01-01T00:00:00.000000Z"}),
        ),
        "GET /api/v1/whoami" => (200, json!({"user": "ann", "role": "admin"})),
        "DELETE /api/v1/sessions" => (204, Value::Null),
        _ => (404, Value::Null),
    });
    fs::write(world.path("password"), "pass word\n").unwrap();
    world
        .run(&[
            "login",
            &collector.url,
            "--user",
            "ann",
            "--password-file",
            "password",
        ])
        .exits(0);
    let asked = collector.asked();
    assert_eq!(
        asked[0].json(),
        json!({"user": "ann", "password": "pass word"})
    );
    assert_eq!(
        (asked[0].token.as_str(), asked[1].token.as_str()),
        ("", "fresh")
    );
    let keyring = world.path("home/.config/pristine/keyring.json");
    assert_eq!(
        fs::metadata(&keyring).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let who = world.say("whoami --format json").exits(0).json();
    assert_eq!(who["user"], "ann");
    // The token that is kept goes to no other collector.
    let mut elsewhere = world.command(&["whoami"]);
    elsewhere.env("PRISTINE_URL", "http://127.0.0.1:1/");
    finish(elsewhere).exits(78);
    fs::set_permissions(&keyring, fs::Permissions::from_mode(0o644)).unwrap();
    world.say("whoami").exits(78).says("others may read it");
    fs::set_permissions(&keyring, fs::Permissions::from_mode(0o600)).unwrap();
    world.say("logout").exits(0);
    assert!(!keyring.exists());
    assert_eq!(
        collector.asked().last().unwrap().line,
        "DELETE /api/v1/sessions"
    );
}

#[test]
fn refusals_have_the_collectors_words_and_their_codes() {
    let world = World::new();
    for (status, code) in [(401, 77), (403, 77), (404, 2), (409, 2), (500, 2)] {
        let collector = Collector::answering(move |_| {
            (status, json!({"title": "not today", "detail": "because"}))
        });
        collector
            .run(&world, "node list")
            .exits(code)
            .says("not today: because");
    }
}

#[test]
fn an_image_is_published_whole() {
    let world = World::new();
    world.image("web.mtree.zst", "k");
    let collector = Collector::answering(|asked| match asked {
        "POST /api/v1/images" => (201, json!({"sha256": "00", "manifest_needed": true})),
        _ => (201, Value::Null),
    });
    collector
        .run(&world, "image publish web.mtree.zst")
        .exits(0);
    let asked = collector.asked();
    assert!(asked[0].json()["statement"]["payload"].is_string());
    assert!(asked[1].line.starts_with("PUT /api/v1/manifests/"));
    assert_eq!(
        asked[1].body,
        fs::read(world.path("web.mtree.zst")).unwrap()
    );
    assert!(asked.iter().all(|one| one.token == "secret-token"));
}

#[test]
fn an_unsigned_image_is_not_published() {
    let world = World::new();
    world
        .say("image build root --name web --version 1 -o web.mtree.zst")
        .exits(0);
    let collector = Collector::answering(|_| (500, Value::Null));
    collector
        .run(&world, "image publish web.mtree.zst")
        .exits(2)
        .says("nobody has signed it");
    assert!(collector.asked().is_empty());
}

#[test]
fn an_image_is_assigned_by_name_version_or_digest() {
    let world = World::new();
    let (old, new) = ("a".repeat(64), "b".repeat(64));
    let items = json!([
        {"name": "web", "version": "1", "epoch": 1, "sha256": old},
        {"name": "web", "version": "2", "epoch": 2, "sha256": new},
    ]);
    let collector = Collector::answering(move |asked| match asked {
        "GET /api/v1/images" => list(&items),
        "POST /api/v1/assignments" => (201, json!({"group": "web"})),
        _ => (404, Value::Null),
    });
    let assigned = |line: &str| {
        collector.run(&world, line).exits(0);
        collector.asked().last().unwrap().json()
    };
    assert_eq!(
        assigned("node assign --group web web"),
        json!({"group": "web", "image": new})
    );
    assert_eq!(
        assigned("node assign web:1"),
        json!({"group": "default", "image": old})
    );
    let by_digest = assigned(&format!("node assign {old} --keep-previous 1h"));
    assert_eq!(
        by_digest,
        json!({"group": "default", "image": old, "keep_previous_secs": 3600})
    );
    collector
        .run(&world, "node assign nothing")
        .exits(2)
        .says("no image `nothing`");
}

#[test]
fn nodes_are_found_by_name_and_shown_harmless() {
    let world = World::new();
    let id = "0".repeat(32);
    let node =
        json!({"id": id, "name": "web-1", "group": "default", "status": "pristine\u{1b}[31m"});
    let collector = Collector::answering(move |asked| {
        if asked == "GET /api/v1/nodes" {
            list(&json!([node]))
        } else if asked.ends_with("/differences") {
            list(&json!([]))
        } else {
            (200, node.clone())
        }
    });
    let text = collector.run(&world, "node list").exits(0).text();
    assert!(
        text.contains("pristine\\u{1b}[31m") && !text.contains('\u{1b}'),
        "{text}"
    );
    collector.run(&world, "node show web-1").exits(0);
    collector.run(&world, "node approve web-1").exits(0);
    assert_eq!(
        collector.asked().last().unwrap().line,
        format!("POST /api/v1/nodes/{id}/approve")
    );
    collector
        .run(&world, "node assign --node web-1 --group db")
        .exits(0);
    assert_eq!(
        collector.asked().last().unwrap().json(),
        json!({"group": "db"})
    );
    collector
        .run(&world, "node show web-2")
        .exits(2)
        .says("no node `web-2`");
}

#[test]
fn tokens_are_made_listed_and_revoked() {
    let world = World::new();
    let collector = Collector::answering(|asked| match asked {
        "POST /api/v1/tokens" => (
            201,
            json!({"token": "pristine-join.x", "id": "7", "expires": null}),
        ),
        "GET /api/v1/tokens" => list(&json!([{"id": "7", "kind": "join"}])),
        _ => (204, Value::Null),
    });
    let made = collector
        .run(&world, "token create --join --group web --uses 3 --ttl 24h")
        .exits(0);
    assert_eq!(made.text(), "pristine-join.x\n");
    let body = json!({"kind": "join", "group": "web", "uses": 3, "ttl_secs": 86400});
    assert_eq!(collector.asked()[0].json(), body);
    collector.run(&world, "token create --role viewer").exits(0);
    assert_eq!(
        collector.asked()[1].json(),
        json!({"kind": "api", "role": "viewer"})
    );
    assert!(
        collector
            .run(&world, "token list")
            .exits(0)
            .text()
            .contains("join")
    );
    collector.run(&world, "token revoke ../7").exits(0);
    assert_eq!(
        collector.asked().last().unwrap().line,
        "DELETE /api/v1/tokens/%2E%2E%2F7"
    );
}

#[test]
fn violations_are_listed_page_by_page() {
    let world = World::new();
    let one = json!({"id": "1", "kind": "difference", "fields": ["mode"]});
    let collector = Collector::answering(move |asked| match asked {
        "GET /api/v1/violations" => list(&json!([one])),
        _ => (200, one.clone()),
    });
    let all = collector
        .run(&world, "violation list --status all --format json")
        .exits(0)
        .json();
    assert_eq!(all["items"][0]["id"], "1");
    assert_eq!(
        collector.asked()[0].line,
        "GET /api/v1/violations?status=all&limit=1000"
    );
    assert!(
        collector
            .run(&world, "violation show 1")
            .exits(0)
            .text()
            .contains("kind")
    );
}

#[test]
fn a_rescan_and_reviews_are_asked_for() {
    let world = World::new();
    let collector = Collector::answering(|asked| match asked {
        "GET /api/v1/nodes" => list(&json!([{"id": "7", "name": "web-1", "status": "drifted"}])),
        asked if asked.ends_with("/resolve") => (
            409,
            json!({"title": "Conflict", "detail": "the path still differs"}),
        ),
        _ => (200, json!({"id": "9", "resolution": null})),
    });
    let run = |line: &str| collector.run(&world, line);
    run("node rescan web-1").exits(0);
    assert_eq!(
        collector.asked().last().unwrap().line,
        "POST /api/v1/nodes/7/rescan"
    );
    let told = run("violation acknowledge 9 --reason seen").exits(0).text();
    assert!(told.contains("is acknowledged"));
    run("violation resolve 9 --reason done")
        .exits(2)
        .says("the path still differs");
    let last = collector.asked().last().unwrap().clone();
    assert_eq!(last.line, "POST /api/v1/violations/9/resolve");
    assert_eq!(last.json(), json!({"reason": "done"}));
    run("violation resolve 9 --false-alarm --reason done").exits(2);
    let last = collector.asked().last().unwrap().clone();
    assert_eq!(last.json(), json!({"reason": "done", "as": "false-alarm"}));
    run("violation resolve 9 --false-alarm --accept --reason done").exits(64);
    run("violation resolve 9").exits(64);
}
