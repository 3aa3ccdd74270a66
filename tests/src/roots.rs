//! Root file systems to attest: a small one in no time, and a real Debian made once and copied for each test.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use crate::program::{Said, cache, tool};

/// A small tree with every kind of entry that a user may make.
pub fn small(at: &Path) -> PathBuf {
    for folder in [
        "etc/app",
        "usr/bin",
        "usr/lib/deep/er/still",
        "var/log",
        "srv/www",
    ] {
        fs::create_dir_all(at.join(folder)).expect("a folder");
    }
    for n in 0..40 {
        fs::write(
            at.join(format!("usr/bin/tool-{n:02}")),
            format!("#!/bin/sh\necho {n}\n").repeat(n + 1),
        )
        .expect("a file");
    }
    for (path, content) in [
        ("etc/app/app.conf", "listen = 80\n"),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("usr/lib/deep/er/still/library", "library\n"),
        ("srv/www/with space", "a\n"),
        ("srv/www/empty", ""),
    ] {
        fs::write(at.join(path), content).expect("a file");
    }
    fs::set_permissions(
        at.join("usr/bin/tool-01"),
        fs::Permissions::from_mode(0o755),
    )
    .expect("a mode");
    symlink("tool-01", at.join("usr/bin/tool")).expect("a link");
    fs::hard_link(at.join("usr/bin/tool-02"), at.join("usr/bin/also-02")).expect("a hard link");
    at.to_path_buf()
}

/// A copy of Debian 12 with nginx, openssh-server and python3. Made with `mmdebstrap` once for each build folder; needs root.
pub fn debian(at: &Path) -> PathBuf {
    let made = debian_original();
    tool(
        "cp",
        [Path::new("-a"), Path::new("--reflink=auto"), &made, at],
    );
    at.to_path_buf()
}

/// The Debian tree that copies are made of. Read it, never write to it.
pub fn debian_original() -> PathBuf {
    made("debian12", |half| {
        bootstrap(half, "nginx,openssh-server,python3");
    })
}

/// A copy of [`debian_original`] with what the packages depend on; needs root.
pub fn debian_for_services(at: &Path) -> PathBuf {
    const NEEDED: &str =
        "systemd-standalone-sysusers systemd-standalone-tmpfiles ca-certificates openssl";
    let made = made("debian12-services", |half| {
        // Small packages of this machine's own Debian, where it is one; else a root of their own.
        let script = format!(
            "cp -a --reflink=auto {from} {half} && cd {half}/root && apt-get -qq download {NEEDED} && \
             chroot {half} sh -c 'PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg -i /root/*.deb' && rm {half}/root/*.deb",
            from = debian_original().display(),
            half = half.display(),
        );
        if Said::by(Command::new("sh").args(["-ec", &script])).code != 0 {
            fs::remove_dir_all(half).ok();
            bootstrap(half, &NEEDED.replace(' ', ","));
        }
    });
    tool(
        "cp",
        [Path::new("-a"), Path::new("--reflink=auto"), &made, at],
    );
    at.to_path_buf()
}

/// A copy of a Debian 12 that boots: kernel, systemd, sshd, sudo; needs root.
pub fn debian_machine(at: &Path) -> PathBuf {
    let made = made("debian12-machine", |half| {
        bootstrap(
            half,
            "linux-image-amd64,initramfs-tools,systemd-sysv,udev,dbus,openssh-server,sudo,iproute2,procps,ca-certificates",
        );
    });
    tool(
        "cp",
        [Path::new("-a"), Path::new("--reflink=auto"), &made, at],
    );
    at.to_path_buf()
}

/// A Debian of more than 30,000 files. Read it, never write to it.
pub fn debian_large() -> PathBuf {
    made("debian12-30000-files", |half| {
        bootstrap(
            half,
            "nginx,openssh-server,python3,perl,git,vim,build-essential,tzdata,locales,postgresql,default-jre-headless,python3-dev,golang-1.19-src",
        );
    })
}

/// What a server's packages hold, in one, compressed with xz as Debian's are: all below `/usr` of [`debian_original`].
pub fn package() -> PathBuf {
    packed("server", &debian_original(), "usr")
}

/// The same of 12,000 small files: Debian's golang-1.19-src.
pub fn package_of_sources() -> PathBuf {
    packed("golang-1.19-src", &debian_large(), "usr/share/go-1.19")
}

/// A package of what a root has below `part`.
fn packed(name: &str, root: &Path, part: &str) -> PathBuf {
    made(&format!("{name}.deb"), |half| {
        let control = format!(
            "Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: files\n"
        );
        let tree = half.with_extension("tree");
        fs::remove_dir_all(&tree).ok();
        fs::create_dir_all(tree.join("DEBIAN")).expect("a folder");
        fs::write(tree.join("DEBIAN/control"), control).expect("a control file");
        let to = tree.join(part);
        let above = to.parent().expect("a folder above");
        fs::create_dir_all(above).expect("a folder");
        tool("cp", [Path::new("-a"), &root.join(part), above]);
        tool("dpkg-deb", [Path::new("-Zxz"), "-b".as_ref(), &tree, half]);
        fs::remove_dir_all(&tree).ok();
    })
}

/// Half a million files of 100 to 2,000 bytes in a thousand folders. Read it, never write to it.
pub fn half_a_million() -> PathBuf {
    made("half-a-million", |half| {
        for folder in 0..1_000 {
            let at = half.join(format!("{:02}/{folder:03}", folder / 20));
            fs::create_dir_all(&at).expect("a folder");
            for n in 0..500 {
                let line =
                    format!("{folder} {n} some line of text that is not in any other file\n");
                fs::write(
                    at.join(format!("{n:03}")),
                    line.repeat(2 + (folder + n) % 34),
                )
                .expect("a small file");
            }
        }
    })
}

/// A root made once for each build folder.
fn made(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let made = cache().join("test-roots").join(name);
    if !made.exists() {
        let half = made.with_extension("half");
        fs::create_dir_all(cache().join("test-roots")).expect("a folder for roots");
        fs::remove_dir_all(&half).ok();
        make(&half);
        fs::rename(&half, &made).expect("the finished root in its place");
    }
    made
}

fn bootstrap(half: &Path, packages: &str) {
    tool(
        "mmdebstrap",
        [
            "--variant=minbase",
            "--quiet",
            &format!("--include={packages}"),
            "bookworm",
            half.to_str().expect("a text path"),
        ],
    );
}
