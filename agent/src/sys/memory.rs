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

/// Blocks of this size are given back as soon as they are freed.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 256 * 1024;

/// Makes the heap keep little of what is freed, for the life of the process. The C library raises what it keeps by itself
/// with every large block that is freed, up to 64 MiB, and what is free at the end of a thread's heap it never gives back.
#[cfg(target_env = "gnu")]
pub fn keep_little() {
    // SAFETY: the function takes integers, and may be called at any time; what it refuses stays as it was.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    }
}

/// Other C libraries have no such habit.
#[cfg(not(target_env = "gnu"))]
pub fn keep_little() {}
