//! The collector: takes attestations, appraises them against images, keeps the evidence and tells people.
//!
//! Decisions are plain functions over values (`ingest::sequence`, `violations::steps`, `fleet::status`, the attestation crate's
//! appraisal); sockets, files, the clock and the store stand at the edge and call them.
#![forbid(unsafe_code)]

pub mod access;
pub mod activity;
pub mod alerts;
pub mod api;
pub mod approvals;
pub mod assignments;
pub mod authority;
pub mod backup;
pub mod check;
pub mod clock;
pub mod config;
pub mod door;
pub mod enrolment;
pub mod events;
pub mod exceptions;
pub mod files;
pub mod fleet;
pub mod images;
pub mod ingest;
pub mod init;
pub mod journal;
pub mod keys;
pub mod log;
pub mod logins;
pub mod metrics;
pub mod pins;
pub mod problem;
pub mod program;
pub mod retention;
mod serve;
pub mod settings;
pub mod snapshots;
pub mod state;
pub mod store;
pub mod violations;
pub mod web;

pub use self::init::{InitError, Initialised, init};
pub use self::serve::{Running, StartError, start};
