//! Whose signature makes an image one that this node may be compared with.

use attestation::dsse::{Envelope, VerifiedStatement, VerifyError};
use attestation::key::PublicKey;
use attestation::statement::{Image, StatementError};
use attestation::wire::PublisherKeys;

use crate::config::Publisher;

/// Why an image is not believed.
#[derive(Debug, thiserror::Error)]
pub enum UntrustedImage {
    /// It cannot be read far enough to know its name.
    #[error("read the image statement")]
    Unreadable(#[from] StatementError),
    /// It has no name.
    #[error("the image statement has no subject")]
    Unnamed,
    /// Nobody may sign images of that name.
    #[error(
        "no publisher is known for image {0:?}, neither in the configuration nor from enrolment"
    )]
    NoPublisher(String),
    /// It is another image than the one that was assigned.
    #[error("the image is not {0:?}, as the assignment says")]
    OtherName(String),
    /// The right keys did not sign.
    #[error("image {name:?} is not signed by its publishers")]
    Signatures {
        /// The image's name.
        name: String,
        /// What is missing.
        source: VerifyError,
    },
}

/// Keys by image name: the configuration's where it names the image, else those pinned at enrolment.
#[derive(Clone, Debug)]
pub struct Publishers {
    configured: Vec<Publisher>,
    pinned: Vec<PublisherKeys>,
}

impl Publishers {
    /// Both sources.
    pub fn new(configured: Vec<Publisher>, pinned: Vec<PublisherKeys>) -> Self {
        Self { configured, pinned }
    }

    /// Checks who signed an image.
    pub fn verify(&self, envelope: &Envelope) -> Result<VerifiedStatement<Image>, UntrustedImage> {
        let header = envelope.peek_header()?;
        let name = header
            .subject
            .into_iter()
            .next()
            .ok_or(UntrustedImage::Unnamed)?
            .name;
        self.verify_as(envelope, &name)
    }

    /// Checks who signed the image of that name: nothing of it is read before the signatures are right.
    pub fn verify_as(
        &self,
        envelope: &Envelope,
        name: &str,
    ) -> Result<VerifiedStatement<Image>, UntrustedImage> {
        let Some((keys, threshold)) = self.keys(name) else {
            return Err(UntrustedImage::NoPublisher(name.to_owned()));
        };
        let image = envelope
            .verify::<Image>(keys, threshold)
            .map_err(|source| UntrustedImage::Signatures {
                name: name.to_owned(),
                source,
            })?;
        if image.statement().name() == Some(name) {
            return Ok(image);
        }
        Err(UntrustedImage::OtherName(name.to_owned()))
    }

    fn keys(&self, name: &str) -> Option<(&[PublicKey], usize)> {
        let configured = self
            .configured
            .iter()
            .find(|publisher| publisher.image == name)
            .map(|publisher| (publisher.keys.as_slice(), publisher.threshold));
        configured.or_else(|| {
            self.pinned
                .iter()
                .find(|publisher| publisher.image == name)
                .map(|publisher| (publisher.keys.as_slice(), publisher.threshold))
        })
    }
}
