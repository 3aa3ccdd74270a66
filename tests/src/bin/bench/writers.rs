//! What watching costs those who write: each load while nobody watches, beside a bare listener, and beside the agent, one after the other in
//! every round.
//!
//! The file systems are ext4 in memory, so that neither a disk nor anybody else's files are in the figures. Who does not have its turn is
//! stopped, so that one load is compared with the same some seconds before, and only the ratios of such pairs are looked at: by
//! itself this machine is by a fifth slower in one minute than in another. The agent is measured twice: with the load beside what it attests (it is told of
//! it and lets it go), and, more seldom, in it (it hashes every file and tells of it). Needs root.

use pristine_tests::{collector::Options, world::World};

use self::{
    awake::Awake,
    loads::{LOADS, Load},
    watchers::{Watcher, Watchers},
};
use crate::paired::Paired;

mod awake;
mod disk;
mod loads;
mod watchers;

/// What a node sends of the loads inside is more than it may in a day.
const UNLIMITED: &str = "[limits]\nbytes_per_day = 68719476736\nstatements_per_second = 1000\nstatements_burst = 1000\n";

/// The watchers in the order of the table.
const WATCHERS: [Watcher; 4] = [
    Watcher::Nobody,
    Watcher::Listener,
    Watcher::Beside,
    Watcher::Inside,
];

/// Until the agent and the collector are done with a load inside it may be half a minute: it is done once in so many rounds.
const INSIDE_ONCE_IN: usize = 10;

/// Seconds of one load in one round, in the order of the watchers.
type Round = [Option<f64>; WATCHERS.len()];

/// Measures `rounds` times and prints what came of it; only the loads whose names hold `only`.
pub fn writers(rounds: usize, only: &str) {
    // The heartbeat of a collector that nobody has configured otherwise: what the collector does with one is done on another machine.
    let world = World::with(&Options {
        interval: 30,
        more: UNLIMITED.to_owned(),
        ..Options::default()
    });
    let awake = Awake::keep();
    let sources = loads::sources(&world.path("sources"));
    let watchers = Watchers::start(&world);
    let mut measured: Vec<(&Load, Vec<Round>)> = LOADS
        .iter()
        .filter(|load| load.name.contains(only))
        .map(|load| (load, Vec::new()))
        .collect();
    for round in 0..rounds {
        for (load, rounds) in &mut measured {
            let mut times = Round::default();
            // Whoever comes first in a round is another one each time.
            for turn in 0..WATCHERS.len() {
                let which = (round + turn) % WATCHERS.len();
                let watcher = WATCHERS[which];
                if watcher == Watcher::Inside && !round.is_multiple_of(INSIDE_ONCE_IN) {
                    continue;
                }
                watchers.let_watch(watcher);
                let took = load.once(&watchers.folder(watcher), &sources);
                watchers.let_catch_up(watcher);
                times[which] = Some(took.as_secs_f64());
            }
            rounds.push(times);
        }
    }
    watchers.end();
    print(rounds, &measured);
    if let Err(error) = awake {
        println!(
            "  idle cores halted as they do (/dev/cpu_dma_latency: {error}), and waking one may be most of what a synced write takes"
        );
    }
}

fn print(rounds: usize, measured: &[(&Load, Vec<Round>)]) {
    println!(
        "what watching costs the writers: ext4 in memory, {rounds} rounds, time against the same load in the same round, geometric mean and its standard error"
    );
    println!(
        "  {:20} {:>9} {:>14} {:>19} {:>19} {:>19}",
        "",
        "nobody",
        "bare listener",
        "agent, load beside",
        "agent by listener",
        "agent, load inside"
    );
    let (nobody, listener, beside, inside) = (0, 1, 2, 3);
    for (load, rounds) in measured {
        let mut alone: Vec<f64> = rounds.iter().filter_map(|round| round[nobody]).collect();
        alone.sort_by(f64::total_cmp);
        let median = alone.get(alone.len() / 2).copied().unwrap_or(f64::NAN);
        let ratio = |of: usize, by: usize| {
            Paired::of(
                rounds
                    .iter()
                    .filter_map(|round| Some((round[of]?, round[by]?))),
            )
            .to_string()
        };
        println!(
            "  {:20} {median:7.3} s {:>14} {:>19} {:>19} {:>19}",
            load.name,
            ratio(listener, nobody),
            ratio(beside, nobody),
            ratio(beside, listener),
            ratio(inside, nobody),
        );
    }
}
