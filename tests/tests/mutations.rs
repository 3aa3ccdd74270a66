//! Every way to change a real Debian root, each told with path, field, expected, found and doer in the API, in the journal, on the
//! pages and at the webhook; and what must not be told.

use std::path::{Path, PathBuf};

use pristine_tests::{
    change::change,
    left_out_without_root,
    program::tool,
    roots,
    sighting::Sighting,
    wait::{LATER, SOON, eventually},
    world::World,
};

struct Mutation {
    name: &'static str,
    script: &'static str,
    told: &'static [Sighting<'static>],
}

const fn at(
    path: &'static str,
    fields: &'static [&'static str],
    expected: Option<&'static str>,
    found: Option<&'static str>,
    page: &'static [&'static str],
) -> Sighting<'static> {
    Sighting {
        kind: "difference",
        path,
        fields,
        expected,
        found,
        page,
    }
}

/// Where the type is another, nothing else is told.
const TYPE: &[&str] = &["type"];

const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "content changed, size and mtime put back",
        script: "s = os.stat(at(b'usr/bin/env'))
write(b'usr/bin/env', b'X', os.O_WRONLY)
os.utime(at(b'usr/bin/env'), ns=(s.st_atime_ns, s.st_mtime_ns))",
        told: &[at(
            "./usr/bin/env",
            &["sha256digest"],
            Some("mode=0755"),
            Some("mode=0755"),
            &["sha256digest"],
        )],
    },
    Mutation {
        name: "mode",
        script: "os.chmod(at(b'etc/nginx/nginx.conf'), 0o600)",
        told: &[at(
            "./etc/nginx/nginx.conf",
            &["mode"],
            Some("mode=0644"),
            Some("mode=0600"),
            &["0644", "0600"],
        )],
    },
    Mutation {
        name: "owner",
        script: "os.chown(at(b'etc/nginx/mime.types'), 33, 34)",
        told: &[at(
            "./etc/nginx/mime.types",
            &["uid", "gid"],
            Some("uid=0 gid=0"),
            Some("uid=33 gid=34"),
            &["33", "34"],
        )],
    },
    Mutation {
        name: "setuid",
        script: "os.chmod(at(b'usr/bin/python3.11'), 0o4755)",
        told: &[at(
            "./usr/bin/python3.11",
            &["mode"],
            Some("mode=0755"),
            Some("mode=4755"),
            &["4755", "rwsr-xr-x"],
        )],
    },
    Mutation {
        name: "capability",
        script: "os.setxattr(at(b'usr/sbin/nginx'), 'security.capability', struct.pack('<5I', 0x2000001, 1 << 10, 0, 0, 0))",
        told: &[at(
            "./usr/sbin/nginx",
            &["xattr.security.capability"],
            Some("type=file"),
            Some("xattr.security.capability=AQAAAgAEAAAAAAAAAAAAAAAAAAA="),
            &["cap_net_bind_service"],
        )],
    },
    Mutation {
        name: "extended attribute",
        script: "os.setxattr(at(b'usr/bin/bash'), 'user.note', b'mine')",
        told: &[at(
            "./usr/bin/bash",
            &["xattr.user.note"],
            Some("type=file"),
            Some("xattr.user.note=bWluZQ=="),
            &["user.note"],
        )],
    },
    Mutation {
        name: "access control list",
        script: "none = 0xffffffff
acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *e) for e in
    [(1, 6, none), (2, 4, 33), (4, 4, none), (16, 4, none), (32, 4, none)])
os.setxattr(at(b'etc/ssh/ssh_config'), 'system.posix_acl_access', acl)",
        told: &[at(
            "./etc/ssh/ssh_config",
            &["xattr.system.posix_acl_access"],
            Some("mode=0644"),
            Some("xattr.system.posix_acl_access="),
            &["33"],
        )],
    },
    Mutation {
        name: "symlink target",
        script: "os.symlink(b'bash', at(b'usr/bin/sh.new')); os.rename(at(b'usr/bin/sh.new'), at(b'usr/bin/sh'))",
        told: &[at(
            "./usr/bin/sh",
            &["link"],
            Some("link=dash"),
            Some("link=bash"),
            &["dash", "bash"],
        )],
    },
    Mutation {
        name: "new file",
        script: "write(b'usr/sbin/backdoor', b'#!/bin/sh\\n'); os.chmod(at(b'usr/sbin/backdoor'), 0o755)",
        told: &[at(
            "./usr/sbin/backdoor",
            &["added"],
            None,
            Some("mode=0755"),
            &["0755"],
        )],
    },
    Mutation {
        name: "removed file",
        script: "os.unlink(at(b'usr/bin/yes'))",
        told: &[at(
            "./usr/bin/yes",
            &["removed"],
            Some("type=file"),
            None,
            &[],
        )],
    },
    Mutation {
        name: "renamed file",
        script: "os.rename(at(b'usr/bin/tac'), at(b'usr/bin/cat-backwards'))",
        told: &[
            at("./usr/bin/tac", &["removed"], Some("type=file"), None, &[]),
            at(
                "./usr/bin/cat-backwards",
                &["added"],
                None,
                Some("type=file"),
                &[],
            ),
        ],
    },
    Mutation {
        name: "file replaced by a directory",
        script: "os.unlink(at(b'usr/bin/tee')); os.mkdir(at(b'usr/bin/tee'), 0o755); os.chmod(at(b'usr/bin/tee'), 0o755)",
        told: &[at(
            "./usr/bin/tee",
            TYPE,
            Some("type=file"),
            Some("type=dir"),
            &["dir"],
        )],
    },
    Mutation {
        name: "file replaced by a FIFO",
        script: "os.unlink(at(b'usr/bin/shuf')); os.mkfifo(at(b'usr/bin/shuf')); os.chmod(at(b'usr/bin/shuf'), 0o755)",
        told: &[at(
            "./usr/bin/shuf",
            TYPE,
            Some("type=file"),
            Some("type=fifo"),
            &["fifo"],
        )],
    },
    Mutation {
        name: "device node",
        script: "os.mknod(at(b'usr/lib/zero'), 0o666 | stat.S_IFCHR, os.makedev(1, 5)); os.chmod(at(b'usr/lib/zero'), 0o666)",
        told: &[at(
            "./usr/lib/zero",
            &["added"],
            None,
            Some("type=char mode=0666 uid=0 gid=0 device=native,1,5"),
            &["char"],
        )],
    },
    Mutation {
        name: "name with a newline",
        script: "write(b'usr/share/new\\nline', b'x')",
        told: &[at(
            "./usr/share/new\\012line",
            &["added"],
            None,
            Some("size=1"),
            &[],
        )],
    },
    Mutation {
        name: "name that is not UTF-8",
        script: "write(b'usr/share/\\xff\\x80', b'x')",
        told: &[at(
            "./usr/share/\\377\\200",
            &["added"],
            None,
            Some("size=1"),
            &[],
        )],
    },
    Mutation {
        name: "a new key of root",
        script: "os.makedirs(at(b'root/.ssh'), 0o700); write(b'root/.ssh/authorized_keys', b'ssh-ed25519 AAAA\\n')",
        told: &[
            at("./root/.ssh", &["added"], None, Some("type=dir"), &[]),
            at(
                "./root/.ssh/authorized_keys",
                &["added"],
                None,
                Some("size=17"),
                &[],
            ),
        ],
    },
];

#[test]
fn every_mutation_of_a_debian_root_is_told_everywhere() {
    if left_out_without_root("mutations of a Debian root") {
        return;
    }
    let world = World::start();
    let root = roots::debian(&world.path("root"));
    world.image(&root, "debian", "12.0", &["--scope", "host"]);
    let mut agent = world.agent("debian-1", &root);
    world.wait_for_status("debian-1", "pristine");
    for mutation in MUTATIONS {
        eprintln!("-- {}", mutation.name);
        let doer = change(&root, mutation.script);
        for told in mutation.told {
            told.everywhere(&world, Some(&doer));
        }
    }
    something_mounted_over_a_file(&world, &root);
    a_file_in_an_ignored_place_is_not_told(&world, &root);
    a_change_undone_is_resolved_and_stays_for_review(&world, &root);
    the_immutable_flag_is_found_by_a_rescan(&world, &root);
    assert!(agent.stop().success());
    world.check();
}

fn something_mounted_over_a_file(world: &World, root: &Path) {
    eprintln!("-- something mounted over a file");
    let evil = world.path("evil");
    std::fs::write(&evil, "root::0:0:root:/root:/bin/sh\n").expect("a file");
    let doer = change(
        root,
        &format!(
            "libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount({:?}.encode(), at(b'etc/passwd'), None, 4096, None) == 0, os.strerror(ctypes.get_errno())",
            evil.display()
        ),
    );
    let told = Sighting {
        kind: "mount",
        path: "./etc/passwd",
        fields: &["mount"],
        expected: None,
        found: None,
        page: &["mount"],
    };
    let violation = told.everywhere(world, None);
    assert!(
        violation["mount"]["type"].is_string() && violation["mount"]["source"].is_string(),
        "{violation}"
    );
    assert!(
        world.people.open("difference", "./etc/passwd").is_none(),
        "the file below the mount is as it was"
    );
    drop(doer);
    drop(change(
        root,
        "libc = ctypes.CDLL(None)\nassert libc.umount2(at(b'etc/passwd'), 0) == 0",
    ));
    resolved(world, violation["id"].as_str().expect("an id"));
}

fn a_file_in_an_ignored_place_is_not_told(world: &World, root: &Path) {
    eprintln!("-- a file in an ignored place");
    drop(change(
        root,
        "write(b'tmp/ignored', b'x'); write(b'var/tmp/ignored', b'x')",
    ));
    // What comes after it is told, so it has been looked at.
    drop(change(root, "write(b'usr/share/after-ignored', b'x')"));
    let after = at(
        "./usr/share/after-ignored",
        &["added"],
        None,
        Some("size=1"),
        &[],
    );
    after.everywhere(world, None);
    let told: Vec<_> = world
        .people
        .violations("all")
        .into_iter()
        .filter(|v| v["path"].as_str().unwrap_or_default().ends_with("/ignored"))
        .collect();
    assert!(told.is_empty(), "{told:#?}");
}

fn a_change_undone_is_resolved_and_stays_for_review(world: &World, root: &Path) {
    eprintln!("-- a change undone again");
    let path = "./usr/bin/cut";
    let doer = change(root, "os.chmod(at(b'usr/bin/cut'), 0o711)");
    let violation = at(
        path,
        &["mode"],
        Some("mode=0755"),
        Some("mode=0711"),
        &["0711"],
    )
    .everywhere(world, Some(&doer));
    drop(doer);
    drop(change(root, "os.chmod(at(b'usr/bin/cut'), 0o755)"));
    resolved(world, violation["id"].as_str().expect("an id"));
    eventually("touched stays", SOON, || {
        world
            .people
            .list("/api/v1/touched")
            .into_iter()
            .find(|t| t["path"] == path)
    });
    let journal = world.collector.journal();
    assert!(
        journal
            .iter()
            .any(|line| line["event"] == "violation.resolved" && line["id"] == violation["id"])
    );
}

/// No event tells of it: a person asks for the rescan that would come by itself within ten minutes.
fn the_immutable_flag_is_found_by_a_rescan(world: &World, root: &Path) {
    eprintln!("-- the immutable flag");
    let flagged = Immutable::set(&root.join("usr/bin/sort"));
    let node = world.id("debian-1");
    world.run(["node", "rescan", &node]).exits(0);
    let told = at(
        "./usr/bin/sort",
        &["flags"],
        Some("mode=0755"),
        Some("flags=schg"),
        &["immutable"],
    );
    let end = std::time::Instant::now() + LATER;
    // The node hears of it with its next heartbeat and reads every file first; the usual patience begins after that.
    while world.people.open("difference", "./usr/bin/sort").is_none()
        && std::time::Instant::now() < end
    {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    told.everywhere(world, None);
    drop(flagged);
}

/// A file that nobody may change or remove, until this is dropped.
struct Immutable(PathBuf);

impl Immutable {
    fn set(path: &Path) -> Self {
        tool("chattr", [Path::new("+i"), path]);
        Self(path.to_path_buf())
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        tool("chattr", [Path::new("-i"), &self.0]);
    }
}

fn resolved(world: &World, id: &str) {
    eventually(&format!("{id} is resolved"), SOON, || {
        world
            .people
            .violation(id)
            .filter(|v| !v["resolved"].is_null())
    });
    eventually("its resolution at the webhook", SOON, || {
        world.webhook.find("resolved", id)
    });
}
