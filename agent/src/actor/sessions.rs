//! Login sessions: who is there, from where, what was run, kept until a statement has told it. Pure; times are arguments.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use attestation::statement::{Attestation, Session, SessionCommand};
use attestation::time::Timestamp;
use serde::Deserialize;

use super::image::Image;

/// Sessions kept at a time: more people and jobs than one machine has at once. Beyond, a new one is only counted.
const SESSION_LIMIT: usize = 1_024;
/// Commands of one session kept at a time, told or not; what waits longest is dropped and counted.
const COMMAND_LIMIT: usize = 1_024;
/// Processes of a session that are asked for the peer's address.
const ASKED: u8 = 16;
/// Bytes that a command takes in a statement beside its executable and arguments, at the most.
const COMMAND_OVERHEAD: usize = 128;

/// What is collected of logins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Collect {
    /// Nothing.
    Off,
    /// Who, from where and when.
    Logins,
    /// And the programs that were run.
    #[default]
    Commands,
}

/// All sessions that are not over, or not told.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    collect: Collect,
    sessions: BTreeMap<u32, Kept>,
    /// Sessions that found no room since the last statement.
    more: u64,
    /// Counts changes, so that what changes while a statement is signed is told in the next one.
    change: u64,
}

#[derive(Debug)]
struct Kept {
    auid: u32,
    from: Option<String>,
    tty: Option<String>,
    started: Timestamp,
    ended: Option<Timestamp>,
    living: HashSet<u32>,
    commands: VecDeque<Command>,
    dropped: u64,
    asked: u8,
    changed: u64,
    told: u64,
}

#[derive(Debug)]
struct Command {
    at: Timestamp,
    pid: u32,
    image: Arc<Image>,
    arguments: Option<String>,
    exit: Option<i32>,
    changed: u64,
    told: u64,
}

/// Sessions for a statement, and how far they are told by it.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) sessions: Vec<Session>,
    /// How many changed, where not all are listed.
    pub(crate) total: Option<u64>,
    marks: Vec<Mark>,
    more: u64,
}

/// How far a session is told.
#[derive(Debug)]
struct Mark {
    session: u32,
    through: u64,
    commands: Vec<CommandMark>,
}

/// How far a command is.
#[derive(Debug)]
struct CommandMark {
    pid: u32,
    at: Timestamp,
    through: u64,
}

impl Ledger {
    pub(crate) fn new(collect: Collect) -> Self {
        Self {
            collect,
            ..Self::default()
        }
    }

    /// So much is collected from now on.
    pub(super) fn collect(&mut self, collect: Collect) {
        self.collect = collect;
    }

    /// A process belongs to a session. Tells whether the session is a new one.
    pub(super) fn joined(&mut self, session: u32, auid: u32, pid: u32, at: Timestamp) -> bool {
        if self.collect == Collect::Off {
            return false;
        }
        self.change += 1;
        if let Some(kept) = self.sessions.get_mut(&session) {
            kept.living.insert(pid);
            if kept.ended.take().is_some() {
                kept.changed = self.change;
            }
            kept.started = kept.started.min(at);
            return false;
        }
        if self.sessions.len() >= SESSION_LIMIT {
            self.more = self.more.saturating_add(1);
            return false;
        }
        let kept = Kept {
            auid,
            from: None,
            tty: None,
            started: at,
            ended: None,
            living: HashSet::from([pid]),
            commands: VecDeque::new(),
            dropped: 0,
            asked: 0,
            changed: self.change,
            told: 0,
        };
        self.sessions.insert(session, kept);
        true
    }

    /// Whether somebody should look where the peer of this session is; counts the asking.
    pub(super) fn wants_peer(&mut self, session: u32) -> bool {
        self.sessions.get_mut(&session).is_some_and(|kept| {
            let wants = kept.from.is_none() && kept.asked < ASKED;
            kept.asked = kept.asked.saturating_add(1);
            wants
        })
    }

    pub(super) fn is_from(&mut self, session: u32, from: String) {
        self.describe(session, |kept| &mut kept.from, from);
    }

    pub(super) fn is_on(&mut self, session: u32, tty: String) {
        self.describe(session, |kept| &mut kept.tty, tty);
    }

    fn describe(&mut self, session: u32, of: fn(&mut Kept) -> &mut Option<String>, word: String) {
        self.change += 1;
        if let Some(kept) = self.sessions.get_mut(&session)
            && of(kept).is_none()
        {
            *of(kept) = Some(word);
            kept.changed = self.change;
        }
    }

    /// A program was started in a session.
    pub(super) fn ran(
        &mut self,
        session: u32,
        pid: u32,
        at: Timestamp,
        image: Arc<Image>,
        arguments: Option<String>,
    ) {
        if self.collect != Collect::Commands {
            return;
        }
        self.change += 1;
        let Some(kept) = self.sessions.get_mut(&session) else {
            return;
        };
        if kept.commands.len() >= COMMAND_LIMIT {
            let untold = kept
                .commands
                .pop_front()
                .is_some_and(|command| command.told == 0);
            kept.dropped = kept.dropped.saturating_add(u64::from(untold));
        }
        kept.changed = self.change;
        // The login was set between this and the look at it.
        kept.started = kept.started.min(at);
        kept.commands.push_back(Command {
            at,
            pid,
            image,
            arguments,
            exit: None,
            changed: self.change,
            told: 0,
        });
    }

    /// A process of a session ended (with what `wait` tells), or belongs to another one.
    pub(super) fn left(&mut self, session: u32, pid: u32, at: Timestamp, status: Option<u32>) {
        self.change += 1;
        let Some(kept) = self.sessions.get_mut(&session) else {
            return;
        };
        kept.living.remove(&pid);
        let last = kept
            .commands
            .iter_mut()
            .rev()
            .find(|command| command.pid == pid && command.exit.is_none());
        if let (Some(command), Some(status)) = (last, status) {
            command.exit = Some(exit_of(status));
            command.changed = self.change;
            kept.changed = self.change;
        }
        if kept.living.is_empty() && kept.ended.is_none() {
            kept.ended = Some(at);
            kept.changed = self.change;
        }
    }

    /// Whether the next statement has something to say.
    pub(crate) fn has_news(&self) -> bool {
        self.more > 0 || self.sessions.values().any(|kept| kept.changed > kept.told)
    }

    /// Sessions of which something is to be told and the peer is not known: any of their processes may be noted elsewhere.
    pub(crate) fn of_unknown_peers(&self) -> impl Iterator<Item = (u32, &HashSet<u32>)> {
        self.sessions
            .iter()
            .filter(|(_, kept)| kept.from.is_none() && kept.told == 0)
            .map(|(session, kept)| (*session, &kept.living))
    }

    /// What changed since the last statement, in at most so many bytes: each session with the commands that are new, or
    /// whose end is.
    pub(crate) fn tell(&self, bytes: usize) -> Told {
        let mut told = Told {
            more: self.more,
            ..Told::default()
        };
        let mut left = bytes;
        let mut total = self.more;
        for (session, kept) in &self.sessions {
            if kept.changed <= kept.told {
                continue;
            }
            total += 1;
            let size = 256
                + kept.from.as_ref().map_or(0, String::len)
                + kept.tty.as_ref().map_or(0, String::len);
            if told.sessions.len() >= Attestation::MAX_LIST || size > left {
                continue;
            }
            left -= size;
            let (commands, marks, all) = kept.commands_within(&mut left);
            let through = if all { kept.changed } else { kept.told };
            told.marks.push(Mark {
                session: *session,
                through,
                commands: marks,
            });
            told.sessions.push(Session {
                session: *session,
                auid: kept.auid,
                user: None,
                from: kept.from.clone(),
                tty: kept.tty.clone(),
                started: kept.started,
                ended: kept.ended.filter(|_| all),
                commands,
                dropped: kept.dropped,
            });
        }
        let listed = u64::try_from(told.sessions.len()).unwrap_or(u64::MAX);
        told.total = (total > listed).then_some(total);
        told
    }

    /// They are in a statement that is kept.
    pub(crate) fn clear(&mut self, told: &Told) {
        self.more = self.more.saturating_sub(told.more);
        for mark in &told.marks {
            let Some(kept) = self.sessions.get_mut(&mark.session) else {
                continue;
            };
            kept.told = kept.told.max(mark.through);
            for told in &mark.commands {
                let command = kept
                    .commands
                    .iter_mut()
                    .find(|command| (command.pid, command.at) == (told.pid, told.at));
                if let Some(command) = command {
                    command.told = told.through;
                }
            }
            kept.commands
                .retain(|command| command.exit.is_none() || command.changed > command.told);
        }
        self.sessions
            .retain(|_, kept| kept.ended.is_none() || kept.changed > kept.told);
    }
}

impl Kept {
    /// Commands that are to be told, as many as fit; which, as they are; and whether these are all.
    fn commands_within(&self, left: &mut usize) -> (Vec<SessionCommand>, Vec<CommandMark>, bool) {
        let mut commands = Vec::new();
        let mut marks = Vec::new();
        for command in &self.commands {
            if command.changed <= command.told {
                continue;
            }
            let exe = command.image.exe().map_or_else(
                || "unknown (exited)".to_owned(),
                |(exe, _)| exe.path.clone(),
            );
            // Every byte of arguments may be shown as six.
            let arguments = command.arguments.as_ref().map_or(0, |text| text.len() * 6);
            let size = COMMAND_OVERHEAD + exe.len() + arguments;
            if commands.len() >= Attestation::MAX_LIST || size > *left {
                return (commands, marks, false);
            }
            *left -= size;
            marks.push(CommandMark {
                pid: command.pid,
                at: command.at,
                through: command.changed,
            });
            commands.push(SessionCommand {
                at: command.at,
                pid: command.pid,
                exe,
                arguments: command.arguments.clone(),
                exit: command.exit,
            });
        }
        (commands, marks, true)
    }
}

/// An exit status as shells show it: that of the program, or 128 and the number of the signal that ended it.
fn exit_of(status: u32) -> i32 {
    let signal = status & 0x7f;
    let code = if signal == 0 {
        (status >> 8) & 0xff
    } else {
        128 + signal
    };
    i32::try_from(code).unwrap_or(i32::MAX)
}

/// The peer's address in the environment that a login service gave.
pub(super) fn peer(environment: &[u8]) -> Option<String> {
    let value = |name: &[u8]| {
        environment.split(|byte| *byte == 0).find_map(|variable| {
            let value = variable.strip_prefix(name)?.strip_prefix(b"=")?;
            let first = value.split(|byte| *byte == b' ').next()?;
            let text = std::str::from_utf8(first).ok()?;
            let sound = !text.is_empty()
                && text.len() <= 255
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".:-_%".contains(&byte));
            sound.then(|| text.to_owned())
        })
    };
    value(b"SSH_CONNECTION")
        .or_else(|| value(b"SSH_CLIENT"))
        .or_else(|| value(b"PAM_RHOST"))
        .or_else(|| value(b"REMOTEHOST"))
}

/// The name of a terminal by the number that `/proc` has.
pub(super) fn tty(number: u32) -> Option<String> {
    let major = (number >> 8) & 0xfff;
    let minor = (number & 0xff) | ((number >> 12) & 0xf_ff00);
    match (major, minor) {
        (4, 0..64) => Some(format!("tty{minor}")),
        (4, _) => Some(format!("ttyS{}", minor - 64)),
        (136..=143, _) => Some(format!("pts/{}", (major - 136) * 256 + minor)),
        (229, _) => Some(format!("hvc{minor}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::image::tests::file;
    use super::super::program::Form;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    fn image(inode: u64) -> Arc<Image> {
        Arc::new(Image::asked(Some(file(inode, Form::Unknown)), None))
    }

    #[test]
    fn a_session_is_told_with_what_is_new_of_it() {
        let mut ledger = Ledger::new(Collect::Commands);
        assert!(ledger.joined(3, 1000, 10, at(1)));
        assert!(!ledger.joined(3, 1000, 11, at(2)));
        ledger.is_from(3, "192.0.2.1".into());
        ledger.is_on(3, "pts/0".into());
        ledger.ran(3, 11, at(2), image(7), Some("ls -l".into()));
        let told = ledger.tell(10_000);
        assert_eq!(told.sessions[0].commands[0].exe, "/bin/7");
        let arguments = told.sessions[0].commands[0].arguments.as_deref();
        assert_eq!(arguments, Some("ls -l"));
        assert_eq!(told.sessions[0].from.as_deref(), Some("192.0.2.1"));
        // What happens before the statement is kept is told in the next one.
        ledger.left(3, 11, at(3), Some(0x100));
        ledger.clear(&told);
        let told = ledger.tell(10_000);
        assert_eq!(told.sessions[0].commands.len(), 1);
        assert_eq!(told.sessions[0].commands[0].exit, Some(1));
        assert_eq!(told.sessions[0].ended, None);
        ledger.clear(&told);
        assert!(!ledger.has_news());
        ledger.left(3, 10, at(4), Some(9));
        let told = ledger.tell(10_000);
        assert_eq!(told.sessions[0].ended, Some(at(4)));
        assert!(told.sessions[0].commands.is_empty());
        ledger.clear(&told);
        assert!(ledger.sessions.is_empty() && !ledger.has_news());
    }

    #[test]
    fn what_does_not_fit_follows_and_what_is_too_much_is_counted() {
        let mut ledger = Ledger::new(Collect::Commands);
        ledger.joined(3, 1000, 10, at(1));
        for number in 0..1_100_u32 {
            ledger.ran(3, number, at(i64::from(number)), image(7), None);
        }
        ledger.left(3, 10, at(2_000), None);
        let mut commands = 0;
        let mut statements = 0;
        while ledger.has_news() {
            let told = ledger.tell(20_000);
            assert_eq!(told.sessions[0].dropped, 76);
            commands += told.sessions[0].commands.len();
            statements += 1;
            assert!(serde_json::to_vec(&told.sessions).is_ok_and(|json| json.len() <= 20_000));
            ledger.clear(&told);
        }
        assert_eq!(commands, 1_024);
        assert!(statements > 4);
    }

    #[test]
    fn more_sessions_than_the_limit_are_counted() {
        let mut ledger = Ledger::new(Collect::Logins);
        for session in 0..1_030 {
            ledger.joined(session, 0, session, at(1));
        }
        ledger.ran(1, 1, at(2), image(7), None);
        let told = ledger.tell(1 << 20);
        assert_eq!(told.sessions.len(), 256);
        assert_eq!(told.total, Some(1_030));
        assert!(told.sessions.iter().all(|told| told.commands.is_empty()));
        ledger.clear(&told);
        assert_eq!(ledger.tell(1 << 20).total, Some(768));
    }

    #[test]
    fn nothing_is_kept_where_it_is_switched_off() {
        let mut ledger = Ledger::new(Collect::Off);
        assert!(!ledger.joined(3, 0, 10, at(1)));
        ledger.ran(3, 10, at(1), image(7), None);
        ledger.left(3, 10, at(1), None);
        assert!(!ledger.has_news());
    }

    #[test]
    fn peers_and_terminals_have_names() {
        let environment = b"PATH=/bin\0SSH_CLIENT=198.51.100.7 1 2\0SSH_CONNECTION=2001:db8::1 50000 192.0.2.9 22\0";
        assert_eq!(peer(environment).as_deref(), Some("2001:db8::1"));
        assert_eq!(
            peer(b"PAM_RHOST=host.example.org\0").as_deref(),
            Some("host.example.org")
        );
        assert_eq!(peer(b"SSH_CLIENT=\x1b[2J 1 2\0XSSH_CLIENT=::1"), None);
        assert_eq!(tty(34_816).as_deref(), Some("pts/0"));
        assert_eq!(tty(1025).as_deref(), Some("tty1"));
        assert_eq!(tty(0), None);
    }
}
