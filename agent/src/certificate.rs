//! The node's certificate: what is asked for it, and from when to when it is good.

use attestation::key::{Algorithm, NodeId, PrivateKey};
use attestation::time::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// From when to when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Not before.
    pub from: Timestamp,
    /// Not after.
    pub to: Timestamp,
}

impl Validity {
    /// Of a certificate as PEM; nothing where it is none.
    pub fn of_pem(pem: &str) -> Option<Self> {
        Self::of_der(&CertificateDer::from_pem_slice(pem.as_bytes()).ok()?)
    }

    /// Of a certificate as DER; nothing where it is none.
    pub fn of_der(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let at = |time: x509_parser::time::ASN1Time| time.timestamp().checked_mul(1_000_000);
        let validity = certificate.validity();
        Some(Self {
            from: Timestamp::from_micros(at(validity.not_before)?),
            to: Timestamp::from_micros(at(validity.not_after)?),
        })
    }

    /// How long it is good, in microseconds.
    pub fn life(&self) -> i64 {
        self.to.micros_since(self.from).max(0)
    }

    /// When two thirds of its life are over.
    pub fn two_thirds(&self) -> Timestamp {
        Timestamp::from_micros(self.from.as_micros().saturating_add(self.life() / 3 * 2))
    }
}

/// A PKCS#10 request (PEM) for a node's key: it proves that the key is held.
pub fn request(key: &PrivateKey, node: &NodeId) -> Result<String, rcgen::Error> {
    let der = rustls_pki_types::PrivatePkcs8KeyDer::from(key.pkcs8_der());
    let algorithm = match key.algorithm() {
        Algorithm::Ed25519 => &rcgen::PKCS_ED25519,
        Algorithm::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
    };
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, algorithm)?;
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, node.as_str());
    parameters.serialize_request(&pair)?.pem()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_request_is_for_the_nodes_key() {
        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let pem = request(&key, &NodeId::of(&key.public())).unwrap();
            let request = rcgen::CertificateSigningRequestParams::from_pem(&pem).unwrap();
            use rcgen::PublicKeyData as _;
            assert_eq!(
                request.public_key.subject_public_key_info(),
                key.public().spki_der()
            );
        }
    }

    #[test]
    fn a_certificate_says_from_when_to_when_it_is_good() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::default();
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2026, 1, 31);
        let pem = parameters.self_signed(&key).unwrap().pem();
        let validity = Validity::of_pem(&pem).unwrap();
        assert_eq!(validity.from.to_string(), "2026-01-01T00:00:00.000000Z");
        assert_eq!(
            validity.two_thirds().to_string(),
            "2026-01-21T00:00:00.000000Z"
        );
        assert_eq!(validity.to.to_string(), "2026-01-31T00:00:00.000000Z");
        assert_eq!(Validity::of_pem("no certificate"), None);
        assert_eq!(Validity::of_der(b"no certificate"), None);
    }
}
