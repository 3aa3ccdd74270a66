//! The agent on a node: it scans a root, watches it, and sends signed attestations to a collector.
//!
//! [`run`] is the whole of it, [`enroll`] comes before. Threads: the watch reads events, the engine looks and signs,
//! the uplink speaks; between them are bounded values, and the disk before the network.
#![deny(unsafe_code)]

pub mod actor;
mod agent;
mod certificate;
pub mod chain;
pub mod check;
pub mod clock;
mod clone;
pub mod command;
pub mod config;
mod durable;
pub mod engine;
pub mod enroll;
pub mod event;
pub mod identity;
pub mod image;
pub mod index;
mod joining;
pub mod journal;
pub mod limits;
pub mod link;
pub mod monitor;
pub mod pins;
pub mod privileges;
pub mod reload;
mod renewal;
pub mod rotation;
pub mod scan;
pub mod service;
mod snapshot;
pub mod spool;
pub mod statement;
pub mod status;
#[allow(
    unsafe_code,
    reason = "the one address of system calls that no dependency wraps"
)]
mod sys;
pub mod tls;
pub mod transport;
mod upkeep;
pub mod uplink;
pub mod watch;

pub use self::agent::{RunError, run, run_reloading};
pub use self::config::{AgentConfig, AgentSettings, ConfigError, Publisher};
pub use self::durable::wipe;
pub use self::enroll::{Door, EnrolError, EnrolOptions, Enrolled, enroll, enroll_over};
pub use self::event::AgentEvent;
pub use self::rotation::{RotateKeyError, Rotated, rotate_key};
pub use self::transport::Network;
pub use self::upkeep::Reloads;

/// Version and commit of this build.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("PRISTINE_COMMIT"),
    ")"
);
