//! One process that is followed: what it runs, whose it is, where it belongs.

use std::sync::Arc;

use super::image::{Image, pair};
use super::login::{self, Step};
use super::process::{Login, Says};
use super::program::Executable;

/// Parents kept of each process.
pub(super) const FOREBEARS: usize = 8;
/// Start times read from `/proc` are exact to a clock tick of 10 ms, and so is the difference of two clocks.
pub(super) const TOLERANCE: u64 = 25_000_000;
/// Files opened for execs, and execs, that wait to be put together; a longer chain within one batch is cut.
const WINDOW: usize = 64;

/// A parent as it was when it forked.
#[derive(Clone, Debug)]
pub(super) struct Forebear {
    pub(super) pid: u32,
    pub(super) image: Arc<Image>,
    root: bool,
    credit: Option<Login>,
}

/// Since when a process is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Its fork was told.
    FromStart,
    /// It was there before, and was found in `/proc`.
    Midlife,
    /// Nobody told of it until something it did was read.
    Late,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) start: u64,
    pub(super) ended: Option<u64>,
    pub(super) seen: Seen,
    pub(super) image: Arc<Image>,
    /// `/proc` has confirmed what it runs: a child may be told under another parent than the one that made it.
    pub(super) confirmed: bool,
    pub(super) users: Option<(u32, u32)>,
    /// What its login user is set to.
    pub(super) login: Option<Login>,
    /// The login that it is believed to belong to.
    pub(super) credit: Option<Login>,
    pub(super) cgroup: Option<Arc<str>>,
    pub(super) forebears: Arc<[Forebear]>,
    /// When `/proc` was last asked for login and control group.
    pub(super) asked: u64,
    window: Option<Box<Window>>,
}

/// Execs that were told while the files opened for them may still come.
#[derive(Debug)]
struct Window {
    before: Arc<Image>,
    images: Vec<Arc<Image>>,
    opened: Vec<Arc<Executable>>,
}

/// A process belongs to a login from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) login: Login,
    /// The one that it belonged to before.
    pub(super) left: Option<Login>,
}

impl Process {
    pub(super) fn new(pid: u32, start: u64, seen: Seen) -> Self {
        Self {
            pid,
            start,
            ended: None,
            seen,
            image: Arc::new(Image::default()),
            confirmed: false,
            users: None,
            login: None,
            credit: None,
            cgroup: None,
            forebears: Arc::default(),
            asked: 0,
            window: None,
        }
    }

    pub(super) fn child(parent: &Self, pid: u32, start: u64) -> Self {
        Self {
            image: Arc::clone(&parent.image),
            users: parent.users,
            login: parent.login,
            credit: parent.credit,
            cgroup: parent.cgroup.clone(),
            forebears: parent.line(),
            ..Self::new(pid, start, Seen::FromStart)
        }
    }

    /// Whether a start time, as `/proc` has it, is that of this process.
    pub(super) fn is_start(&self, start: u64) -> bool {
        self.start.abs_diff(start) <= TOLERANCE
    }

    /// Whether its login is not what it is believed to be.
    pub(super) fn is_doubtful(&self) -> bool {
        self.login != self.credit
    }

    /// The forebears of its children.
    pub(super) fn line(&self) -> Arc<[Forebear]> {
        let own = Forebear {
            pid: self.pid,
            image: Arc::clone(&self.image),
            root: self.is_root(),
            credit: self.credit,
        };
        std::iter::once(own)
            .chain(self.forebears.iter().cloned())
            .take(FOREBEARS)
            .collect()
    }

    /// It runs another program, which is known as far as this image is.
    pub(super) fn runs_now(&mut self, image: Arc<Image>) {
        self.confirmed = true;
        let window = self.window();
        if window.images.len() >= WINDOW {
            window.images.remove(0);
        }
        window.images.push(Arc::clone(&image));
        self.image = image;
    }

    /// Takes in what `/proc` says of it. Tells when it belongs to another login now.
    pub(super) fn heard(&mut self, says: Says, now: u64) -> Option<Joined> {
        self.asked = now;
        if let Some(users) = says.users {
            self.users = Some(users);
        }
        if let Some(cgroup) = says.cgroup
            && self.cgroup.as_deref() != Some(&*cgroup)
        {
            self.cgroup = Some(cgroup.into());
        }
        if self.window.is_none() && !self.confirmed && says.exe.is_some() {
            self.confirm(says.exe, says.cmdline);
        }
        if let Some(login) = says.login {
            self.login = login;
        }
        self.join()
    }

    /// Files that it opened to run: see [`super::table::Table::opened`].
    pub(super) fn opened(
        &mut self,
        opened: Vec<(usize, Arc<Executable>)>,
    ) -> Vec<(usize, Arc<Image>)> {
        if opened.is_empty() && self.window.is_none() {
            return Vec::new();
        }
        let window = self.window();
        // What was opened before stands before everything of this batch.
        let mut places = vec![0; window.opened.len()];
        for (place, file) in opened {
            places.push(place);
            window.opened.push(file);
        }
        let excess = window.opened.len().saturating_sub(WINDOW);
        window.opened.drain(..excess);
        places.drain(..excess);
        let mut held: Vec<_> = pair(&window.opened, &window.images)
            .into_iter()
            .map(|(last, image)| (places.get(last).copied().unwrap_or(0), image))
            .collect();
        if let Some((first, _)) = held.first()
            && *first > 0
        {
            held.insert(0, (0, Arc::clone(&window.before)));
        }
        held
    }

    /// What it runs where nothing was opened in this batch: see [`super::table::Table::runs`].
    pub(super) fn runs(&self, drained: bool) -> Arc<Image> {
        let before = self
            .window
            .as_ref()
            .filter(|window| !drained && window.opened.is_empty())
            .map(|window| &window.before);
        Arc::clone(before.unwrap_or(&self.image))
    }

    /// Nothing more can come that belongs to the execs until now. Files opened for an exec that was not told yet wait for it.
    pub(super) fn settle(&mut self) {
        if let Some(window) = self.window.take_if(|window| !window.images.is_empty()) {
            pair(&window.opened, &window.images);
        }
    }

    /// Events were lost: nothing of it is sure until it is seen again.
    pub(super) fn doubt(&mut self) {
        self.seen = Seen::Midlife;
        self.confirmed = false;
        self.window = None;
    }

    fn is_root(&self) -> bool {
        self.users.is_some_and(|(_, effective)| effective == 0)
    }

    fn window(&mut self) -> &mut Window {
        let before = &self.image;
        self.window.get_or_insert_with(|| {
            Box::new(Window {
                before: Arc::clone(before),
                images: Vec::new(),
                opened: Vec::new(),
            })
        })
    }

    /// What it runs without an exec of its own is its parent's program, or of whoever made it in that one's name.
    fn confirm(&mut self, exe: Option<Arc<Executable>>, cmdline: Option<String>) {
        self.confirmed = true;
        let same = match (&exe, self.image.exe()) {
            (Some(asked), Some((known, _))) => asked.is_same_file(known),
            _ => false,
        };
        if !same {
            self.image = Arc::new(Image::asked(exe, cmdline));
        }
    }

    fn join(&mut self) -> Option<Joined> {
        let login = self.login?;
        if self.credit == Some(login) {
            return None;
        }
        let own = Step {
            exe: self.image.exe().map(|(exe, _)| exe.path.as_str()),
            root: self.is_root(),
            credit: self.credit,
        };
        let above = self.forebears.iter().map(|forebear| Step {
            exe: forebear.image.exe().map(|(exe, _)| exe.path.as_str()),
            root: forebear.root,
            credit: forebear.credit,
        });
        let given = login::is_given(
            login,
            self.cgroup.as_deref(),
            std::iter::once(own).chain(above),
        );
        let left = self.credit;
        if given {
            self.credit = Some(login);
        }
        given.then_some(Joined { login, left })
    }
}
