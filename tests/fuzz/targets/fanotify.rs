//! What one read of a fanotify group gives: short or odd input ends the records, never the program.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pristine_agent::watch::record::parse;

fuzz_target!(|data: &[u8]| {
    let mut refused = false;
    let mut bytes = 0;
    for record in parse(data) {
        assert!(!refused, "nothing comes after an error");
        match record {
            Err(_) => refused = true,
            Ok(record) => {
                bytes += [record.named, record.renamed]
                    .iter()
                    .flatten()
                    .map(|named| named.name.len())
                    .sum::<usize>();
            }
        }
    }
    assert!(bytes <= data.len());
});
