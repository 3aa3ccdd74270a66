//! Certificate requests: only their key and their proof of possession count; every name in them is ignored.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// Why a certificate request is refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It is no PEM.
    #[error("the certificate request is no PEM")]
    Pem,
    /// It is no PKCS#10.
    #[error("the certificate request cannot be parsed")]
    Parse,
    /// Its signature is not by its key.
    #[error("the certificate request is not signed by its own key")]
    Signature,
}

/// The DER SPKI of a request whose signature is by that key.
pub fn public_key_of(pem: &str) -> Result<Vec<u8>, RequestError> {
    let (_, pem) =
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_bad| RequestError::Pem)?;
    let (_, request) =
        X509CertificationRequest::from_der(&pem.contents).map_err(|_bad| RequestError::Parse)?;
    request
        .verify_signature()
        .map_err(|_bad| RequestError::Signature)?;
    Ok(request.certification_request_info.subject_pki.raw.to_vec())
}
