//! Keys: PEM and DER of public and private ones.
#![no_main]

use attestation::key::{PrivateKey, PublicKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(key) = PublicKey::from_spki_der(data) {
        assert_eq!(
            PublicKey::from_pem(&key.to_pem()).expect("its own PEM"),
            key
        );
        assert!(!key.verify(b"message", data));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(key) = PublicKey::from_pem(text) {
            assert_eq!(
                PublicKey::from_spki_der(&key.spki_der()).expect("its own DER"),
                key
            );
        }
        if let Ok(key) = PrivateKey::from_pem(text) {
            let signature = key.sign(b"message").expect("a signature");
            assert!(key.public().verify(b"message", &signature));
        }
    }
});
