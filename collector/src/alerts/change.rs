//! What makes two violations the same change: everything but the node and the moment.

use attestation::digest::Digest;
use serde_json::json;

use crate::violations::view::ViolationView;

/// The digest of a change: kind, path, what was expected and found, what is mounted, and by whom. Not the node, no time, no process
/// id, no login session, no count: those differ where the same was done to many.
pub fn change_of(violation: &ViolationView) -> Digest {
    let actor = violation.actor.as_ref().map(|actor| {
        json!([
            actor.exe,
            actor.user,
            actor.auid,
            actor.unit,
            actor.container.is_some()
        ])
    });
    let parts = json!([
        violation.kind,
        violation.path,
        violation.expect,
        violation.expected,
        violation.found,
        violation.fields,
        violation.mount,
        actor
    ]);
    Digest::of(parts.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::sample;

    #[test]
    fn the_node_and_the_moment_do_not_matter_and_all_else_does() {
        let one = sample::violation();
        let mut same = one.clone();
        same.node = "ff".repeat(16);
        same.node_name = "web-18".to_owned();
        same.id = "another".to_owned();
        same.detected = attestation::time::Timestamp::from_micros(1);
        if let Some(actor) = &mut same.actor {
            actor.pid += 1;
            actor.session = Some(99);
        }
        assert_eq!(change_of(&one), change_of(&same));

        let others: [fn(&mut ViolationView); 5] = [
            |it| it.path = Some("./usr/bin/other".to_owned()),
            |it| it.found = None,
            |it| it.kind = crate::violations::view::Kind::Touched,
            |it| it.actor = None,
            |it| {
                if let Some(actor) = &mut it.actor {
                    actor.user = Some("eve".to_owned());
                }
            },
        ];
        for other in others {
            let mut another = one.clone();
            other(&mut another);
            assert_ne!(change_of(&one), change_of(&another));
        }
    }
}
