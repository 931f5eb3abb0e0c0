//! Whom a client of the hub believes: what is the same for nodes and for people.
//!
//! In: what a server shows. Out: whether it is believed. Guarantees: the signature of the handshake is always verified; a CA is believed by its key alone
//! where that was confirmed beforehand. What else is asked for, such as the time, each client says itself: see [`Judge`].

use crate::{Digest, enrol::key_pin};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::fmt::Debug;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The most certificates that a server may send beside its own; more is refused before any is parsed.
const MAX_CHAIN: usize = 8;

/// What a server shows.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Its own certificate.
    pub end_entity: &'a CertificateDer<'a>,
    /// Those it sends with it.
    pub intermediates: &'a [CertificateDer<'a>],
    /// The name that it was called by.
    pub server_name: &'a ServerName<'a>,
    /// What it says of a revocation.
    pub ocsp_response: &'a [u8],
    /// This machine's time.
    pub now: UnixTime,
}

/// Says whether the certificates of a server prove who it is.
pub trait Judge: Debug + Send + Sync {
    /// Checks what was shown, as to `algorithms`.
    ///
    /// # Errors
    /// Why it proves nothing.
    fn judge(&self, shown: &Shown<'_>, algorithms: &WebPkiSupportedAlgorithms) -> Result<(), Error>;
}

/// A verifier of servers that asks a judge for the certificates, and verifies the rest itself.
#[derive(Debug)]
pub struct Verifier<J> {
    judge: J,
    algorithms: WebPkiSupportedAlgorithms,
}

impl<J: Judge> Verifier<J> {
    /// A verifier with the algorithms of `provider`.
    pub fn new(provider: &CryptoProvider, judge: J) -> Self {
        Self {
            judge,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    /// Its judge.
    pub fn judge(&self) -> &J {
        &self.judge
    }
}

impl<J: Judge> ServerCertVerifier for Verifier<J> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if intermediates.len() >= MAX_CHAIN {
            return Err(CertificateError::BadEncoding.into());
        }
        let shown = Shown {
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        };
        self.judge.judge(&shown, &self.algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The CA certificates among those that a server sent whose key has the pinned digest. They become the only anchors, so that the rest
/// of the chain must be signed by that key.
///
/// # Errors
/// One that cannot be read, or none with that key.
pub fn pinned_roots(pin: Digest, sent: &[CertificateDer<'_>]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in sent {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return Err(CertificateError::BadEncoding.into());
        };
        if parsed.is_ca() && key_pin(parsed.public_key().raw) == pin {
            roots.add(certificate.clone().into_owned())?;
        }
    }
    if roots.is_empty() {
        return Err(CertificateError::UnknownIssuer.into());
    }
    Ok(roots)
}
