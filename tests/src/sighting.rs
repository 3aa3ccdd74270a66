//! One violation, looked for everywhere that it must be: the API, the journal, the pages and the webhook, told the same in each.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use crate::{
    change::Doer,
    wait::{SOON, eventually},
    world::World,
};

/// What a test knows of a violation beforehand.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a> {
    /// `difference`, `mount`, ….
    pub kind: &'a str,
    /// The path as it is shown.
    pub path: &'a str,
    /// Every field that differs, in any order.
    pub fields: &'a [&'a str],
    /// Part of the expected line; `None` where nothing should be there.
    pub expected: Option<&'a str>,
    /// Part of the found line; `None` where nothing is there.
    pub found: Option<&'a str>,
    /// Words that the violation's page must have beside path and fields.
    pub page: &'a [&'a str],
}

/// A difference in these fields.
pub const fn difference<'a>(
    path: &'a str,
    fields: &'a [&'a str],
    expected: Option<&'a str>,
    found: Option<&'a str>,
) -> Sighting<'a> {
    Sighting {
        kind: "difference",
        path,
        fields,
        expected,
        found,
        page: &[],
    }
}

/// Other content of the same size.
pub const fn content(path: &str) -> Sighting<'_> {
    let file = Some("type=file");
    difference(path, &["sha256digest"], file, file)
}

/// Something new.
pub const fn added<'a>(path: &'a str, found: &'a str) -> Sighting<'a> {
    difference(path, &["added"], None, Some(found))
}

/// Something gone.
pub const fn removed(path: &str) -> Sighting<'_> {
    difference(path, &["removed"], Some("type="), None)
}

/// An unexpected mount.
pub const fn mounted(path: &str) -> Sighting<'_> {
    Sighting {
        kind: "mount",
        fields: &["mount"],
        ..difference(path, &[], None, None)
    }
}

impl Sighting<'_> {
    /// Waits for it and checks all four places and, where there is one, the doer. Gives the violation as the API has it.
    #[track_caller]
    pub fn everywhere(&self, world: &World, doer: Option<&Doer>) -> Value {
        let violation = self.in_the_api(world, SOON, doer);
        let id = violation["id"].as_str().expect("an id");
        let told = |said: &Value| {
            said["id"] == id
                && ["path", "fields", "expected", "found", "mount"]
                    .iter()
                    .all(|m| said[*m] == violation[*m])
        };
        eventually(&format!("{} in the journal", self.path), SOON, || {
            let journal = world.collector.journal();
            journal
                .into_iter()
                .find(|line| is_violation_step(line) && told(line))
        });
        eventually(&format!("{} at the webhook", self.path), SOON, || {
            world
                .webhook
                .deliveries()
                .into_iter()
                .find(|delivery| delivery.accepted && told(delivery.violation()))
        });
        self.on_the_pages(world, &violation);
        violation
    }

    /// Waits until the API tells it, at most `within`, and checks the doer, where there is one.
    #[track_caller]
    pub fn in_the_api(&self, world: &World, within: Duration, doer: Option<&Doer>) -> Value {
        let violation = self.told(world, within);
        if let Some(doer) = doer {
            self.names(&violation, doer);
        }
        violation
    }

    #[track_caller]
    fn told(&self, world: &World, within: Duration) -> Value {
        let wanted: BTreeSet<_> = self.fields.iter().copied().collect();
        let mut last = Value::Null;
        let end = std::time::Instant::now() + within;
        loop {
            last = world.people.open(self.kind, self.path).unwrap_or(last);
            let fields: BTreeSet<_> = last["fields"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            if fields == wanted
                && has(&last["expected"], self.expected)
                && has(&last["found"], self.found)
            {
                return last;
            }
            assert!(
                std::time::Instant::now() < end,
                "not told within {within:?}: {self:#?}\nlast seen there: {last:#}\n{}",
                world.diagnosis()
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn names(&self, violation: &Value, doer: &Doer) {
        let actor = &violation["actor"];
        assert_eq!(
            actor["pid"],
            doer.pid(),
            "who changed {}: {actor}",
            self.path
        );
        let exe = doer.exe.to_str().expect("a text path");
        let told = actor["exe"].as_str().unwrap_or_default();
        assert!(
            told.ends_with(exe.trim_start_matches('/')),
            "who changed {}: {actor}",
            self.path
        );
    }

    #[track_caller]
    fn on_the_pages(&self, world: &World, violation: &Value) {
        let (id, node) = (
            violation["id"].as_str().expect("an id"),
            violation["node"].as_str().expect("a node"),
        );
        let page = world.people.page(&format!("/violations/{id}"));
        assert_eq!(page.status, 200, "{}", page.html);
        let fields = self
            .fields
            .iter()
            .filter(|field| !["added", "removed", "mount"].contains(field));
        let words = self
            .page
            .iter()
            .copied()
            .chain([self.path])
            .chain(fields.map(|field| field.trim_start_matches("xattr.")));
        for word in words {
            let readable = readable_field(word);
            assert!(
                page.shows(word) || readable.is_some_and(|word| page.shows(word)),
                "the page of the violation at {} does not show {word}:\n{}",
                self.path,
                page.text()
            );
        }
        let page = world.people.page(&format!("/nodes/{node}"));
        assert!(
            page.shows(self.path),
            "the page of the node does not show {}:\n{}",
            self.path,
            page.text()
        );
    }
}

/// A page may say a field in words.
fn readable_field(field: &str) -> Option<&'static str> {
    Some(match field {
        "sha256digest" => "content",
        "uid" => "owner",
        "gid" => "group",
        "link" => "target",
        "security.capability" => "capabilit",
        "system.posix_acl_access" => "access",
        _ => return None,
    })
}

/// Whether a journal line tells a step of a violation.
pub fn is_violation_step(line: &Value) -> bool {
    line["event"]
        .as_str()
        .is_some_and(|event| event.starts_with("violation."))
}

fn has(line: &Value, part: Option<&str>) -> bool {
    match (line.as_str(), part) {
        (None, None) => line.is_null(),
        (Some(line), Some(part)) => line.contains(part),
        _ => false,
    }
}
