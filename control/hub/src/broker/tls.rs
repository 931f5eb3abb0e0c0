//! TLS of brokers: the files of [`BrokerTls`] in, rustls configurations and the node's name out of a certificate.
//!
//! Guarantees: a client without a certificate of the hub's CA, or with an expired one, never gets past the handshake; TLS
//! sessions are never resumed, so every connection shows its certificate anew.

use super::{BrokerError, BrokerTls};
use holdfast_protocol::NodeId;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{fmt::Display, path::Path, sync::Arc};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Server side of the embedded broker: TLS 1.2 and 1.3, a client certificate of the hub's CA demanded.
pub(super) fn server_config(files: &BrokerTls) -> Result<ServerConfig, BrokerError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(files)?), provider.clone())
        .build()
        .map_err(|error| unusable(&files.ca_file, error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| BrokerError::Start(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(files)?, key(files)?)
        .map_err(|error| unusable(&files.certificate_file, error))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Client side of the hub towards an external broker, with the hub's own certificate.
pub(super) fn client_config(files: &BrokerTls) -> Result<ClientConfig, BrokerError> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| BrokerError::Start(error.to_string()))?
        .with_root_certificates(roots(files)?)
        .with_client_auth_cert(chain(files)?, key(files)?)
        .map_err(|error| unusable(&files.certificate_file, error))
}

/// The node that a certificate (DER, chain already checked) names: its one common name, which must be a node's name.
pub(super) fn node_of(certificate: &[u8]) -> Option<NodeId> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?;
    if names.next().is_some() {
        return None;
    }
    name.as_str().ok()?.parse().ok()
}

fn roots(files: &BrokerTls) -> Result<RootCertStore, BrokerError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca_file)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(&files.ca_file, error))?;
    }
    Ok(roots)
}

fn chain(files: &BrokerTls) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    certificates(&files.certificate_file)
}

fn key(files: &BrokerTls) -> Result<PrivateKeyDer<'static>, BrokerError> {
    PrivateKeyDer::from_pem_file(&files.key_file).map_err(|error| unusable(&files.key_file, error))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(file, error))?;
    if certificates.is_empty() {
        return Err(unusable(file, "it holds no certificate"));
    }
    Ok(certificates)
}

fn unusable(file: &Path, error: impl Display) -> BrokerError {
    BrokerError::Start(format!("{} cannot be used: {error}", file.display()))
}
