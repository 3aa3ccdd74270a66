//! What a long scan shows while it runs: a spinner on a terminal, a plain line every few seconds elsewhere.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pristine_agent::scan::Progress;

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
        let line = format!(
            "{what}: {} entries, {}, {} s",
            output::count(progress.entries()),
            output::bytes(progress.bytes()),
            started.elapsed().as_secs()
        );
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
