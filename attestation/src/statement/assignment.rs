//! Which images a group of nodes may be (FORMATS.md 5.4).

use serde::{Deserialize, Serialize};

use super::{Predicate, Statement, Subject};
use crate::digest::Digest;
use crate::time::Timestamp;

/// The predicate of an assignment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The group of nodes.
    pub group: String,
    /// What its nodes may be, more than one while a new image rolls out.
    pub allowed: Vec<Allowed>,
    /// From when it holds.
    pub from: Timestamp,
    /// Who asked for it.
    pub requested_by: String,
    /// Who approved it.
    pub approved_by: String,
}

impl Predicate for Assignment {
    const NAME: &'static str = "assignment";
}

impl Statement<Assignment> {
    /// The assignment with its allowed images for subjects.
    pub fn of_images(predicate: Assignment) -> Self {
        let subject = predicate
            .allowed
            .iter()
            .map(|image| Subject::of_bytes(&image.name, &image.image))
            .collect();
        Self { subject, predicate }
    }
}

/// An image that a node may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// SHA-256 of the image statement's payload.
    pub image: Digest,
    /// The image's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its epoch.
    pub epoch: u64,
    /// Until when; absent for as long as the assignment holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Allowed {
    /// Whether it is still allowed at `now`; the last moment is still good.
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now <= until)
    }
}
