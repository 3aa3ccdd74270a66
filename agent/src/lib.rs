//! The agent on a node: it scans a root, watches it, and sends signed attestations to a collector.
#![deny(unsafe_code)]

pub mod actor;
pub mod scan;
#[allow(unsafe_code, reason = "the one address of system calls that no dependency wraps")]
mod sys;
pub mod watch;
