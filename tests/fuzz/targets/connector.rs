//! What one datagram of the process connector holds: short or odd input ends the messages, never the program.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pristine_agent::actor::connector::parse;

fuzz_target!(|data: &[u8]| {
    let mut refused = false;
    let mut messages = 0;
    for message in parse(data) {
        assert!(!refused, "nothing comes after an error");
        refused = message.is_err();
        messages += 1;
    }
    // A message has at least its header.
    assert!(messages <= data.len() / 16 + 1);
});
