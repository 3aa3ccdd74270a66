//! A scan beside a tool that everybody has, over the same files.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use pristine_tests::{
    program::{Said, command},
    roots,
};

use crate::at;

/// `pristine scan` against `openssl dgst` over the same files, warm, one after the other in every round.
pub fn scan(root: &Path, rounds: usize) {
    let root = if root == Path::new("debian") {
        roots::debian_original()
    } else {
        root.to_path_buf()
    };
    let ours = || {
        let mut scan = command("pristine");
        scan.arg("scan").arg(&root).args(["--format", "json"]);
        let began = Instant::now();
        let said = Said::by(&mut scan);
        assert!([0, 2].contains(&said.code), "{}", said.err);
        (began.elapsed(), said)
    };
    let theirs = || {
        let began = Instant::now();
        let mut find = Command::new("find")
            .arg(&root)
            .args(["-type", "f", "-print0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("find");
        let names = find.stdout.take().expect("piped");
        let digests = Command::new("xargs")
            .args(["-0", "-P2", "openssl", "dgst", "-sha256"])
            .stdin(names)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        digests.expect("xargs");
        find.wait().expect("find");
        began.elapsed()
    };
    let (_, first) = ours();
    theirs();
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        our_times.push(ours().0);
        their_times.push(theirs());
    }
    let facts = first.json();
    let (ours, theirs) = (at(&mut our_times, 50), at(&mut their_times, 50));
    println!(
        "scan of {}: {} entries, {} bytes, {rounds} interleaved rounds, warm",
        root.display(),
        facts["entries"],
        facts["bytes"]
    );
    println!(
        "  pristine scan ROOT                                         median {:8.3} s",
        ours.as_secs_f64()
    );
    println!(
        "  find -type f -print0 | xargs -0 -P2 openssl dgst -sha256   median {:8.3} s",
        theirs.as_secs_f64()
    );
    println!("  ratio {:.2}", theirs.as_secs_f64() / ours.as_secs_f64());
}
