//! Whether a login user is believed. A process without one may write any into `/proc/self/loginuid`, and root may change
//! its own: only what a login service gave is a login.

use super::process::Login;

/// Programs that let people, and jobs of people, in. They run as root when they do.
const SERVICES: &[&str] = &[
    "agetty",
    "atd",
    "cockpit-session",
    "cron",
    "crond",
    "dropbear",
    "gdm",
    "gdm-session-worker",
    "gdm3",
    "getty",
    "in.telnetd",
    "lightdm",
    "login",
    "mingetty",
    "proftpd",
    "sddm",
    "sddm-helper",
    "sshd",
    "sshd-session",
    "vsftpd",
    "xdm",
    "xrdp-sesman",
];

/// One process on the way up from the one that has a login user: itself, its parent, and so on.
#[derive(Clone, Debug)]
pub(super) struct Step<'a> {
    pub(super) exe: Option<&'a str>,
    /// Whether its effective user was root.
    pub(super) root: bool,
    /// The session that it is believed to be in.
    pub(super) credit: Option<Login>,
}

/// Whether a login service gave this login: one stands on the way up before any other login, or the service manager keeps
/// the process among those of that user.
pub(super) fn is_given<'a>(
    login: Login,
    cgroup: Option<&str>,
    way_up: impl IntoIterator<Item = Step<'a>>,
) -> bool {
    if cgroup.is_some_and(|cgroup| is_of_user(cgroup, login.auid)) {
        return true;
    }
    for step in way_up {
        if step.credit == Some(login) || (step.root && step.exe.is_some_and(is_service)) {
            return true;
        }
        if step.credit.is_some() {
            return false;
        }
    }
    false
}

pub(super) fn is_service(exe: &str) -> bool {
    // The encoding shows the space before this word as an octal number.
    let exe = exe.strip_suffix("\\040(deleted)").unwrap_or(exe);
    let name = exe.rsplit('/').next().unwrap_or(exe);
    SERVICES.binary_search(&name).is_ok()
}

/// Where systemd keeps the sessions and the own manager of a user.
fn is_of_user(cgroup: &str, auid: u32) -> bool {
    cgroup
        .strip_prefix("/user.slice/user-")
        .and_then(|rest| rest.split_once(".slice/"))
        .is_some_and(|(user, _)| user == auid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Login = Login {
        auid: 1000,
        session: 7,
    };
    const OTHER: Login = Login {
        auid: 0,
        session: 3,
    };

    fn step(exe: &str, root: bool, credit: Option<Login>) -> Step<'_> {
        Step {
            exe: Some(exe),
            root,
            credit,
        }
    }

    #[test]
    fn the_list_is_in_order() {
        assert!(SERVICES.is_sorted());
    }

    #[test]
    fn a_login_is_given_by_a_login_service_that_runs_as_root() {
        let shell = step("/usr/bin/bash", false, None);
        let given = |way: &[Step<'_>]| is_given(ME, None, way.iter().cloned());
        assert!(given(&[shell.clone(), step("/usr/sbin/sshd", true, None)]));
        assert!(given(&[step("/usr/sbin/sshd\\040(deleted)", true, None)]));
        assert!(!given(&[shell.clone(), step("/tmp/sshd", false, None)]));
        assert!(!given(&[
            shell.clone(),
            step("/usr/sbin/apache2", true, None)
        ]));
        assert!(!given(&[shell]));
    }

    #[test]
    fn who_is_logged_in_already_does_not_become_another() {
        let way = [
            step("/usr/bin/bash", true, Some(OTHER)),
            step("/usr/sbin/sshd", true, None),
        ];
        assert!(!is_given(ME, None, way.iter().cloned()));
        // A login service that was itself started from a session gives logins all the same.
        let way = [
            step("/usr/sbin/sshd", true, Some(OTHER)),
            step("/usr/bin/bash", true, Some(OTHER)),
        ];
        assert!(is_given(ME, None, way.iter().cloned()));
    }

    #[test]
    fn the_service_manager_keeps_users_apart() {
        for cgroup in [
            "/user.slice/user-1000.slice/session-7.scope",
            "/user.slice/user-1000.slice/user@1000.service/app.slice",
        ] {
            assert!(is_given(ME, Some(cgroup), []));
            assert!(!is_given(OTHER, Some(cgroup), []));
        }
        assert!(!is_given(ME, Some("/system.slice/user-1000.slice/x"), []));
    }
}
