//! From a request that was approved to the signed assignment that holds: whether it may, and what it then says.

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::statement::{Allowed, Assignment, Statement};
use attestation::time::Timestamp;
use sqlx::Row as _;

use super::Current;
use crate::clock;
use crate::keys::CollectorKeys;
use crate::log::{self, Leaf};
use crate::store::nodes::{number, time};
use crate::store::{StoreError, Writing};

/// Images that a group may be at once: the new one and those that it takes over from.
const ALLOWED: usize = 8;

/// The image that is asked for, as the store has it now, and how the group stands to it.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) image: Digest,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) epoch: u64,
    pub(super) complete: bool,
    pub(super) revoked: bool,
    pub(super) expires: Option<Timestamp>,
    /// The highest epoch that the group ever had to be, of an image of this name.
    pub(super) highest: Option<u64>,
    /// What the group must be now.
    pub(super) before: Option<Assignment>,
}

/// Why an image cannot be assigned; nothing where it can. Pure.
pub(super) fn refused(standing: &Standing, now: Timestamp) -> Option<(&'static str, String)> {
    if !standing.complete {
        return Some((
            "no-image",
            "no such image, or its manifest has not been sent".to_owned(),
        ));
    }
    if standing.revoked {
        return Some(("revoked", "that image was revoked".to_owned()));
    }
    if standing.expires.is_some_and(|expires| expires <= now) {
        return Some(("expired", "that image has expired".to_owned()));
    }
    match standing.highest {
        Some(highest) if highest > standing.epoch => Some((
            "epoch",
            format!(
                "the group had {} of epoch {highest} already, and epochs never fall: {} has {}. To go back, publish the older content \
                 under a higher epoch",
                standing.name, standing.version, standing.epoch
            ),
        )),
        _ => None,
    }
}

/// What is then allowed: the image, and for `keep` seconds what the group may be now.
pub(super) fn allowed(standing: &Standing, keep: Option<u64>, now: Timestamp) -> Vec<Allowed> {
    let mut allowed = vec![Allowed {
        image: standing.image,
        name: standing.name.clone(),
        version: standing.version.clone(),
        epoch: standing.epoch,
        until: None,
    }];
    if let (Some(seconds), Some(before)) = (keep, &standing.before) {
        let until = clock::after(now, seconds);
        allowed.extend(kept(&before.allowed, standing.image, now, until));
    }
    allowed
}

/// Of what was allowed, what still is, and no longer than until then.
fn kept(before: &[Allowed], image: Digest, now: Timestamp, until: Timestamp) -> Vec<Allowed> {
    let still = before
        .iter()
        .filter(|allowed| allowed.image != image && allowed.holds_at(now));
    still
        .take(ALLOWED - 1)
        .map(|allowed| Allowed {
            until: Some(allowed.until.map_or(until, |earlier| earlier.min(until))),
            ..allowed.clone()
        })
        .collect()
}

/// Reads how a group stands to an image, as the transaction sees it; none where there is no such image.
pub(super) async fn standing(
    tx: &mut Writing,
    group: &str,
    image: Digest,
) -> Result<Option<Standing>, StoreError> {
    let row = sqlx::query(
        "SELECT i.name, i.version, i.epoch, i.complete, i.revoked, i.expires, (SELECT max(o.epoch) FROM assignments a \
         JOIN images o ON o.payload = a.image WHERE a.grp = ?2 AND o.name = i.name) AS highest FROM images i WHERE i.payload = ?1",
    )
    .bind(image.as_bytes().as_slice())
    .bind(group)
    .fetch_optional(&mut tx.connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Standing {
        image,
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        epoch: number(&row, "epoch")?.unwrap_or(0),
        complete: row.try_get("complete")?,
        revoked: time(&row, "revoked")?.is_some(),
        expires: time(&row, "expires")?,
        highest: number(&row, "highest")?,
        before: before(tx, group).await?,
    }))
}

async fn before(tx: &mut Writing, group: &str) -> Result<Option<Assignment>, StoreError> {
    let envelope: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT a.envelope FROM group_assignment g JOIN assignments a ON a.payload = g.payload WHERE g.grp = ?",
    )
    .bind(group)
    .fetch_optional(&mut tx.connection)
    .await?;
    let Some(bytes) = envelope else {
        return Ok(None);
    };
    let said = Envelope::from_json(&bytes)
        .map_err(|error| StoreError::corrupt(format!("assignments.envelope: {error}")))?
        .peek::<Assignment>()
        .map_err(|error| StoreError::corrupt(format!("assignments.envelope: {error}")))?;
    Ok(Some(said.predicate))
}

/// Signs an assignment and makes it the one that holds for its group, inside the transaction.
pub(super) async fn sign(
    tx: &mut Writing,
    keys: &CollectorKeys,
    assignment: Assignment,
    image: Digest,
) -> Result<Current, StoreError> {
    let statement = Statement::<Assignment>::of_images(assignment.clone());
    let envelope = Envelope::sign(statement.to_payload(), &keys.assignment)
        .map_err(|error| StoreError::corrupt(error.to_string()))?;
    let (payload, bytes) = (envelope.payload_digest(), envelope.to_json());
    log::keep(tx, "assignment", &payload, &bytes, assignment.from).await?;
    sqlx::query(
        "INSERT INTO assignments (payload, grp, envelope, image, from_time, requested_by, approved_by) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(payload.as_bytes().as_slice())
    .bind(&assignment.group)
    .bind(bytes)
    .bind(image.as_bytes().as_slice())
    .bind(assignment.from.as_micros())
    .bind(&assignment.requested_by)
    .bind(&assignment.approved_by)
    .execute(&mut tx.connection)
    .await?;
    sqlx::query("INSERT INTO group_assignment (grp, payload) VALUES (?1, ?2) ON CONFLICT (grp) DO UPDATE SET payload = ?2")
        .bind(&assignment.group)
        .bind(payload.as_bytes().as_slice())
        .execute(&mut tx.connection)
        .await?;
    let more = serde_json::json!({"group": assignment.group, "image": image, "by": assignment.approved_by});
    let leaf = Leaf {
        kind: "assignment",
        at: assignment.from,
        node: None,
        sequence: None,
        digest: payload,
        more,
    };
    log::append(tx, &leaf).await?;
    Ok(Current {
        payload,
        envelope,
        assignment,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn digest(byte: u8) -> Digest {
        Digest::from_bytes([byte; 32])
    }

    fn standing() -> Standing {
        Standing {
            image: digest(2),
            name: "web".to_owned(),
            version: "2".to_owned(),
            epoch: 5,
            complete: true,
            revoked: false,
            expires: None,
            highest: Some(5),
            before: None,
        }
    }

    #[test]
    fn an_image_that_is_not_whole_revoked_expired_or_below_the_highest_epoch_is_refused() {
        let code = |change: fn(&mut Standing)| {
            let mut one = standing();
            change(&mut one);
            refused(&one, at(10)).map(|(code, _)| code)
        };
        assert_eq!(code(|_| {}), None, "the same epoch again is no fall");
        assert_eq!(code(|one| one.complete = false), Some("no-image"));
        assert_eq!(code(|one| one.revoked = true), Some("revoked"));
        assert_eq!(code(|one| one.expires = Some(at(10))), Some("expired"));
        assert_eq!(code(|one| one.highest = Some(6)), Some("epoch"));
        assert_eq!(code(|one| one.highest = None), None);
    }

    #[test]
    fn what_was_allowed_stays_no_longer_than_it_would_have() {
        let old = |byte: u8, until: Option<i64>| Allowed {
            image: digest(byte),
            name: "web".to_owned(),
            version: "1".to_owned(),
            epoch: 1,
            until: until.map(at),
        };
        let mut one = standing();
        one.before = Some(Assignment {
            group: "web".to_owned(),
            allowed: vec![
                old(1, None),
                old(2, None),
                old(3, Some(15)),
                old(4, Some(5)),
            ],
            from: at(0),
            requested_by: "ada".to_owned(),
            approved_by: "bob".to_owned(),
        });
        let allowed = allowed(&one, Some(20), at(10));
        let said: Vec<_> = allowed.iter().map(|it| (it.image, it.until)).collect();
        let expected = [
            (digest(2), None),
            (digest(1), Some(at(30))),
            (digest(3), Some(at(15))),
        ];
        assert_eq!(said, expected);
        assert_eq!(
            super::allowed(&one, None, at(10)).len(),
            1,
            "without a window it ends at once"
        );
    }
}
