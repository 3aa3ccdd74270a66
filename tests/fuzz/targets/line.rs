//! Entry lines: one form only, so what is read is written as it was.
#![no_main]

use attestation::entry::Line;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(line) = Line::parse(text) {
        let entry = line.entry();
        assert_eq!(
            entry.line().expect("an entry that was a line").as_str(),
            text
        );
        assert_eq!(entry.path, line.path());
    }
});
