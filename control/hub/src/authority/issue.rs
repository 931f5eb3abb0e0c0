//! Certificates: what is asked for, and what is issued. X.509 v3, ECDSA P-256 with SHA-256.

use super::keys::{KeyError, pem};
use crate::files;
use holdfast_protocol::{
    Digest,
    enrol::key_pin,
    seal,
    sealing::{SealingKeyStatement, SealingPublicKey},
};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, RevocationReason, RevokedCertParams, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use ring::{
    rand::{SecureRandom as _, SystemRandom},
    signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey},
};
use std::{fmt::Write as _, net::IpAddr, path::Path, time::Duration};
use x509_parser::prelude::{FromDer as _, GeneralName, X509CertificationRequest};

/// Lifetime of the CA: it cannot be changed without enrolling every node again, so it outlives them.
const CA_LIFETIME: Duration = Duration::from_secs(40 * 366 * 86_400);

/// How far back a certificate starts at most, for clocks that are behind; never more than a tenth of its life, so that the
/// renewal at two thirds of it lies ahead however short it is.
const BACKDATED: Duration = Duration::from_secs(24 * 3_600);

/// How long a revocation list counts; a new one is written on each start and each revocation.
const REVOCATION_LIST_LIFETIME: Duration = Duration::from_secs(3_650 * 86_400);

/// The longest request that is looked at, in bytes of PEM. One with a P-256 key has about 500.
const MAX_REQUEST_BYTES: usize = 8 * 1024;

/// A time as `rcgen` takes it (its type is of a crate that is not needed otherwise): seconds since 1970; those before count as 0.
macro_rules! moment {
    ($seconds:expr) => {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from($seconds).unwrap_or_default())
    };
}

/// A checked certificate request: signed by the key that it names, and that key is one we take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    key: SubjectPublicKeyInfo,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub key_digest: Digest,
}

/// Why a certificate request cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Not a request at all.
    #[error("the certificate request cannot be read: {0}")]
    Malformed(String),
    /// Another kind of key.
    #[error("the certificate request is for a key that is not ECDSA P-256")]
    KeyKind,
    /// Not signed by the key itself.
    #[error("the certificate request is not signed by the key that it names")]
    Signature,
}

impl Request {
    /// Reads and checks a request in PEM.
    pub fn from_pem(text: &str) -> Result<Self, CsrError> {
        let malformed = |reason: &dyn ToString| CsrError::Malformed(reason.to_string());
        if text.len() > MAX_REQUEST_BYTES {
            return Err(malformed(&format!(
                "it has {} bytes; at most {MAX_REQUEST_BYTES}",
                text.len()
            )));
        }
        let (_, block) =
            x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|error| malformed(&error))?;
        if block.label != "CERTIFICATE REQUEST" {
            return Err(malformed(&format!("it is a {:?}", block.label)));
        }
        let (rest, request) =
            X509CertificationRequest::from_der(&block.contents).map_err(|error| malformed(&error))?;
        if !rest.is_empty() {
            return Err(malformed(&"there is more after its end"));
        }
        let raw = request.certification_request_info.subject_pki.raw;
        let key = SubjectPublicKeyInfo::from_der(raw).map_err(|_| CsrError::KeyKind)?;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(CsrError::KeyKind);
        }
        request.verify_signature().map_err(|_| CsrError::Signature)?;
        Ok(Self {
            key_digest: key_pin(raw),
            key,
        })
    }

    /// The sealing key of a statement that this request's key signed; none where another key did, or nothing can be sealed to it.
    pub fn sealing_key(&self, statement: &SealingKeyStatement) -> Option<SealingPublicKey> {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.key.der_bytes());
        let signed = SealingKeyStatement::signed_bytes(&statement.key);
        key.verify(&signed, &statement.signature).ok()?;
        seal::seal(&statement.key, "probe", b"").ok()?;
        Some(statement.key)
    }
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// PEM.
    pub pem: String,
    /// Digest of the DER form.
    pub fingerprint: Digest,
    /// Serial number in hex.
    pub serial: String,
    /// Its end.
    pub not_after: Timestamp,
}

/// The CA's own certificate, in PEM.
pub(super) fn self_signed(key: &KeyPair) -> Result<String, KeyError> {
    let mut params = params("Holdfast hub CA", CA_LIFETIME)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(key).map_err(|error| KeyError::issue(&error))?;
    Ok(pem("CERTIFICATE", certificate.der()))
}

pub(super) fn node(
    issuer: &Issuer<'_, KeyPair>,
    request: &Request,
    node: &str,
    lifetime: Duration,
) -> Result<Issued, KeyError> {
    let mut params = params(node, lifetime)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let not_after = params.not_after.unix_timestamp();
    let serial = params
        .serial_number
        .as_ref()
        .map(|serial| hex(serial.as_ref()))
        .unwrap_or_default();
    let certificate = params
        .signed_by(&request.key, issuer)
        .map_err(|error| KeyError::issue(&error))?;
    Ok(Issued {
        pem: pem("CERTIFICATE", certificate.der()),
        fingerprint: Digest::of(certificate.der()),
        serial,
        not_after: Timestamp::from_second(not_after).map_err(|error| KeyError::issue(&error))?,
    })
}

/// A certificate (PEM, without the CA's) and its new key (PEM) for a server that also connects to brokers as a client.
pub(super) fn server(
    issuer: &Issuer<'_, KeyPair>,
    common_name: &str,
    names: &[String],
    lifetime: Duration,
) -> Result<(String, String), KeyError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| KeyError::issue(&error))?;
    let mut params = params(common_name, lifetime)?;
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(|_| {
                KeyError::issue(&format!("{name:?} is neither a DNS name nor an IP address"))
            })?),
        });
    }
    let certificate = params
        .signed_by(&key, issuer)
        .map_err(|error| KeyError::issue(&error))?;
    Ok((pem("CERTIFICATE", certificate.der()), key.serialize_pem()))
}

/// The moment at which the hub's certificate should be renewed: at two thirds of its life. None where it cannot be used at all: missing,
/// of another CA, or without one of `names`.
pub(super) fn due(certificate: &Path, key: &Path, ca_pem: &str, names: &[String]) -> Option<Timestamp> {
    // A key that others could read is replaced.
    (files::foreign_mode(key).ok()? == 0).then_some(())?;
    let pem = std::fs::read(certificate).ok()?;
    let pair = KeyPair::from_pem(&std::fs::read_to_string(key).ok()?).ok()?;
    let (_, block) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
    let parsed = block.parse_x509().ok()?;
    let (_, ca_block) = x509_parser::pem::parse_x509_pem(ca_pem.as_bytes()).ok()?;
    let ca = ca_block.parse_x509().ok()?;
    parsed.verify_signature(Some(ca.public_key())).ok()?;
    if parsed.public_key().raw != pair.subject_public_key_info() {
        return None;
    }
    let named = parsed.subject_alternative_name().ok()??;
    let has = |name: &String| {
        named.value.general_names.iter().any(|general| match general {
            GeneralName::DNSName(dns) => dns == name,
            GeneralName::IPAddress(bytes) => match name.parse::<IpAddr>() {
                Ok(IpAddr::V4(address)) => *bytes == address.octets(),
                Ok(IpAddr::V6(address)) => *bytes == address.octets(),
                Err(_) => false,
            },
            _ => false,
        })
    };
    if !names.iter().all(has) {
        return None;
    }
    let start = parsed.validity().not_before.timestamp();
    let end = parsed.validity().not_after.timestamp();
    Timestamp::from_second(start + (end - start) / 3 * 2).ok()
}

pub(super) fn revocation_list(
    issuer: &Issuer<'_, KeyPair>,
    number: i64,
    revoked: &[(String, Timestamp)],
) -> Result<String, KeyError> {
    let now = Timestamp::now();
    let list = CertificateRevocationListParams {
        this_update: moment!(now.as_second() - BACKDATED.as_secs().cast_signed()),
        next_update: moment!(now.as_second() + REVOCATION_LIST_LIFETIME.as_secs().cast_signed()),
        crl_number: SerialNumber::from(number.unsigned_abs()),
        issuing_distribution_point: None,
        revoked_certs: revoked
            .iter()
            .map(|(serial, at)| {
                Ok(RevokedCertParams {
                    serial_number: SerialNumber::from(unhex(serial)?),
                    revocation_time: moment!(at.as_second()),
                    reason_code: Some(RevocationReason::CessationOfOperation),
                    invalidity_date: None,
                })
            })
            .collect::<Result<_, KeyError>>()?,
        key_identifier_method: KeyIdMethod::Sha256,
    }
    .signed_by(issuer)
    .map_err(|error| KeyError::issue(&error))?;
    Ok(pem("X509 CRL", list.der()))
}

fn params(common_name: &str, lifetime: Duration) -> Result<CertificateParams, KeyError> {
    let now = Timestamp::now();
    let end = now
        .checked_add(SignedDuration::try_from(lifetime).map_err(|error| KeyError::issue(&error))?)
        .map_err(|error| KeyError::issue(&error))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let backdated = BACKDATED.min(lifetime / 10);
    params.not_before = moment!(now.as_second() - backdated.as_secs().cast_signed());
    params.not_after = moment!(end.as_second());
    params.serial_number = Some(random_serial()?);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// 127 random bits: positive and unguessable, as RFC 5280 and the CA/Browser Forum ask.
fn random_serial() -> Result<SerialNumber, KeyError> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|error| KeyError::issue(&error))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from(bytes.to_vec()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Result<Vec<u8>, KeyError> {
    (0..text.len())
        .step_by(2)
        .map(|at| {
            text.get(at..at + 2)
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or_else(|| KeyError::issue(&format!("serial number {text:?} is not hex")))
        })
        .collect()
}
