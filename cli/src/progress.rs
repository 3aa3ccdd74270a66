//! What a long scan shows while it runs: a spinner on a terminal, a plain line every few seconds elsewhere.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pristine_agent::scan::{Large, Progress};

use crate::output::{self, Output};

/// Often enough to look alive, seldom enough to cost nothing.
const REDRAW: Duration = Duration::from_millis(120);
/// A log file wants fewer lines than a terminal wants frames.
const PLAIN_LINE: Duration = Duration::from_secs(3);

/// Runs `work` while a thread shows how far `progress` has come.
pub fn shown<T>(output: Output, what: &str, progress: &Progress, work: impl FnOnce() -> T) -> T {
    if output.is_quiet() {
        return work();
    }
    let (done, waiting) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || show(output, what, progress, &waiting));
        let result = work();
        drop(done);
        result
    })
}

fn show(output: Output, what: &str, progress: &Progress, waiting: &mpsc::Receiver<()>) {
    let started = Instant::now();
    let bar = output.draws_progress().then(|| {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        bar
    });
    let pause = if bar.is_some() { REDRAW } else { PLAIN_LINE };
    while waiting.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let line = line(
            what,
            progress.entries(),
            progress.bytes(),
            &progress.large(),
        );
        let line = format!("{line}, {} s", started.elapsed().as_secs());
        match &bar {
            Some(bar) => {
                bar.set_message(line);
                bar.tick();
            }
            None => output.note(line),
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// How far a scan has come; the bytes of what is being read count, and the file that will take longest is named: a hole of a
/// tebibyte is hashed like any content, and should not look like a scan that has stopped.
fn line(what: &str, entries: u64, bytes: u64, large: &[Large]) -> String {
    let read = large
        .iter()
        .map(|file| file.done)
        .fold(bytes, u64::saturating_add);
    let mut line = format!(
        "{what}: {} entries, {}",
        output::count(entries),
        output::bytes(read)
    );
    if let Some(file) = large.first() {
        let (done, size) = (output::bytes(file.done), output::bytes(file.size));
        line.push_str(&format!(", in {} {done} of {size}", file.path));
    }
    line
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use attestation::path::ImagePath;

    use super::*;

    #[test]
    fn a_large_file_is_named_and_counts_while_it_is_read() {
        assert!(!line("reading", 5, 1_000, &[]).contains(" in "));
        let large = Large {
            path: ImagePath::parse("./var/hole").unwrap(),
            size: 1 << 40,
            done: 3 << 30,
        };
        let line = line("reading", 5, 1_000, &[large]);
        let (done, size) = (output::bytes(3 << 30), output::bytes(1 << 40));
        assert!(
            line.ends_with(&format!(" in ./var/hole {done} of {size}")),
            "{line}"
        );
        assert!(line.contains(&output::bytes((3 << 30) + 1_000)), "{line}");
    }
}
