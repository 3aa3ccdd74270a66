//! Measurements on the machine at hand, side by side in one run with what everybody has, printed as they are.

mod ingest;
mod latency;
mod listener;
mod load;
mod measured;
mod pages;
mod paired;
mod peers;
mod rest;
mod scan;
mod walk;
mod writers;

use std::{path::Path, process::ExitCode, time::Duration};

const USAGE: &str = "usage: bench scan ROOT ROUNDS | ingest NODES SECONDS | latency CHANGES | writers ROUNDS [LOAD] | pages ROUNDS | peers ROOT ROUNDS [TOOL] | walk ROOT ROUNDS | rest 140000|ROOT SECONDS";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["scan", root, rounds] => scan::scan(Path::new(root), number(rounds)),
        ["ingest", nodes, seconds] => ingest::ingest(number(nodes), number(seconds)),
        ["latency", changes] => latency::latency(number(changes)),
        ["writers", rounds] => writers::writers(number(rounds), ""),
        ["writers", rounds, only] => writers::writers(number(rounds), only),
        ["pages", rounds] => pages::pages(number(rounds)),
        ["peers", root, rounds] => peers::peers(Path::new(root), number(rounds), ""),
        ["peers", root, rounds, only] => peers::peers(Path::new(root), number(rounds), only),
        ["walk", root, rounds] => walk::walk(Path::new(root), number(rounds)),
        ["rest", root, seconds] => rest::rest(Path::new(root), number(seconds)),
        // What the measurements start themselves as.
        ["listen", path] => listener::listen(Path::new(path)),
        ["load", what, folder] => load::load(what, Path::new(folder)),
        ["measured", command @ ..] if !command.is_empty() => return measured::run(command),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        }
    }
    ExitCode::SUCCESS
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// The value below which `percent` of them lie.
fn at(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}
