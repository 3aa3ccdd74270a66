//! A file system that no disk and nobody else is behind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use pristine_tests::program::tool;

/// An ext4 file system in memory.
pub struct Disk {
    /// Where it is mounted.
    pub at: PathBuf,
}

impl Disk {
    pub fn mount(at: &Path) -> Self {
        let memory = at.with_extension("memory");
        fs::create_dir_all(at).expect("a mount point");
        fs::create_dir_all(&memory).expect("a mount point");
        let text = |path: &Path| path.to_str().expect("a text path").to_owned();
        tool(
            "mount",
            ["-t", "tmpfs", "-o", "size=2g", "bench", &text(&memory)],
        );
        let image = text(&memory.join("ext4"));
        tool("truncate", ["-s", "1500M", &image]);
        tool("mkfs.ext4", ["-q", "-F", &image]);
        tool("mount", ["-o", "loop,noatime", &image, &text(at)]);
        Self {
            at: at.to_path_buf(),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for path in [self.at.clone(), self.at.with_extension("memory")] {
            let path = path.to_str().expect("a text path").to_owned();
            Command::new("umount").args(["-l", &path]).status().ok();
        }
    }
}
