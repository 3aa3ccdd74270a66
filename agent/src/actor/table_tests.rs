#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use attestation::statement::{Actor, Confidence};
use proptest::prelude::*;

use super::super::doer::Doer;
use super::super::followed::FOREBEARS;
use super::super::image::tests::file;
use super::super::process::Login;
use super::super::program::Form;
use super::*;

const SECOND: u64 = 1_000_000_000;
const ME: Login = Login {
    auid: 1000,
    session: 7,
};

fn says(start: u64, parent: u32, program: u64) -> Says {
    Says {
        start,
        parent,
        exe: Some(file(program, Form::Whole)),
        cmdline: Some(format!("run {program}")),
        login: Some(None),
        cgroup: Some("/system.slice/a.service".to_owned()),
        users: Some((0, 0)),
        ..Says::default()
    }
}

/// A table with one process that was there before, number 1, running program 100.
fn table() -> Table {
    let mut table = Table::default();
    table.found(1, says(0, 0, 100), Seen::Midlife, 1).unwrap();
    table
}

fn actor(table: &Table, serial: Serial) -> Actor {
    let process = table.get(serial).unwrap();
    Doer::of(process, &process.image, true).actor
}

fn exe(table: &Table, serial: Serial) -> Option<String> {
    actor(table, serial).exe
}

#[test]
fn a_child_is_its_parent_until_it_runs_something() {
    let mut table = table();
    let child = table.fork(1, 2, SECOND).unwrap();
    assert_eq!(exe(&table, child).as_deref(), Some("/bin/100"));
    assert_eq!(actor(&table, child).unit.as_deref(), Some("a.service"));
    // Its parent runs something else: the child does not.
    table.exec(1, 2 * SECOND, Some(says(0, 0, 101))).unwrap();
    assert_eq!(exe(&table, child).as_deref(), Some("/bin/100"));
    table
        .exec(2, 3 * SECOND, Some(says(SECOND, 1, 102)))
        .unwrap();
    let actor = actor(&table, child);
    assert_eq!(actor.exe.as_deref(), Some("/bin/102"));
    assert_eq!(actor.confidence, Confidence::High);
    assert_eq!(actor.ancestors[0].exe.as_deref(), Some("/bin/100"));
}

#[test]
fn an_exec_that_nobody_could_ask_about_keeps_the_rest_and_names_what_was_opened() {
    let mut table = table();
    let child = table.fork(1, 2, SECOND).unwrap();
    table.exec(2, 2 * SECOND, None).unwrap();
    table.exit(2, 2 * SECOND + 1);
    assert_eq!(exe(&table, child), None);
    let held = table.opened(child, vec![(4, file(102, Form::Whole))]);
    assert_eq!(held.len(), 2);
    assert_eq!(exe(&table, child).as_deref(), Some("/bin/102"));
    // What it did before it opened that, it did as its parent's program.
    assert_eq!(held[0].1.exe().unwrap().0.path, "/bin/100");
    let actor = actor(&table, child);
    assert_eq!(actor.confidence, Confidence::High);
    assert_eq!(actor.cgroup.as_deref(), Some("/system.slice/a.service"));
    assert_eq!((actor.uid, actor.auid), (Some(0), None));
}

/// Files are read before the exec is told, and what it wrote after: each in a batch of its own.
#[test]
fn what_was_opened_in_an_earlier_batch_belongs_to_the_exec_that_follows() {
    let mut table = table();
    let child = table.fork(1, 2, SECOND).unwrap();
    assert!(
        table
            .opened(child, vec![(1, file(102, Form::Whole))])
            .is_empty()
    );
    table.settle(child);
    assert_eq!(exe(&table, child).as_deref(), Some("/bin/100"));
    table.exec(2, 2 * SECOND, None);
    table.exit(2, 2 * SECOND + 1);
    assert_eq!(table.opened(child, Vec::new()).len(), 1);
    assert_eq!(exe(&table, child).as_deref(), Some("/bin/102"));
    let other = table.fork(1, 3, SECOND).unwrap();
    table.opened(other, vec![(1, file(103, Form::Whole))]);
    table.exec(3, 2 * SECOND, None);
    table.settle(other);
    assert_eq!(exe(&table, other).as_deref(), Some("/bin/103"));
}

#[test]
fn a_grandchild_learns_what_its_dead_parent_ran() {
    let mut table = table();
    let shell = table.fork(1, 2, SECOND).unwrap();
    table.exec(2, 2 * SECOND, None);
    let child = table.fork(2, 3, 3 * SECOND).unwrap();
    table.exit(2, 3 * SECOND);
    assert_eq!(exe(&table, child), None);
    table.opened(shell, vec![(1, file(102, Form::Whole))]);
    assert_eq!(exe(&table, child).as_deref(), Some("/bin/102"));
    table.settle(shell);
    table.expire(100 * SECOND, |_| false);
    assert!(table.get(shell).is_none());
    assert_eq!(exe(&table, child).as_deref(), Some("/bin/102"));
    assert_eq!(actor(&table, child).ancestors.len(), 2);
}

#[test]
fn a_missed_fork_is_made_up_by_the_exec() {
    let mut table = table();
    let (serial, _) = table
        .exec(9, 5 * SECOND, Some(says(4 * SECOND, 1, 102)))
        .unwrap();
    assert_eq!(exe(&table, serial).as_deref(), Some("/bin/102"));
    assert_eq!(actor(&table, serial).confidence, Confidence::Low);
    // And what comes after it all the same is no second one.
    assert_eq!(table.fork(1, 9, 4 * SECOND), None);
}

#[test]
fn what_proc_says_of_a_later_process_is_not_believed() {
    let mut table = table();
    let child = table.fork(1, 2, SECOND).unwrap();
    table.exec(2, 2 * SECOND, Some(says(30 * SECOND, 1, 102)));
    assert_eq!(exe(&table, child), None);
    assert_eq!(
        table.heard(child, says(30 * SECOND, 1, 102), 31 * SECOND),
        None
    );
    assert_eq!(exe(&table, child), None);
}

#[test]
fn an_end_without_a_beginning_does_no_harm() {
    let mut table = table();
    assert_eq!(table.exit(5, SECOND), None);
    assert_eq!(table.users(5, 0, 0), None);
    assert_eq!(
        table
            .fork(44, 5, 2 * SECOND)
            .map(|serial| exe(&table, serial)),
        Some(None)
    );
}

#[test]
fn a_number_that_is_given_anew_is_told_apart_by_time() {
    let mut table = table();
    let first = table.fork(1, 2, 10 * SECOND).unwrap();
    table.exit(2, 11 * SECOND);
    let second = table.fork(1, 2, 20 * SECOND).unwrap();
    assert_ne!(first, second);
    assert_eq!(
        table.holder(2, 10 * SECOND, 12 * SECOND),
        Holder::One(first)
    );
    assert_eq!(table.holder(2, 12 * SECOND, 15 * SECOND), Holder::Nobody);
    assert_eq!(
        table.holder(2, 15 * SECOND, 25 * SECOND),
        Holder::One(second)
    );
    assert_eq!(table.holder(2, 5 * SECOND, 25 * SECOND), Holder::Several);
    assert_eq!(table.holder(3, 0, 25 * SECOND), Holder::Nobody);
}

#[test]
fn a_number_given_anew_ends_whoever_had_it() {
    let mut table = table();
    let first = table.fork(1, 2, 10 * SECOND).unwrap();
    let second = table.fork(1, 2, 20 * SECOND).unwrap();
    assert_eq!(table.get(first).unwrap().ended, Some(20 * SECOND));
    table.exit(2, 21 * SECOND);
    assert_eq!(table.get(second).unwrap().ended, Some(21 * SECOND));
    assert_eq!(table.exit(2, 22 * SECOND), None);
}

#[test]
fn who_ended_is_kept_a_minute_unless_a_thread_lives_on() {
    let mut table = table();
    let child = table.fork(1, 2, SECOND).unwrap();
    table.exit(2, 2 * SECOND);
    table.expire(61 * SECOND, |_| false);
    assert!(table.get(child).is_some());
    table.expire(63 * SECOND, |_| true);
    assert_eq!(
        table.holder(2, 62 * SECOND, 63 * SECOND),
        Holder::One(child)
    );
    table.expire(124 * SECOND, |_| false);
    assert!(table.get(child).is_none());
    assert_eq!(table.newest(2), None);
}

#[test]
fn more_than_the_limit_are_counted_and_the_longest_dead_go_first() {
    let mut table = table();
    let dead = table.fork(1, 2, SECOND).unwrap();
    table.exit(2, SECOND);
    for pid in 0..u32::try_from(LIMIT).unwrap() {
        table.fork(1, 100_000 + pid, 2 * SECOND);
    }
    assert!(table.get(dead).is_none());
    assert_eq!(table.untracked(), 1);
    assert_eq!(table.processes.len(), LIMIT);
}

/// `sshd` forks, sets the login user, becomes the user, and runs the shell.
#[test]
fn a_login_is_inherited_and_believed_below_a_login_service() {
    let mut table = table();
    let sshd = file(22, Form::Whole);
    let mut service = says(SECOND, 1, 22);
    service.exe = Some(Arc::new(Executable {
        path: "/usr/sbin/sshd".to_owned(),
        ..Executable::clone(&sshd)
    }));
    table.found(2, service, Seen::Midlife, SECOND).unwrap();
    let session = table.fork(2, 3, 2 * SECOND).unwrap();
    let mut set = says(2 * SECOND, 2, 22);
    set.login = Some(Some(ME));
    let joined = table.heard(session, set, 3 * SECOND);
    assert_eq!(
        joined,
        Some(Joined {
            login: ME,
            left: None
        })
    );
    let shell = table.fork(3, 4, 4 * SECOND).unwrap();
    table.users(4, 1000, 1000);
    table.exec(4, 5 * SECOND, None);
    table.opened(shell, vec![(1, file(102, Form::Whole))]);
    let told = actor(&table, shell);
    assert_eq!(
        (told.auid, told.session, told.uid),
        (Some(1000), Some(7), Some(1000))
    );
    assert_eq!(told.confidence, Confidence::High);
    // Whoever becomes root in it and takes another login is told in the first one, with doubt.
    let sudo = table.fork(4, 5, 6 * SECOND).unwrap();
    table.users(5, 0, 0);
    let mut other = says(6 * SECOND, 4, 103);
    other.login = Some(Some(Login {
        auid: 4,
        session: 9,
    }));
    assert_eq!(table.exec(5, 7 * SECOND, Some(other)).unwrap().1, None);
    let told = actor(&table, sudo);
    assert_eq!((told.auid, told.session), (Some(1000), Some(7)));
    assert_eq!(told.confidence, Confidence::Low);
}

#[test]
fn a_service_that_gives_itself_a_login_is_told_with_doubt() {
    let mut table = table();
    let service = table.fork(1, 2, SECOND).unwrap();
    let mut set = says(SECOND, 1, 102);
    set.login = Some(Some(ME));
    let (_, joined) = table.exec(2, 2 * SECOND, Some(set)).unwrap();
    assert_eq!(joined, None);
    let told = actor(&table, service);
    assert_eq!((told.auid, told.confidence), (Some(1000), Confidence::Low));
    assert_eq!(table.get(service).unwrap().credit, None);
}

#[test]
fn after_a_loss_nothing_is_sure_until_it_is_seen_again() {
    let mut table = table();
    let child = table.fork(1, 2, SECOND).unwrap();
    table.exec(2, 2 * SECOND, Some(says(SECOND, 1, 102)));
    table.doubt();
    assert_eq!(actor(&table, child).confidence, Confidence::Medium);
    // Meanwhile it ran something else.
    table.heard(child, says(SECOND, 1, 103), 3 * SECOND);
    assert_eq!(exe(&table, child).as_deref(), Some("/bin/103"));
}

#[test]
fn before_all_file_events_are_read_a_told_exec_may_be_ahead_of_them() {
    let mut table = table();
    let child = table.fork(1, 2, SECOND).unwrap();
    table.exec(2, 2 * SECOND, Some(says(SECOND, 1, 102)));
    let path = |image: Option<Arc<Image>>| image.unwrap().exe().unwrap().0.path.clone();
    assert_eq!(path(table.runs(child, false)), "/bin/100");
    assert_eq!(path(table.runs(child, true)), "/bin/102");
    table.settle(child);
    assert_eq!(path(table.runs(child, false)), "/bin/102");
}

#[derive(Clone, Debug)]
enum Step {
    Fork(u32, u32),
    Exec(u32, bool),
    Open(u32, u64),
    Users(u32),
    Exit(u32),
    Settle(u32),
    Doubt,
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    let pid = || 1_u32..6;
    prop_oneof![
        (pid(), pid()).prop_map(|(parent, child)| Step::Fork(parent, child)),
        (pid(), any::<bool>()).prop_map(|(pid, asked)| Step::Exec(pid, asked)),
        (pid(), 100_u64..104).prop_map(|(pid, program)| Step::Open(pid, program)),
        pid().prop_map(Step::Users),
        pid().prop_map(Step::Exit),
        pid().prop_map(Step::Settle),
        Just(Step::Doubt),
        Just(Step::Expire),
    ]
}

proptest! {
    /// Whatever comes in whatever order: numbers and processes stay one to one, and nobody who ended lives.
    #[test]
    fn no_order_of_events_breaks_the_table(steps in proptest::collection::vec(step(), 0..80)) {
        let mut table = table();
        for (at, step) in (1_u64..).zip(steps) {
            let now = at * 20 * SECOND;
            match step {
                Step::Fork(parent, child) => drop(table.fork(parent, child, now)),
                Step::Exec(pid, asked) => {
                    table.exec(pid, now, asked.then(|| says(now - SECOND, 1, 102)));
                }
                Step::Open(pid, program) => {
                    if let Some(serial) = table.newest(pid) {
                        let held = table.opened(serial, vec![(1, file(program, Form::Whole))]);
                        prop_assert!(held.is_sorted_by_key(|(place, _)| *place));
                    }
                }
                Step::Users(pid) => drop(table.users(pid, 1, 1)),
                Step::Exit(pid) => drop(table.exit(pid, now)),
                Step::Settle(pid) => {
                    if let Some(serial) = table.newest(pid) {
                        table.settle(serial);
                    }
                }
                Step::Doubt => table.doubt(),
                Step::Expire => table.expire(now, |_| false),
            }
            for (serial, process) in &table.processes {
                prop_assert!(table.holders[&process.pid].contains(serial));
                prop_assert!(process.forebears.len() <= FOREBEARS);
                let newest = table.newest(process.pid) == Some(*serial);
                prop_assert!(newest || process.ended.is_some());
            }
            let held: usize = table.holders.values().map(Vec::len).sum();
            prop_assert_eq!(held, table.processes.len());
        }
    }
}

#[test]
fn a_storm_of_processes_leaves_nothing_behind_of_the_room_that_it_took() {
    let mut table = table();
    for pid in 2..40_000 {
        table.fork(1, pid, SECOND).unwrap();
        table.exit(pid, SECOND).unwrap();
    }
    assert!(table.processes.capacity() > 30_000);
    table.expire(100 * SECOND, |_| false);
    let room = [
        table.processes.capacity(),
        table.holders.capacity(),
        table.ended.capacity(),
    ];
    assert!(room.iter().all(|room| *room <= 4 * USUAL), "{room:?}");
}
