//! What the doors of machines answer to people: nothing. What the people's door answers to each role stands in its own tests
//! (`door/people/tests`), for every route of its table.

use std::sync::LazyLock;
use std::time::Duration;

use pristine_tests::world::World;
use serde_json::json;

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Runtime::new().expect("a runtime"));

const ROLES: [&str; 5] = ["viewer", "operator", "approver", "publisher", "admin"];

const AGENTS: [(&str, &str); 7] = [
    ("POST", "/agent/v1/challenge"),
    ("POST", "/agent/v1/attestations"),
    ("GET", "/agent/v1/assignment"),
    ("GET", "/agent/v1/images/00"),
    ("GET", "/agent/v1/manifests/00"),
    ("PUT", "/agent/v1/pins/00"),
    ("PUT", "/agent/v1/snapshots/00"),
];

/// What each asks of a body that nobody has signed.
const JOINING: [(&str, &str, u16); 3] = [
    ("POST", "/join/v1/enrolment", 400),
    ("POST", "/join/v1/renewal", 400),
    ("POST", "/join/v1/rotation", 400),
];

/// A client that trusts the collector's authority and shows no certificate.
fn client(world: &World) -> reqwest::Client {
    let ca = std::fs::read(&world.collector.first.ca).expect("the authority");
    let _runtime = RUNTIME.enter();
    reqwest::Client::builder()
        .add_root_certificate(reqwest::Certificate::from_pem(&ca).expect("a certificate"))
        .timeout(Duration::from_secs(20))
        .build()
        .expect("a client")
}

fn tokens(world: &World) -> Vec<(&'static str, String)> {
    let made = ROLES.map(|role| {
        let said = world.run(["token", "create", "--role", role, "--format", "json"]);
        let token = said.exits(0).json()["token"]
            .as_str()
            .expect("a token")
            .to_owned();
        (role, token)
    });
    [vec![("nobody", String::new())], made.to_vec()].concat()
}

/// The status of an answer; nothing where the handshake fails.
fn ask(client: &reqwest::Client, method: &str, url: &str, token: &str) -> Option<u16> {
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let mut request = client.request(method, url).json(&json!({}));
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    RUNTIME.block_on(async { Some(request.send().await.ok()?.status().as_u16()) })
}

#[test]
fn no_role_opens_the_doors_of_machines() {
    let world = World::start();
    let client = client(&world);
    let doors = &world.collector.doors;
    for (role, token) in tokens(&world) {
        for (method, path) in AGENTS {
            let answer = ask(&client, method, &format!("{}{path}", doors.agents), &token);
            assert_eq!(
                answer, None,
                "{role}: {method} {path} without a certificate"
            );
        }
        for (method, path, expected) in JOINING {
            let answer = ask(&client, method, &format!("{}{path}", doors.join), &token);
            assert_eq!(answer, Some(expected), "{role}: {method} {path}");
        }
        for path in ["/", "/api/v1/nodes", "/agent/v1/challenge"] {
            let answer = ask(&client, "GET", &format!("{}{path}", doors.join), &token);
            assert_eq!(answer, Some(404), "{role}: {path} at the joining door");
        }
    }
    assert!(world.people.list("/api/v1/nodes").is_empty());
    world.check();
}
