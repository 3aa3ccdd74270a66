//! What the end-to-end tests share: starting the real programs, talking to them, waiting for conditions.
#![forbid(unsafe_code)]
