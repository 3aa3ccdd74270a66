//! The node's key signs statements and TLS handshakes. Who speaks with the network has the second need only, so what is
//! signed for it must be exactly what a TLS 1.3 client signs, and can be nothing else: a statement's signature is over
//! bytes that begin with `DSSEv1 `, this one over bytes that begin with 64 spaces.

use std::fmt;
use std::io;
use std::sync::Arc;

use attestation::key::{Algorithm, PrivateKey};
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

/// What stands before the transcript's hash (RFC 8446, 4.4.3).
const CONTEXT: &[u8] = b"TLS 1.3, client CertificateVerify\0";
const SPACES: usize = 64;

/// The content of a TLS 1.3 client's `CertificateVerify`: the only thing that is signed on request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateVerify(Vec<u8>);

impl CertificateVerify {
    /// Takes exactly what the protocol says, and nothing that only resembles it.
    pub(crate) fn parse(content: &[u8]) -> Option<Self> {
        let (spaces, rest) = content.split_at_checked(SPACES)?;
        let hash = rest.strip_prefix(CONTEXT)?;
        let right = spaces.iter().all(|byte| *byte == b' ') && matches!(hash.len(), 32 | 48);
        right.then(|| Self(content.to_vec()))
    }

    /// The bytes to be signed.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Who signs: the key, or a way to the process that holds it.
pub(crate) trait Signs: fmt::Debug + Send + Sync {
    /// The signature over a handshake.
    fn sign(&self, content: &CertificateVerify) -> io::Result<Vec<u8>>;
}

impl Signs for PrivateKey {
    fn sign(&self, content: &CertificateVerify) -> io::Result<Vec<u8>> {
        Self::sign(self, content.as_bytes()).map_err(io::Error::other)
    }
}

/// The node's key as TLS sees it.
#[derive(Debug)]
pub(crate) struct HandshakeKey {
    algorithm: Algorithm,
    signs: Arc<dyn Signs>,
}

impl HandshakeKey {
    pub(crate) fn new(algorithm: Algorithm, signs: Arc<dyn Signs>) -> Self {
        Self { algorithm, signs }
    }

    fn scheme(&self) -> SignatureScheme {
        match self.algorithm {
            Algorithm::Ed25519 => SignatureScheme::ED25519,
            Algorithm::P256 => SignatureScheme::ECDSA_NISTP256_SHA256,
        }
    }
}

impl SigningKey for HandshakeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = self.scheme();
        let signs = Arc::clone(&self.signs);
        offered
            .contains(&scheme)
            .then(|| Box::new(HandshakeSigner { scheme, signs }) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.algorithm {
            Algorithm::Ed25519 => SignatureAlgorithm::ED25519,
            Algorithm::P256 => SignatureAlgorithm::ECDSA,
        }
    }
}

#[derive(Debug)]
struct HandshakeSigner {
    scheme: SignatureScheme,
    signs: Arc<dyn Signs>,
}

impl Signer for HandshakeSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let content = CertificateVerify::parse(message).ok_or_else(|| {
            rustls::Error::General("only TLS 1.3 handshakes are signed".to_owned())
        })?;
        self.signs
            .sign(&content)
            .map_err(|error| rustls::Error::General(format!("sign the handshake: {error}")))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use attestation::dsse::Envelope;

    use super::*;

    fn content(hash: usize) -> Vec<u8> {
        [&[b' '; 64][..], CONTEXT, &vec![7; hash]].concat()
    }

    #[test]
    fn a_handshake_is_signed_and_nothing_that_resembles_one() {
        for hash in [32, 48] {
            assert!(CertificateVerify::parse(&content(hash)).is_some());
        }
        for hash in [0, 31, 33, 47, 49, 64] {
            assert_eq!(CertificateVerify::parse(&content(hash)), None, "{hash}");
        }
        for at in 0..64 + CONTEXT.len() {
            let mut other = content(32);
            other[at] ^= 1;
            assert_eq!(CertificateVerify::parse(&other), None, "byte {at}");
        }
        let server = String::from_utf8_lossy(&content(32)).replace("client", "server");
        assert_eq!(CertificateVerify::parse(server.as_bytes()), None);
        assert_eq!(CertificateVerify::parse(b""), None);
    }

    #[test]
    fn no_statement_is_a_handshake() {
        let spaces = " ".repeat(64) + "TLS 1.3, client CertificateVerify\0";
        for payload in [b"{}".to_vec(), spaces.into_bytes(), content(32)] {
            assert_eq!(
                CertificateVerify::parse(&Envelope::unsigned(payload).pae()),
                None
            );
        }
    }

    #[test]
    fn the_signature_is_the_nodes() {
        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let signing = HandshakeKey::new(algorithm, Arc::new(key.clone()));
            let offered = [
                SignatureScheme::ED25519,
                SignatureScheme::ECDSA_NISTP256_SHA256,
            ];
            let signer = signing.choose_scheme(&offered).unwrap();
            let signature = signer.sign(&content(32)).unwrap();
            assert!(key.public().verify(&content(32), &signature));
            assert!(signer.sign(b"DSSEv1 1 x 1 y").is_err());
            assert!(
                signing
                    .choose_scheme(&[SignatureScheme::RSA_PSS_SHA256])
                    .is_none()
            );
        }
    }
}
