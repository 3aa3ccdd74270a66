//! A process as a statement tells it.

use std::sync::Arc;

use attestation::statement::{Actor, Ancestor, Confidence};

use super::control_group;
use super::followed::{Process, Seen};
use super::image::Image;
use super::program::Executable;

/// Who did something, and the file that it ran, so that its digest can be told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doer {
    pub(crate) actor: Actor,
    pub(crate) exe: Option<Arc<Executable>>,
}

impl Doer {
    /// Nobody is known under this number, or more than one.
    pub(crate) fn unknown(pid: u32) -> Self {
        Self::from(Actor {
            pid,
            ..Actor::default()
        })
    }

    /// A process that ran `image` then. Without `detail` command line and parents are left out.
    pub(super) fn of(process: &Process, image: &Image, detail: bool) -> Self {
        let exe = image.file().map(Arc::clone);
        let path = |image: &Image| image.exe().map(|(exe, _)| exe.path.clone());
        let login = process.credit.or(process.login);
        let cgroup = process.cgroup.as_deref().filter(|cgroup| *cgroup != "/");
        let ancestors = process.forebears.iter().filter(|_| detail);
        let actor = Actor {
            pid: process.pid,
            exe: path(image),
            exe_sha256: None,
            cmdline: image.cmdline().filter(|_| detail).map(str::to_owned),
            uid: process.users.map(|(real, _)| real),
            euid: process.users.map(|(_, effective)| effective),
            auid: login.map(|login| login.auid),
            user: None,
            session: login.map(|login| login.session),
            unit: cgroup.and_then(control_group::unit),
            container: cgroup.and_then(control_group::container),
            cgroup: cgroup.map(str::to_owned),
            ancestors: ancestors
                .map(|forebear| Ancestor {
                    pid: forebear.pid,
                    exe: path(&forebear.image),
                })
                .collect(),
            confidence: confidence(process, image),
        };
        Self { actor, exe }
    }
}

impl From<Actor> for Doer {
    fn from(actor: Actor) -> Self {
        Self { actor, exe: None }
    }
}

fn confidence(process: &Process, image: &Image) -> Confidence {
    let program = image.exe().map_or(Confidence::Low, |(_, sure)| sure);
    let seen = match process.seen {
        Seen::FromStart if process.confirmed => Confidence::High,
        Seen::FromStart | Seen::Midlife => Confidence::Medium,
        Seen::Late => Confidence::Low,
    };
    let login = if process.is_doubtful() {
        Confidence::Low
    } else {
        Confidence::High
    };
    program.min(seen).min(login)
}
