//! Who did it, for writers that live a millisecond: run as root, on file systems and control groups of the machine.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use attestation::statement::{Actor, Confidence, Session, SessionCommand};
use tempfile::TempDir;

use super::*;
use crate::actor::Collect;

const SOURCE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/watch/attribution_writers.c"
);

/// A root that is watched, with programs beside it.
struct Stage {
    dir: TempDir,
    watch: Watch,
    attribution: Attribution,
    /// Where control groups are, mounted by us or by the machine.
    cgroups: Option<(PathBuf, bool)>,
}

impl Stage {
    /// Nothing where processes cannot be followed.
    fn new(attribution: Attribution) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir_all(dir.path().join("root/out")).unwrap();
        fs::create_dir(&bin).unwrap();
        for (name, flags) in [
            ("dynamic", &["-O1"][..]),
            ("whole", &["-O1", "-static"][..]),
        ] {
            let mut cc = Command::new("cc");
            cc.args(flags).arg(SOURCE).arg("-o").arg(bin.join(name));
            if !cc.status().is_ok_and(|status| status.success()) {
                eprintln!("left out: no C compiler that makes {name} programs");
                return None;
            }
        }
        fs::copy(bin.join("dynamic"), bin.join("sshd")).unwrap();
        fs::copy(bin.join("dynamic"), bin.join("other")).unwrap();
        let script = format!("#!{}\n", bin.join("dynamic").display());
        fs::write(bin.join("script"), script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(bin.join("script"), mode).unwrap();

        let path = dir.path().join("root");
        let scope = Scope::sealed_all();
        let root = Root::open(&path, &scope).unwrap();
        let watch = Watch::start(&root, &path, &scope, &attribution).unwrap();
        let limits = watch.coverage().limits;
        if limits.iter().any(|limit| limit.contains("looked up")) {
            eprintln!("left out: {limits:?}");
            return None;
        }
        let cgroups = cgroups(dir.path());
        Some(Self {
            dir,
            watch,
            attribution,
            cgroups,
        })
    }

    fn bin(&self, name: &str) -> String {
        self.dir.path().join("bin").join(name).display().to_string()
    }

    /// A control group of the test's own, as its processes tell it; empty where there are none.
    fn cgroup(&self, name: &str) -> (String, String) {
        let Some((base, _)) = &self.cgroups else {
            return (String::new(), String::new());
        };
        let own = self.dir.path().file_name().unwrap().to_string_lossy();
        let name = format!("pristine-test{own}-{name}.scope");
        fs::create_dir(base.join(&name)).unwrap();
        let procs = base.join(&name).join("cgroup.procs").display().to_string();
        (procs, format!("/{name}"))
    }

    fn writers(
        &self,
        auid: u32,
        procs: &str,
        numbers: std::ops::Range<u32>,
        programs: &[String],
    ) -> Child {
        Command::new(self.bin("sshd"))
            .args([auid.to_string(), procs.to_owned()])
            .arg(self.dir.path().join("root/out"))
            .args([numbers.start.to_string(), numbers.len().to_string()])
            .args(programs)
            .spawn()
            .unwrap()
    }

    /// The actors of files `out/NUMBER` until so many are told.
    fn actors(&self, count: usize) -> BTreeMap<u32, Actor> {
        let mut all = BTreeMap::new();
        let deadline = Instant::now() + Duration::from_secs(120);
        while all.len() < count {
            assert!(Instant::now() < deadline, "told {} of {count}", all.len());
            let taken = self.watch.take(Duration::from_secs(1));
            assert_eq!(taken.lost, None);
            for place in taken.places {
                let name = String::from_utf8_lossy(place.path.as_bytes()).into_owned();
                if let Some(number) = name.strip_prefix("out/") {
                    all.insert(number.parse().unwrap(), place.actor.unwrap());
                }
            }
        }
        all
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let Some((base, ours)) = &self.cgroups else {
            return;
        };
        let own = self.dir.path().file_name().unwrap().to_string_lossy();
        for entry in fs::read_dir(base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name
                .to_string_lossy()
                .starts_with(&format!("pristine-test{own}-"))
            {
                // One with a process left in it stays: the test has failed already.
                fs::remove_dir(entry.path()).ok();
            }
        }
        if *ours {
            Command::new("umount").arg("-l").arg(base).status().ok();
        }
    }
}

/// Where the unified hierarchy is mounted, and whether by us.
fn cgroups(dir: &Path) -> Option<(PathBuf, bool)> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        if let (Some(place), Some("cgroup2")) = (words.nth(1), words.next()) {
            return Some((PathBuf::from(place), false));
        }
    }
    let place = dir.join("cgroup");
    fs::create_dir(&place).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "cgroup2", "none"])
        .arg(&place)
        .status();
    mounted
        .is_ok_and(|status| status.success())
        .then_some((place, true))
}

/// Whether a login user can be set here at all.
fn no_logins() -> bool {
    let none = fs::read_to_string("/proc/self/loginuid").is_err();
    if none {
        eprintln!("left out: this kernel has no login users");
    }
    none
}

/// Stops this process now and then, so that events wait and whoever caused them is gone when they are read.
///
/// It is asked to end and not killed: killed between its two signals it would leave this process stopped for good.
struct Lag {
    shell: Child,
    wanted: tempfile::TempPath,
}

impl Lag {
    fn start() -> Self {
        let own = std::process::id();
        let wanted = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let script = format!(
            "while [ -e {wanted} ] && kill -STOP {own}; do sleep 0.3; kill -CONT {own} || exit; sleep 0.1; done",
            wanted = wanted.display()
        );
        let shell = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        Self { shell, wanted }
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        fs::remove_file(&self.wanted).ok();
        self.shell.wait().ok();
    }
}

/// Runs writers of every kind under two logins at once, and counts what was told right.
fn right_for_all(each: u32, lag: bool) {
    if no_logins() {
        return;
    }
    let Some(stage) = Stage::new(Attribution::new(true, Collect::Commands, false)) else {
        return;
    };
    let programs: Vec<String> = ["dynamic", "whole", "other", "script", "-"]
        .iter()
        .map(|name| {
            if *name == "-" {
                "-".to_owned()
            } else {
                stage.bin(name)
            }
        })
        .collect();
    let (procs_one, cgroup_one) = stage.cgroup("one");
    let (procs_two, cgroup_two) = stage.cgroup("two");
    let started = Instant::now();
    let lagging = lag.then(Lag::start);
    let mut children = [
        stage.writers(4242, &procs_one, 0..each, &programs),
        stage.writers(4343, &procs_two, each..2 * each, &programs),
    ];
    let actors = stage.actors(2 * each as usize);
    drop(lagging);
    let took = started.elapsed();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let (mut exe, mut auid, mut cgroup, mut digest, mut command) = (0, 0, 0, 0, 0);
    let mut sure: BTreeMap<Confidence, u32> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (number, actor) in &actors {
        let program = match number % 5 {
            3 => stage.bin("dynamic"),
            4 => stage.bin("sshd"),
            other => programs[other as usize].clone(),
        };
        let (login, group) = if *number < each {
            (4242, &cgroup_one)
        } else {
            (4343, &cgroup_two)
        };
        let right = [
            actor.exe.as_deref() == Some(&program),
            actor.auid == Some(login) && actor.session.is_some(),
            actor.cgroup.as_deref().unwrap_or_default() == group,
        ];
        exe += u32::from(right[0]);
        auid += u32::from(right[1]);
        cgroup += u32::from(right[2]);
        digest += u32::from(actor.exe_sha256.is_some());
        command += u32::from(actor.cmdline.is_some());
        *sure.entry(actor.confidence).or_default() += 1;
        if right.contains(&false) && wrong.len() < 5 {
            wrong.push((number, program, actor.clone()));
        }
    }
    println!(
        "{} writers in {took:?}{}: executable right for {exe}, login user for {auid}, control group for {cgroup}; \
         digest of {digest}, command line of {command}; confidence {sure:?}",
        actors.len(),
        if lag {
            ", reader stopped three quarters of the time"
        } else {
            ""
        },
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(sure.get(&Confidence::Low), None);
    assert_eq!(digest as usize, actors.len());
}

#[test]
fn ten_thousand_writers_that_live_a_millisecond_are_all_known() {
    right_for_all(5_000, false);
}

#[test]
fn writers_are_known_when_their_events_wait() {
    right_for_all(1_500, true);
}

fn count_of(session: &Session, exe: &str) -> usize {
    let commands = session.commands.iter();
    commands.filter(|command| command.exe == exe).count()
}

#[test]
fn a_session_has_its_commands_and_how_they_ended() {
    if no_logins() {
        return;
    }
    let Some(stage) = Stage::new(Attribution::new(false, Collect::Commands, true)) else {
        return;
    };
    let programs = [stage.bin("dynamic"), stage.bin("script")];
    let mut child = Command::new(stage.bin("sshd"))
        .args(["0", ""])
        .arg(stage.dir.path().join("root/out"))
        .args(["0", "4"])
        .args(&programs)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !stage.watch.take(Duration::from_secs(1)).login_of_root {
        assert!(Instant::now() < deadline);
    }
    assert!(child.wait().unwrap().success());
    let session = loop {
        drop(stage.watch.take(Duration::from_millis(10)));
        let told = stage.attribution.tell(100_000, |_| None);
        assert!(Instant::now() < deadline, "{:#?}", told.sessions);
        // Others may log in on this machine meanwhile.
        let ended = told.sessions.into_iter().find(|session| {
            session.auid == 0 && session.ended.is_some() && count_of(session, &programs[0]) == 4
        });
        if let Some(session) = ended {
            break session;
        }
    };
    let commands: Vec<_> = session
        .commands
        .iter()
        .filter(|command| command.exe == programs[0])
        .collect();
    assert!(commands.iter().all(|command| command.exit == Some(0)));
    assert!(commands.is_sorted_by_key(|command| command.at));
}

/// A command of a login that lives until it was told, and the command line that it has.
fn living_command(arguments: bool) -> Option<(SessionCommand, String)> {
    let stage = Stage::new(Attribution::new(false, Collect::Commands, arguments))?;
    // Whoever opens a pipe to write waits until somebody reads.
    let pipe = stage.dir.path().join("root/out/0");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let program = stage.bin("dynamic");
    let mut login = stage.writers(0, "", 0..1, std::slice::from_ref(&program));
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut found = None;
    while found.is_none() && Instant::now() < deadline {
        drop(stage.watch.take(Duration::from_millis(10)));
        let told = stage.attribution.tell(100_000, |_| None).sessions;
        let mut commands = told.into_iter().flat_map(|session| session.commands);
        found = commands.find(|command| command.exe == program);
    }
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
    let reader = rustix::fs::open(&pipe, flags, rustix::fs::Mode::empty()).unwrap();
    assert!(login.wait().unwrap().success());
    drop(reader);
    let line = format!("{program} {}", pipe.display());
    Some((found.unwrap(), line))
}

#[test]
fn the_arguments_of_a_sessions_commands_are_told_only_where_they_are_asked_for() {
    if no_logins() {
        return;
    }
    for asked in [true, false] {
        let Some((command, line)) = living_command(asked) else {
            return;
        };
        assert_eq!(command.exit, None, "it lived when it was told");
        assert_eq!(command.arguments, asked.then_some(line));
    }
}
