//! The API's description against the server: schemathesis makes requests from it, good ones and bad ones, as every role. Nothing may
//! answer 5xx, or otherwise than described.

use std::{env, fs, process::Command};

use pristine_tests::{
    program::{Said, cache, command},
    roots,
    wait::{LATER, eventually},
    world::World,
};
use serde_json::json;

const ROLES: [&str; 5] = ["viewer", "operator", "approver", "publisher", "admin"];
/// What every answer must be.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

#[test]
fn the_description_is_true_for_every_role() {
    let schemathesis = cache().join("venv/bin/schemathesis");
    if !schemathesis.exists() {
        assert!(env::var_os("CI").is_none(), "schemathesis is not there");
        eprintln!("left out, needs schemathesis: call tests/run");
        return;
    }
    let world = World::start();
    let description = world.path("openapi.json");
    let said = Said::by(command("pristine-collector").arg("openapi")).exits(0);
    let described = said.json();
    fs::write(&description, described.to_string()).expect("a description");
    assert_eq!(world.people.get("/api/v1/openapi.json"), described);

    // Something to be read: a node that drifted, and what is said of it.
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let _agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    fs::write(root.join("etc/app/app.conf"), "listen = 1\n").expect("a change");
    eventually("a violation", LATER, || {
        world.people.open("difference", "./etc/app/app.conf")
    });

    // Whoever administers can end any token, this test's too; what others are asked they must be refused.
    let ends_others = [
        "tokens_revoke",
        "accounts_password",
        "accounts_disable",
        "accounts_change",
    ];
    for role in ROLES {
        let wanted = json!({"kind": "api", "role": role, "ttl_secs": 3_600});
        let made = world.people.post("/api/v1/tokens", &wanted);
        let token = made["token"].as_str().expect("a token");
        let done = Command::new(&schemathesis)
            .arg("run")
            .arg(&description)
            .args(["--url", world.people.base()])
            .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing"])
            .args(["--max-examples", &examples(), "--seed", "17"])
            // One has no end, one would end this run's own token, and no body of the third can be made from a description.
            .args(["--exclude-path", "/api/v1/events"])
            .args(["--exclude-operation-id", "sign_in_end"])
            .args(["--exclude-operation-id", "images_put_manifest"])
            .args(
                ends_others
                    .iter()
                    .filter(|_| role == "admin")
                    .flat_map(|operation| ["--exclude-operation-id", operation]),
            )
            .args(["--continue-on-failure", "--no-color", "--warnings", "off"])
            .args(["-H", &format!("Authorization: Bearer {token}")])
            .current_dir(world.path(""))
            .output()
            .expect("schemathesis");
        assert!(
            done.status.success(),
            "as {role}:\n{}\n{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

/// Requests for each operation beside those that cover its parameters; more where there is time.
fn examples() -> String {
    env::var("PRISTINE_API_EXAMPLES").unwrap_or_else(|_| "3".to_owned())
}
