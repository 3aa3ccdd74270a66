//! Whether what a node attests is what lies on its disk.

use std::{
    ffi::OsStr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::world::World;

/// What `pristine scan ROOT` says, whatever it could not read; `scope` is a file of rules, and everything is sealed without.
#[track_caller]
pub fn scanned(world: &World, root: &Path, scope: Option<&Path>) -> Value {
    let arguments = [OsStr::new("scan"), root.as_os_str()];
    let rules = scope.map(|file| [OsStr::new("--scope"), file.as_os_str()]);
    let format = ["--format", "json"].map(OsStr::new);
    let all = arguments
        .into_iter()
        .chain(rules.into_iter().flatten())
        .chain(format);
    let said = world.run(all);
    assert!([0, 2].contains(&said.code), "{said:?}");
    said.json()
}

/// Waits, at most `within`, until the collector has from the node the tree that a fresh scan finds, with no gap left open; gives how
/// long it took after the scan. Nothing may change the root meanwhile.
#[track_caller]
pub fn becomes_attested(
    world: &World,
    name: &str,
    (root, scope): (&Path, Option<&Path>),
    within: Duration,
) -> Duration {
    let scan = scanned(world, root, scope);
    let began = Instant::now();
    let mut node = Value::Null;
    while began.elapsed() < within {
        node = world.people.node(name).unwrap_or_default();
        if node["tree"] == scan["tree"] && has_no_gap(&node) {
            return began.elapsed();
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("not attested after {within:?}: {scan:#}\n{node:#}");
}

/// Whether the node's last statement names no gap.
pub fn has_no_gap(node: &Value) -> bool {
    node["coverage"]["gaps"]
        .as_array()
        .is_none_or(Vec::is_empty)
}
