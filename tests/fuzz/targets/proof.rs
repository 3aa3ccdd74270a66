//! Proofs: a proof that was never made shows nothing about a tree but what its hash allows.
#![no_main]

use attestation::{digest::Digest, json::from_slice_strict, tree::Proof};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(proof) = from_slice_strict::<Proof>(data) {
        assert!(
            proof
                .check(&Digest::of(b"no tree that anybody can find a proof for"))
                .is_err()
        );
        proof.check(&Digest::ZERO).ok();
        let written = serde_json::to_vec(&proof).expect("JSON");
        assert_eq!(
            from_slice_strict::<Proof>(&written).expect("its own JSON"),
            proof
        );
    }
});
