//! A violation for tests.

use attestation::statement::{Actor, Ancestor, Confidence};
use attestation::time::Timestamp;

use crate::violations::view::{ImageView, Kind, Severity, ViolationView};

/// ping got its setuid bit.
pub(crate) fn violation() -> ViolationView {
    let line = |mode: &str| {
        format!(
            "./usr/bin/ping type=file mode={mode} uid=0 gid=0 size=3 sha256digest={}",
            "a".repeat(64)
        )
    };
    let at = Timestamp::from_micros(1_700_000_000_000_000);
    ViolationView {
        id: "018bcfe5-6800-7000-8000-000000000001".to_owned(),
        node: "00112233445566778899aabbccddeeff".to_owned(),
        node_name: "web-17".to_owned(),
        kind: Kind::Difference,
        path: Some("./usr/bin/ping".to_owned()),
        expect: Some(attestation::scope::Expect::Sealed),
        expected: Some(line("0755")),
        found: Some(line("4755")),
        fields: vec!["mode".to_owned()],
        actor: Some(actor()),
        severity: Severity::Critical,
        opened: at,
        detected: at,
        updated: at,
        resolved: None,
        resolution: None,
        resolved_as: None,
        image: Some(ImageView {
            name: "debian-web".to_owned(),
            version: "12.7".to_owned(),
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            repository: "https://git.example/images".to_owned(),
            author: "Release pipeline <release@example.org>".to_owned(),
            sha256: "b".repeat(64),
        }),
        count: None,
        mount: None,
        acknowledged: None,
        detail: serde_json::Map::new(),
    }
}

/// chmod, called from a shell that somebody logged in to.
pub(crate) fn actor() -> Actor {
    Actor {
        pid: 4242,
        exe: Some("./usr/bin/chmod".to_owned()),
        exe_sha256: None,
        cmdline: Some("chmod u+s /usr/bin/ping".to_owned()),
        uid: Some(0),
        euid: Some(0),
        auid: Some(1000),
        user: Some("mallory".to_owned()),
        session: Some(7),
        cgroup: None,
        unit: Some("ssh.service".to_owned()),
        container: None,
        ancestors: vec![
            Ancestor {
                pid: 4000,
                exe: Some("./usr/bin/bash".to_owned()),
            },
            Ancestor {
                pid: 900,
                exe: Some("./usr/sbin/sshd".to_owned()),
            },
        ],
        confidence: Confidence::Medium,
    }
}
