//! System calls that no dependency wraps: the only place where `unsafe` is allowed. Functions take and return types of
//! the standard library, and an error becomes an [`std::io::Error`] at once.

mod background;
mod cached;
#[cfg(test)]
mod clock;
mod descriptors;
mod handle;
mod lease;
mod memory;
mod mounts;

pub use self::background::give_way;
pub use self::cached::cached_pages;
#[cfg(test)]
pub use self::clock::step_clock_by_a_nanosecond;
pub use self::descriptors::close_from;
pub use self::handle::{FileHandle, HANDLE_LIMIT, name_to_handle, open_by_handle};
pub use self::lease::has_writer;
pub use self::memory::{give_back, keep_little};
pub use self::mounts::mount_point;
