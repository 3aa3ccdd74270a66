//! Mixed changes at random, by a mutator that keeps its own model of the tree: at every quiet point the attested tree is the model's
//! and a fresh scan's, and agent and collector have not grown.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use attestation::{digest::Digest, entry::Line, path::ImagePath, tree::Tree};
use pristine_tests::{
    collector::Options,
    cost::Cost,
    disk::{Disk, Kind},
    left_out_without_root,
    model::Model,
    random::Random,
    wait::LATER,
    world::World,
};

/// Threads that change the tree, each in a directory of its own.
const MUTATORS: u64 = 3;
/// What the agent may hold more than at the third quiet point, by when every kind of statement has been made.
const AGENT_MIB: u64 = 24;
/// The same for the collector, which is not at rest here: the page caches of its nine connections fill (2 MiB each), and lists of
/// some hundred differences come and go in what its threads hold. Its heap stays below that: some 23 MiB were seen after an hour.
const COLLECTOR_MIB: u64 = 64;
/// Descriptors beyond those of the third quiet point: connections and open segments come and go.
const DESCRIPTORS: u64 = 24;

type Lines = BTreeMap<ImagePath, Line>;

#[test]
fn the_attested_tree_is_the_models_at_every_quiet_point() {
    if left_out_without_root("soak") {
        return;
    }
    let time = std::env::var("PRISTINE_SOAK_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(120);
    // Hours of this beside other work: a rest after each quiet point.
    let rest = std::env::var("PRISTINE_SOAK_REST_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs);
    let mut random = Random::new();
    // Two hours of this are more than a node may send in a day.
    let more = "[limits]\nbytes_per_day = 68719476736\n".to_owned();
    let world = World::with(&Options {
        more,
        ..Options::default()
    });
    let disk = Disk::mounted(&world.path("disk"), Kind::Ext4, 256);
    let root = disk.at.join("root");
    fs::create_dir(&root).expect("a root");
    let mut models: Vec<Model> = (0..MUTATORS)
        .map(|n| Model::make(&root, &format!("tree-{n}"), random.bits()))
        .collect();
    world.image(&root, "base", "1.0", &[]);
    let image = lines(&root, &models);
    // Rescans fall into the changes, not only events.
    let mut agent = world.agent_with("web-1", &root, "rescan = 15\n");
    world.wait_for_status("web-1", "pristine");

    let began = Instant::now();
    let mut first = None;
    let mut point = 0;
    while began.elapsed() < Duration::from_secs(time) || point < 4 {
        point += 1;
        let changes = change(&mut models, random.up_to(Duration::from_secs(5)));
        let now = lines(&root, &models);
        let settled = is_attested(&world, &root, &image, &now);
        let agent_cost = Cost::of(agent.pid().expect("a running agent"));
        let collector_cost = Cost::of(world.collector.pid().expect("a running collector"));
        eprintln!(
            "{:5.0?} quiet point {point}: {changes} changes, {} entries, attested after {settled:.1?}; agent {agent_cost}, collector {collector_cost}",
            began.elapsed(),
            now.len(),
        );
        if point == 3 {
            first = Some((agent_cost, collector_cost));
        }
        if let Some((agent, collector)) = first {
            agent_cost.grew_at_most("the agent", &agent, AGENT_MIB, DESCRIPTORS);
            collector_cost.grew_at_most("the collector", &collector, COLLECTOR_MIB, DESCRIPTORS);
        }
        world.webhook.forget();
        thread::sleep(rest);
    }
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in models.iter().flat_map(|model| &model.counts) {
        *counts.entry(name).or_default() += count;
    }
    eprintln!("{point} quiet points; changes: {counts:?}");
    let gaps: Vec<_> = world
        .people
        .violations("all")
        .into_iter()
        .filter(|violation| violation["kind"] == "gap")
        .collect();
    assert!(
        gaps.is_empty(),
        "nothing of this is more than the watch takes in (and the clock was left alone by others): {gaps:#?}"
    );
    assert!(agent.stop().success());
    world.check();
}

/// Lets every mutator loose for a while; returns how many changes they made.
fn change(models: &mut [Model], time: Duration) -> u64 {
    let before: u64 = total(models);
    let end = Instant::now() + time;
    thread::scope(|scope| {
        for model in models.iter_mut() {
            scope.spawn(move || {
                while Instant::now() < end {
                    // A storm, then a while in which each change comes alone.
                    let slow = model.random().below(2) == 0;
                    for _ in 0..=model.random().below(100) {
                        model.change();
                        if slow {
                            thread::sleep(model.random().up_to(Duration::from_millis(8)));
                        }
                    }
                }
            });
        }
    });
    total(models) - before
}

fn total(models: &[Model]) -> u64 {
    models.iter().flat_map(|model| model.counts.values()).sum()
}

/// Every line that should be there now.
fn lines(root: &Path, models: &[Model]) -> Lines {
    use std::os::unix::fs::MetadataExt;
    let data = fs::metadata(root).expect("the root");
    let top = format!(
        ". type=dir mode={:04o} uid={} gid={}",
        data.mode() & 0o7777,
        data.uid(),
        data.gid()
    );
    let mut lines: Lines = models.iter().flat_map(Model::lines).collect();
    lines.insert(ImagePath::root(), Line::parse(&top).expect("a line"));
    lines
}

fn tree(lines: &Lines) -> String {
    let leaves = lines
        .iter()
        .map(|(path, line)| (path.key(), line.leaf()))
        .collect();
    Tree::from_leaves(leaves).root().to_string()
}

/// The model, a fresh scan and what the collector has from the agent are one tree; how long that took.
#[track_caller]
fn is_attested(world: &World, root: &Path, image: &Lines, now: &Lines) -> Duration {
    let model = tree(now);
    let began = Instant::now();
    let scan = world.run([
        OsStr::new("scan"),
        root.as_os_str(),
        "--format".as_ref(),
        "json".as_ref(),
    ]);
    let scan = scan.exits(0).json();
    assert_eq!(scan["entries"], now.len(), "a fresh scan and the model");
    assert_eq!(scan["tree"], model.as_str(), "a fresh scan and the model");
    let mut node = serde_json::Value::Null;
    while began.elapsed() < LATER {
        node = world.people.node("web-1").unwrap_or_default();
        let whole = node["coverage"]["gaps"]
            .as_array()
            .is_none_or(Vec::is_empty);
        if node["tree"] == model.as_str() && whole {
            return began.elapsed();
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!(
        "the attested tree is not the model's after {LATER:?}; tree {}, {} entries of {}\n{:#?}\n{node:#}",
        node["tree"],
        node["entries"],
        now.len(),
        told_otherwise(world, image, now),
    );
}

/// Paths that the agent tells of otherwise than they are.
fn told_otherwise(world: &World, image: &Lines, now: &Lines) -> Vec<String> {
    let id = world.id("web-1");
    let mut told: BTreeMap<String, Option<String>> = image
        .values()
        .map(|line| (shown(line), Some(line.as_str().to_owned())))
        .collect();
    for difference in world
        .people
        .list(&format!("/api/v1/nodes/{id}/differences"))
    {
        let path = difference["path"].as_str().expect("a path").to_owned();
        told.insert(path, difference["found"].as_str().map(str::to_owned));
    }
    let now: BTreeMap<String, String> = now
        .values()
        .map(|line| (shown(line), line.as_str().to_owned()))
        .collect();
    let paths: std::collections::BTreeSet<&String> = told.keys().chain(now.keys()).collect();
    let wrong = |path: &&String| told.get(*path).cloned().flatten() != now.get(*path).cloned();
    paths
        .into_iter()
        .filter(wrong)
        .map(|path| {
            format!(
                "{path}\n  told {:?}\n  is   {:?}",
                told.get(path),
                now.get(path)
            )
        })
        .collect()
}

fn shown(line: &Line) -> String {
    let text = line.as_str();
    text[..text.find(' ').unwrap_or(text.len())].to_owned()
}

/// The same tree, whichever way its lines were found.
#[test]
fn the_models_digest_is_that_of_the_crate() {
    let line = Line::parse(". type=dir mode=0755 uid=0 gid=0").expect("a line");
    let lines = Lines::from([(ImagePath::root(), line.clone())]);
    let leaf: Digest = line.leaf();
    assert_eq!(tree(&lines), leaf.to_string());
}
