//! What is known of a node's differences beside what it says of them: an image that rolls out, and exceptions. No verdict hears of it.

use std::collections::HashMap;

use attestation::path::ImagePath;

use super::Office;
use crate::assignments::rollout;
use crate::ingest::Prepared;
use crate::store::NodeRow;
use crate::violations::Accounted;

/// An exception that holds counts before a rollout, and one that is over after it.
pub(super) fn accounted(
    office: &Office,
    node: &NodeRow,
    prepared: &Prepared,
) -> HashMap<ImagePath, Accounted> {
    let beside = prepared.beside.iter().map(|image| {
        let view = image.view();
        (&image.tree, format!("{} {}", view.name, view.version))
    });
    let mut accounted = rollout::accounted(&prepared.differences, beside);
    let excepted = office.exceptions.accounted(
        &node.id,
        &node.group,
        &prepared.differences,
        office.received,
    );
    for (path, how) in excepted {
        if matches!(how, Accounted::Lapsed { .. }) {
            accounted.entry(path).or_insert(how);
        } else {
            accounted.insert(path, how);
        }
    }
    accounted
}
