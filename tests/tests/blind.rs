//! When the agent is kept from seeing: more events than its queues hold, a thread of it that gets no time, test writes that do not come
//! back. Nothing is lost in silence: there is a signed gap with its cause, a rescan closes it, and it tells what moved meanwhile.
//! With less memory than it needs it says so, and goes on.

use std::{fs, path::Path, time::Duration};

use pristine_tests::{
    agent::Agent,
    attested::becomes_attested,
    change::{Doer, change, hold},
    left_out_without_root,
    manager::Manager,
    roots,
    rows::Rows,
    sighting::{added, content},
    wait::{BY_EVENT, LATER, SOON, eventually},
    world::World,
};
use rustix::process::Signal;
use serde_json::Value;

/// What a user may write to and nobody looks at: where a storm costs least and leaves nothing.
const SCOPE: &str = r#"[{"match": "ignored/**", "expect": "ignored"}]"#;
/// Events that the kernel keeps by default for each group, and always for inotify.
const KERNEL: &str = "/proc/sys/fs/inotify/max_queued_events";
/// Places that the agent keeps between two looks, and some.
const PLACES: usize = 262_144 + 20_000;

/// How long a service manager waits for a sign of life.
const WATCHDOG: Duration = Duration::from_secs(4);

/// Another content and the old one again, times included: only the inode tells.
const PUT_BACK: &str = "
def put_back(path):
    s, old = os.stat(at(path)), open(at(path), 'rb').read()
    again(path, b'#!/bin/EVIL')
    again(path, old)
    os.utime(at(path), ns=(s.st_atime_ns, s.st_mtime_ns))
";

/// One file under ever new names: each is an event of its own, and none is left.
const STORM: &str = "
def storm(folder, names):
    path = lambda n: at(folder + b'/%d' % n)
    open(path(0), 'w').close()
    for n in range(names): os.rename(path(n), path(n + 1))
    os.unlink(path(names))
";

struct Ground {
    world: World,
    agent: Agent,
    root: std::path::PathBuf,
    scope: std::path::PathBuf,
}

impl Ground {
    /// An agent that sees, by `run` where it is not started as usual.
    fn prepared(run: impl FnOnce(&World, &Path) -> Agent) -> Self {
        let world = World::start();
        let root = roots::small(&world.path("root"));
        fs::create_dir(root.join("ignored")).expect("a folder");
        let scope = world.image_by(&root, SCOPE);
        let agent = run(&world, &root);
        world.wait_for_status("web-1", "pristine");
        Self {
            world,
            agent,
            root,
            scope,
        }
    }

    #[track_caller]
    fn does(&self, script: &str) -> Doer {
        change(&self.root, &format!("{PUT_BACK}{STORM}{script}"))
    }

    fn holds(&self, thread: &str) -> Doer {
        hold(self.agent.pid().expect("a running agent"), thread)
    }

    /// What the node's newest statement says of what is seen, from the envelope that it signed.
    #[track_caller]
    fn signed_coverage(&self) -> Value {
        let people = &self.world.people;
        let node = people.node("web-1").expect("the node");
        let digest = node["statement"].as_str().expect("a statement");
        let kept = people
            .ask("GET", &format!("/api/v1/evidence/{digest}"), None)
            .expect("an answer");
        let envelope = attestation::dsse::Envelope::from_json(&kept.body).expect("an envelope");
        assert_eq!(envelope.payload_digest().to_string(), digest);
        let statement: Value = serde_json::from_slice(envelope.payload()).expect("a statement");
        statement["predicate"]["coverage"].clone()
    }

    /// A gap of this cause, as a signed statement told it.
    #[track_caller]
    fn tells_gap(&self, cause: &str, within: Duration) -> Value {
        let told = eventually(&format!("a gap of cause {cause}"), within, || {
            let mut all = self.world.people.violations("all").into_iter();
            all.find(|violation| violation["kind"] == "gap" && has_cause(violation, cause))
        });
        eprintln!("       {}", told["detail"]["gaps"]);
        told
    }

    /// The thread that reads events has read all there are: it uses no time any more.
    fn reader_rests(&self) {
        let pid = self.agent.pid().expect("a running agent");
        let mut before = None;
        eventually("the reader has read everything", LATER, || {
            let now = ticks_of(pid, "fanotify");
            let rests = before == Some(now);
            before = Some(now);
            // What it used is measured over a while: the kernel counts ticks of ten milliseconds.
            std::thread::sleep(Duration::from_millis(80));
            rests.then_some(())
        });
    }

    /// Everything is attested as it is, and `path` was touched and is as it was.
    #[track_caller]
    fn is_healed(&self, gap: &Value, path: &str) {
        self.world.is_resolved(gap, LATER);
        becomes_attested(&self.world, "web-1", (&self.root, Some(&self.scope)), LATER);
        let touched = self.world.is_touched(path, SOON);
        assert!(
            touched["event"]
                .as_str()
                .is_some_and(|event| event.contains("ctime")),
            "told by its inode: {touched:#}"
        );
        assert!(self.world.people.open("difference", path).is_none());
    }
}

/// What a thread has used of a processor, in the kernel's ticks of ten milliseconds.
fn ticks_of(pid: u32, name: &str) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let stat = threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok())
        .find(|stat| stat.contains(&format!("({name})")))
        .expect("a thread of that name");
    let fields: Vec<_> = stat.split_whitespace().collect();
    [13, 14]
        .iter()
        .filter_map(|at| fields[*at].parse::<u64>().ok())
        .sum()
}

fn has_cause(violation: &Value, cause: &str) -> bool {
    violation["detail"]["gaps"]
        .as_array()
        .is_some_and(|gaps| gaps.iter().any(|gap| gap["cause"] == cause))
}

/// The reader is stopped with everything else, and the kernel keeps all that it is told: nothing is lost.
fn stopped_as_a_whole(rows: &mut Rows, ground: &Ground) {
    rows.row("the whole agent stopped: nothing is lost", || {
        ground.agent.signal(Signal::STOP);
        let names = limit() + limit() / 4;
        drop(ground.does(&format!(
            "storm(b'srv', {names}); put_back(b'usr/bin/tool-01'); write(b'srv/last', b'x')"
        )));
        ground.agent.signal(Signal::CONT);
        added("./srv/last", "size=1").in_the_api(&ground.world, LATER, None);
        let touched = ground.world.is_touched("./usr/bin/tool-01", SOON);
        assert!(
            touched["event"]
                .as_str()
                .is_some_and(|event| event.contains("modify")),
            "{touched:#}"
        );
        let all = ground.world.people.violations("all");
        assert!(
            !all.iter().any(|violation| violation["kind"] == "gap"),
            "{all:#?}"
        );
        fs::remove_file(ground.root.join("srv/last")).expect("a removal");
    });
}

/// The engine gets no time, and the reader does: what it keeps is bounded.
fn engine_held(rows: &mut Rows, ground: &Ground, manager: &Manager) {
    rows.row(
        "its engine held: no sign of life, a gap, and what was put back is touched",
        || {
            let held = ground.holds("engine");
            drop(manager.heard());
            assert!(!manager.hears_life(), "others do not speak for it");
            drop(ground.does(&format!("storm(b'ignored', {PLACES})")));
            ground.reader_rests();
            drop(ground.does("put_back(b'usr/bin/tool-02'); again(b'usr/bin/tool-03', b'X')"));
            ground.reader_rests();
            assert_eq!(manager.heard(), [""; 0]);
            drop(held);
            eventually("it lives again", SOON, || {
                manager.hears_life().then_some(())
            });
            let gap = ground.tells_gap("overflow", LATER);
            content("./usr/bin/tool-03").in_the_api(&ground.world, LATER, None);
            ground.is_healed(&gap, "./usr/bin/tool-02");
        },
    );
}

/// The reader gets no time: its test writes do not come back.
fn reader_held(rows: &mut Rows, ground: &Ground) {
    let world = &ground.world;
    rows.row("its reader held: the test write is missed", || {
        let held = ground.holds("fanotify");
        world.rescan("web-1");
        let gap = ground.tells_gap("canary", LATER);
        let coverage = ground.signed_coverage();
        let limits = coverage["watch"]["limits"].to_string();
        assert!(limits.contains("the watch does not work"), "{limits}");
        let there = &coverage["gaps"][0];
        assert_eq!(there["cause"], "canary", "{coverage:#}");
        assert!(there["to"].is_null(), "it is not over: {coverage:#}");
        let doer = ground.does("again(b'usr/bin/tool-04', b'X')");
        world.rescan("web-1");
        content("./usr/bin/tool-04").in_the_api(world, LATER, None);
        drop((held, doer));
        world.rescan("web-1");
        world.is_resolved(&gap, LATER);
        let limits = ground.signed_coverage()["watch"]["limits"].to_string();
        assert!(!limits.contains("does not work"), "{limits}");
    });
}

/// It holds more than it is allowed to: it says so in what it signs, gives up what is kept for speed, and goes on seeing.
fn short_of_memory(rows: &mut Rows, ground: &Ground) {
    rows.row("short of memory: it says so and goes on seeing", || {
        let config = ground.agent.config();
        let before = fs::read_to_string(&config).expect("a configuration");
        let says_so = || {
            let limits = ground.signed_coverage()["watch"]["limits"].to_string();
            limits.contains("more memory is used than allowed")
        };
        assert!(!says_so());
        let short = format!("{before}[limits]\nmemory = \"1MiB\"\n");
        fs::write(&config, short).expect("less memory");
        ground.agent.signal(Signal::HUP);
        eventually("it says so", LATER, || says_so().then_some(()));
        let doer = ground.does(
            "storm(b'ignored', 20000); put_back(b'usr/bin/tool-06'); again(b'usr/bin/tool-07', b'X')",
        );
        content("./usr/bin/tool-07").in_the_api(&ground.world, BY_EVENT, Some(&doer));
        let touched = ground.world.is_touched("./usr/bin/tool-06", SOON);
        assert!(touched["actor"].is_object(), "{touched:#}");
        fs::write(&config, before).expect("no limit");
        ground.agent.signal(Signal::HUP);
        eventually("enough again", LATER, || (!says_so()).then_some(()));
    });
}

#[test]
fn what_the_agent_could_not_see_is_a_gap_and_is_looked_for() {
    if left_out_without_root("an agent that is kept from seeing") {
        return;
    }
    let mut manager = None;
    let mut ground = Ground::prepared(|world, root| {
        let mut agent = world.joined("web-1", root, "");
        let listening = Manager::listening(&world.path("notify"), WATCHDOG);
        agent.begin_with(&listening.environment());
        manager = Some(listening);
        agent
    });
    let manager = manager.expect("a service manager");
    let mut rows = Rows::of("kept from seeing");
    stopped_as_a_whole(&mut rows, &ground);
    engine_held(&mut rows, &ground, &manager);
    reader_held(&mut rows, &ground);
    short_of_memory(&mut rows, &ground);
    rows.row("and after all that it sees", || {
        let doer = ground.does("again(b'usr/bin/tool-05', b'X')");
        content("./usr/bin/tool-05").in_the_api(&ground.world, BY_EVENT, Some(&doer));
    });
    assert!(ground.agent.stop().success());
    ground.world.check();
    rows.end();
}

/// Whoever may not use fanotify has a queue of the kernel's size.
#[test]
fn a_queue_of_the_kernel_that_overflows_is_a_gap() {
    if left_out_without_root("an agent with fewer privileges") {
        return;
    }
    let mut ground = Ground::prepared(|world, root| {
        let mut agent = world.joined("web-1", root, "");
        let fewer = [
            "setpriv",
            "--bounding-set",
            "-sys_admin",
            "--inh-caps",
            "-sys_admin",
        ];
        agent.runner.splice(0..0, fewer.map(Into::into));
        agent.begin();
        agent
    });
    let mut rows = Rows::of("kept from seeing, by inotify");
    let node = ground.world.people.node("web-1").expect("the node");
    assert_eq!(node["coverage"]["watch"]["rung"], "D", "{node:#}");
    rows.row(
        "the whole agent stopped: a gap, and what was put back is touched",
        || {
            ground.agent.signal(Signal::STOP);
            let names = limit();
            drop(ground.does(&format!(
            "storm(b'srv', {names}); put_back(b'usr/bin/tool-02'); again(b'usr/bin/tool-03', b'X')"
        )));
            ground.agent.signal(Signal::CONT);
            let gap = ground.tells_gap("overflow", LATER);
            content("./usr/bin/tool-03").in_the_api(&ground.world, LATER, None);
            ground.is_healed(&gap, "./usr/bin/tool-02");
        },
    );
    assert!(ground.agent.stop().success());
    ground.world.check();
    rows.end();
}

/// Events that the kernel keeps for an inotify group, and by default for one of fanotify.
fn limit() -> usize {
    let text = fs::read_to_string(KERNEL).expect("a limit of the kernel");
    text.trim().parse().expect("a number")
}
