//! What the kernel tells of one mount by its number that is never given anew.

use std::io;

/// `statmount(2)`, the same on every architecture (Linux 6.8).
const STATMOUNT: libc::c_long = 457;
/// Ask for the mount point.
const MNT_POINT: u64 = 0x10;
/// Size of the first published `struct mnt_id_req`.
const REQUEST: u32 = 24;
/// Fixed part of `struct statmount`; texts follow.
const FIXED: usize = 512;
/// Where the offset of the mount point's text lies.
const MNT_POINT_AT: usize = 108;

#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    mnt_id: u64,
    param: u64,
}

/// Where a mount is, as this process sees it.
///
/// # Errors
/// `ENOENT` when the mount is gone or not below our root, `ENOSYS` before Linux 6.8.
pub fn mount_point(id: u64) -> io::Result<Vec<u8>> {
    let request = Request {
        size: REQUEST,
        spare: 0,
        mnt_id: id,
        param: MNT_POINT,
    };
    let mut answer = vec![0_u8; FIXED + 64 * 1024];
    // SAFETY: `request` has the layout of `struct mnt_id_req` with its own size in it; the kernel writes at most as many
    // bytes to `answer` as the length that it is given; both outlive the call.
    let result = unsafe {
        libc::syscall(
            STATMOUNT,
            &raw const request,
            answer.as_mut_ptr(),
            answer.len(),
            0,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    text(&answer).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The text of the mount point in an answer.
fn text(answer: &[u8]) -> Option<Vec<u8>> {
    let offset = answer.get(MNT_POINT_AT..)?.first_chunk::<4>()?;
    let offset = usize::try_from(u32::from_ne_bytes(*offset)).ok()?;
    let texts = answer.get(FIXED..)?.get(offset..)?;
    let end = texts.iter().position(|byte| *byte == 0)?;
    Some(texts.get(..end)?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_by_its_offset_and_nothing_odd_is_believed() {
        let mut answer = vec![0_u8; FIXED];
        answer.extend(b"ext4\0/srv/x\0");
        answer[MNT_POINT_AT..MNT_POINT_AT + 4].copy_from_slice(&5_u32.to_ne_bytes());
        assert_eq!(text(&answer).as_deref(), Some(&b"/srv/x"[..]));
        answer[MNT_POINT_AT..MNT_POINT_AT + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(text(&answer), None);
        assert_eq!(text(&answer[..100]), None);
    }
}
