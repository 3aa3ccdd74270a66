//! `security.capability`, the kernel's `vfs_cap_data`, in names.

/// Capability names by their number, as `linux/capability.h` has them.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

const REVISION_1: u32 = 0x0100_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
const EFFECTIVE: u32 = 1;

/// One line a capability, as `getcap` writes it (`cap_net_raw=ep`); `None` for bytes the kernel would not take.
#[must_use]
pub fn decode(value: &[u8]) -> Option<Vec<String>> {
    let words: Vec<u32> = value
        .chunks_exact(4)
        .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
        .collect();
    let magic = *words.first()?;
    let pairs = match (magic & 0xff00_0000, value.len()) {
        (REVISION_1, 12) => 1,
        (REVISION_2, 20) | (REVISION_3, 24) => 2,
        _ => return None,
    };
    let wide = |at: usize| -> u64 {
        let low = u64::from(words[at]);
        if pairs == 2 {
            low | (u64::from(words[at + 2]) << 32)
        } else {
            low
        }
    };
    let (permitted, inheritable) = (wide(1), wide(2));
    let effective = magic & EFFECTIVE != 0;
    let mut lines = Vec::new();
    for bit in 0..64_usize {
        let (p, i) = (permitted >> bit & 1 == 1, inheritable >> bit & 1 == 1);
        if !p && !i {
            continue;
        }
        let name = NAMES
            .get(bit)
            .map_or_else(|| format!("cap_{bit}"), |name| format!("cap_{name}"));
        let sets = [(effective, 'e'), (i, 'i'), (p, 'p')];
        let sets: String = sets
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, letter)| *letter)
            .collect();
        lines.push(format!("{name}={sets}"));
    }
    if pairs == 2 && value.len() == 24 {
        lines.push(format!("in the user namespace of root id {}", words[5]));
    }
    if lines.is_empty() {
        lines.push("no capability".to_owned());
    }
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn ping_has_net_raw() {
        assert_eq!(
            decode(&bytes(&[0x0200_0001, 1 << 13, 0, 0, 0])),
            Some(vec!["cap_net_raw=ep".to_owned()])
        );
    }

    #[test]
    fn the_high_word_and_the_inheritable_set_count() {
        assert_eq!(
            decode(&bytes(&[0x0200_0000, 1 << 7, 1 << 21, 1 << 7, 0])),
            Some(vec![
                "cap_setuid=p".to_owned(),
                "cap_sys_admin=i".to_owned(),
                "cap_bpf=p".to_owned()
            ])
        );
    }

    #[test]
    fn a_namespaced_one_tells_its_root() {
        let lines = decode(&bytes(&[0x0300_0001, 1, 0, 0, 0, 100_000]));
        assert_eq!(
            lines,
            Some(vec![
                "cap_chown=ep".to_owned(),
                "in the user namespace of root id 100000".to_owned()
            ])
        );
    }

    #[test]
    fn other_bytes_are_not_guessed_at() {
        assert_eq!(decode(b""), None);
        assert_eq!(decode(&[0; 20]), None);
        assert_eq!(decode(&bytes(&[0x0200_0001, 1, 0, 0])), None);
    }
}
