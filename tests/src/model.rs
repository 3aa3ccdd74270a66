//! A tree that is changed at random and kept in mind at the same time: what is in it is known without looking.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use attestation::{
    digest::Digest,
    entry::{Entry, InodeFlags, Kind, Line, Xattr, XattrValue},
    path::ImagePath,
};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, XattrFlags};

use crate::random::Random;

/// Names a model holds at most: the tree stays small, so that every state of it is told in full.
const NAMES: usize = 90;
/// Bytes of a file at most.
const BYTES: usize = 40_000;

/// One directory and all below it. One thread changes it; others have their own.
#[derive(Debug)]
pub struct Model {
    root: PathBuf,
    random: Random,
    names: BTreeMap<Vec<u8>, u64>,
    objects: BTreeMap<u64, Object>,
    made: u64,
    /// How often each change was made.
    pub counts: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Clone)]
struct Object {
    body: Body,
    mode: u16,
    uid: u32,
    gid: u32,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    File(Vec<u8>),
    Directory,
    Link(Vec<u8>),
    Fifo,
}

type Change = fn(&mut Model) -> Option<()>;

/// What may happen; a change that finds nothing to work on is left out.
const CHANGES: &[(&str, Change)] = &[
    ("create", Model::create),
    ("create", Model::create),
    ("make a directory", Model::make_directory),
    ("write", Model::write),
    ("write", Model::write),
    ("append", Model::append),
    ("truncate", Model::truncate),
    ("rename", Model::rename),
    ("rename", Model::rename),
    ("exchange", Model::exchange),
    ("link", Model::link),
    ("link a nameless file", Model::link_nameless),
    ("symbolic link", Model::symbolic_link),
    ("FIFO", Model::fifo),
    ("unlink", Model::unlink),
    ("unlink", Model::unlink),
    ("remove a directory", Model::remove_directory),
    ("chmod", Model::chmod),
    ("chown", Model::chown),
    ("set an attribute", Model::set_attribute),
    ("remove an attribute", Model::remove_attribute),
];

impl Model {
    /// Makes the directory `name` below `root`, with something in it.
    pub fn make(root: &Path, name: &str, seed: u64) -> Self {
        fs::create_dir(root.join(name)).expect("a directory");
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).expect("a mode");
        let mut model = Self {
            root: root.to_path_buf(),
            random: Random::from_seed(seed),
            names: BTreeMap::new(),
            objects: BTreeMap::new(),
            made: 0,
            counts: BTreeMap::new(),
        };
        model.put(name.as_bytes().to_vec(), Body::Directory, 0o755);
        while model.names.len() < NAMES * 2 / 3 {
            model.change();
        }
        model.counts.clear();
        model
    }

    /// One change at random.
    pub fn change(&mut self) {
        let (name, change) = CHANGES[self.random.below(CHANGES.len())];
        if change(self).is_some() {
            *self.counts.entry(name).or_default() += 1;
        }
    }

    /// The entry lines of all that should be there.
    pub fn lines(&self) -> BTreeMap<ImagePath, Line> {
        let entry = |(path, number): (&Vec<u8>, &u64)| {
            let path = ImagePath::from_bytes(path.clone()).expect("a path");
            let line = self.objects[number].entry(&path).line().expect("a line");
            (path, line)
        };
        self.names.iter().map(entry).collect()
    }

    /// The random numbers that change it, for pauses between changes.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }

    fn put(&mut self, path: Vec<u8>, body: Body, mode: u16) {
        self.made += 1;
        let object = Object {
            body,
            mode,
            uid: 0,
            gid: 0,
            xattrs: BTreeMap::new(),
        };
        self.objects.insert(self.made, object);
        self.take_name(path, self.made);
    }

    /// The name now leads to this object; what it led to before may be gone.
    fn take_name(&mut self, path: Vec<u8>, number: u64) {
        if let Some(before) = self.names.insert(path, number) {
            self.forget(before);
        }
    }

    fn forget(&mut self, number: u64) {
        if !self.names.values().any(|other| *other == number) {
            self.objects.remove(&number);
        }
    }

    fn body(&self, path: &[u8]) -> &Body {
        &self.objects[&self.names[path]].body
    }

    fn object(&mut self, path: &[u8]) -> &mut Object {
        let number = self.names[path];
        self.objects.get_mut(&number).expect("an object")
    }

    fn pick(&mut self, wanted: impl Fn(&Body) -> bool) -> Option<Vec<u8>> {
        let there: Vec<&Vec<u8>> = self
            .names
            .iter()
            .filter(|(_, number)| wanted(&self.objects[number].body))
            .map(|(path, _)| path)
            .collect();
        if there.is_empty() {
            return None;
        }
        let n = self.random.below(there.len());
        Some(there[n].clone())
    }

    fn pick_file(&mut self) -> Option<Vec<u8>> {
        self.pick(|body| matches!(body, Body::File(_)))
    }

    /// Anything but the top directory, which stays.
    fn pick_movable(&mut self, wanted: impl Fn(&Body) -> bool) -> Option<Vec<u8>> {
        self.pick(wanted).filter(|path| path.contains(&b'/'))
    }

    /// A name that is free, in a directory that is there.
    fn free(&mut self) -> Option<Vec<u8>> {
        if self.names.len() >= NAMES {
            return None;
        }
        let mut path = self.pick(|body| *body == Body::Directory)?;
        if path.iter().filter(|byte| **byte == b'/').count() > 6 {
            return None;
        }
        path.push(b'/');
        let n = self.random.below(40);
        match self.random.below(8) {
            0 => path.extend(format!("new\nline {n}").bytes()),
            1 => path.extend([0xff, 0x80, b'a' + u8::try_from(n % 26).expect("a letter")]),
            2 => path.extend(format!("{}{n:02}", "long".repeat(50)).bytes()),
            _ => path.extend(format!("name-{n}").bytes()),
        }
        (!self.names.contains_key(&path)).then_some(path)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.random.below(BYTES) / (1 + self.random.below(16));
        let word = self.random.bits().to_le_bytes();
        word.iter().copied().cycle().take(length).collect()
    }

    fn create(&mut self) -> Option<()> {
        let (path, content) = (self.free()?, self.bytes());
        fs::write(self.at(&path), &content).expect("a file");
        fs::set_permissions(self.at(&path), fs::Permissions::from_mode(0o644)).expect("a mode");
        self.put(path, Body::File(content), 0o644);
        Some(())
    }

    fn make_directory(&mut self) -> Option<()> {
        let path = self.free()?;
        fs::create_dir(self.at(&path)).expect("a directory");
        fs::set_permissions(self.at(&path), fs::Permissions::from_mode(0o750)).expect("a mode");
        self.put(path, Body::Directory, 0o750);
        Some(())
    }

    fn open(&self, path: &[u8]) -> fs::File {
        fs::File::options()
            .write(true)
            .open(self.at(path))
            .expect("a file")
    }

    fn write(&mut self) -> Option<()> {
        let (path, more) = (self.pick_file()?, self.bytes());
        let Body::File(content) = self.body(&path).clone() else {
            return None;
        };
        let from = self.random.below(content.len() + 1);
        let file = self.open(&path);
        file.write_all_at(&more, from as u64).expect("a write");
        let mut content = content;
        let end = (from + more.len()).max(content.len());
        content.resize(end, 0);
        content[from..from + more.len()].copy_from_slice(&more);
        if content.len() > 2 * BYTES {
            content.truncate(BYTES);
            file.set_len(BYTES as u64).expect("a length");
        }
        self.object(&path).body = Body::File(content);
        Some(())
    }

    fn append(&mut self) -> Option<()> {
        let path = self.pick_file()?;
        let mut file = fs::File::options()
            .append(true)
            .open(self.at(&path))
            .expect("a file");
        std::io::Write::write_all(&mut file, b"one more line\n").expect("a write");
        if let Body::File(content) = &mut self.object(&path).body {
            content.extend(b"one more line\n");
        }
        Some(())
    }

    fn truncate(&mut self) -> Option<()> {
        let (path, length) = (self.pick_file()?, self.random.below(BYTES));
        self.open(&path).set_len(length as u64).expect("a length");
        if let Body::File(content) = &mut self.object(&path).body {
            content.resize(length, 0);
        }
        Some(())
    }

    /// To a free name, or over a file that is there.
    fn rename(&mut self) -> Option<()> {
        let from = self.pick_movable(|_| true)?;
        let directory = *self.body(&from) == Body::Directory;
        let over = !directory && self.random.below(3) == 0;
        let to = if over {
            self.pick(|body| *body != Body::Directory)
        } else {
            self.free()
        }?;
        let inside = to.starts_with(&[from.as_slice(), b"/"].concat());
        // Over another name of the same object the kernel does nothing.
        if inside || self.names.get(&to) == Some(&self.names[&from]) {
            return None;
        }
        fs::rename(self.at(&from), self.at(&to)).expect("a rename");
        self.moved(&from, &to);
        Some(())
    }

    fn moved(&mut self, from: &[u8], to: &[u8]) {
        let prefix = [from, b"/"].concat();
        let below: Vec<Vec<u8>> = self
            .names
            .keys()
            .filter(|path| path.as_slice() == from || path.starts_with(&prefix))
            .cloned()
            .collect();
        for path in below {
            let number = self.names.remove(&path).expect("a name");
            self.take_name([to, &path[from.len()..]].concat(), number);
        }
    }

    fn exchange(&mut self) -> Option<()> {
        let plain = |body: &Body| *body != Body::Directory;
        let (one, other) = (self.pick(plain)?, self.pick(plain)?);
        let (first, second) = (self.at(&one), self.at(&other));
        rustix::fs::renameat_with(CWD, &first, CWD, &second, RenameFlags::EXCHANGE)
            .expect("an exchange");
        let (a, b) = (self.names[&one], self.names[&other]);
        self.names.insert(one, b);
        self.names.insert(other, a);
        Some(())
    }

    fn link(&mut self) -> Option<()> {
        let (path, to) = (self.pick_file()?, self.free()?);
        fs::hard_link(self.at(&path), self.at(&to)).expect("a hard link");
        let number = self.names[&path];
        self.take_name(to, number);
        Some(())
    }

    fn link_nameless(&mut self) -> Option<()> {
        let (path, content) = (self.free()?, self.bytes());
        let target = self.at(&path);
        let folder = target.parent().expect("a folder");
        let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::WRONLY;
        let file =
            rustix::fs::open(folder, flags, Mode::from_raw_mode(0o600)).expect("a nameless file");
        rustix::io::write(&file, &content).expect("a write");
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600)).expect("a mode");
        let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let follow = rustix::fs::AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(CWD, name.as_str(), CWD, &target, follow).expect("a name for it");
        self.put(path, Body::File(content), 0o600);
        Some(())
    }

    fn symbolic_link(&mut self) -> Option<()> {
        let path = self.free()?;
        let target = format!("../somewhere/{}", self.random.below(1000)).into_bytes();
        symlink(OsStr::from_bytes(&target), self.at(&path)).expect("a symbolic link");
        self.put(path, Body::Link(target), 0o777);
        Some(())
    }

    fn fifo(&mut self) -> Option<()> {
        let path = self.free()?;
        rustix::fs::mknodat(
            CWD,
            self.at(&path),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .expect("a FIFO");
        self.put(path, Body::Fifo, 0o600);
        Some(())
    }

    fn unlink(&mut self) -> Option<()> {
        let path = self.pick(|body| *body != Body::Directory)?;
        fs::remove_file(self.at(&path)).expect("a removal");
        let number = self.names.remove(&path).expect("a name");
        self.forget(number);
        Some(())
    }

    fn remove_directory(&mut self) -> Option<()> {
        let path = self.pick_movable(|body| *body == Body::Directory)?;
        let prefix = [path.as_slice(), b"/"].concat();
        // A full tree of many is taken away only now and then.
        if self.names.keys().any(|other| other.starts_with(&prefix)) && self.random.below(3) > 0 {
            return None;
        }
        fs::remove_dir_all(self.at(&path)).expect("a removal");
        let gone: Vec<Vec<u8>> = self
            .names
            .keys()
            .filter(|other| **other == path || other.starts_with(&prefix))
            .cloned()
            .collect();
        for path in gone {
            let number = self.names.remove(&path).expect("a name");
            self.forget(number);
        }
        Some(())
    }

    fn chmod(&mut self) -> Option<()> {
        let path = self.pick(|body| !matches!(body, Body::Link(_)))?;
        let mode = 0o400 | u16::try_from(self.random.below(0o1000)).expect("a mode");
        fs::set_permissions(self.at(&path), fs::Permissions::from_mode(mode.into()))
            .expect("a mode");
        self.object(&path).mode = mode;
        Some(())
    }

    fn chown(&mut self) -> Option<()> {
        let path = self.pick(|_| true)?;
        let (uid, gid) = (
            u32::try_from(self.random.below(60_000)).expect("an id"),
            u32::try_from(self.random.below(60_000)).expect("an id"),
        );
        std::os::unix::fs::lchown(self.at(&path), Some(uid), Some(gid)).expect("an owner");
        let object = self.object(&path);
        (object.uid, object.gid) = (uid, gid);
        Some(())
    }

    fn set_attribute(&mut self) -> Option<()> {
        let path = self.pick(|body| matches!(body, Body::File(_) | Body::Directory))?;
        let name = format!("user.note-{}", self.random.below(2)).into_bytes();
        let value: Vec<u8> = (0..self.random.below(1_400))
            .map(|n| u8::try_from(n % 251).expect("a byte"))
            .collect();
        rustix::fs::setxattr(self.at(&path), name.as_slice(), &value, XattrFlags::empty())
            .expect("an attribute");
        self.object(&path).xattrs.insert(name, value);
        Some(())
    }

    fn remove_attribute(&mut self) -> Option<()> {
        let path = self.pick(|body| matches!(body, Body::File(_) | Body::Directory))?;
        let (name, _) = self.object(&path).xattrs.pop_first()?;
        rustix::fs::removexattr(self.at(&path), name.as_slice()).expect("no attribute");
        Some(())
    }
}

impl Object {
    fn entry(&self, path: &ImagePath) -> Entry {
        let kind = match &self.body {
            Body::File(content) => Kind::File {
                size: content.len() as u64,
                sha256: Some(Digest::of(content)),
            },
            Body::Directory => Kind::Dir,
            Body::Link(target) => Kind::Link {
                target: target.clone(),
            },
            Body::Fifo => Kind::Fifo,
        };
        let xattr = |(name, value): (&Vec<u8>, &Vec<u8>)| Xattr {
            name: name.clone(),
            value: XattrValue::of(value),
        };
        Entry {
            path: path.clone(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            time: None,
            flags: InodeFlags {
                immutable: false,
                append_only: false,
            },
            kind,
            xattrs: self.xattrs.iter().map(xattr).collect(),
        }
    }
}
