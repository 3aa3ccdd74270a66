//! What a person must judge, tracked from opened to resolved.
//!
//! [`steps`] decides (pure: the open violations and what a statement says, in; steps, out); [`store`] keeps; [`silence`] watches for
//! nodes that say nothing.

pub mod resolution;
pub mod review;
pub mod silence;
pub mod steps;
pub mod store;
pub mod view;

pub use self::resolution::Resolution;
pub use self::steps::{Accounted, Change, Facts, steps};
pub use self::view::{Acknowledged, ImageView, Kind, MountView, Severity, Step, ViolationView};

/// How violations of a node end that is history: it says nothing any more.
pub const RETIRED: &str = "retired";
