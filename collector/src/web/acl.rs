//! `system.posix_acl_access` and `system.posix_acl_default` in the words of `getfacl`.

const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8;

/// One line an entry (`user:1000:rw-`); `None` for bytes that are no access control list.
#[must_use]
pub fn decode(value: &[u8]) -> Option<Vec<String>> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || entries.len() % ENTRY_BYTES != 0 {
        return None;
    }
    entries.chunks_exact(ENTRY_BYTES).map(entry).collect()
}

fn entry(bytes: &[u8]) -> Option<String> {
    let tag = u16::from_le_bytes([bytes[0], bytes[1]]);
    let rights = u16::from_le_bytes([bytes[2], bytes[3]]);
    let id = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let who = match tag {
        0x01 => "user::".to_owned(),
        0x02 => format!("user:{id}:"),
        0x04 => "group::".to_owned(),
        0x08 => format!("group:{id}:"),
        0x10 => "mask::".to_owned(),
        0x20 => "other::".to_owned(),
        _ => return None,
    };
    if rights > 7 {
        return None;
    }
    Some(format!("{who}{}", letters(rights)))
}

fn letters(rights: u16) -> String {
    [(4, 'r'), (2, 'w'), (1, 'x')]
        .iter()
        .map(|(bit, letter)| if rights & bit != 0 { *letter } else { '-' })
        .collect()
}

/// The list that a file without one has: its mode.
#[must_use]
pub fn of_mode(mode: u16) -> Vec<String> {
    [("user", 6), ("group", 3), ("other", 0)]
        .map(|(who, shift)| format!("{who}::{}", letters(mode >> shift & 7)))
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(rights.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn entries_read_as_getfacl_prints_them() {
        let none = u32::MAX;
        let list = acl(&[
            (1, 6, none),
            (2, 7, 1000),
            (4, 4, none),
            (8, 5, 33),
            (0x10, 7, none),
            (0x20, 0, none),
        ]);
        assert_eq!(
            decode(&list),
            Some(
                [
                    "user::rw-",
                    "user:1000:rwx",
                    "group::r--",
                    "group:33:r-x",
                    "mask::rwx",
                    "other::---"
                ]
                .map(str::to_owned)
                .to_vec()
            )
        );
    }

    #[test]
    fn a_mode_is_a_list_of_three() {
        assert_eq!(
            of_mode(0o4640),
            ["user::rw-", "group::r--", "other::---"].map(str::to_owned)
        );
    }

    #[test]
    fn other_bytes_are_not_guessed_at() {
        assert_eq!(decode(b""), None);
        assert_eq!(decode(&acl(&[(3, 6, 0)])), None);
        assert_eq!(decode(&acl(&[(1, 9, 0)])), None);
        assert_eq!(decode(&[2, 0, 0, 0, 1]), None);
    }
}
