//! System calls that no dependency wraps: the only place where `unsafe` is allowed. Functions take and return types of
//! the standard library, and an error becomes an [`std::io::Error`] at once.

mod handle;
mod memory;

pub use self::handle::{FileHandle, HANDLE_LIMIT, name_to_handle, open_by_handle};
pub use self::memory::give_back;
