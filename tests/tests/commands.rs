//! The commands as scripts call them: exit codes and the JSON members that COMMANDS.md promises.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use pristine_tests::{
    program::{Said, command},
    roots,
    world::{COMMIT, World, statement_of},
};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with a small root and a publisher's key; no collector.
struct Desk {
    folder: TempDir,
    root: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("pristine-test-")
            .tempdir()
            .expect("a temporary folder");
        let root = roots::small(&folder.path().join("root"));
        let desk = Self { folder, root };
        desk.run(["key", "generate", "-o", "publisher"]).exits(0);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = command("pristine");
        command
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("XDG_CONFIG_HOME", self.path(".config"));
        command
    }

    fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Said {
        Said::by(self.command().args(arguments))
    }

    fn image(&self, name: &str, more: &[&str]) -> PathBuf {
        let file = format!("{name}.mtree.zst");
        let build = [
            "image",
            "build",
            "dir:root",
            "--name",
            "base",
            "--version",
            name,
            "--key",
            "publisher",
            "-o",
            &file,
        ];
        self.run(build.iter().chain(more)).exits(0);
        self.path(&file)
    }
}

#[track_caller]
fn has(value: &Value, members: &[&str]) {
    for member in members {
        assert!(value.get(member).is_some(), "no {member} in {value:#}");
    }
}

#[test]
fn every_program_tells_its_version_and_refuses_what_it_does_not_know() {
    for name in ["pristine", "pristine-agent", "pristine-collector"] {
        let version = Said::by(command(name).arg("--version")).exits(0);
        assert!(version.out.starts_with(name), "{}", version.out);
        let help = Said::by(command(name).arg("--help")).exits(0);
        assert!(help.out.contains("Usage"), "{}", help.out);
        Said::by(command(name).arg("--nonsense")).exits(64);
        Said::by(command(name).arg("nonsense")).exits(64);
    }
}

#[test]
fn key_generate_writes_a_private_key_for_its_owner_alone() {
    let desk = Desk::new();
    for algorithm in ["ed25519", "p256"] {
        let made = desk
            .run([
                "key",
                "generate",
                "--algorithm",
                algorithm,
                "-o",
                algorithm,
                "--format",
                "json",
            ])
            .exits(0)
            .json();
        has(&made, &["keyid", "algorithm", "private", "public"]);
        assert_eq!(made["algorithm"], algorithm);
        let mode = fs::metadata(desk.path(algorithm))
            .expect("the key")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let public =
            fs::read_to_string(desk.path(&format!("{algorithm}.pub"))).expect("the public key");
        let keyid = attestation::key::PublicKey::from_pem(&public)
            .expect("SPKI PEM")
            .keyid();
        assert_eq!(made["keyid"], keyid.to_string());
    }
    let before = fs::read(desk.path("publisher")).expect("a key");
    let again = desk.run(["key", "generate", "-o", "publisher"]);
    assert_ne!(again.code, 0, "a key was overwritten");
    assert_eq!(fs::read(desk.path("publisher")).expect("a key"), before);
}

#[test]
fn image_build_is_the_same_twice_and_verify_tells_what_does_not_hold() {
    let desk = Desk::new();
    let (one, two) = (desk.image("one", &[]), desk.image("two", &[]));
    let plain = |file: &Path| {
        zstd::decode_all(fs::File::open(file).expect("a manifest")).expect("zstandard")
    };
    let entries = |file: &Path| {
        String::from_utf8(plain(file))
            .expect("ASCII")
            .lines()
            .filter(|l| !l.starts_with('#'))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(entries(&one), entries(&two));

    desk.run([
        "image",
        "verify",
        "one.mtree.zst",
        "--publisher",
        "publisher.pub",
    ])
    .exits(0);
    desk.run(["key", "generate", "-o", "other"]).exits(0);
    let both = [
        "image",
        "verify",
        "one.mtree.zst",
        "--publisher",
        "other.pub",
        "--publisher",
        "publisher.pub",
        "--threshold",
        "2",
    ];
    desk.run(both).exits(1);
    desk.run([
        "image",
        "verify",
        "one.mtree.zst",
        "--publisher",
        "other.pub",
    ])
    .exits(1);
    desk.run(["image", "sign", "one.mtree.zst", "--key", "other"])
        .exits(0);
    desk.run(both).exits(0);

    fs::copy(desk.path("two.mtree.zst"), desk.path("copy.mtree.zst")).expect("a copy");
    desk.run([
        "image",
        "verify",
        "copy.mtree.zst",
        "--publisher",
        "publisher.pub",
    ])
    .exits(2);
    fs::write(desk.root.join("srv/www/empty"), "no more\n").expect("a change");
    let other = desk.image("three", &[]);
    fs::copy(statement_of(&one), statement_of(&other)).expect("another image's statement");
    desk.run([
        "image",
        "verify",
        "three.mtree.zst",
        "--publisher",
        "publisher.pub",
    ])
    .exits(1);
}

#[test]
fn image_show_has_the_promised_members() {
    let desk = Desk::new();
    desk.image(
        "one",
        &[
            "--commit",
            COMMIT,
            "--author",
            "Release pipeline",
            "--repository",
            "https://git.example/base.git",
            "--ref",
            "main",
        ],
    );
    let shown = desk
        .run(["image", "show", "one.mtree.zst", "--format", "json"])
        .exits(0)
        .json();
    has(
        &shown,
        &[
            "name",
            "version",
            "epoch",
            "tree",
            "entries",
            "bytes",
            "source",
            "signatures",
        ],
    );
    assert_eq!(
        (shown["name"].as_str(), shown["epoch"].as_u64()),
        (Some("base"), Some(1))
    );
    assert_eq!(shown["source"]["commit"], COMMIT);
    has(&shown["signatures"][0], &["keyid"]);
    let one = desk
        .run([
            "image",
            "show",
            "one.mtree.zst",
            "./etc/app/app.conf",
            "--format",
            "json",
        ])
        .exits(0)
        .json();
    has(&one, &["path", "entry", "proof"]);
    assert!(
        one["entry"]
            .as_str()
            .is_some_and(|line| line.contains("size=12")),
        "{one}"
    );
}

#[test]
fn image_export_and_diff_have_the_promised_members() {
    let desk = Desk::new();
    desk.image("one", &[]);
    let sums = desk
        .run(["image", "export", "one.mtree.zst", "--as", "sha256sum"])
        .exits(0);
    fs::write(desk.path("sums"), &sums.out).expect("the sums");
    let checked = Said::by(
        Command::new("sha256sum")
            .args(["--quiet", "-c"])
            .arg(desk.path("sums"))
            .current_dir(&desk.root),
    );
    assert_eq!(
        checked.code, 0,
        "{}{}\n{}",
        checked.out, checked.err, sums.out
    );
    assert!(
        !desk
            .run(["image", "export", "one.mtree.zst", "--as", "json"])
            .exits(0)
            .out
            .is_empty()
    );

    desk.run(["image", "diff", "one.mtree.zst", "one.mtree.zst"])
        .exits(0);
    fs::write(desk.root.join("etc/app/app.conf"), "listen = 81\n").expect("a change");
    fs::write(desk.root.join("etc/app/new.conf"), "").expect("a file");
    desk.image("two", &[]);
    let diff = desk
        .run([
            "image",
            "diff",
            "one.mtree.zst",
            "two.mtree.zst",
            "--format",
            "json",
        ])
        .exits(1)
        .json();
    has(&diff, &["from", "to", "differences"]);
    let differences = diff["differences"].as_array().expect("a list");
    assert_eq!(differences.len(), 2, "{diff:#}");
    differences
        .iter()
        .for_each(|difference| has(difference, &["path", "expected", "found", "fields"]));
    assert_eq!(
        differences[0]["fields"],
        serde_json::json!(["sha256digest"])
    );
    assert_eq!(differences[1]["fields"], serde_json::json!(["added"]));
}

#[test]
fn scan_compares_offline_and_tells_each_difference() {
    let desk = Desk::new();
    desk.image("one", &[]);
    let plain = desk
        .run(["scan", "root", "--format", "json"])
        .exits(0)
        .json();
    has(
        &plain,
        &[
            "tree",
            "entries",
            "bytes",
            "seconds",
            "unreadable",
            "mounts",
        ],
    );
    let scan = [
        "scan",
        "root",
        "--image",
        "one.mtree.zst",
        "--format",
        "json",
    ];
    let clean = desk.run(scan).exits(0).json();
    has(
        &clean,
        &[
            "tree",
            "entries",
            "bytes",
            "seconds",
            "unreadable",
            "mounts",
            "verdict",
            "image",
            "differences",
        ],
    );
    assert_eq!(clean["verdict"], "pristine");
    assert_eq!(clean["tree"], plain["tree"]);
    has(&clean["image"], &["name", "version", "tree"]);
    desk.run(scan.iter().chain(&["--publisher", "publisher.pub"]))
        .exits(0);

    fs::set_permissions(
        desk.root.join("usr/bin/tool-05"),
        fs::Permissions::from_mode(0o4755),
    )
    .expect("a mode");
    fs::remove_file(desk.root.join("usr/bin/tool")).expect("removed");
    symlink("tool-02", desk.root.join("usr/bin/tool")).expect("another link");
    fs::remove_file(desk.root.join("srv/www/empty")).expect("removed");
    let drifted = desk.run(scan).exits(1).json();
    assert_eq!(drifted["verdict"], "drifted");
    let told: Vec<_> = drifted["differences"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|d| (d["path"].as_str(), d["fields"].to_string()))
        .collect();
    let wanted = [
        ("./srv/www/empty", r#"["removed"]"#),
        ("./usr/bin/tool", r#"["link"]"#),
        ("./usr/bin/tool-05", r#"["mode"]"#),
    ];
    assert_eq!(
        told,
        wanted.map(|(path, fields)| (Some(path), fields.to_owned()))
    );

    desk.run(["scan", "nowhere"]).exits(2);
    desk.run(["scan", "root", "--image", "nowhere.mtree.zst"])
        .exits(2);
    desk.run([
        "scan",
        "root",
        "--image",
        "one.mtree.zst",
        "--scope",
        "host",
    ])
    .exits(64);
    desk.run(["key", "generate", "-o", "other"]).exits(0);
    let unsigned = desk.run(scan.iter().chain(&["--publisher", "other.pub"]));
    assert!(
        [1, 2].contains(&unsigned.code) && !unsigned.out.contains("\"drifted\""),
        "{} {}",
        unsigned.code,
        unsigned.out
    );
}

#[test]
fn an_output_inside_the_source_or_a_bad_scope_is_refused() {
    let desk = Desk::new();
    let build = |arguments: &[&str]| {
        desk.run(
            [
                "image",
                "build",
                "dir:root",
                "--name",
                "base",
                "--version",
                "1",
            ]
            .iter()
            .chain(arguments),
        )
    };
    assert_ne!(build(&["-o", "root/inside.mtree.zst"]).code, 0);
    assert!(!desk.root.join("inside.mtree.zst").exists());
    fs::write(
        desk.path("scope.json"),
        r#"[{"match":"etc/[","expect":"local"}]"#,
    )
    .expect("a scope");
    let refused = build(&["-o", "one.mtree.zst", "--scope", "scope.json"]);
    assert!(
        [2, 64, 78].contains(&refused.code),
        "{} {}",
        refused.code,
        refused.err
    );
    assert!(
        refused.err.contains("etc/["),
        "the rule is named: {}",
        refused.err
    );
    fs::write(
        desk.path("scope.json"),
        r#"[{"match":"etc/**","expect":"local","note":"x"}]"#,
    )
    .expect("a scope");
    assert_ne!(
        build(&["-o", "one.mtree.zst", "--scope", "scope.json"]).code,
        0,
        "an unknown member of a rule"
    );
    assert!(!desk.path("one.mtree.zst").exists());
    build(&["-o", "unsigned.mtree.zst"]).exits(0);
    desk.run([
        "image",
        "verify",
        "unsigned.mtree.zst",
        "--publisher",
        "publisher.pub",
    ])
    .exits(1);
}

#[test]
fn configuration_that_is_not_right_is_refused_by_name() {
    let desk = Desk::new();
    let config = desk.path("agent.toml");
    fs::write(&config, "root = \"/\"\nstates = \"x\"\n").expect("a file");
    let refused = Said::by(
        command("pristine-agent")
            .arg("run")
            .arg("--config")
            .arg(&config),
    )
    .exits(78);
    assert!(
        refused.err.contains("states") && refused.err.contains("state"),
        "{}",
        refused.err
    );
    fs::write(
        &config,
        format!(
            "root = \"{}\"\nstate = \"{}\"\n",
            desk.root.display(),
            desk.path("s").display()
        ),
    )
    .expect("a file");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o666)).expect("a mode");
    Said::by(
        command("pristine-agent")
            .arg("run")
            .arg("--config")
            .arg(&config),
    )
    .exits(78);
    let config = desk.path("collector.toml");
    fs::write(&config, "state = \"x\"\nagent = \"127.0.0.1:0\"\n").expect("a file");
    let refused = Said::by(
        command("pristine-collector")
            .arg("serve")
            .arg("--config")
            .arg(&config),
    )
    .exits(78);
    assert!(
        refused.err.contains("agents"),
        "the nearest right key is named: {}",
        refused.err
    );
}

#[test]
fn the_fleet_commands_have_the_promised_members() {
    let world = World::start();
    let root = roots::small(&world.path("root"));
    let image = world.image(&root, "base", "1.0", &[]);
    let agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    let nodes = world
        .run(["node", "list", "--format", "json"])
        .exits(0)
        .json();
    has(
        &nodes["items"][0],
        &[
            "id",
            "name",
            "group",
            "status",
            "verdict",
            "assurance",
            "image",
            "tree",
            "coverage",
            "last_attested",
            "violations",
        ],
    );
    let id = world.id("web-1");
    let node = world
        .run(["node", "show", &id, "--format", "json"])
        .exits(0)
        .json();
    assert_eq!(node["id"], id.as_str());
    world.run(["node", "show", "no-such-node"]).exits(2);
    let images = world
        .run(["image", "list", "--format", "json"])
        .exits(0)
        .json();
    assert_eq!(images["items"][0]["sha256"], image.sha256);
    world
        .run([
            OsStr::new("image"),
            "publish".as_ref(),
            image.file.as_os_str(),
        ])
        .exits(0);

    fs::write(root.join("etc/app/app.conf"), "listen = 8080\n").expect("a change");
    world.wait_for_status("web-1", "drifted");
    let open = world.run(["violation", "list", "--format", "json"]);
    assert!([0, 1].contains(&open.code), "{}", open.err);
    let violation = open.json()["items"][0].clone();
    has(
        &violation,
        &[
            "id",
            "node",
            "kind",
            "path",
            "expect",
            "expected",
            "found",
            "fields",
            "actor",
            "severity",
            "opened",
            "detected",
            "resolved",
            "resolution",
            "image",
        ],
    );
    let shown = world.run([
        "violation",
        "show",
        violation["id"].as_str().expect("an id"),
        "--format",
        "json",
    ]);
    assert_eq!(shown.json()["path"], "./etc/app/app.conf");
    let differences = world.people.get(&format!("/api/v1/nodes/{id}/differences"));
    assert_eq!(differences["items"][0]["path"], "./etc/app/app.conf");
    let token = world.run(["token", "create", "--role", "viewer", "--format", "json"]);
    eprintln!("token create --role: {} {}", token.code, token.err);
    let refused = Said::by(
        command("pristine-agent")
            .args(["enroll", "--token", "pristine-join.nonsense"])
            .arg("--config")
            .arg(agent.config()),
    );
    assert_ne!(refused.code, 0);
    drop(agent);
    world.check();
}

#[test]
fn a_node_without_a_token_waits_for_a_person() {
    let world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let mut agent = pristine_tests::agent::Agent::configured(
        &world.path("db-1"),
        "db-1",
        &root,
        &world.collector.doors.agents,
        "",
    );
    let mut enroll = command("pristine-agent");
    enroll
        .arg("enroll")
        .arg("--config")
        .arg(agent.config())
        .args(["--join", &world.collector.doors.join, "--name", "db-1"]);
    enroll.arg("--ca").arg(&world.collector.first.ca);
    let mut waiting = pristine_tests::program::Program::start(
        "pristine-agent enroll",
        &mut enroll,
        Default::default(),
    );
    let node = world.wait_for_status("db-1", "pending");
    assert!(
        waiting.ended().is_none(),
        "it waits: {}",
        waiting.complaint()
    );
    world
        .run(["node", "approve", node["id"].as_str().expect("an id")])
        .exits(0);
    let ended =
        pristine_tests::wait::eventually("it has joined", pristine_tests::wait::LATER, || {
            waiting.ended()
        });
    assert!(ended.success(), "{}", waiting.complaint());
    agent.begin();
    world.wait_for_status("db-1", "pristine");
    world.check();
}
