//! The Debian packages: installed, upgraded, removed and purged in a Debian 12 root, looked at by lintian; the units looked at by
//! systemd; and the commands of the README from nothing to the first verdict.
#![allow(missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use pristine_tests::{
    collector::Options,
    left_out_without_root,
    packages::{Debian, NAMES, package, packages, source, upgraded},
    program::{Lines, Program, Said, built},
    wait::{LATER, SOON, eventually},
    world::World,
};
use rustix::process::Signal;
use serde_json::Value;

const AGENT_WANTED: &str = "/etc/systemd/system/multi-user.target.wants/pristine-agent.service";
const COLLECTOR_WANTED: &str =
    "/etc/systemd/system/multi-user.target.wants/pristine-collector.service";

#[test]
fn packages_are_installed_upgraded_removed_and_purged() {
    if left_out_without_root("packages_are_installed_upgraded_removed_and_purged") {
        return;
    }
    let debian = Debian::fresh();
    let before = debian.paths();
    debian.shell("dpkg -i /root/*.deb").exits(0);
    is_installed(&debian);
    is_upgraded(&debian);

    debian
        .shell("dpkg -r pristine pristine-agent pristine-collector")
        .exits(0);
    for path in [
        "/etc/pristine/agent.toml",
        "/var/lib/pristine/agent/identity.json",
        "/var/lib/pristine/collector/store.db",
    ] {
        assert!(debian.path(path).exists(), "{path} went with the package");
    }
    assert!(!debian.path("/usr/bin/pristine-agent").exists());
    // Installed again, everything is as it was.
    debian.shell("dpkg -i /root/*_0.1.0-2_*.deb").exits(0);
    assert!(text(&debian, "/etc/pristine/agent.toml").contains("interval = 7"));

    debian
        .shell("dpkg -P pristine pristine-agent pristine-collector")
        .exits(0);
    let left: Vec<String> = debian
        .paths()
        .into_iter()
        .filter(|path| !before.contains(path) && !is_of_users(path))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "left behind by purge");
}

fn is_installed(debian: &Debian) {
    for name in NAMES {
        let said = debian.shell(&format!("{name} --version")).exits(0);
        assert!(said.out.starts_with(&format!("{name} 0.1.0 (")), "{said:?}");
    }
    assert_eq!(debian.owner("/var/lib/pristine/agent"), "root:root 700");
    assert_eq!(
        debian.owner("/var/lib/pristine/collector"),
        "pristine:pristine 700"
    );
    assert_eq!(debian.owner("/etc/pristine/agent.toml"), "root:root 644");
    assert_eq!(
        debian.owner("/etc/pristine/collector.toml"),
        "root:pristine 640"
    );
    assert!(text(debian, "/etc/passwd").contains("\npristine-agent:"));
    for wanted in [AGENT_WANTED, COLLECTOR_WANTED] {
        assert!(
            fs::symlink_metadata(debian.path(wanted)).is_ok(),
            "{wanted} is not enabled"
        );
    }
    for path in [
        "/usr/share/man/man8/pristine-agent.8.gz",
        "/usr/share/man/man8/pristine-agent-enroll.8.gz",
        "/usr/share/man/man8/pristine-collector-backup.8.gz",
        "/usr/share/man/man1/pristine-image-build.1.gz",
        "/usr/share/bash-completion/completions/pristine",
        "/usr/share/zsh/vendor-completions/_pristine-agent",
        "/usr/share/fish/vendor_completions.d/pristine-collector.fish",
        "/usr/share/doc/pristine-agent/copyright",
        "/usr/share/doc/pristine-agent/changelog.Debian.gz",
        "/usr/share/doc/pristine-collector/crates.gz",
    ] {
        assert!(debian.path(path).exists(), "{path} is missing");
    }
    assert!(
        !debian
            .path("/usr/share/man/man1/pristine-agent.1.gz")
            .exists()
    );
    // Root makes the collector's keys for whom they belong to.
    debian.shell("pristine-collector init").exits(0);
    let not_its = debian
        .shell("find /var/lib/pristine/collector ! -user pristine")
        .exits(0);
    assert_eq!(not_its.out, "", "the service cannot read these");
}

fn is_upgraded(debian: &Debian) {
    let config = debian.path("/etc/pristine/agent.toml");
    let shipped = fs::read_to_string(&config).expect("a configuration");
    fs::write(&config, format!("interval = 7\n{shipped}")).expect("what the administrator wants");
    fs::write(debian.path("/var/lib/pristine/agent/identity.json"), "{}").expect("an identity");
    fs::remove_file(debian.path(COLLECTOR_WANTED)).expect("a unit that is disabled");
    for name in NAMES {
        upgraded(name, "0.1.0-2", &debian.packages);
    }
    debian
        .shell("dpkg --force-confdef --force-confold -i /root/*_0.1.0-2_*.deb")
        .exits(0);
    let said = debian.shell("dpkg-query -W pristine-agent").exits(0);
    assert!(said.out.contains("0.1.0-2"), "{said:?}");
    let kept = fs::read_to_string(&config).expect("a configuration");
    assert!(
        kept.starts_with("interval = 7\n") && !kept.contains("A word more"),
        "{kept}"
    );
    let new = text(debian, "/etc/pristine/agent.toml.dpkg-dist");
    assert!(new.contains("A word more in 0.1.0-2."), "{new}");
    // One that nobody has changed follows the package, with its owner.
    assert!(text(debian, "/etc/pristine/collector.toml").contains("A word more"));
    assert_eq!(
        debian.owner("/etc/pristine/collector.toml"),
        "root:pristine 640"
    );
    assert!(
        fs::symlink_metadata(debian.path(COLLECTOR_WANTED)).is_err(),
        "a unit that was disabled is enabled again"
    );
    assert!(fs::symlink_metadata(debian.path(AGENT_WANTED)).is_ok());
    assert!(
        debian
            .path("/var/lib/pristine/agent/identity.json")
            .exists()
    );
}

/// Users stay, as Debian has it: their numbers must not be given to somebody else.
fn is_of_users(path: &str) -> bool {
    let copies = ["passwd", "group", "shadow", "gshadow", "subuid", "subgid"];
    copies.iter().any(|name| path == format!("/etc/{name}-")) || path == "/etc/.pwd.lock"
}

fn text(debian: &Debian, path: &str) -> String {
    fs::read_to_string(debian.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn lintian_finds_no_error() {
    if Command::new("lintian").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "lintian is missing");
        eprintln!("left out, lintian is not installed: lintian_finds_no_error");
        return;
    }
    packages();
    let said = Said::by(
        Command::new("lintian")
            .args([
                "--allow-root",
                "--fail-on",
                "error",
                "--tag-display-limit",
                "0",
            ])
            .args(NAMES.map(package)),
    );
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    assert!(!said.out.contains("\nE: "), "{}", said.out);
}

/// The units with the programs that were built, where systemd finds them.
fn units(folder: &Path) -> Vec<PathBuf> {
    let mut units = Vec::new();
    for entry in fs::read_dir(source().join("packaging/systemd"))
        .expect("units")
        .flatten()
    {
        let path = entry.path();
        if path.extension().is_some_and(|it| it == "service") {
            let text = fs::read_to_string(&path).expect("a unit");
            let here = format!("{}/pristine-", built().display());
            let unit = folder.join(path.file_name().expect("a name"));
            fs::write(&unit, text.replace("/usr/bin/pristine-", &here)).expect("a unit");
            units.push(unit);
        }
    }
    assert_eq!(units.len(), 3, "{units:?}");
    units
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let said = Said::by(
        Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .args(units(scratch.path())),
    )
    .exits(0);
    let of_ours: Vec<&str> = said
        .err
        .lines()
        .filter(|line| line.contains("pristine"))
        .collect();
    assert_eq!(of_ours, Vec::<&str>::new());
}

/// `systemd-analyze security` in tenths, at most.
const EXPOSED: [(&str, u32); 3] = [
    ("pristine-agent.service", 40),
    ("pristine-agent-enroll.service", 25),
    ("pristine-collector.service", 15),
];

#[test]
fn the_units_are_exposed_no_more_than_they_say_why() {
    for (unit, most) in EXPOSED {
        let path = source().join("packaging/systemd").join(unit);
        let mut analyze = Command::new("systemd-analyze");
        analyze
            .args(["security", "--offline=yes", "--no-pager"])
            .arg(&path);
        Said::by(analyze.arg(format!("--threshold={most}"))).exits(0);
        let told = Said::by(analyze.arg("--json=short"));
        let points: Vec<Value> = serde_json::from_str(&told.out).expect("a list of points");
        let text = fs::read_to_string(&path).expect("a unit");
        let words: String = text.lines().filter(|line| line.starts_with('#')).collect();
        let unexplained: Vec<&str> = points
            .iter()
            .filter(|point| point["exposure"].is_string() && point["set"] == false)
            .filter_map(|point| point["name"].as_str())
            .filter(|name| unit == "pristine-agent.service" && !words.contains(word_of(name)))
            .collect();
        assert_eq!(unexplained, Vec::<&str>::new(), "{unit} does not say why");
    }
}

/// What a comment must name to speak of a point.
fn word_of(point: &str) -> &str {
    match point {
        "CapabilityBoundingSet=~CAP_(DAC_*|FOWNER|IPC_OWNER)" => "DAC_READ_SEARCH",
        "CapabilityBoundingSet=~CAP_SET(UID|GID|PCAP)" => "SETUID",
        "RestrictAddressFamilies=~AF_(INET|INET6)" => "AF_INET6",
        "User=/DynamicUser=" => "User=root",
        "RootDirectory=/RootImage=" => "RootDirectory",
        _ => {
            let word = point.rsplit('~').next().unwrap_or(point);
            word.trim_end_matches('=').trim_start_matches("CAP_")
        }
    }
}

/// The commands of the README's first block on packages, one a line.
fn commands_of_the_readme() -> Vec<String> {
    let readme = fs::read_to_string(source().join("README.md")).expect("the README");
    let (_, after) = readme
        .split_once("### From nothing to the first verdict")
        .expect("the section with the commands");
    let (_, block) = after.split_once("```sh\n").expect("a block of commands");
    let (block, _) = block.split_once("```").expect("its end");
    let commands = block
        .lines()
        .map(|line| line.split("  #").next().unwrap_or(line).trim());
    commands
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_fresh_debian_comes_to_its_first_verdict_by_the_commands_of_the_readme() {
    const NAME: &str = "a_fresh_debian_comes_to_its_first_verdict_by_the_commands_of_the_readme";
    if left_out_without_root(NAME) {
        return;
    }
    let mut commands = commands_of_the_readme();
    assert!((1..=5).contains(&commands.len()), "{commands:?}");
    let debian = Debian::fresh();
    // What else apt would take from the network is there already.
    fs::write(
        debian.path("/etc/apt/apt.conf.d/90test"),
        "APT::Install-Recommends \"false\";\nAPT::Sandbox::User \"root\";\n",
    )
    .expect("a setting of apt");
    // The last one runs until it is told to end.
    let last = commands.pop().expect("a command");
    let script = format!("{}\nexec {last}", commands.join("\n"));
    // The root is made this process' own, as on a machine: with its kernel's file systems, and nothing of ours around it.
    let script = format!(
        "mount --make-rprivate / && mount --bind {root} {root} && cd {root} && mount -t proc proc proc \
         && mount -t sysfs sysfs sys && mount -t devtmpfs dev dev && mount -t tmpfs run run \
         && pivot_root . mnt && umount -l /mnt && cd /root && exec /bin/bash -ec '{script}'",
        root = debian.root.display(),
    );
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "/bin/bash", "-ec", &script])
        .env("HOME", "/root")
        .env("NO_COLOR", "1")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null());
    let mut run = Program::start("the commands of the README", &mut command, Lines::default());
    let verdict = eventually("a first verdict", LATER + Duration::from_secs(60), || {
        assert!(run.ended().is_none(), "it ended:\n{}", run.complaint());
        let lines = run.stdout.lock().expect("lines");
        let is_verdict = |line: &&String| {
            let mut words = line.split_whitespace();
            words.next().is_some_and(|at| at.ends_with('Z')) && words.next() == Some("pristine")
        };
        lines.iter().find(is_verdict).cloned()
    });
    eprintln!("after {} commands: {verdict}", commands.len() + 1);
    let status = run.stop(Signal::TERM);
    assert!(status.success(), "{status}");
}

/// The most that the agent may take, stripped, for every x86-64 Linux.
const STATIC_BYTES: u64 = 12 << 20;
/// The name of the collector where the C library is not there to ask for it.
const BY_NAME: &str = "collector.test";

#[test]
fn the_static_agent_is_small_and_needs_nothing_of_its_machine() {
    let Some(agent) = std::env::var_os("PRISTINE_STATIC_AGENT").map(PathBuf::from) else {
        eprintln!(
            "left out: PRISTINE_STATIC_AGENT names no agent that packaging/static-agent has built"
        );
        return;
    };
    let size = fs::metadata(&agent).expect("the static agent").len();
    eprintln!("static agent: {size} bytes");
    assert!(size < STATIC_BYTES, "{size} bytes");
    let headers = Said::by(Command::new("readelf").arg("-ld").arg(&agent))
        .exits(0)
        .out;
    for dynamic in ["NEEDED", "INTERP"] {
        assert!(!headers.contains(dynamic), "{headers}");
    }
    if left_out_without_root("the_static_agent_is_small_and_needs_nothing_of_its_machine") {
        return;
    }
    // A root with nothing in it but the agent and the names of hosts.
    let world = World::with(&Options {
        names: vec![BY_NAME.to_owned()],
        ..Options::default()
    });
    let root = world.path("bare");
    for folder in ["etc", "proc", "tmp"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    fs::copy(&agent, root.join("agent")).expect("the agent");
    fs::copy(&world.collector.first.ca, root.join("ca.pem")).expect("the CA");
    fs::write(root.join("etc/hosts"), format!("127.0.0.1 {BY_NAME}\n")).expect("hosts");
    let url = world.collector.doors.join.replace("127.0.0.1", BY_NAME);
    let script = format!(
        "mount --make-rprivate / && mount -t proc proc {root}/proc && exec chroot {root} /agent enroll --join {url} --ca /ca.pem --name bare",
        root = root.display(),
    );
    let mut enroll = Command::new("unshare");
    enroll
        .args(["--mount", "/bin/sh", "-ec", &script])
        .stdin(Stdio::null());
    let mut process = Program::start("the static agent", &mut enroll, Lines::default());
    eventually("the collector hears of the node", SOON, || {
        assert!(
            process.ended().is_none(),
            "it ended:\n{}",
            process.complaint()
        );
        world.people.node("bare")
    });
    process.kill();
}
