//! How the hub proves to be the hub: by a CA key that the operator confirmed, by CA certificates from a file, or by the system's roots.
//!
//! A hub makes its own CA, so a fresh one is unknown to every machine. It is never trusted on first sight: [`look`] reads the
//! certificate that is shown and ends the connection before anything is sent, so that the operator can compare the pin.

use crate::{
    codes,
    failure::{Failure, Result},
};
use holdfast_protocol::{
    Digest, codes as shared,
    enrol::key_pin,
    tls::{Judge, Shown, Verifier, pinned_roots},
};
use rustls::{
    CertificateError, ClientConfig, Error, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
    pki_types::{CertificateDer, pem::PemObject as _},
};
use std::sync::{Arc, Mutex};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What the hub's certificate must be signed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The CA whose key has this digest.
    Pin(Digest),
    /// One of these CA certificates (PEM).
    Certificates(String),
    /// One of the system's roots.
    System,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// TLS settings for this trust; none where reqwest's own (the system's roots) are to be used.
pub fn config(trust: &Trust) -> Result<Option<ClientConfig>> {
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::System => return Ok(None),
        Trust::Pin(pin) => {
            let judge = Pinned {
                pin: *pin,
                provider: provider(),
            };
            Arc::new(Verifier::new(&provider(), judge))
        }
        Trust::Certificates(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|error| bad_ca(&error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| bad_ca(&error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(bad_ca("there is no certificate in it"));
            }
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
                .build()
                .map_err(|error| bad_ca(&error.to_string()))?
        }
    };
    with_verifier(verifier).map(Some)
}

/// TLS settings that trust nobody, for connections without TLS.
pub fn nobody() -> Result<ClientConfig> {
    with_verifier(Arc::new(Verifier::new(&provider(), Looker::default())))
}

fn bad_ca(reason: &str) -> Failure {
    Failure::new(
        codes::FILE_UNREADABLE,
        format!("the CA certificate cannot be used: {reason}"),
        "give the hub's ca.pem, in PEM form",
    )
}

fn with_verifier(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            Failure::new(
                shared::INTERNAL,
                format!("TLS cannot be set up: {error}"),
                "report this as a bug",
            )
        })?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

/// The pin of a certificate's key.
fn pin_of(certificate: &CertificateDer<'_>) -> Option<Digest> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(key_pin(parsed.public_key().raw))
}

/// Trusts the one CA among the shown certificates whose key has the pin, and verifies all the rest as usual.
#[derive(Debug)]
struct Pinned {
    pin: Digest,
    provider: Arc<CryptoProvider>,
}

impl Judge for Pinned {
    fn judge(&self, shown: &Shown<'_>, _: &WebPkiSupportedAlgorithms) -> std::result::Result<(), Error> {
        let roots = pinned_roots(self.pin, shown.intermediates)?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(
                shown.end_entity,
                shown.intermediates,
                shown.server_name,
                shown.ocsp_response,
                shown.now,
            )
            .map(drop)
    }
}

/// Remembers what it is shown and refuses it.
#[derive(Debug, Default)]
struct Looker {
    seen: Mutex<Option<Digest>>,
}

impl Judge for Looker {
    fn judge(&self, shown: &Shown<'_>, _: &WebPkiSupportedAlgorithms) -> std::result::Result<(), Error> {
        // A hub sends its own certificate first and its CA's last.
        let pin = shown
            .intermediates
            .last()
            .or(Some(shown.end_entity))
            .and_then(pin_of);
        if let Ok(mut seen) = self.seen.lock() {
            *seen = pin;
        }
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }
}

/// The pin of the CA that the server at `url` shows; nothing is sent to it, and nothing of it is trusted.
pub async fn look(url: &str) -> Option<Digest> {
    let looker = Arc::new(Verifier::new(&provider(), Looker::default()));
    let config = with_verifier(Arc::clone(&looker) as Arc<dyn ServerCertVerifier>).ok()?;
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(std::time::Duration::from_secs(15))
        .build()
        .ok()?;
    // The handshake is refused by the looker, so this always fails, after the certificate was seen.
    let _ = client.head(url).send().await;
    looker.judge().seen.lock().ok().and_then(|seen| *seen)
}
