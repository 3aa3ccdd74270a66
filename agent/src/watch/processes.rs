//! The processes that there are.

/// Numbers of all processes that `/proc` lists now; none where it is not there.
pub(super) fn processes() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
