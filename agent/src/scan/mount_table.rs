//! The mount table under a root, as `mountinfo` tells it: this process' own, and the one that everybody sees.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use attestation::mounts::Mount;
use attestation::path::ImagePath;

/// Reads the mounts strictly below `root`, in the order of their paths; of several at one place, the last.
///
/// # Errors
/// When `root` or `/proc/self/mountinfo` cannot be read.
pub fn mount_table(root: &Path) -> io::Result<Vec<Mount>> {
    let root = std::fs::canonicalize(root)?;
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(below(&table, root.as_os_str().as_bytes()))
}

/// The same of the table that everybody sees.
///
/// # Errors
/// When `root` or that table cannot be read.
pub(crate) fn everybodys_mount_table(root: &Path) -> io::Result<Vec<Mount>> {
    let root = std::fs::canonicalize(root)?;
    let table = std::fs::read(everybody().join("mountinfo"))?;
    Ok(below(&table, root.as_os_str().as_bytes()))
}

/// The process, by its directory in `/proc`, whose mounts everybody sees: PID 1 where this process lives in a namespace that
/// was made of PID 1's and follows it, as systemd gives one to a service. What is mounted over there to hold the service is
/// nobody else's view. Else this process: a namespace that follows nothing was chosen by whoever started the agent.
pub(crate) fn everybody() -> &'static Path {
    static EVERYBODY: OnceLock<PathBuf> = OnceLock::new();
    EVERYBODY.get_or_init(|| {
        let [own, first] = ["/proc/self", "/proc/1"].map(Path::new);
        let table = |of: &Path| std::fs::read(of.join("mountinfo")).unwrap_or_default();
        let seen = follows(&table(own), &table(first));
        if seen { first } else { own }.to_owned()
    })
}

/// Whether a table is of a namespace in which another one's mounts appear: its root is a slave of the other's.
fn follows(own: &[u8], other: &[u8]) -> bool {
    let (Some(own), Some(other)) = (Top::of(own), Top::of(other)) else {
        return false;
    };
    (own.device, own.root) == (other.device, other.root)
        && own.master.is_some()
        && own.master == other.shared
}

/// Where a namespace's `/` comes from, and where it goes to.
#[derive(Debug)]
struct Top<'t> {
    device: &'t [u8],
    root: &'t [u8],
    shared: Option<&'t [u8]>,
    master: Option<&'t [u8]>,
}

impl<'t> Top<'t> {
    /// The line of `/`; of several, the last.
    fn of(table: &'t [u8]) -> Option<Self> {
        let lines = table.split(|byte| *byte == b'\n');
        let line = lines
            .map(|line| line.split(|byte| *byte == b' ').collect::<Vec<_>>())
            .rfind(|words| words.get(4) == Some(&&b"/"[..]))?;
        let optional = line.iter().skip(6).take_while(|word| **word != b"-");
        let group = |name: &[u8]| optional.clone().find_map(|word| word.strip_prefix(name));
        Some(Self {
            device: line.get(2)?,
            root: line.get(3)?,
            shared: group(b"shared:"),
            master: group(b"master:"),
        })
    }
}

/// One line of a mount table, as far as it is of interest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountLine {
    /// Number of the mount; it may be given anew once the mount is gone.
    pub(crate) id: u64,
    /// Major and minor number of the file system's device.
    pub(crate) device: (u32, u32),
    /// Which directory of the file system is mounted.
    pub(crate) root: Vec<u8>,
    /// Where, as the reader of the table sees it.
    pub(crate) point: Vec<u8>,
    /// Type of the file system.
    pub(crate) fstype: Vec<u8>,
    /// What was mounted.
    pub(crate) source: Vec<u8>,
    /// Options of the file system itself.
    pub(crate) options: Vec<u8>,
}

impl MountLine {
    /// The line as it is attested, at this path of the root.
    pub(crate) fn mount(&self, path: ImagePath) -> Mount {
        Mount {
            path,
            source: String::from_utf8_lossy(&self.source).into_owned(),
            fstype: String::from_utf8_lossy(&self.fstype).into_owned(),
        }
    }

    /// An option of the file system that has a value.
    pub(crate) fn option(&self, name: &[u8]) -> Option<&[u8]> {
        let mut options = self.options.split(|byte| *byte == b',');
        options.find_map(|option| option.strip_prefix(name)?.strip_prefix(b"="))
    }
}

/// The lines of a table in the kernel's `mountinfo` format. What is not such a line is left out.
pub(crate) fn mount_lines(table: &[u8]) -> impl Iterator<Item = MountLine> {
    table.split(|byte| *byte == b'\n').filter_map(line)
}

/// The lines strictly below a root (an absolute path), by their path in it; of several at one place, the last.
pub(crate) fn lines_below(table: &[u8], root: &[u8]) -> BTreeMap<ImagePath, MountLine> {
    let mut found = BTreeMap::new();
    for line in mount_lines(table) {
        let path = relative(&line.point, root).map(ImagePath::from_bytes);
        if let Some(Ok(path)) = path
            && !path.is_root()
        {
            found.insert(path, line);
        }
    }
    found
}

fn below(table: &[u8], root: &[u8]) -> Vec<Mount> {
    lines_below(table, root)
        .into_iter()
        .map(|(path, line)| line.mount(path))
        .collect()
}

/// The fields before the lone `-` are variable in number.
fn line(line: &[u8]) -> Option<MountLine> {
    let mut words = line.split(|byte| *byte == b' ');
    let id = number(words.next()?)?;
    words.next()?;
    let (major, minor) = std::str::from_utf8(words.next()?).ok()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let root = unescape(words.next()?);
    let point = unescape(words.next()?);
    let mut after = words.skip_while(|word| *word != b"-").skip(1);
    let fstype = unescape(after.next()?);
    let source = unescape(after.next().unwrap_or_default());
    let options = unescape(after.next().unwrap_or_default());
    Some(MountLine {
        id,
        device,
        root,
        point,
        fstype,
        source,
        options,
    })
}

fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// What is left of a mount point below a root.
pub(crate) fn relative<'a>(point: &'a [u8], root: &[u8]) -> Option<&'a [u8]> {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    point.strip_prefix(root)?.strip_prefix(b"/")
}

/// Undoes the kernel's `\ooo` for space, tab, newline, backslash and `#`.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail
            .get(..3)
            .filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        if let (b'\\', Some(digits)) = (first, digits) {
            let value = digits
                .iter()
                .fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
            plain.push(u8::try_from(value & 0xff).unwrap_or_default());
            rest = &tail[3..];
        } else {
            plain.push(first);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
        27 1 254:0 / / rw - ext4 /dev/vda rw\n\
        28 27 0:25 / /srv/a\\040b ro shared:1 master:2 - tmpfs first rw\n\
        29 27 0:26 / /srv/a\\040b ro - xfs /dev/x\\134y rw\n\
        30 27 0:27 / /srv ro - tmpfs none rw\n\
        31 27 0:27 / /srvother ro - tmpfs none rw\n\
        broken\n";

    #[test]
    fn the_last_of_stacked_mounts_is_kept_and_escapes_are_undone() {
        let mounts = below(TABLE, b"/");
        let paths: Vec<_> = mounts
            .iter()
            .map(|mount| mount.path.as_bytes().to_vec())
            .collect();
        assert_eq!(paths, [&b"proc"[..], b"srv", b"srv/a b", b"srvother"]);
        assert_eq!(
            (mounts[2].source.as_str(), mounts[2].fstype.as_str()),
            ("/dev/x\\y", "xfs")
        );
    }

    #[test]
    fn a_services_namespace_follows_the_first_one_and_no_other_does() {
        let first = "29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/a rw\n30 29 0:5 / /dev rw shared:2 - devtmpfs u rw\n";
        let of =
            |line: &str| format!("200 1 {line}\n201 200 0:9 / /sys ro master:1 - sysfs s rw\n");
        let follows = |line: &str| follows(of(line).as_bytes(), first.as_bytes());
        assert!(follows("8:1 / / rw master:1 - ext4 /dev/a rw"));
        assert!(follows("8:1 / / rw shared:77 master:1 - ext4 /dev/a rw"));
        // The same namespace; one that stands alone; a slave of another one; another root.
        assert!(!follows("8:1 / / rw shared:1 - ext4 /dev/a rw"));
        assert!(!follows("8:1 / / rw - ext4 /dev/a rw"));
        assert!(!follows("8:1 / / rw master:2 - ext4 /dev/a rw"));
        assert!(!follows("8:1 /jail / rw master:1 - ext4 /dev/a rw"));
        assert!(!super::follows(first.as_bytes(), b""));
    }

    #[test]
    fn a_line_is_read_whole() {
        let table = b"41 27 0:44 /@/srv /mnt/x rw,relatime shared:7 - overlay over rw,lowerdir=/l,upperdir=/u/p,workdir=/w\n";
        let lines: Vec<_> = mount_lines(table).collect();
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert_eq!((line.id, line.device), (41, (0, 44)));
        assert_eq!(
            (&line.root[..], &line.point[..]),
            (&b"/@/srv"[..], &b"/mnt/x"[..])
        );
        assert_eq!(line.option(b"upperdir"), Some(&b"/u/p"[..]));
        assert_eq!(line.option(b"upper"), None);
    }

    #[test]
    fn only_what_is_strictly_below_the_root_counts() {
        let mounts = below(TABLE, b"/srv");
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].path.as_bytes(), b"a b");
    }
}
