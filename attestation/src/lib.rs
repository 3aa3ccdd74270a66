//! What every party must agree on, byte for byte: paths, entries, manifests, trees, scope, statements and appraisal.
//!
//! Bytes in, values out: this crate opens no file and no socket, reads no clock and starts no thread.
#![forbid(unsafe_code)]

pub mod digest;
pub mod entry;
pub mod path;
pub mod time;
mod text;
