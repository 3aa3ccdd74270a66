//! The agent's first reading and its look at everything when nothing changed, beside the barest programs that do the same
//! system calls on the same files with the same threads.

use std::{
    fs,
    hint::black_box,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use attestation::scope::Scope;
use pristine_agent::scan::{Progress, Reading, Root, ScanOptions, scan, survey};
use pristine_tests::roots;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};

use crate::at;

/// What both sides read at once.
const BUFFER: usize = 64 * 1024;

/// Measures on `root`, warm, one after the other in every round.
pub fn walk(root: &Path, rounds: usize) {
    let root = match root.to_str() {
        Some("debian") => roots::debian_large(),
        Some("small") => roots::half_a_million(),
        _ => root.to_path_buf(),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let scope = Scope::sealed_all();
    let opened = Root::open(&root, &scope).expect("the root");
    let options = ScanOptions::default();
    let surveyed = || {
        let progress = Progress::new();
        survey(
            &opened,
            &scope,
            &attestation::path::ImagePath::root(),
            &options,
            &progress,
            &|path, _, stat| {
                black_box((path.key(), stat));
            },
        )
        .expect("a survey")
        .entries
    };
    let scanned = || {
        let progress = Progress::new();
        scan(&opened, &scope, &options, &progress, &|found| {
            black_box(found.path.key());
            if let Reading::Entry(entry, _) = found.reading {
                black_box(entry.line().map(|line| line.leaf()).ok());
            }
        })
        .expect("a scan")
        .entries
    };
    let entries = surveyed();
    assert_eq!(scanned(), entries);
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let sides: [&dyn Fn() -> u64; 4] = [
            &|| bare(&root, threads, false),
            &surveyed,
            &|| bare(&root, threads, true),
            &scanned,
        ];
        for (side, times) in sides.iter().zip(&mut times) {
            // Nobody pays for what the kernel has given up since the last one came by.
            bare(&root, threads, true);
            let began = Instant::now();
            black_box(side());
            times.push(began.elapsed());
        }
    }
    println!(
        "{}: {entries} entries, {threads} threads, median of {rounds} interleaved rounds, warm",
        root.display()
    );
    print(times.map(|mut times| at(&mut times, 50)));
}

fn print([walk, surveyed, read, scanned]: [Duration; 4]) {
    let rows = [
        ("bare walk with statx", walk, None),
        ("nothing changed: the agent's survey", surveyed, Some(walk)),
        (
            "bare open, fstat, flistxattr, read, SHA-256, close",
            read,
            None,
        ),
        ("first scan", scanned, Some(read)),
    ];
    for (what, time, of) in rows {
        let seconds = time.as_secs_f64();
        let ratio = of.map_or_else(String::new, |of| {
            format!(", {:.2} of it", seconds / of.as_secs_f64())
        });
        println!("  {what:54} {seconds:8.3} s{ratio}");
    }
}

/// Directories are jobs of a list that all threads share; what lies in one is seen to by the thread that lists it.
fn bare(root: &Path, threads: usize, read: bool) -> u64 {
    let jobs = Mutex::new(vec![root.to_path_buf()]);
    let (open, count) = (AtomicUsize::new(1), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut buffer = vec![0; BUFFER];
                while open.load(Ordering::Acquire) > 0 {
                    let job = jobs.lock().expect("the list").pop();
                    let Some(folder) = job else {
                        std::thread::yield_now();
                        continue;
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                    for entry in fs::read_dir(&folder).expect("a directory") {
                        let entry = entry.expect("an entry");
                        let kind = entry.file_type().expect("its type");
                        if kind.is_dir() {
                            open.fetch_add(1, Ordering::AcqRel);
                            jobs.lock().expect("the list").push(entry.path());
                            continue;
                        }
                        count.fetch_add(1, Ordering::Relaxed);
                        if read && kind.is_file() {
                            hash(&entry.path(), &mut buffer);
                        } else {
                            rustix::fs::statx(
                                CWD,
                                entry.path(),
                                AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC,
                                StatxFlags::BASIC_STATS,
                            )
                            .expect("what statx says");
                        }
                    }
                    open.fetch_sub(1, Ordering::AcqRel);
                }
            });
        }
    });
    count.into_inner()
}

fn hash(path: &PathBuf, buffer: &mut [u8]) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()) else {
        return;
    };
    rustix::fs::fstat(&file).expect("what fstat says");
    rustix::fs::flistxattr(file.as_fd(), &mut [0; 1024][..]).ok();
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    loop {
        let length = rustix::io::read(&file, &mut *buffer).expect("content");
        if length == 0 {
            break;
        }
        context.update(&buffer[..length]);
    }
    black_box(context.finish());
}
