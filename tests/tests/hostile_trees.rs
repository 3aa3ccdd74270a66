//! Trees that were made to hold up, exhaust or blind whoever reads them: the scan ends, in time, and says what it could not see.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use pristine_tests::{
    attested::scanned,
    change::change,
    cost::Cost,
    disk::{Disk, Kind, unmount},
    left_out_without_root,
    program::{Said, script},
    roots,
    rows::Rows,
    sighting::{added, difference},
    wait::{LATER, SOON, eventually},
    world::World,
};
use serde_json::Value;

/// Whatever is in the tree.
const MINUTE: Duration = Duration::from_secs(60);
/// What does not answer is given up after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that looking at a file which is not as expected may cost.
const LITTLE: u64 = 200 << 20;

#[test]
fn what_is_put_into_a_watched_tree_to_hold_up_its_reader_is_told_in_time() {
    if left_out_without_root("hostile trees under a running agent") {
        return;
    }
    let world = World::start();
    let disk = Disk::mounted(&world.path("disk"), Kind::Tmpfs, 512);
    let root = roots::small(&disk.at.join("root"));
    let image = world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    let pid = agent.pid().expect("a running agent");

    let mut rows = Rows::of("hostile trees");
    rows.row("a sparse file of 1 TiB added, and one put where a file was: told, not read", || {
        let before = bytes_read(pid);
        let script = "fd = os.open(at(b'usr/lib/hole'), os.O_CREAT | os.O_WRONLY, 0o644); os.ftruncate(fd, 1 << 40); os.close(fd)
os.truncate(at(b'usr/bin/tool-09'), 1 << 40)";
        let doer = change(&root, script);
        let added = added("./usr/lib/hole", "size=1099511627776").in_the_api(&world, MINUTE, Some(&doer));
        assert!(!added["found"].as_str().is_some_and(|line| line.contains("sha256digest")), "{added}");
        let fields = ["size"];
        difference("./usr/bin/tool-09", &fields, Some("size="), Some("size=1099511627776")).in_the_api(&world, MINUTE, Some(&doer));
        let read = bytes_read(pid) - before;
        assert!(read < LITTLE, "{read} bytes were read");
    });
    rows.row("the same by a scan against the image", || {
        let began = Instant::now();
        let said = against(&world, &root, &image.file).exits(1).json();
        assert!(began.elapsed() < MINUTE, "{:?}", began.elapsed());
        assert!(
            said["differences"]
                .as_array()
                .is_some_and(|found| found.len() == 2),
            "{said:#}"
        );
    });
    rows.row(
        "without an image its content is hashed, and how far that is is said",
        || {
            let mut scan = Unfinished::scan(&world, &root);
            let line = scan.complaint(" of 1");
            assert!(
                line.contains("./usr/lib/hole") || line.contains("./usr/bin/tool-09"),
                "{line}"
            );
            scan.end();
        },
    );
    fs::remove_file(root.join("usr/lib/hole")).expect("a removal");
    // Nobody who reads the whole tree later should hash a tebibyte of zeros.
    fs::remove_file(root.join("usr/bin/tool-09")).expect("a removal");
    rows.row("a FIFO named like a configuration file", || {
        let doer = change(&root, "os.mkfifo(at(b'etc/app/extra.conf'), 0o644)");
        added("./etc/app/extra.conf", "type=fifo").in_the_api(&world, SOON, Some(&doer));
    });
    rows.row("20,000 extended attributes on one file: unreadable, and a capability behind them is told", || {
        drop(change(
            &root,
            "os.setxattr(at(b'usr/bin/tool-10'), 'security.capability', bytes.fromhex('0100000200200000') + bytes(12))\nfor n in range(20000): os.setxattr(at(b'usr/bin/tool-10'), 'user.%05d' % n, b'x')",
        ));
        let node = eventually("it is told as unreadable", MINUTE, || {
            world
                .people
                .node("web-1")
                .filter(|node| unreadable(node, "./usr/bin/tool-10").is_some())
        });
        let error = unreadable(&node, "./usr/bin/tool-10").expect("its cause");
        let named = "attributes: Argument list too long (os error 7); read by name: xattr.security.capability=AQAAAgAgAAAAAAAAAAAAAAAAAAA=";
        assert!(error.ends_with(named), "{error}");
        let scan = scanned(&world, &root, None);
        assert!(
            scan["unreadable"]
                .as_array()
                .is_some_and(|list| list.len() == 1),
            "{scan:#}"
        );
    });
    rows.row("a tree deeper than PATH_MAX", || {
        let doer = change(&root, "os.chdir(at(b'srv'))\nfor n in range(30): os.mkdir(b'd' * 200); os.chdir(b'd' * 200)\nopen('leaf', 'w').close()");
        let path = format!("./srv{}/leaf", format!("/{}", "d".repeat(200)).repeat(30));
        added(&path, "size=0").in_the_api(&world, SOON, Some(&doer));
    });
    rows.row("the agent is as it was", || {
        let cost = Cost::of(pid);
        eprintln!("       the agent: {cost}");
        assert!(cost.peak < 200 << 20, "{cost}");
        assert!(agent.stop().success());
    });
    world.check();
    rows.end();
}

#[test]
fn a_large_file_is_read_beside_everything_else() {
    if left_out_without_root("a large file under a running agent") {
        return;
    }
    let world = World::start();
    let root = roots::small(&world.path("root"));
    let large = fs::File::create(root.join("srv/large")).expect("a file");
    large.set_len(1 << 30).expect("a long file");
    drop(large);
    world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    let mut rows = Rows::of("a large file");
    rows.row("changed: told, as is what is changed meanwhile", || {
        let script =
            "fd = os.open(at(b'srv/large'), os.O_WRONLY); os.pwrite(fd, b'x', 5); os.close(fd)
write(b'etc/app/more', b'x')";
        let doer = change(&root, script);
        added("./etc/app/more", "size=1").in_the_api(&world, SOON, Some(&doer));
        let same = Some("size=1073741824");
        difference("./srv/large", &["sha256digest"], same, same).in_the_api(
            &world,
            SOON,
            Some(&doer),
        );
    });
    rows.row("and changed back", || {
        let script =
            "fd = os.open(at(b'srv/large'), os.O_WRONLY); os.pwrite(fd, b'\\0', 5); os.close(fd)
os.unlink(at(b'etc/app/more'))";
        drop(change(&root, script));
        world.wait_for_status("web-1", "pristine");
    });
    assert!(agent.stop().success());
    world.check();
    rows.end();
}

#[test]
fn a_directory_of_very_many_names_is_read_and_watched() {
    if left_out_without_root("a directory of very many names") {
        return;
    }
    let names: u64 = number("PRISTINE_TEST_NAMES", 200_000);
    let world = World::start();
    let disk = Disk::mounted(&world.path("disk"), Kind::Ext4, 256 + names / 300);
    let root = disk.at.join("root");
    fs::create_dir_all(root.join("one")).expect("a folder");
    for n in 0..names {
        fs::File::create(root.join(format!("one/{n}"))).expect("a file");
    }
    let mut rows = Rows::of("a directory of very many names");
    rows.row("read by a scan", || {
        let scan = scanned(&world, &root, None);
        assert_eq!(scan["entries"], names + 2, "{scan:#}");
        let seconds = scan["seconds"].as_f64().expect("a time");
        assert!(seconds < 60.0, "{seconds} s");
    });
    rows.row("watched, and one change in it told", || {
        world.image(&root, "base", "1.0", &[]);
        let mut agent = world.agent("web-1", &root);
        world.wait_for_status("web-1", "pristine");
        let doer = change(&root, "write(b'one/777', b'x'); write(b'one/new', b'x')");
        difference(
            "./one/777",
            &["size", "sha256digest"],
            Some("size=0"),
            Some("size=1"),
        )
        .in_the_api(&world, SOON, Some(&doer));
        added("./one/new", "size=1").in_the_api(&world, SOON, Some(&doer));
        eprintln!(
            "       the agent: {}",
            Cost::of(agent.pid().expect("a running agent"))
        );
        assert!(agent.stop().success());
    });
    world.check();
    rows.end();
}

#[test]
fn a_tree_deeper_than_a_path_may_be_is_read_to_where_it_can_be_named() {
    if left_out_without_root("a tree of very many levels") {
        return;
    }
    // Names of one letter make the most of it: 32,767 levels can be named, and take minutes on a busy machine.
    let letters: usize = number("PRISTINE_TEST_LETTERS", 8);
    let named = 65_535 / (letters + 1);
    let world = World::start();
    let disk = Disk::mounted(&world.path("disk"), Kind::Ext4, 512);
    let root = roots::small(&disk.at.join("root"));
    let made = named + 1_000;
    drop(change(
        &root,
        &format!(
            "os.chdir(at(b'srv'))\nfor n in range({made}): os.mkdir('d' * {letters}); os.chdir('d' * {letters})"
        ),
    ));
    let began = Instant::now();
    let scan = scanned(&world, &root, None);
    eprintln!("{made} levels in {:.1?}", began.elapsed());
    assert!(began.elapsed() < 2 * MINUTE, "{:?}", began.elapsed());
    let unreadable = scan["unreadable"].as_array().expect("a list");
    assert_eq!(unreadable.len(), 1, "{} unreadable", unreadable.len());
    assert_eq!(unreadable[0]["error"], "depth");
    let read = scan["entries"].as_u64().expect("a number");
    assert!(read >= named as u64 - 1, "{read} of {named}");
}

#[test]
fn a_file_system_that_fails_is_told_as_far_as_it_fails() {
    if left_out_without_root("a file system in user space that fails") {
        return;
    }
    let world = World::start();
    let root = roots::small(&world.path("root"));
    let at = root.join("srv/failing");
    fs::create_dir(&at).expect("a mount point");
    let mut failing = Failing::mounted(&at);
    let other = world.path("silent");
    fs::create_dir(&other).expect("a mount point");
    let mut silent = Failing::mounted(&other);
    silent.mode("silent");
    let mut rows = Rows::of("a file system that fails");

    out_of_scope(&world, &mut rows, &root, &mut failing);
    world.image_by(&root, r#"[{"match": "srv/failing", "expect": "sealed"}]"#);
    let mut agent = world.agent_with("web-1", &root, "rescan = 2\n");
    rows.row("in scope and well: pristine", || {
        world.wait_for_status("web-1", "pristine");
    });
    rows.row(
        "in scope and failing: incomplete, and what is changed beside it is told",
        || {
            failing.mode("fail");
            let folder = "./srv/failing/failing-folder";
            eventually(
                "a directory that is not listed is told by its metadata",
                LATER,
                || {
                    let node = world.people.node("web-1")?;
                    unreadable(&node, folder)
                },
            );
            world.rescan("web-1");
            let paths = ["./srv/failing/denied", "./srv/failing/failing", folder];
            eventually("it is incomplete, and what fails is told", LATER, || {
                let node = world.people.node("web-1")?;
                let told = paths.iter().all(|path| unreadable(&node, path).is_some());
                (told && node["verdict"] == "incomplete").then_some(())
            });
            let doer = change(&root, "write(b'etc/app/app.conf', b'listen = 8080\\n')");
            difference(
                "./etc/app/app.conf",
                &["size", "sha256digest"],
                Some("size=12"),
                Some("size=14"),
            )
            .in_the_api(&world, SOON, Some(&doer));
            failing.mode("well");
        },
    );
    never_answering(&world, &mut rows, &root, (&mut failing, &mut silent));
    assert!(agent.stop().success());
    drop((failing, silent));
    world.check();
    rows.end();
}

fn out_of_scope(world: &World, rows: &mut Rows, root: &Path, failing: &mut Failing) {
    let at = failing.at.clone();
    rows.row("not in scope: nobody is led into it", || {
        failing.mode("hang");
        let scan = scanned(world, root, None);
        assert!(
            scan["unreadable"].as_array().is_some_and(Vec::is_empty),
            "{scan:#}"
        );
        assert!(
            scan["mounts"]
                .as_array()
                .is_some_and(|mounts| mounts.iter().any(|m| m["path"] == "./srv/failing")),
            "{scan:#}"
        );
        failing.mode("well");
    });
    rows.row("as a root: what fails is told, the rest is read", || {
        failing.mode("fail");
        let scan = scanned(world, &at, None);
        failing.mode("well");
        let told: Vec<_> = scan["unreadable"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["path"].clone())
            .collect();
        for path in ["./denied", "./failing", "./failing-folder"] {
            assert!(told.contains(&path.into()), "{path} is not told: {told:?}");
        }
        assert_eq!(told.len(), 3, "{told:?}");
    });
}

fn never_answering(
    world: &World,
    rows: &mut Rows,
    root: &Path,
    (failing, silent): (&mut Failing, &mut Failing),
) {
    rows.row(
        "in scope and never answering: the agent goes on, and says that it cannot see",
        || {
            failing.mode("hang");
            let mut alone = Unfinished::scan(world, &failing.at);
            let mut unopened = Unfinished::scan(world, &silent.at);
            world.rescan("web-1");
            let began = Instant::now();
            let doer = change(
                root,
                "write(b'etc/app/app.conf', b'listen = 80\\n')\nwrite(b'etc/app/more', b'x')",
            );
            added("./etc/app/more", "size=1").in_the_api(world, SOON, Some(&doer));
            assert!(began.elapsed() < PATIENCE, "held up: {:?}", began.elapsed());
            let node = eventually("what does not answer is told", MINUTE, || {
                world
                    .people
                    .node("web-1")
                    .filter(|node| unreadable(node, "./srv/failing").is_some())
            });
            let error = unreadable(&node, "./srv/failing").expect("its cause");
            assert!(error.contains("no answer"), "{error}");
            let scan = alone.document();
            assert!(
                scan["unreadable"]
                    .as_array()
                    .is_some_and(|list| list.iter().any(|one| one["path"] == "."
                        && one["error"]
                            .as_str()
                            .is_some_and(|it| it.contains("no answer")))),
                "{scan:#}"
            );
            let refusal = unopened.complaint("cannot");
            assert!(refusal.contains("cannot open"), "{refusal}");
            assert!(began.elapsed() < MINUTE, "{:?}", began.elapsed());
            // Whoever waits in the kernel cannot end before it is answered.
            failing.mode("well");
            silent.mode("well");
            assert_eq!((alone.code(), unopened.code()), (Some(2), Some(2)));
        },
    );
    rows.row("and answering again: everything is seen", || {
        fs::remove_file(root.join("etc/app/more")).expect("a removal");
        world.wait_for_status("web-1", "pristine");
    });
}

/// The scan against an image.
fn against(world: &World, root: &Path, image: &Path) -> Said {
    world.run([
        OsStr::new("scan"),
        root.as_os_str(),
        "--image".as_ref(),
        image.as_os_str(),
        "--format".as_ref(),
        "json".as_ref(),
    ])
}

fn number<N: std::str::FromStr>(variable: &str, usual: N) -> N {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}

/// Why a path of this node's cannot be read.
fn unreadable(node: &Value, path: &str) -> Option<String> {
    let list = node["coverage"]["unreadable"].as_array()?;
    let one = list.iter().find(|one| one["path"] == path)?;
    Some(one["error"].as_str().unwrap_or_default().to_owned())
}

/// Bytes that a process has read by system calls.
fn bytes_read(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).expect("what it read");
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.and_then(|number| number.parse().ok())
        .expect("a number")
}

/// A scan that does not end by itself, or not before a file system answers.
struct Unfinished {
    scan: Child,
    said: BufReader<std::process::ChildStdout>,
    complained: BufReader<std::process::ChildStderr>,
}

impl Unfinished {
    fn scan(world: &World, root: &Path) -> Self {
        let mut scan = world
            .pristine()
            .args(["scan", "--format", "json"])
            .arg(root)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a running scan");
        let said = BufReader::new(scan.stdout.take().expect("piped"));
        let complained = BufReader::new(scan.stderr.take().expect("piped"));
        Self {
            scan,
            said,
            complained,
        }
    }

    /// What it said; it may not have ended.
    fn document(&mut self) -> Value {
        let mut text = String::new();
        loop {
            assert!(
                self.said.read_line(&mut text).expect("its words") > 0,
                "no document: {text}"
            );
            if let Ok(document) = serde_json::from_str(&text) {
                return document;
            }
        }
    }

    /// The line beside its results that has this word in it.
    fn complaint(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(
                self.complained.read_line(&mut line).expect("its words") > 0,
                "no complaint"
            );
            if line.contains(word) {
                return line;
            }
        }
    }

    fn end(&mut self) {
        self.scan.kill().expect("a running scan");
        self.code();
    }

    fn code(&mut self) -> Option<i32> {
        self.scan.wait().expect("an end").code()
    }
}

/// `tests/python/failing_fs.py`, mounted.
struct Failing {
    at: PathBuf,
    server: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Failing {
    fn mounted(at: &Path) -> Self {
        let mut server = Command::new("/usr/bin/python3")
            .arg(script("failing_fs.py"))
            .arg(at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a file system in user space");
        let said = BufReader::new(server.stdout.take().expect("piped"));
        let mut failing = Self {
            at: at.to_path_buf(),
            server,
            said,
        };
        failing.is_done();
        failing
    }

    fn mode(&mut self, mode: &str) {
        let mut control = self.server.stdin.as_ref().expect("piped");
        // In one write: the server takes each for a mode.
        control
            .write_all(format!("{mode}\n").as_bytes())
            .expect("a running server");
        self.is_done();
    }

    fn is_done(&mut self) {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a word from it");
        assert_eq!(line, "done\n");
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        drop(self.server.stdin.take());
        self.server.wait().ok();
        unmount(&self.at);
    }
}
