//! What a node signed, as the collector keeps it.

use attestation::{
    digest::Digest,
    dsse::Envelope,
    statement::{Attestation, Gap},
};

use crate::{
    wait::{LATER, SOON, eventually},
    world::World,
};

/// Sequence and digest of the newest statement that the collector has of a node.
#[track_caller]
pub fn newest(world: &World, name: &str) -> (u64, Digest) {
    let node = eventually("the node is listed", SOON, || world.people.node(name));
    let sequence = node["sequence"].as_u64().expect("a sequence");
    let digest = node["statement"].as_str().expect("a digest");
    (sequence, digest.parse().expect("a digest"))
}

/// Every statement that the collector has of a node, newest first, by what each names as the one before it.
#[track_caller]
pub fn chain(world: &World, name: &str) -> Vec<(Digest, Attestation)> {
    chain_after(world, name, None)
}

/// Waits until a statement tells a gap of this cause; gives the statement and the gap.
#[track_caller]
pub fn tells_gap(world: &World, name: &str, cause: &str) -> (Attestation, Gap) {
    let mut known = None;
    eventually(&format!("a gap of cause {cause}"), LATER, || {
        let news = chain_after(world, name, known);
        known = news.first().map(|(digest, _)| *digest).or(known);
        news.into_iter().find_map(|(_, said)| {
            let gap = said.coverage.gaps.iter().find(|gap| gap.cause == cause);
            gap.cloned().map(|gap| (said, gap))
        })
    })
}

/// [`chain`] without a statement and those before it.
#[track_caller]
fn chain_after(world: &World, name: &str, known: Option<Digest>) -> Vec<(Digest, Attestation)> {
    let mut chain = Vec::new();
    let mut next = Some(newest(world, name).1);
    while let Some(digest) = next.filter(|next| Some(*next) != known) {
        let path = format!("/api/v1/evidence/{digest}");
        let answer = world.people.ask("GET", &path, None).expect("an answer");
        if answer.status == 404 {
            break;
        }
        let envelope = Envelope::from_json(&answer.body).expect("an envelope");
        assert_eq!(envelope.payload_digest(), digest);
        let said = envelope.peek::<Attestation>().expect("a statement");
        next = said.predicate.previous;
        chain.push((digest, said.predicate));
    }
    chain
}
