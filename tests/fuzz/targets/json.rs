//! Strict JSON: what is taken is canonical JSON's input, and canonical JSON is stable.
#![no_main]

use attestation::json::{canonical, from_slice_strict};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = from_slice_strict::<Value>(data)
        && let Ok(text) = canonical(&value)
    {
        let again: Value = from_slice_strict(&text).expect("canonical JSON is strict JSON");
        assert_eq!(
            canonical(&again).expect("canonical once is canonical twice"),
            text
        );
    }
});
