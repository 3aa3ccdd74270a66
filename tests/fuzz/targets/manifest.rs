//! Plain manifests: every line that is given has its one form, in strict order.
#![no_main]

use attestation::{
    entry::Line,
    manifest::{ManifestReader, ManifestWriter},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut reader = ManifestReader::new(data);
    let mut lines: Vec<String> = Vec::new();
    loop {
        match reader.next_line() {
            Ok(Some(line)) => lines.push(line.as_str().to_owned()),
            Ok(None) => break,
            Err(_) => return,
        }
    }
    let mut written = Vec::new();
    let mut writer = ManifestWriter::new(&mut written, &[]).expect("memory takes every write");
    for line in &lines {
        writer
            .line(&Line::parse(line).expect("a line of a manifest"))
            .expect("its own order");
    }
    let facts = writer.finish().expect("memory takes every write");
    assert_eq!(facts.entries, lines.len() as u64);
});
