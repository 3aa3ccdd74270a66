//! The fleet: what a node's status is, who lets nodes in, and what they are called.

mod asked;
mod changes;
mod names;
mod retire;
mod status;
mod tokens;

pub use self::asked::{Asked, Waiting, due, rescan};
pub use self::changes::{approve, move_to_group, rename, set_state};
pub use self::names::{NoName, checked};
pub use self::retire::retire_gone;
pub use self::status::{Status, status};
pub use self::tokens::{CreatedToken, create_join_token, hash_secret};
