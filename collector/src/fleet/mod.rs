//! The fleet: what a node's status is, who lets nodes in, and what they are called.

mod asked;
mod changes;
mod names;
mod retire;
mod status;
mod tokens;

pub use self::asked::{Asked, Waiting, due, rescan};
pub(crate) use self::changes::holders;
pub use self::changes::{Decision, decide, decided, move_to_group, rename};
pub use self::names::{NoName, checked};
pub(crate) use self::retire::Retiring;
pub use self::retire::{is_gone, retire_gone};
pub use self::status::{Status, status};
pub use self::tokens::{CreatedToken, create_join_token, hash_secret};
