//! TLS towards the hub: whom the box believes to be the hub.
//!
//! Three kinds of trust, all with full checks of signatures, of the host name and of the purpose of the certificate:
//!
//! - [`Trust::Pin`] for enrolment: the chain must lead to a CA certificate whose key has the hash that the token names.
//! - [`Trust::Hub`] after it: the chain must lead to a CA certificate of the enrolment's answer.
//! - [`Trust::Public`] for a token without a pin: the system's public roots, and the system's clock.
//!
//! For the first two, time decides nothing. The box's clock may be wrong by decades, and so may the hub's have been for an hour: were
//! a certificate refused because of either, no box could be told so any more. The hub's CA is its own, so that a key of the hub that
//! was lost is answered by another CA, which a renewal brings, and not by waiting; and documents are signed by other keys than TLS.

use crate::identity::Identity;
use holdfast_protocol::{
    Digest,
    tls::{Judge, Shown, Verifier, pinned_roots},
};
use rustls::{
    CertificateError, ClientConfig, Error, RootCertStore,
    client::{
        WebPkiServerVerifier, danger::ServerCertVerifier, verify_server_cert_signed_by_trust_anchor,
        verify_server_name,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};
use std::{sync::Arc, time::Duration};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Whom to believe.
#[derive(Clone, Debug)]
pub enum Trust {
    /// A CA whose key has this hash.
    Pin(Digest),
    /// These CA certificates (PEM), and where `public_roots` says so the public ones too.
    Hub {
        /// CA certificates in PEM.
        ca_certificates: String,
        /// Whether a certificate from public roots will do as well.
        public_roots: bool,
    },
    /// The public roots of the system.
    Public,
}

/// Why TLS could not be set up; nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A CA certificate cannot be read.
    #[error("the hub's CA certificates cannot be read: {reason}")]
    CaCertificates {
        /// What is wrong with them.
        reason: String,
    },
    /// The node's certificate and key cannot be used.
    #[error("the node's certificate cannot be used: {reason}")]
    NodeCertificate {
        /// What is wrong with it.
        reason: String,
    },
    /// The system has no public roots.
    #[error(
        "no public CA certificates were found on this system; install the package ca-certificates, or use a token with a pin"
    )]
    NoPublicRoots,
}

impl Trust {
    /// The trust of an enrolled node.
    pub fn of(identity: &Identity) -> Self {
        Self::Hub {
            ca_certificates: identity.ca_certificates.clone(),
            public_roots: identity.public_roots,
        }
    }
}

/// A configuration that shows no certificate of its own.
pub fn anonymous(trust: &Trust) -> Result<ClientConfig, TlsError> {
    Ok(builder(trust)?.with_no_client_auth())
}

/// A configuration that shows the node's certificate: for MQTT and for blobs. An expired one is shown as well; the hub decides.
pub fn authenticated(identity: &Identity) -> Result<ClientConfig, TlsError> {
    let unusable = |reason: String| TlsError::NodeCertificate { reason };
    let chain = certificates(&identity.certificate).map_err(unusable)?;
    let key: PrivateKeyDer<'static> = identity.key.for_tls();
    builder(&Trust::of(identity))?
        .with_client_auth_cert(chain, key)
        .map_err(|error| unusable(error.to_string()))
}

/// Certificates of a PEM text, at least one.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    if chain.is_empty() {
        return Err("it holds no certificate".into());
    }
    Ok(chain)
}

/// A verifier for servers whose certificates come from these CA certificates (DER), as the Kubernetes of this box: like the hub's, it asks
/// for chain, name and signature, and not for the time, which a box without a battery clock does not know.
pub fn of_own_authority(ca_certificates: &[Vec<u8>]) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in ca_certificates {
        roots
            .add(CertificateDer::from(certificate.clone()))
            .map_err(|error| TlsError::CaCertificates {
                reason: error.to_string(),
            })?;
    }
    Ok(verifier(&ring::default_provider(), Anchors::Roots(roots), None))
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn builder(trust: &Trust) -> Result<Builder, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = match trust {
        Trust::Pin(pin) => verifier(&provider, Anchors::Pin(*pin), None),
        Trust::Hub {
            ca_certificates,
            public_roots,
        } => {
            let mut roots = RootCertStore::empty();
            let unreadable = |reason: String| TlsError::CaCertificates { reason };
            for certificate in certificates(ca_certificates).map_err(unreadable)? {
                roots
                    .add(certificate)
                    .map_err(|error| unreadable(error.to_string()))?;
            }
            let public = if *public_roots {
                Some(public(&provider)?)
            } else {
                None
            };
            verifier(&provider, Anchors::Roots(roots), public)
        }
        Trust::Public => public(&provider)? as Arc<dyn ServerCertVerifier>,
    };
    let versions = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .map_err(|error| TlsError::CaCertificates {
            reason: error.to_string(),
        })?;
    // Not a shortcut around verification: the verifier below checks all but what the module comment names.
    Ok(versions.dangerous().with_custom_certificate_verifier(verifier))
}

fn public(provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|_| TlsError::NoPublicRoots)
}

#[derive(Debug)]
enum Anchors {
    Pin(Digest),
    Roots(RootCertStore),
}

/// Asks for chain and name, whatever the time is, and where that fails the public roots, where they do as well.
#[derive(Debug)]
struct OfHub {
    anchors: Anchors,
    public: Option<Arc<WebPkiServerVerifier>>,
}

impl OfHub {
    fn check(&self, shown: &Shown<'_>, algorithms: &WebPkiSupportedAlgorithms) -> Result<(), Error> {
        let pinned;
        let roots = match &self.anchors {
            Anchors::Roots(roots) => roots,
            Anchors::Pin(pin) => {
                pinned = pinned_roots(*pin, shown.intermediates)?;
                &pinned
            }
        };
        let certificate = ParsedCertificate::try_from(shown.end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            roots,
            shown.intermediates,
            time_of_check(shown.end_entity)?,
            algorithms.all,
        )?;
        verify_server_name(&certificate, shown.server_name)
    }
}

impl Judge for OfHub {
    fn judge(&self, shown: &Shown<'_>, algorithms: &WebPkiSupportedAlgorithms) -> Result<(), Error> {
        let Shown {
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        } = *shown;
        match (self.check(shown, algorithms), &self.public) {
            (Err(_), Some(public)) => public
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map(drop),
            (outcome, _) => outcome,
        }
    }
}

fn verifier(
    provider: &CryptoProvider,
    anchors: Anchors,
    public: Option<Arc<WebPkiServerVerifier>>,
) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Verifier::new(provider, OfHub { anchors, public }))
}

/// The first moment of the certificate's own life: whatever the time is, it was valid then.
fn time_of_check(end_entity: &CertificateDer<'_>) -> Result<UnixTime, Error> {
    let (_, parsed) =
        X509Certificate::from_der(end_entity).map_err(|_| Error::from(CertificateError::BadEncoding))?;
    let begin = u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or_default();
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(begin)))
}
