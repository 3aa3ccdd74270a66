//! Who the agent believes at the other end, and how it shows who it is itself.

mod dated;

use std::sync::Arc;

use attestation::digest::Digest;
use attestation::time::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use self::dated::Dated;

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The CA's certificate does not parse.
    #[error("read the certificate of the CA: {0}")]
    Ca(String),
    /// The node's own certificate does not parse.
    #[error("read the certificate of this node: {0}")]
    Certificate(String),
    /// No protocol version is left.
    #[error("choose TLS versions")]
    Versions(#[source] rustls::Error),
    /// The process that speaks with the network cannot be started.
    #[error("start the network process")]
    Child(#[source] std::io::Error),
    /// The HTTP client cannot be made.
    #[error("make the HTTP client")]
    Client(#[source] reqwest::Error),
}

/// How the joining door proves that it is the right one.
#[derive(Clone, Debug)]
pub enum CaTrust {
    /// SHA-256 of the CA certificate's DER, from a join token: the door's chain must include that certificate.
    Digest(Digest),
    /// The CA certificate itself, PEM.
    Pem(String),
}

/// For the joining door: no client certificate. `heard` is the newest time in a receipt (see [`dated`]).
pub fn joining(trust: &CaTrust, heard: Option<Timestamp>) -> Result<ClientConfig, TlsError> {
    let inner: Arc<dyn ServerCertVerifier> = match trust {
        CaTrust::Digest(digest) => Arc::new(NamedCa::new(*digest)),
        CaTrust::Pem(pem) => pinned(pem)?,
    };
    Ok(versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Dated::new(inner, heard)))
        .with_no_client_auth())
}

/// For the agents' door: the CA is pinned, the node shows its certificate. TLS 1.3 only: what its client signs can be
/// told from everything else that the node's key signs. `heard` is the newest time in a receipt.
pub fn agents(
    ca: &str,
    certificate: &str,
    key: Arc<dyn SigningKey>,
    heard: Option<Timestamp>,
) -> Result<ClientConfig, TlsError> {
    let chain = certificates(certificate).map_err(TlsError::Certificate)?;
    let resolver = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Versions)?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Dated::new(pinned(ca)?, heard)))
        .with_client_cert_resolver(Arc::new(resolver)))
}

/// The HTTP client over one of the two: one connection, kept open, nothing waits to be filled up.
pub fn client(
    config: ClientConfig,
    names: impl reqwest::dns::Resolve + 'static,
) -> Result<reqwest::Client, TlsError> {
    use std::time::Duration;
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .dns_resolver(Arc::new(names))
        .https_only(true)
        // Through a proxy the handshake would be somebody else's.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(15))
        .pool_idle_timeout(Duration::from_secs(3600))
        .pool_max_idle_per_host(1)
        .connect_timeout(Duration::from_secs(5))
        .user_agent(concat!("pristine-agent/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(TlsError::Client)
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))
}

fn versions() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)
}

/// Every certificate of a PEM text; none is an error.
fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    if chain.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    Ok(chain)
}

/// Believes what the CA in a PEM text has signed.
fn pinned(pem: &str) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots(pem)?), provider())
        .build()
        .map_err(|error| TlsError::Ca(error.to_string()))
}

fn roots(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem).map_err(TlsError::Ca)? {
        store
            .add(certificate)
            .map_err(|error| TlsError::Ca(error.to_string()))?;
    }
    Ok(store)
}

/// Believes a chain that includes the CA certificate with one digest and is signed by it, for the name asked for.
#[derive(Debug)]
struct NamedCa {
    digest: Digest,
    provider: Arc<CryptoProvider>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl NamedCa {
    fn new(digest: Digest) -> Self {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        Self {
            digest,
            provider,
            algorithms,
        }
    }
}

impl ServerCertVerifier for NamedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| Digest::of(certificate.as_ref()) == self.digest)
            .ok_or(rustls::Error::InvalidCertificate(
                rustls::CertificateError::UnknownIssuer,
            ))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use super::*;

    struct Pki {
        ca: CertificateDer<'static>,
        leaf: CertificateDer<'static>,
    }

    fn pki(name: &str) -> Pki {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = parameters.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(parameters, ca_key);
        let leaf_key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&leaf_key, &issuer)
            .unwrap();
        Pki {
            ca: ca.der().clone(),
            leaf: leaf.der().clone(),
        }
    }

    fn check(digest: Digest, chain: &[&CertificateDer<'static>], name: &str) -> bool {
        let (leaf, rest) = chain.split_first().unwrap();
        let rest: Vec<_> = rest
            .iter()
            .map(|certificate| (*certificate).clone())
            .collect();
        NamedCa::new(digest)
            .verify_server_cert(
                leaf,
                &rest,
                &ServerName::try_from(name.to_owned()).unwrap(),
                &[],
                UnixTime::now(),
            )
            .is_ok()
    }

    #[test]
    fn only_the_named_ca_vouches_for_the_joining_door() {
        let right = pki("join.example");
        let wrong = pki("join.example");
        let digest = Digest::of(right.ca.as_ref());
        assert!(check(digest, &[&right.leaf, &right.ca], "join.example"));
        assert!(!check(digest, &[&right.leaf, &right.ca], "other.example"));
        assert!(!check(digest, &[&right.leaf], "join.example"));
        assert!(!check(digest, &[&wrong.leaf, &wrong.ca], "join.example"));
        // The right CA shown beside somebody else's leaf proves nothing.
        assert!(!check(digest, &[&wrong.leaf, &right.ca], "join.example"));
        assert!(!check(digest, &[&right.ca, &right.ca], "join.example"));
    }
}
