//! File systems of a test's own, on loop devices or in memory: mounted for one test and gone with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::program::tool;

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What most servers have.
    Ext4,
    /// Shares blocks between files.
    Xfs,
    /// Shares blocks between files, and has subvolumes.
    Btrfs,
    /// In memory.
    Tmpfs,
}

impl Kind {
    /// As `mount -t` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Tmpfs => "tmpfs",
        }
    }

    fn make(self, image: &Path) {
        let image = image.to_str().expect("a text path");
        match self {
            Self::Ext4 => tool(
                "mkfs.ext4",
                [
                    "-q",
                    "-F",
                    "-O",
                    "^has_journal",
                    "-b",
                    "4096",
                    "-i",
                    "4096",
                    image,
                ],
            ),
            Self::Xfs => tool("mkfs.xfs", ["-q", "-f", image]),
            Self::Btrfs => tool("mkfs.btrfs", ["-q", "-f", image]),
            Self::Tmpfs => String::new(),
        };
    }
}

/// A mounted file system.
#[derive(Debug)]
pub struct Disk {
    /// Where.
    pub at: PathBuf,
    /// What lies below a loop device.
    pub image: PathBuf,
}

impl Disk {
    /// Makes a file system of `mebibytes` and mounts it at `at`; its image, where it has one, lies beside it.
    #[track_caller]
    pub fn mounted(at: &Path, kind: Kind, mebibytes: u64) -> Self {
        fs::create_dir_all(at).expect("a mount point");
        let image = at.with_extension("image");
        if kind == Kind::Tmpfs {
            let options = format!("size={mebibytes}m,mode=755,nr_inodes=0");
            mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], at);
        } else {
            let file = fs::File::create(&image).expect("an image file");
            file.set_len(mebibytes << 20).expect("its size");
            kind.make(&image);
            let image = image.to_str().expect("a text path");
            mount(&["-t", kind.name(), "-o", "loop", image], at);
        }
        Self {
            at: at.to_path_buf(),
            image,
        }
    }

    /// The loop device that it lies on.
    #[track_caller]
    pub fn device(&self) -> PathBuf {
        let at = self.at.to_str().expect("a text path");
        let said = tool("findmnt", ["-n", "-o", "SOURCE", "--mountpoint", at]);
        PathBuf::from(said.trim())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.at);
    }
}

/// Something that is mounted for as long as this is kept.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// `mount ARGUMENTS… AT`.
    #[track_caller]
    pub fn new(arguments: &[&str], at: &Path) -> Self {
        mount(arguments, at);
        Self(at.to_path_buf())
    }

    /// An overlay at `at` over `lower`; what is written in it lies beside it, in `upper`.
    #[track_caller]
    pub fn overlay(lower: &Path, at: &Path) -> Self {
        let (upper, work) = (at.with_file_name("upper"), at.with_file_name("work"));
        for folder in [at, &upper, &work] {
            fs::create_dir_all(folder).expect("a folder");
        }
        let (lower, upper, work) = (lower.display(), upper.display(), work.display());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        Self::new(&["-t", "overlay", "-o", &options, "none"], at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// `mount ARGUMENTS… AT`.
#[track_caller]
pub fn mount(arguments: &[&str], at: &Path) {
    let at = at.to_str().expect("a text path");
    tool("mount", arguments.iter().copied().chain([at]));
}

/// Takes everything away that is mounted at `at`, used or not.
pub fn unmount(at: &Path) {
    let umount = std::process::Command::new("umount")
        .args([Path::new("-R"), Path::new("-l"), at])
        .output();
    if let Err(error) = umount {
        eprintln!("umount {}: {error}", at.display());
    }
}
