//! The agent on a node: it scans a root, watches it, and sends signed attestations to a collector.
#![deny(unsafe_code)]
