//! The ladder: each file system in scope is watched by the highest rung that its kernel grants, found by trying.
//!
//! A tells handles, names and both ends of a rename; B the same with less about each (Linux 5.10); C tells writes alone, by
//! descriptors, on file systems that have no handles. What a rung does not tell is a standing limit.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use attestation::statement::Rung;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};

use crate::scan::{Filesystem, MountLine, Root, mount_lines};

// The group's flags for handles are the kernel's own numbers: nix has no names for them, and lets them through.
const ALWAYS: u32 =
    libc::FAN_CLASS_NOTIF | libc::FAN_UNLIMITED_QUEUE | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
const HANDLES: u32 = libc::FAN_REPORT_FID | libc::FAN_REPORT_DFID_NAME;
const WRITES: u64 = libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE;
const NAMES: u64 = WRITES
    | libc::FAN_OPEN_EXEC
    | libc::FAN_ATTRIB
    | libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_ONDIR;

/// What a group of a rung is asked to tell.
struct Step {
    rung: Rung,
    group: u32,
    /// For the descriptors that come with its events.
    events: libc::c_int,
    mask: u64,
}

// A descriptor of an event is opened by the kernel in our name: without waiting, as if nobody had read.
const DESCRIPTOR: libc::c_int =
    libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOATIME;

const STEPS: [Step; 3] = [
    Step {
        rung: Rung::A,
        group: ALWAYS | HANDLES | libc::FAN_REPORT_TARGET_FID,
        events: 0,
        mask: NAMES | libc::FAN_RENAME,
    },
    Step {
        rung: Rung::B,
        group: ALWAYS | HANDLES,
        events: 0,
        mask: NAMES | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO,
    },
    Step {
        rung: Rung::C,
        group: ALWAYS,
        events: DESCRIPTOR,
        mask: WRITES,
    },
];

/// A group and the rung that its events are of.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) group: Fanotify,
    pub(super) rung: Rung,
}

/// The file systems in scope, marked.
#[derive(Debug)]
pub(super) struct Marked {
    /// One group for each rung that was needed.
    pub(super) sources: Vec<Source>,
    /// The lowest of them.
    pub(super) rung: Rung,
    pub(super) limits: Vec<String>,
    /// The directories that overlays keep what was written in: their events are those of the overlay.
    pub(super) uppers: Vec<Filesystem>,
}

/// Groups by rung, made when first needed.
#[derive(Default)]
struct Groups(BTreeMap<Rung, Fanotify>);

impl Groups {
    /// Marks a file system on the highest rung from `highest` down, and says which that was.
    fn mark(&mut self, at: BorrowedFd<'_>, highest: Rung, lowest: Rung) -> io::Result<Rung> {
        let mut refused = io::Error::from(io::ErrorKind::Unsupported);
        let steps = STEPS
            .iter()
            .filter(|step| (highest..=lowest).contains(&step.rung));
        for step in steps {
            match self.try_step(step, at) {
                Ok(()) => return Ok(step.rung),
                Err(error) => {
                    tracing::debug!(rung = %step.rung, %error, "a rung is refused");
                    refused = error;
                }
            }
        }
        Err(refused)
    }

    fn try_step(&mut self, step: &Step, at: BorrowedFd<'_>) -> io::Result<()> {
        let made;
        let group = if let Some(group) = self.0.get(&step.rung) {
            group
        } else {
            made = Fanotify::init(
                InitFlags::from_bits_retain(step.group),
                EventFFlags::from_bits_retain(u32::try_from(step.events).unwrap_or(0)),
            )?;
            self.0.entry(step.rung).or_insert(made)
        };
        let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
        let mask = MaskFlags::from_bits_retain(step.mask);
        Ok(group.mark(flags, mask, at, None::<&Path>)?)
    }
}

/// Marks every file system of a root; none on a higher rung than `highest`.
///
/// Fails when the root's own file system cannot be marked at all.
pub(super) fn climb(root: &Root, highest: Rung) -> io::Result<Marked> {
    let mut groups = Groups::default();
    let mut marked = Marked {
        sources: Vec::new(),
        rung: Rung::A,
        limits: Vec::new(),
        uppers: Vec::new(),
    };
    for point in root.unwatched() {
        marked.limits.push(format!(
            "changes below {} are found by rescans alone: a program or a network serves it, and nobody waits for either",
            root.shown(point).display()
        ));
    }
    for filesystem in root.watched() {
        let shown = root.shown(&filesystem.prefix);
        match groups.mark(filesystem.marked_at(), highest, Rung::C) {
            Ok(rung) => {
                marked.rung = marked.rung.max(rung);
                marked.limits.extend(limit(rung, &shown));
                if rung == Rung::C {
                    marked.limits.extend(mark_upper(
                        &mut groups,
                        filesystem,
                        &shown,
                        &mut marked.uppers,
                    ));
                }
            }
            Err(error) if filesystem.prefix.is_root() => return Err(error),
            Err(error) => marked.limits.push(format!(
                "changes below {} are not told: {error}",
                shown.display()
            )),
        }
    }
    // A group that marks nothing was made for a mark that was refused.
    let sources = groups.0.into_iter();
    marked.sources = sources
        .map(|(rung, group)| Source { group, rung })
        .collect();
    Ok(marked)
}

/// Where nobody can say what is done with them, files opened for an exec only cost.
pub(super) fn unmark_execs(sources: &[Source], root: &Root) {
    for source in sources.iter().filter(|source| source.rung < Rung::C) {
        for filesystem in root.watched() {
            let flags = MarkFlags::FAN_MARK_REMOVE | MarkFlags::FAN_MARK_FILESYSTEM;
            let mask = MaskFlags::from_bits_retain(libc::FAN_OPEN_EXEC);
            let marked = filesystem.marked_at();
            if let Err(error) = source.group.mark(flags, mask, marked, None::<&Path>) {
                tracing::debug!(%error, "execs stay marked, and are told for nothing");
            }
        }
    }
}

/// What a rung does not tell, in words.
fn limit(rung: Rung, shown: &Path) -> Option<String> {
    let shown = shown.display();
    match rung {
        Rung::B => Some(format!(
            "on {shown} a new name is told without the file that it is of: a new hard link is told by the file alone"
        )),
        Rung::C => Some(format!(
            "on {shown} only writes are told at once; new, removed and renamed files, changes of attributes and truncation by path are found by rescans"
        )),
        Rung::A | Rung::D | Rung::None => None,
    }
}

/// An overlay's upper directory tells by handles what the overlay itself does not. Returns what is not told, in words.
fn mark_upper(
    groups: &mut Groups,
    filesystem: &Filesystem,
    shown: &Path,
    uppers: &mut Vec<Filesystem>,
) -> Option<String> {
    let line = line_of(shown)?;
    if line.fstype != b"overlay" {
        return None;
    }
    let upper = Path::new(std::ffi::OsStr::from_bytes(line.option(b"upperdir")?));
    let not_told = |error: io::Error| {
        let (upper, shown) = (upper.display(), shown.display());
        format!("{upper}, where {shown} keeps what was written, cannot be watched: {error}")
    };
    let marked = File::open(upper).and_then(|directory| {
        let upper = Filesystem::beside(&directory.into(), filesystem.prefix.clone())?;
        groups.mark(upper.marked_at(), Rung::A, Rung::B)?;
        Ok(upper)
    });
    match marked {
        Ok(upper) => {
            uppers.push(upper);
            None
        }
        Err(error) => Some(not_told(error)),
    }
}

/// The line of the mount that a path lies on.
fn line_of(path: &Path) -> Option<MountLine> {
    let id = super::mount_of(path)?;
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    mount_lines(&table).find(|line| line.id == id)
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}
