//! Every statement: what is read can be written and is read the same again.
#![no_main]

use attestation::statement::{
    Assignment, Attestation, Enrolment, Image, Predicate, Receipt, Renewal, Statement,
    VerdictStatement,
};
use libfuzzer_sys::fuzz_target;

fn read<P: Predicate + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(statement) = Statement::<P>::from_payload(data) {
        let written = statement.to_payload();
        assert_eq!(
            Statement::<P>::from_payload(&written).expect("its own payload"),
            statement
        );
    }
}

fuzz_target!(|data: &[u8]| {
    read::<Attestation>(data);
    read::<Image>(data);
    read::<Enrolment>(data);
    read::<Renewal>(data);
    read::<Receipt>(data);
    read::<Assignment>(data);
    read::<VerdictStatement>(data);
});
