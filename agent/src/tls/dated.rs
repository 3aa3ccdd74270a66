//! The collector's certificate in the eyes of a node whose clock may be a year off.
//!
//! A machine without a battery, or one that was off for a year, must still reach its collector: what it has to tell is
//! wanted most then. So name, chain and key are always checked, and the time by this node's clock first. Where only the
//! time is against a certificate it counts all the same, unless it was over before the collector was last heard: that
//! moment comes from receipts, which are signed by another key than the door's, so no clock can make it earlier.
//!
//! What that gives away: a door's key lies in the memory of the collector alone and is made anew at each start and each
//! day. Who stole an old one can pretend to be the door to a node that has not heard the collector since; but not sign
//! a receipt or an assignment, so the node takes no order from it, drops nothing, and is told silent by the real one.

use std::sync::Arc;
use std::time::Duration;

use attestation::time::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::certificate::Validity;

/// A verifier that forgives the time where this node's clock may be what is wrong.
#[derive(Debug)]
pub(super) struct Dated {
    inner: Arc<dyn ServerCertVerifier>,
    /// The newest time in a receipt.
    heard: Option<Timestamp>,
}

impl Dated {
    pub(super) fn new(inner: Arc<dyn ServerCertVerifier>, heard: Option<Timestamp>) -> Self {
        Self { inner, heard }
    }
}

impl ServerCertVerifier for Dated {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = |at| {
            self.inner
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at)
        };
        let refused = match verify(now) {
            Err(error) if is_of_time(&error) => error,
            other => return other,
        };
        let moment = Validity::of_der(end_entity).and_then(|of| moment(&of, self.heard));
        let Some(moment) = moment else {
            tracing::error!(
                "the collector's certificate was over before it was last heard: set this node's clock"
            );
            return Err(refused);
        };
        let verified = verify(moment)?;
        tracing::warn!(by_clock = %refused, "this node's clock and the collector's certificate do not agree; only the time is against it");
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Whether only the time is against a certificate.
fn is_of_time(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
        )
    )
}

/// A moment at which the certificate is good and which may be now, for all that was heard.
fn moment(validity: &Validity, heard: Option<Timestamp>) -> Option<UnixTime> {
    let heard = heard.unwrap_or(validity.from);
    if heard > validity.to || validity.from > validity.to {
        return None;
    }
    let micros = u64::try_from(heard.max(validity.from).as_micros()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(
        // A certificate's times are whole seconds: never before its first.
        micros.div_ceil(1_000_000),
    )))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;

    use super::*;

    const YEAR: u64 = 365 * 86_400;

    struct Door {
        leaf: CertificateDer<'static>,
        roots: RootCertStore,
    }

    /// A door's certificate for September 2026.
    fn door() -> Door {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = parameters.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(parameters, ca_key);
        let mut leaf = rcgen::CertificateParams::new(vec!["door.example".to_owned()]).unwrap();
        leaf.not_before = rcgen::date_time_ymd(2026, 9, 1);
        leaf.not_after = rcgen::date_time_ymd(2026, 10, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        Door {
            leaf: leaf.der().clone(),
            roots,
        }
    }

    fn seconds(text: &str) -> u64 {
        let time: Timestamp = text.parse().unwrap();
        u64::try_from(time.as_micros()).unwrap() / 1_000_000
    }

    fn check(door: &Door, name: &str, now: u64, heard: Option<&str>) -> bool {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let inner =
            WebPkiServerVerifier::builder_with_provider(Arc::new(door.roots.clone()), provider)
                .build()
                .unwrap();
        let heard = heard.map(|text| text.parse().unwrap());
        Dated::new(inner, heard)
            .verify_server_cert(
                &door.leaf,
                &[],
                &ServerName::try_from(name.to_owned()).unwrap(),
                &[],
                UnixTime::since_unix_epoch(Duration::from_secs(now)),
            )
            .is_ok()
    }

    #[test]
    fn a_clock_a_year_off_keeps_no_node_from_its_collector() {
        let door = door();
        let right = seconds("2026-09-15T00:00:00.000000Z");
        for now in [right, right + YEAR, right - YEAR, 0] {
            assert!(check(&door, "door.example", now, None), "{now}");
            let heard = Some("2026-09-14T00:00:00.000000Z");
            assert!(check(&door, "door.example", now, heard), "{now}");
            let before_it_began = Some("2026-03-01T00:00:00.000000Z");
            assert!(check(&door, "door.example", now, before_it_began), "{now}");
        }
    }

    #[test]
    fn what_was_over_when_the_collector_was_last_heard_is_over() {
        let door = door();
        let right = seconds("2026-09-15T00:00:00.000000Z");
        let later = Some("2026-10-02T00:00:00.000000Z");
        assert!(!check(&door, "door.example", right + YEAR, later));
        assert!(!check(&door, "door.example", right - YEAR, later));
        // A collector whose clock was wrong once does not lock out a node whose clock is right.
        assert!(check(&door, "door.example", right, later));
    }

    #[test]
    fn the_wrong_name_or_authority_is_refused_whatever_the_time() {
        let (one, other) = (door(), door());
        let strange = Door {
            leaf: one.leaf.clone(),
            roots: other.roots,
        };
        let right = seconds("2026-09-15T00:00:00.000000Z");
        for now in [right, right + YEAR, right - YEAR] {
            assert!(!check(&one, "other.example", now, None));
            assert!(!check(&strange, "door.example", now, None));
        }
    }
}
