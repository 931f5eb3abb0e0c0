//! TLS of the API listener: the hub's own certificate, exchangeable while it runs, and client certificates that are optional.
//!
//! Guarantee: a client certificate that comes through is of this hub's CA and its holder proved to have the key. It may be expired: a box that
//! was dark for long must be able to talk to the hub; handlers look at the dates where they matter.

use crate::broker::BrokerTls;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, ring},
    server::{
        ClientHello, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _};
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

/// The hub's certificate in use.
#[derive(Debug)]
pub struct Certificate {
    files: BrokerTls,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads the certificate and its key.
    pub fn read(files: BrokerTls) -> anyhow::Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let current = RwLock::new(Arc::new(load(&files, &provider)?));
        Ok(Self {
            files,
            provider,
            current,
        })
    }

    /// Reads them again, for connections from now on.
    pub fn reload(&self) -> anyhow::Result<()> {
        let new = Arc::new(load(&self.files, &self.provider)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

fn load(files: &BrokerTls, provider: &CryptoProvider) -> anyhow::Result<CertifiedKey> {
    let chain = CertificateDer::pem_file_iter(&files.certificate_file)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&files.key_file)?;
    Ok(CertifiedKey::from_der(chain, key, provider)?)
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.current.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

/// Settings of the API listener.
pub fn server_config(certificate: Arc<Certificate>) -> anyhow::Result<ServerConfig> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(&certificate.files.ca_file)? {
        roots.add(root?)?;
    }
    let provider = Arc::clone(&certificate.provider);
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(OfAnyAge(inner)))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Checks client certificates as of their own time where the present time is past their end.
#[derive(Debug)]
struct OfAnyAge(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for OfAnyAge {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Everything but the date is checked in the same way: the chain is built as of the certificate's last second.
        let end = x509_parser::parse_x509_certificate(end_entity)
            .ok()
            .and_then(|(_, certificate)| u64::try_from(certificate.validity().not_after.timestamp()).ok())
            .map(|seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
        let at = end.map_or(now, |end| end.min(now));
        self.0.verify_client_cert(end_entity, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
