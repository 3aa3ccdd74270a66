//! A disk that was copied: the copy is another node, and the original goes on undisturbed.
//!
//! What a machine is called by its firmware cannot be changed from here, so the copy runs as the library, told so.

use std::{fs, path::Path, thread};

use pristine_agent::AgentSettings;
use pristine_tests::{
    program::tool,
    roots,
    wait::{LATER, eventually},
    world::World,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

#[test]
fn a_copied_disk_joins_as_a_node_of_its_own_and_the_original_goes_on() {
    let world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    let original = world.id("web-1");
    assert!(agent.stop().success());
    let copy = world.path("copy");
    tool("cp", [Path::new("-a"), agent.state(), &copy]);
    agent.begin();
    world.wait_for_status("web-1", "pristine");

    let identity = copy.join("identity.json");
    let mut held: Value =
        serde_json::from_slice(&fs::read(&identity).expect("an identity")).expect("JSON");
    held["machine"] = json!("4c4c4544-0000-4410-8030-b2c04f4a3132");
    fs::write(&identity, held.to_string()).expect("an identity");
    let key = fs::read(copy.join("node.key")).expect("a key");
    let mut settings = AgentSettings::new(&root, &copy);
    settings.machine = Some("4c4c4544-0000-4410-8030-b2c04f4a3133".to_owned());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let shutdown = async {
            stopped.await.ok();
        };
        runtime.block_on(pristine_agent::run(settings, shutdown, None))
    });

    let waits = eventually("the copy asks to be let in", LATER, || {
        let nodes = world.people.list("/api/v1/nodes");
        nodes.into_iter().find(|node| node["status"] == "pending")
    });
    let id = waits["id"].as_str().expect("an id").to_owned();
    assert_ne!(id, original);
    assert_eq!(waits["name"], format!("web-1-{}", &id[..8]));
    assert_ne!(fs::read(copy.join("node.key")).expect("a key"), key);
    let aside = fs::read_dir(&copy)
        .expect("the state")
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("aside-"))
        .expect("what was set aside");
    assert_eq!(fs::read(aside.path().join("node.key")).expect("a key"), key);
    assert!(aside.path().join("spool").exists());

    world.run(["node", "approve", &id]).exits(0);
    eventually("the copy attests", LATER, || {
        let node = world.people.node(&id)?;
        (node["status"] == "pristine").then_some(())
    });
    world.wait_for_status(&original, "pristine");
    let told: Vec<Value> = world
        .people
        .violations("all")
        .into_iter()
        .filter(|it| it["kind"] == "fork" || it["kind"] == "replay")
        .collect();
    assert!(told.is_empty(), "{told:#?}");
    stop.send(()).ok();
    let ended = running.join().expect("the copy's thread");
    assert!(ended.is_ok(), "{ended:?}");
    drop(agent);
    world.check();
}
