//! Envelopes: payloads are kept, and nothing verifies that nobody signed.
#![no_main]

use std::sync::LazyLock;

use attestation::{
    dsse::Envelope,
    key::{Algorithm, PrivateKey},
};
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<[PrivateKey; 2]> = LazyLock::new(|| {
    [Algorithm::Ed25519, Algorithm::P256]
        .map(|algorithm| PrivateKey::generate(algorithm).expect("a key"))
});

fuzz_target!(|data: &[u8]| {
    if let Ok(envelope) = Envelope::from_json(data) {
        let again = Envelope::from_json(&envelope.to_json()).expect("its own JSON");
        assert_eq!(again.payload(), envelope.payload());
        assert!(
            envelope
                .check(&KEYS.each_ref().map(PrivateKey::public), 1)
                .is_err()
        );
    }
});
