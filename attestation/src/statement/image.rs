//! The image statement: reference values, signed by publishers (FORMATS.md 5.1).

use serde::{Deserialize, Serialize};

use super::{MAX_IMAGE_PAYLOAD, Predicate, Statement};
use crate::digest::Digest;
use crate::path::ImagePath;
use crate::scope::Scope;
use crate::time::Timestamp;

/// The predicate of a publisher's statement about an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Free text.
    pub version: String,
    /// Never falls for one name.
    pub epoch: u64,
    /// When the image was made.
    pub created: Timestamp,
    /// After this it is not allowed anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// How many sealed entries there are.
    pub entries: u64,
    /// The sum of their file sizes.
    pub bytes: u64,
    /// What is attested, and how.
    pub scope: Scope,
    /// Where something may be mounted, beside the kernel's own.
    #[serde(default)]
    pub mounts: Vec<ImagePath>,
    /// Where it came from.
    #[serde(default)]
    pub source: Source,
    /// What made the manifest.
    #[serde(default)]
    pub builder: Builder,
    /// The manifest beside it.
    pub manifest: ManifestRef,
}

impl Predicate for Image {
    const NAME: &'static str = "image";
    const MAX_PAYLOAD: usize = MAX_IMAGE_PAYLOAD;
}

impl Statement<Image> {
    /// Whether the image's time is over at `now`; the last moment is still good.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.predicate.expires.is_some_and(|expires| now > expires)
    }
}

/// The commit that the expected state came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Repository address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Commit id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Branch or tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#ref: Option<String>,
    /// Who wrote the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
}

/// The program that made the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Builder {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// How it was called.
    #[serde(default)]
    pub command: String,
}

/// The compressed manifest file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRef {
    /// [`ManifestRef::MEDIA_TYPE`].
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// Bytes of the compressed file.
    pub size: u64,
    /// SHA-256 of the compressed file.
    pub sha256: Digest,
    /// Bytes of the plain lines: where a reader stops.
    pub uncompressed: u64,
}

impl ManifestRef {
    /// The media type of a compressed manifest.
    pub const MEDIA_TYPE: &'static str = "application/vnd.pristine.manifest.v1.mtree+zstd";
}
