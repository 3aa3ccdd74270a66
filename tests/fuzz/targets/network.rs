//! What the agent's network process says, which nobody vouches for: it is a message, or it is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pristine_agent::transport::message::{FromChild, ToChild};

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = FromChild::decode(data) {
        let again = FromChild::decode(&message.encode()).expect("its own message");
        // Escaping what a terminal would act on is done once.
        let third = FromChild::decode(&again.encode()).expect("its own message");
        assert_eq!(format!("{again:?}"), format!("{third:?}"));
    }
    if let Ok(message) = ToChild::decode(data) {
        let again = ToChild::decode(&message.encode()).expect("its own message");
        assert_eq!(format!("{message:?}"), format!("{again:?}"));
    }
});
