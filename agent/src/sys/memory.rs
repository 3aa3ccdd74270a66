//! Memory that is no longer used, given back.

/// Gives free pages of the heap back to the kernel. The C library keeps them otherwise, and a first look at everything
/// needs several times what the view needs that stays.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: the function takes no pointer, locks the arenas itself, and may be called by any thread at any time.
    let _released = unsafe { libc::malloc_trim(0) };
}

/// Other C libraries give back by themselves, or not at all.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}
