//! What a process's control group says: its systemd unit and its container.

/// The path in the unified hierarchy, or in systemd's own where there is none.
pub(super) fn path(file: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(file);
    let lines = || {
        text.lines()
            .filter_map(|line| line.split_once(':')?.1.split_once(':'))
    };
    let find =
        |controllers: &str| lines().find(|(name, path)| *name == controllers && *path != "/");
    find("")
        .or_else(|| find("name=systemd"))
        .map(|(_, path)| path.to_owned())
}

/// The innermost service or scope.
pub(super) fn unit(path: &str) -> Option<String> {
    let is_unit = |name: &&str| {
        [".service", ".scope", ".socket", ".mount"]
            .iter()
            .any(|suffix| name.ends_with(suffix))
    };
    path.rsplit('/').find(is_unit).map(str::to_owned)
}

/// The container id of docker, containerd, podman and CRI-O: 64 hex digits at the end of a component.
pub(super) fn container(path: &str) -> Option<String> {
    path.rsplit('/').find_map(|name| {
        let name = name.strip_suffix(".scope").unwrap_or(name);
        let id = name.get(name.len().checked_sub(64)?..)?;
        let before = name.get(..name.len() - 64)?;
        let is_hex = id
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (is_hex && (before.is_empty() || before.ends_with(['-', ':']))).then(|| id.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_containers_are_found() {
        let id = "0123456789abcdef".repeat(4);
        let docker = format!("/system.slice/docker-{id}.scope");
        assert_eq!(container(&docker).as_deref(), Some(id.as_str()));
        assert_eq!(
            container(&format!("/kubepods/pod1/{id}")).as_deref(),
            Some(id.as_str())
        );
        assert_eq!(container("/system.slice/ssh.service"), None);
        assert_eq!(
            unit("/system.slice/ssh.service").as_deref(),
            Some("ssh.service")
        );
        assert_eq!(
            unit("/user.slice/user-0.slice/session-3.scope/deep").as_deref(),
            Some("session-3.scope")
        );
        assert_eq!(unit("/"), None);
    }

    #[test]
    fn the_unified_hierarchy_comes_first() {
        let file = b"1:name=systemd:/legacy.service\n0::/system.slice/cron.service\n";
        assert_eq!(path(file).as_deref(), Some("/system.slice/cron.service"));
        assert_eq!(
            path(b"1:name=systemd:/legacy.service\n0::/\n").as_deref(),
            Some("/legacy.service")
        );
        assert_eq!(path(b"0::/\n"), None);
    }
}
