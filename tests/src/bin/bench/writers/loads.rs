//! What is done to files while it is measured what watching it costs.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use pristine_tests::roots;

/// One load: a script for `sh`, run in an empty folder with `$FROM` (prepared sources) and `$BENCH` (this program). Each takes a second
/// or a few: what moves a machine's speed moves more slowly, and so is the same for those who are measured one after the other.
pub struct Load {
    pub name: &'static str,
    /// Done before the clock starts.
    prepare: &'static str,
    timed: &'static str,
}

/// Empty roots for `dpkg`, as many as the most of the loads that unpack wants.
const NEW_DPKG_ROOTS: &str = "for n in 1 2 3; do mkdir -p $n/var/lib/dpkg/updates $n/var/lib/dpkg/info; touch $n/var/lib/dpkg/status; done";

pub const LOADS: [Load; 11] = [
    Load {
        name: "storm of tiny files",
        prepare: "true",
        timed: "$BENCH load storm .; $BENCH load storm .",
    },
    Load {
        name: "tar -x",
        prepare: "mkdir 1 2 3",
        timed: "for n in 1 2 3; do tar -xf $FROM/tree.tar -C $n; done",
    },
    Load {
        name: "cp -a",
        prepare: "true",
        timed: "for n in 1 2 3; do cp -a $FROM/tree $n; done",
    },
    Load {
        name: "rm -rf",
        prepare: "for n in 1 2 3 4 5; do cp -a $FROM/tree $n; done",
        timed: "rm -rf 1 2 3 4 5",
    },
    Load {
        name: "package unpack",
        prepare: NEW_DPKG_ROOTS,
        timed: "dpkg --root=$PWD/1 --force-script-chrootless --log=/dev/null --unpack $FROM/server.deb",
    },
    Load {
        name: "package of sources",
        prepare: NEW_DPKG_ROOTS,
        timed: "dpkg --root=$PWD/1 --force-script-chrootless --log=/dev/null --unpack $FROM/sources.deb",
    },
    Load {
        name: "uncompressed package",
        prepare: NEW_DPKG_ROOTS,
        timed: "for n in 1 2 3; do dpkg --root=$PWD/$n --force-script-chrootless --log=/dev/null --unpack $FROM/tree.deb; done",
    },
    Load {
        name: "git checkout",
        prepare: "cp -a $FROM/git .",
        timed: "cd git && git checkout -q other && git checkout -q one",
    },
    Load {
        name: "SQLite",
        prepare: "true",
        timed: "python3 $FROM/rows.py full 2000",
    },
    // The former waits for the disk most of the time. Here nobody waits.
    Load {
        name: "SQLite, not synced",
        prepare: "true",
        timed: "python3 $FROM/rows.py off 20000",
    },
    Load {
        name: "appender",
        prepare: "true",
        timed: "$BENCH load append .",
    },
];

const ROWS: &str = "import sqlite3, sys
db = sqlite3.connect('rows.db', isolation_level=None)
db.execute('pragma synchronous = ' + sys.argv[1])
db.execute('create table rows (n integer primary key, text text)')
for n in range(int(sys.argv[2])):
    db.execute('insert into rows values (?, ?)', (n, 'row %d' % n))
";

impl Load {
    /// The time of one load in an empty folder, which is empty again afterwards.
    pub fn once(&self, folder: &Path, sources: &Path) -> Duration {
        let place = folder.join("one");
        fs::create_dir(&place).expect("an empty folder");
        shell(self.prepare, &place, sources);
        // What was done before is not to be written out on this one's time.
        rustix::fs::sync();
        let began = Instant::now();
        shell(self.timed, &place, sources);
        let took = began.elapsed();
        fs::remove_dir_all(&place).expect("what the load made");
        took
    }
}

fn shell(script: &str, place: &Path, sources: &Path) {
    let status = Command::new("sh")
        .args(["-ec", script])
        .current_dir(place)
        .env("FROM", sources)
        .env("BENCH", std::env::current_exe().expect("this program"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect("a shell");
    assert!(status.success(), "{script}: {status}");
}

/// What the loads unpack, copy and check out.
pub fn sources(at: &Path) -> PathBuf {
    let tree = at.join("tree/usr/share/bench");
    fs::create_dir_all(&tree).expect("a folder for sources");
    for n in 0..4_000_usize {
        let folder = tree.join(format!("{:02}", n % 60));
        fs::create_dir_all(&folder).expect("a folder");
        let text =
            format!("{n} some line of a file that is as long as most are\n").repeat(1 + n % 240);
        fs::write(folder.join(format!("{n:04}")), text).expect("a file");
    }
    let script = "
        tar -cf tree.tar tree
        mkdir -p deb/DEBIAN && cp -a tree/usr deb/
        printf 'Package: bench\\nVersion: 1\\nArchitecture: all\\nMaintainer: Nobody <nobody@example.org>\\nDescription: files\\n' > deb/DEBIAN/control
        dpkg-deb -Znone -b deb tree.deb
        git init -q -b one git && cp -a tree/usr git/ && cd git
        git config user.name Bench && git config user.email bench@example.org && git config gc.auto 0
        git add . && git commit -q -m one
        git checkout -q -b other && find usr -type f -name '*[05]' -exec sh -c 'echo more >> \"$1\"' sh {} \\; && git rm -q -r usr/share/bench/07
        git commit -q -a -m other && git checkout -q one";
    fs::write(at.join("rows.py"), ROWS).expect("a script");
    shell(script, at, at);
    for (package, name) in [
        (roots::package(), "server.deb"),
        (roots::package_of_sources(), "sources.deb"),
    ] {
        symlink(package, at.join(name)).expect("a link to the package");
    }
    at.to_path_buf()
}
