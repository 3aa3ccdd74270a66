//! Those who watch while writers write.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use pristine_tests::{agent::Agent, roots, world::World};
use rustix::process::{Pid, Signal, kill_process};

use super::disk::Disk;

/// After whoever watches was let go on: what was due meanwhile is done by then.
const AWAKE: Duration = Duration::from_millis(400);
/// After a load that the agent attests: until it begins to tell of it.
const BEGUN: Duration = Duration::from_secs(3);

/// Who watches, and where the load is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Watcher {
    Nobody,
    /// One that reads what the kernel tells and forgets it.
    Listener,
    /// The agent, which is told of the load and lets it go: it lies beside what is attested.
    Beside,
    /// The agent, which hashes every file of the load and tells of it.
    Inside,
}

/// All of them, each with a file system of its own.
pub struct Watchers<'w> {
    world: &'w World,
    unwatched: Disk,
    listener: Listener,
    listened: Disk,
    agent: Agent,
    attested: Disk,
}

impl<'w> Watchers<'w> {
    pub fn start(world: &'w World) -> Self {
        let disk = |name| {
            let disk = Disk::mount(&world.path(name));
            fs::create_dir(disk.at.join("load")).expect("a folder for the load");
            disk
        };
        let (unwatched, listened, attested) =
            (disk("unwatched"), disk("listened"), disk("attested"));
        let root = roots::small(&attested.at.join("root"));
        fs::create_dir(root.join("load")).expect("a folder in the root");
        world.image(&root, "base", "1.0", &[]);
        let agent = world.agent("web-1", &root);
        world.wait_for_status("web-1", "pristine");
        Self {
            world,
            unwatched,
            listener: Listener::start(&listened),
            listened,
            agent,
            attested,
        }
    }

    /// Lets one of them go on, and stops the others: nothing of theirs runs, and their marks are on other file systems.
    pub fn let_watch(&self, watcher: Watcher) {
        let or_stop = |goes_on| if goes_on { Signal::CONT } else { Signal::STOP };
        self.listener.signal(or_stop(watcher == Watcher::Listener));
        let agent = matches!(watcher, Watcher::Beside | Watcher::Inside);
        self.agent.signal(or_stop(agent));
        thread::sleep(AWAKE);
    }

    /// Where the load is done.
    pub fn folder(&self, watcher: Watcher) -> PathBuf {
        match watcher {
            Watcher::Nobody => self.unwatched.at.join("load"),
            Watcher::Listener => self.listened.at.join("load"),
            Watcher::Beside => self.attested.at.join("load"),
            Watcher::Inside => self.attested.at.join("root/load"),
        }
    }

    /// What one load left to do must not be in the time of the next.
    pub fn let_catch_up(&self, watcher: Watcher) {
        if watcher == Watcher::Inside {
            thread::sleep(BEGUN);
            self.world.wait_for_status("web-1", "pristine");
        }
    }

    /// The agent says goodbye, and would say here if it had not held.
    pub fn end(mut self) {
        self.let_watch(Watcher::Beside);
        self.world.wait_for_status("web-1", "pristine");
        assert!(self.agent.stop().success(), "the agent's end");
    }
}

/// The bare listener, which is this program.
struct Listener(Child);

impl Listener {
    fn start(disk: &Disk) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg("listen")
            .arg(&disk.at)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a listener");
        let said = child.stdout.take().expect("piped");
        let listener = Self(child);
        let mut ready = String::new();
        BufReader::new(said).read_line(&mut ready).expect("ready");
        assert_eq!(ready, "ready\n", "the listener listens");
        listener
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("a listener");
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
