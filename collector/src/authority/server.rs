//! A door's certificate, replaced while the door is open.

use std::sync::Arc;

use arc_swap::ArcSwap;
use attestation::time::Timestamp;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Authority, AuthorityError};

/// The certificate that a door shows now.
pub struct ServerCertificate {
    current: ArcSwap<CertifiedKey>,
    authority: Arc<Authority>,
    names: Vec<String>,
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl ServerCertificate {
    /// Issues the first one.
    pub fn new(
        authority: Arc<Authority>,
        names: Vec<String>,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let current = ArcSwap::from_pointee(make(&authority, &names, now)?);
        Ok(Self {
            current,
            authority,
            names,
        })
    }

    /// Replaces it; connections that are open keep theirs.
    pub fn renew(&self, now: Timestamp) -> Result<(), AuthorityError> {
        self.current
            .store(Arc::new(make(&self.authority, &self.names, now)?));
        Ok(())
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// The chain includes the authority's certificate: a joining agent knows only its digest.
fn make(
    authority: &Authority,
    names: &[String],
    now: Timestamp,
) -> Result<CertifiedKey, AuthorityError> {
    let (key, certificate) = authority.issue_door(names, now)?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = any_supported_type(&der).map_err(|source| AuthorityError::Tls { source })?;
    Ok(CertifiedKey::new(
        vec![certificate, authority.certificate().clone()],
        signer,
    ))
}
