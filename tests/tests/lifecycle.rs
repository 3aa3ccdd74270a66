//! Nodes that come and go: suspended, banned, decommissioned, rebuilt under their name; and who may say so.

use std::fs;

use pristine_tests::{
    agent::Agent,
    roots,
    wait::{LATER, SOON, eventually},
    world::World,
};
use serde_json::{Value, json};

fn begun(world: &World, name: &str) -> (std::path::PathBuf, Agent) {
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let agent = world.agent(name, &root);
    world.wait_for_status(name, "pristine");
    (root, agent)
}

fn told(world: &World, query: &str) -> Vec<Value> {
    world.people.list(&format!("/api/v1/activity?{query}"))
}

#[test]
fn a_suspended_node_wakes_nobody_and_a_banned_one_is_refused() {
    let world = World::start();
    let (root, agent) = begun(&world, "web-1");
    let id = world.id("web-1");
    world.run(["node", "suspend", "web-1"]).exits(64);
    world
        .run(["node", "suspend", "web-1", "--reason", "a disk is replaced"])
        .exits(0);
    let path = "./usr/bin/tool-02";
    fs::write(root.join("usr/bin/tool-02"), "meanwhile\n").expect("a change");
    let open = eventually("what it says is kept", LATER, || {
        world.people.open("difference", path)
    });
    let violation = open["id"].as_str().expect("an id");
    assert_eq!(world.people.node(&id).expect("it")["status"], "suspended");
    world.run(["node", "resume", "web-1"]).exits(0);
    eventually("what stands is told now", LATER, || {
        world.webhook.find("updated", violation)
    });
    let of_it = |step: &str| world.webhook.find(step, violation);
    assert!(of_it("opened").is_none(), "nobody was told meanwhile");

    world
        .run(["node", "ban", "web-1", "--reason", "its key was copied"])
        .exits(0);
    world.run(["node", "resume", "web-1"]).exits(2);
    eventually("the door refuses it", LATER, || {
        (world.people.metric("pristine_ingest_refused", &["banned"]) > 0.0).then_some(())
    });
    assert_eq!(world.people.node(&id).expect("it")["status"], "banned");
    world.run(["node", "approve", "web-1"]).exits(0);
    world.wait_for_status("web-1", "drifted");

    let records = told(&world, &format!("target={id}"));
    let actions: Vec<&str> = records
        .iter()
        .filter_map(|it| it["action"].as_str())
        .collect();
    assert_eq!(
        actions,
        [
            "node.approve",
            "node.ban",
            "node.resume",
            "node.suspend",
            "node.join"
        ]
    );
    assert_eq!(records[1]["reason"], "its key was copied");
    assert_eq!(records[4]["user"], "admin", "who made the join token");
    drop(agent);
    world.check();
}

#[test]
fn a_server_rebuilt_under_its_name_makes_the_one_before_history() {
    let world = World::start();
    let (root, mut first) = begun(&world, "web-1");
    let before = world.id("web-1");
    fs::write(root.join("usr/bin/tool-03"), "of the first\n").expect("a change");
    let open = eventually("a violation", LATER, || {
        world.people.open("difference", "./usr/bin/tool-03")
    });
    assert!(first.stop().success());
    world.wait_for_status("web-1", "stopped");
    let door = &world.collector.doors.agents;
    let mut second = Agent::configured(&world.path("again"), "web-1", &root, door, "");
    second.enroll(&world.join_token()).exits(0);
    second.begin();
    let all = world.people.list("/api/v1/nodes");
    let of = |id: &str| all.iter().find(|it| it["id"] == id);
    assert_eq!(of(&before).expect("listed")["status"], "retired");
    assert_eq!(all.len(), 2);
    assert_eq!(world.people.get("/api/v1/summary")["nodes"], 1);
    let ended = world.is_resolved(&open, SOON);
    assert!(
        ended["resolution"]
            .as_str()
            .expect("how")
            .starts_with("retired"),
        "{ended}"
    );
    let replaced = told(&world, "action=node.replace");
    assert_eq!(replaced[0]["target"], before.as_str());
    assert!(
        replaced[0]["by"]
            .as_str()
            .expect("by")
            .starts_with("join-token "),
        "{replaced:?}"
    );
    // Its agent finds the doors shut.
    drop(second);
    world.check();
}

#[test]
fn a_provisioner_decommissions_what_it_takes_away_and_nothing_else() {
    let world = World::start();
    let (_root, agent) = begun(&world, "web-1");
    let id = world.id("web-1");
    let token = |group: &str| {
        let said = world.run([
            "token",
            "create",
            "--role",
            "operator",
            "--group",
            group,
            "--label",
            "provisioner",
            "--format",
            "json",
        ]);
        let made = said.exits(0).json();
        made["token"].as_str().expect("a token").to_owned()
    };
    let path = format!("/api/v1/nodes/{id}/decommission");
    let elsewhere = world.collector.people(&token("db"));
    let answer = elsewhere.ask("POST", &path, Some(&json!({})));
    assert_eq!(answer.expect("an answer").status, 404);
    let provisioner = world.collector.people(&token("default"));
    assert_eq!(provisioner.post(&path, &json!({}))["status"], "retired");
    eventually("its agent is refused", LATER, || {
        let refused = world
            .people
            .metric("pristine_ingest_refused", &["unknown-node"]);
        (refused > 0.0).then_some(())
    });
    let records = told(&world, "action=node.decommission");
    assert_eq!(records.len(), 1);
    assert!(records[0]["by"].as_str().expect("by").starts_with("token "));
    let summary = world.people.get("/api/v1/summary");
    assert_eq!(summary["nodes"], 0, "history is not counted");
    drop(agent);
    world.check();
}
