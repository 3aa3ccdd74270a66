//! The bodies between agent and collector.
#![no_main]

use attestation::{
    json::from_slice_strict,
    wire::{
        AttestationsAnswer, AttestationsRequest, ChallengeAnswer, ChallengeRequest,
        EnrolmentAnswer, EnrolmentPending, EnrolmentRequest, Problem, RenewalAnswer,
        RenewalRequest,
    },
};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

fn read<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(body) = from_slice_strict::<T>(data) {
        let written = serde_json::to_vec(&body).expect("JSON");
        assert_eq!(
            from_slice_strict::<T>(&written).expect("its own JSON"),
            body
        );
    }
}

fuzz_target!(|data: &[u8]| {
    read::<AttestationsRequest>(data);
    read::<AttestationsAnswer>(data);
    read::<ChallengeRequest>(data);
    read::<ChallengeAnswer>(data);
    read::<EnrolmentRequest>(data);
    read::<EnrolmentAnswer>(data);
    read::<EnrolmentPending>(data);
    read::<RenewalRequest>(data);
    read::<RenewalAnswer>(data);
    read::<Problem>(data);
});
