//! What every party must agree on, byte for byte: paths, entries, manifests, trees, scope, statements and appraisal.
//! Beside that, how each of them words what is wrong with its configuration.
//!
//! Bytes in, values out: this crate opens no file and no socket, reads no clock and starts no thread.
#![forbid(unsafe_code)]

pub mod appraisal;
pub mod configuration;
pub mod difference;
pub mod digest;
pub mod dsse;
pub mod entry;
pub mod join_token;
pub mod json;
pub mod key;
pub mod manifest;
pub mod mounts;
pub mod path;
pub mod pins;
pub mod scope;
pub mod severity;
pub mod statement;
mod text;
pub mod time;
pub mod tree;
pub mod verdict;
pub mod violation;
pub mod wire;
