//! Compressed manifests: whatever the bytes, no more is given than the signed size.
#![no_main]

use std::io::Read;

use attestation::manifest::decompressor;
use libfuzzer_sys::fuzz_target;

const SIGNED: u64 = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let mut plain = Vec::new();
    let mut reader = decompressor(data, SIGNED);
    if reader.read_to_end(&mut plain).is_ok() {
        assert!(plain.len() as u64 <= SIGNED);
    }
});
