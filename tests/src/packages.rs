//! The Debian packages, made by `packaging/build` of the programs under test, and a Debian root to install them in.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    program::{Said, built, cache, tool},
    roots,
};

/// The version that is built first.
pub const VERSION: &str = "0.1.0-1";
/// The three packages.
pub const NAMES: [&str; 3] = ["pristine", "pristine-agent", "pristine-collector"];

/// Top of the source.
pub fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a workspace")
        .to_path_buf()
}

/// The folder with the three packages, made anew where programs or packaging are newer than they are.
pub fn packages() -> PathBuf {
    let folder = cache().join("test-packages");
    fs::create_dir_all(&folder).expect("a folder for packages");
    let lock = File::create(folder.join("lock")).expect("a lock");
    lock.lock().expect("the packages to ourselves");
    let made_of = made_of();
    if fs::read_to_string(folder.join("made-of")).ok().as_deref() != Some(&made_of) {
        Said::by(
            Command::new(source().join("packaging/build"))
                .arg("--binaries")
                .arg(built())
                .arg("--out")
                .arg(&folder)
                .args(["--version", VERSION])
                .env("CARGO_TARGET_DIR", cache())
                .env("PRISTINE_PACKAGES_QUICKLY", "1"),
        )
        .exits(0);
        fs::write(folder.join("made-of"), made_of).expect("a note of what they were made of");
    }
    folder
}

/// The file of one of them.
pub fn package(name: &str) -> PathBuf {
    packages().join(format!("{name}_{VERSION}_amd64.deb"))
}

/// The same package as a later version, with another configuration as shipped.
pub fn upgraded(name: &str, version: &str, into: &Path) -> PathBuf {
    let tree = into.join(format!("{name}-tree"));
    tool("dpkg-deb", [Path::new("-R"), &package(name), &tree]);
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).expect("its control file");
    let version_line = format!("Version: {VERSION}");
    assert!(text.contains(&version_line), "{text}");
    fs::write(
        &control,
        text.replace(&version_line, &format!("Version: {version}")),
    )
    .expect("another version");
    for file in fs::read_to_string(tree.join("DEBIAN/conffiles"))
        .unwrap_or_default()
        .lines()
    {
        let shipped = tree.join(file.trim_start_matches('/'));
        let text = fs::read_to_string(&shipped).expect("a configuration");
        fs::write(&shipped, format!("{text}\n# A word more in {version}.\n"))
            .expect("another configuration");
    }
    let file = into.join(format!("{name}_{version}_amd64.deb"));
    tool(
        "dpkg-deb",
        [
            "--root-owner-group".as_ref(),
            "-Zgzip".as_ref(),
            "-z1".as_ref(),
            "-b".as_ref(),
            tree.as_os_str(),
            file.as_os_str(),
        ],
    );
    file
}

/// A Debian 12 root that packages are installed in, gone at the end.
#[derive(Debug)]
pub struct Debian {
    /// Its top.
    pub root: PathBuf,
    /// Where the packages lie in it.
    pub packages: PathBuf,
    _folder: tempfile::TempDir,
}

impl Debian {
    /// A fresh one, with the packages in `/root`.
    pub fn fresh() -> Self {
        Self::of(roots::debian_for_services)
    }

    /// One that boots, with the packages in `/root`.
    pub fn machine() -> Self {
        Self::of(roots::debian_machine)
    }

    fn of(root: impl FnOnce(&Path) -> PathBuf) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("pristine-debian-")
            .tempdir()
            .expect("a temporary folder");
        let root = root(&folder.path().join("root"));
        let packages = root.join("root");
        for name in NAMES {
            let file = package(name);
            fs::copy(&file, packages.join(file.file_name().expect("a name"))).expect("a package");
        }
        Self {
            root,
            packages,
            _folder: folder,
        }
    }

    /// A path in it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// What a shell in it says.
    pub fn shell(&self, script: &str) -> Said {
        // A mount namespace of its own, so that nothing is left mounted.
        let enter = "mount --make-rprivate / && mount -t proc proc \"$0/proc\" && exec chroot \"$0\" /bin/sh -ec \"$1\"";
        Said::by(
            Command::new("unshare")
                .args(["--mount", "/bin/sh", "-ec", enter])
                .arg(&self.root)
                .arg(script)
                .env_clear()
                .env(
                    "PATH",
                    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                )
                .env("HOME", "/root")
                .env("DEBIAN_FRONTEND", "noninteractive")
                .env("LC_ALL", "C.UTF-8"),
        )
    }

    /// Owner's name and mode of a path.
    pub fn owner(&self, path: &str) -> String {
        self.shell(&format!("stat -c '%U:%G %a' {path}"))
            .exits(0)
            .out
            .trim()
            .to_owned()
    }

    /// All paths in it but for those below `/proc`, `/sys` and what package management keeps for itself.
    pub fn paths(&self) -> Vec<String> {
        let script = "find / -xdev \\( -path /proc -o -path /sys -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/log \\
            -o -path /root \\) -prune -o -print";
        let said = self.shell(script).exits(0);
        let mut paths: Vec<String> = said.out.lines().map(str::to_owned).collect();
        paths.sort_unstable();
        paths
    }
}

/// What the packages are made of: sizes and times of all of it.
fn made_of() -> String {
    let mut files: Vec<PathBuf> = NAMES.iter().map(|name| built().join(name)).collect();
    files.push(source().join("CHANGELOG.md"));
    let mut waiting = vec![source().join("packaging")];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            if entry.path().is_dir() {
                waiting.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    let told = files.iter().map(|file| {
        let found = fs::metadata(file).expect("a file");
        format!(
            "{} {} {}.{}\n",
            file.display(),
            found.len(),
            found.mtime(),
            found.mtime_nsec()
        )
    });
    told.collect()
}
