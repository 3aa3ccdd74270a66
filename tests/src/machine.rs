//! A virtual machine of Debian 12 under qemu's software emulation, with systemd, sshd and the packages.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    packages::Debian,
    program::{Lines, Program, Said, tool},
    wait::eventually,
};

/// Software emulation boots in a minute or two where the machine is busy.
pub const BOOT: Duration = Duration::from_secs(400);
/// Who signs in: an ordinary user who may use `sudo`.
pub const USER: &str = "deploy";
/// The emulator.
const QEMU: &str = "qemu-system-x86_64";

/// Whether there is an emulator; says so where there is none.
pub fn left_out_without_qemu(test: &str) -> bool {
    let is_there = Command::new(QEMU)
        .arg("--version")
        .output()
        .is_ok_and(|said| said.status.success());
    if !is_there {
        eprintln!("left out, needs {QEMU}: {test}");
    }
    !is_there
}

/// The root of the machine before its first boot.
#[derive(Debug)]
pub struct Disk {
    /// The tree, with the packages installed.
    pub debian: Debian,
    key: PathBuf,
    folder: tempfile::TempDir,
}

impl Disk {
    /// Debian with the packages, a user, a network and nothing of any collector.
    pub fn with_packages() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("pristine-machine-")
            .tempdir()
            .expect("a temporary folder");
        let debian = Debian::machine();
        let key = folder.path().join("key");
        tool(
            "ssh-keygen",
            [
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-f",
                key.to_str().expect("text"),
            ],
        );
        debian
            .shell(&format!(
                "useradd --create-home --shell /bin/bash {USER} && install -d -m 700 -o {USER} -g {USER} /home/{USER}/.ssh"
            ))
            .exits(0);
        let put = |path: &str, text: &str, mode: u32| {
            let path = debian.path(path);
            fs::write(&path, text).expect("a file of the machine");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        };
        let public = fs::read_to_string(key.with_extension("pub")).expect("a public key");
        put(
            &format!("/home/{USER}/.ssh/authorized_keys"),
            &public,
            0o644,
        );
        put(
            "/etc/sudoers.d/deploy",
            &format!("{USER} ALL=(ALL) NOPASSWD: ALL\n"),
            0o440,
        );
        put(
            "/etc/systemd/network/80-wired.network",
            "[Match]\nName=en* eth*\n[Network]\nDHCP=ipv4\n",
            0o644,
        );
        put("/etc/hostname", "machine\n", 0o644);
        put("/etc/hosts", "127.0.0.1 localhost machine\n", 0o644);
        put("/etc/machine-id", "", 0o444);
        debian
            .shell("systemctl enable systemd-networkd.service && dpkg -i /root/*.deb && rm /root/*.deb")
            .exits(0);
        Self {
            debian,
            key,
            folder,
        }
    }

    /// Boots it. What is put into the tree until then is on its disk.
    pub fn boot(self) -> Machine {
        let disk = self.folder.path().join("disk.img");
        let size = "3G";
        tool(
            "mke2fs",
            [
                "-q",
                "-t",
                "ext4",
                "-F",
                "-d",
                self.debian.root.to_str().expect("text"),
                disk.to_str().expect("text"),
                size,
            ],
        );
        let boot = |name: &str| {
            let found = fs::read_dir(self.debian.path("/boot"))
                .expect("/boot")
                .flatten();
            let found = found.map(|entry| entry.path());
            let mut found = found.filter(|path| {
                path.file_name()
                    .is_some_and(|it| it.to_string_lossy().starts_with(name))
            });
            found.next().unwrap_or_else(|| panic!("no {name} in /boot"))
        };
        let port = free_port();
        let mut qemu = Command::new(QEMU);
        qemu.args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "1536",
        ])
        .args(["-nographic", "-nodefaults", "-serial", "stdio"])
        .arg("-kernel")
        .arg(boot("vmlinuz-"))
        .arg("-initrd")
        .arg(boot("initrd.img-"))
        .args([
            "-append",
            "root=/dev/vda rw console=ttyS0 panic=-1 systemd.show_status=1 net.ifnames=0",
        ])
        .arg("-drive")
        .arg(format!(
            "file={},if=virtio,format=raw,cache=unsafe",
            disk.display()
        ))
        .arg("-netdev")
        .arg(format!("user,id=n,hostfwd=tcp:127.0.0.1:{port}-:22"))
        .args([
            "-device",
            "virtio-net-pci,netdev=n",
            "-device",
            "virtio-rng-pci",
        ])
        .stdin(Stdio::null());
        let machine = Machine {
            emulator: Program::start(QEMU, &mut qemu, Lines::default()),
            port,
            disk: self,
        };
        machine.is_up();
        machine
    }
}

/// A running machine; it is switched off at the end.
#[derive(Debug)]
pub struct Machine {
    emulator: Program,
    port: u16,
    disk: Disk,
}

impl Machine {
    /// Runs a command as the ordinary user, in a login over SSH.
    pub fn ssh(&self, command: &str) -> Said {
        Said::by(&mut self.ssh_command(command))
    }

    fn ssh_command(&self, command: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-i")
            .arg(&self.disk.key)
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args([
                "-o",
                "ConnectTimeout=10",
                "-o",
                "BatchMode=yes",
                "-o",
                "LogLevel=ERROR",
            ])
            .args([
                "-p",
                &self.port.to_string(),
                &format!("{USER}@127.0.0.1"),
                command,
            ])
            .stdin(Stdio::null());
        ssh
    }

    /// Waits until somebody can sign in.
    pub fn is_up(&self) {
        let explain = || self.console();
        eventually("somebody can sign in over SSH", BOOT, || {
            let said = self.ssh("true");
            if said.code != 0 && std::env::var_os("PRISTINE_TEST_CONSOLE").is_some() {
                eprintln!("{}\n{}", said.err, explain());
            }
            (said.code == 0).then_some(())
        });
    }

    /// The id of this boot.
    pub fn boot_id(&self) -> Option<String> {
        let said = self.ssh("cat /proc/sys/kernel/random/boot_id");
        (said.code == 0).then(|| said.out.trim().to_owned())
    }

    /// Reboots, and waits until somebody can sign in again.
    pub fn reboot(&self) {
        let before = self.boot_id();
        // The connection may end before the answer.
        self.ssh("sudo systemctl reboot");
        eventually("the machine has booted again", BOOT, || {
            self.boot_id().filter(|now| Some(now) != before.as_ref())
        });
    }

    /// The last lines of its console.
    pub fn console(&self) -> String {
        let lines = self.emulator.stdout.lock().expect("lines");
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Where the machine reaches whoever listens on this one's loopback.
pub const HOST: &str = "10.0.2.2";

/// Text of a file on the disk before its first boot.
pub fn leave(debian: &Debian, path: &str, text: &str) {
    let path: &Path = &debian.path(path);
    fs::write(path, text).expect("a file of the machine");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode");
}
