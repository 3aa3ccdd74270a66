//! What each door demands and shows in the handshake.

use std::path::PathBuf;
use std::sync::Arc;

use attestation::digest::Digest;
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::PeerNode;
use crate::authority::{Authority, ServerCertificate};
use crate::files::{self, FileError};
use crate::settings::TlsFiles;

/// Why a door has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or trusted.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds no certificate or key.
    #[error("{} holds no {what}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The authority's certificate cannot be trusted by the library.
    #[error("the agents' authority cannot be used")]
    Verifier {
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The library refuses the certificate or the provider.
    #[error("TLS cannot be set up")]
    Setup {
        /// Why not.
        #[source]
        source: rustls::Error,
    },
}

/// The agents' door: a certificate of the agents' authority is required in the handshake.
pub fn agents_tls(
    authority: &Authority,
    certificate: Arc<ServerCertificate>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(authority.certificate().clone())
        .map_err(|source| TlsError::Verifier {
            source: Box::new(source),
        })?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|source| TlsError::Verifier {
            source: Box::new(source),
        })?;
    let builder = versions()?.with_client_cert_verifier(verifier);
    Ok(finished(builder.with_cert_resolver(certificate)))
}

/// The joining door: TLS without client certificates.
pub fn joining_tls(certificate: Arc<ServerCertificate>) -> Result<Arc<ServerConfig>, TlsError> {
    own_tls(certificate)
}

/// The people's door: the configured certificate, else one of the people's authority.
pub fn people_tls(
    configured: Option<&TlsFiles>,
    certificate: Arc<ServerCertificate>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let Some(configured) = configured else {
        return own_tls(certificate);
    };
    let pem = files::read_trusted(&configured.certificate)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .filter_map(Result::ok)
        .collect();
    if chain.is_empty() {
        return Err(TlsError::Parse {
            path: configured.certificate.clone(),
            what: "certificate",
        });
    }
    let key = zeroize::Zeroizing::new(files::read_secret(&configured.key)?);
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_bad| TlsError::Parse {
        path: configured.key.clone(),
        what: "private key",
    })?;
    let config = versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|source| TlsError::Setup { source })?;
    Ok(finished(config))
}

/// The node that a client certificate names: the common name, which only our authority writes.
pub(super) fn node_of(certificate: &CertificateDer<'_>) -> Option<PeerNode> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = certificate
        .subject()
        .iter_common_name()
        .next()?
        .as_str()
        .ok()?;
    Some(PeerNode {
        id: name.into(),
        key: Digest::of(certificate.public_key().raw),
    })
}

fn own_tls(certificate: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, TlsError> {
    Ok(finished(
        versions()?
            .with_no_client_auth()
            .with_cert_resolver(certificate),
    ))
}

fn versions() -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, TlsError> {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Setup { source })
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn finished(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}
