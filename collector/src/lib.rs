//! The collector: takes attestations, appraises them against images, keeps the evidence and tells people.
#![forbid(unsafe_code)]
