//! Checks of what the hub answers, before anything of it is kept. The hub has proven itself by TLS; these checks catch a hub that is
//! broken or half restored, so that a box never throws a working identity away for one that cannot work.

use super::tls::certificates;
use holdfast_protocol::{
    Digest, NodeId,
    enrol::key_pin,
    trust::{Role, TrustPolicy},
};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The node's certificate must carry its key and name, and lead to one of the hub's CA certificates.
pub(super) fn certificate(
    chain: &str,
    ca_certificates: &str,
    node: &NodeId,
    key: &[u8],
) -> Result<(), String> {
    let chain = certificates(chain).map_err(|error| format!("the certificate cannot be read: {error}"))?;
    let anchors = certificates(ca_certificates)
        .map_err(|error| format!("the CA certificates cannot be read: {error}"))?;
    let chain = parsed(&chain)?;
    let anchors = parsed(&anchors)?;
    let own = &chain[0];
    if own.public_key().raw != key {
        return Err("the certificate is for another key".into());
    }
    let names: Vec<_> = own
        .subject()
        .iter_common_name()
        .filter_map(|name| name.as_str().ok())
        .collect();
    if names != [node.as_str()] {
        return Err(format!("the certificate is for {names:?}, not for {node}"));
    }
    if anchors.iter().any(|anchor| !anchor.is_ca()) {
        return Err("one of the CA certificates is not one of a CA".into());
    }
    let signed_by = |certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>| {
        certificate.issuer() == issuer.subject()
            && certificate.verify_signature(Some(issuer.public_key())).is_ok()
    };
    let mut last = own;
    for next in &chain[1..] {
        if anchors.iter().any(|anchor| signed_by(last, anchor)) {
            break;
        }
        if !next.is_ca() || !signed_by(last, next) {
            return Err("the certificates do not form a chain".into());
        }
        last = next;
    }
    if anchors.iter().any(|anchor| signed_by(last, anchor)) {
        Ok(())
    } else {
        Err("the certificate is not signed by one of the CA certificates".into())
    }
}

/// Whether one of the CA certificates has the pinned key.
pub(super) fn has_pin(ca_certificates: &str, pin: Digest) -> Result<bool, String> {
    let ders = certificates(ca_certificates)?;
    Ok(parsed(&ders)?
        .iter()
        .any(|certificate| key_pin(certificate.public_key().raw) == pin))
}

/// Begin and end of the life of the first certificate of a PEM chain, and its common name.
pub(crate) fn validity(chain: &str) -> Result<(Timestamp, Timestamp), String> {
    let ders = certificates(chain)?;
    let parsed = parsed(&ders[..1])?;
    let validity = parsed[0].validity();
    let time = |seconds| Timestamp::from_second(seconds).map_err(|error| error.to_string());
    Ok((
        time(validity.not_before.timestamp())?,
        time(validity.not_after.timestamp())?,
    ))
}

/// Brokers and keys must be such that the node can work with them.
pub(super) fn usable(brokers: &[String], trust: &TrustPolicy) -> Result<(), String> {
    if let Some(wrong) = brokers.iter().find(|broker| !broker.starts_with("mqtts://")) {
        return Err(format!("the broker {wrong:?} is not an mqtts:// address"));
    }
    if brokers.is_empty() {
        return Err("it names no broker".into());
    }
    let signers = trust
        .keys
        .iter()
        .filter(|key| key.roles.contains(&Role::DesiredState))
        .count();
    if signers < trust.threshold(Role::DesiredState) {
        return Err(format!(
            "it trusts {signers} keys for documents, but wants {} to sign",
            trust.threshold(Role::DesiredState)
        ));
    }
    Ok(())
}

fn parsed<'a>(ders: &'a [CertificateDer<'_>]) -> Result<Vec<X509Certificate<'a>>, String> {
    ders.iter()
        .map(|der| {
            X509Certificate::from_der(der)
                .map(|(_, certificate)| certificate)
                .map_err(|error| format!("a certificate cannot be read: {error}"))
        })
        .collect()
}
