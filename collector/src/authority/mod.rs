//! Two certificate authorities that know nothing of each other: the agents' one signs nodes' client certificates and the
//! certificates of the agents' and joining doors; the people's one signs the people's door where no certificate is configured.

mod request;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use attestation::digest::Digest;
use attestation::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::files::{self, FileError};

pub use self::request::{RequestError, public_key_of};
pub use self::server::ServerCertificate;

/// A door's certificate; made anew at each start and each day.
const DOOR_DAYS: u64 = 90;
/// An authority outlives its collectors.
const AUTHORITY_DAYS: u64 = 3_650;
/// Certificates begin a while ago, for collectors' clocks differ; short ones no more than a tenth of their life.
const BACKDATED: u64 = 3_600;
const DAY: u64 = 86_400;

/// Why an authority cannot be had, or does not sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read, written or trusted.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate in a file cannot be parsed.
    #[error("{} holds no certificate", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
    },
    /// A certificate or key could not be made.
    #[error("cannot make a certificate")]
    Make {
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// The system gives no random bytes.
    #[error("no random bytes")]
    Random,
    /// A key cannot be used for TLS.
    #[error("the key cannot be used for TLS")]
    Tls {
        /// Why not.
        #[source]
        source: rustls::Error,
    },
}

impl From<rcgen::Error> for AuthorityError {
    fn from(source: rcgen::Error) -> Self {
        Self::Make { source }
    }
}

/// A certificate authority: its key and its certificate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// A certificate that was issued.
pub struct Issued {
    /// Hex.
    pub serial: String,
    /// PEM, as the node gets it.
    pub pem: String,
    /// DER.
    pub der: Vec<u8>,
    /// Until when it is good.
    pub expires: Timestamp,
}

impl Authority {
    /// Makes an authority below a state directory: `ROLE-ca.key` and `ROLE-ca.pem`.
    pub fn create(state: &Path, role: &str, now: Timestamp) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("Pristine {role} CA"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, now, AUTHORITY_DAYS * DAY)?;
        let certificate = params.self_signed(&key)?;
        files::write_new(
            &key_file(state, role),
            key.serialize_pem().as_bytes(),
            0o600,
        )?;
        files::write_new(
            &certificate_file(state, role),
            certificate.pem().as_bytes(),
            0o644,
        )?;
        Self::load(state, role)
    }

    /// Reads an authority.
    pub fn load(state: &Path, role: &str) -> Result<Self, AuthorityError> {
        let key = zeroize::Zeroizing::new(files::read_secret(&key_file(state, role))?);
        let path = certificate_file(state, role);
        let pem = files::read_trusted(&path)?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_bad| AuthorityError::Parse { path: path.clone() })?
            .into_owned();
        let issuer = Issuer::from_ca_cert_der(&certificate, KeyPair::from_pem(&key)?)?;
        Ok(Self {
            issuer,
            certificate,
            pem,
        })
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The authority's certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the certificate's DER: what a join token carries.
    pub fn sha256(&self) -> Digest {
        Digest::of(&self.certificate)
    }

    /// A client certificate for a node's public key (DER SPKI), good for so many seconds; its common name is the node id.
    pub fn issue_node(
        &self,
        node: &str,
        spki: &[u8],
        now: Timestamp,
        seconds: u64,
    ) -> Result<Issued, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(node);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        let expires = valid(&mut params, now, seconds)?;
        let serial = serial(&mut params)?;
        let key = SubjectPublicKeyInfo::from_der(spki)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            serial,
            pem: certificate.pem(),
            der: certificate.der().to_vec(),
            expires,
        })
    }

    /// A fresh key and certificate for a door with these names.
    fn issue_door(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<(KeyPair, CertificateDer<'static>), AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name =
            named(names.first().map_or("pristine-collector", String::as_str));
        for name in names {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now, DOOR_DAYS * DAY)?;
        serial(&mut params)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((key, certificate.der().clone()))
    }
}

/// Where an authority's certificate lies.
pub fn certificate_file(state: &Path, role: &str) -> PathBuf {
    state.join(format!("{role}-ca.pem"))
}

fn key_file(state: &Path, role: &str) -> PathBuf {
    crate::keys::directory(state).join(format!("{role}-ca.key"))
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn valid(
    params: &mut CertificateParams,
    now: Timestamp,
    seconds: u64,
) -> Result<Timestamp, AuthorityError> {
    let now_secs = u64::try_from(now.as_micros() / 1_000_000).unwrap_or(0);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before =
        epoch + Duration::from_secs(now_secs.saturating_sub(BACKDATED.min(seconds / 10)));
    params.not_after = epoch + Duration::from_secs(now_secs.saturating_add(seconds));
    Ok(crate::clock::after(now, seconds))
}

fn serial(params: &mut CertificateParams) -> Result<String, AuthorityError> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_none| AuthorityError::Random)?;
    // Positive, and never shorter when written.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&bytes));
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
