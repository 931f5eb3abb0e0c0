//! Renewal: how a node keeps its certificate, and comes back after any time in the dark.
//!
//! In: a certificate of this hub, expired or not, a request for the same key, and that key's signature over both. Out: a new
//! certificate. Guarantees: no TLS client certificate is needed, so an expired one is no obstacle; a revoked one is refused; the key
//! never changes by a renewal.

use crate::{
    api::ApiError,
    authority::Request,
    codes as hub_codes,
    database::{
        audit::{self, Actor},
        nodes,
    },
    enrolment,
    hub::Hub,
};
use holdfast_protocol::{
    Digest, Problem, SchemaVersion, codes,
    enrol::{RenewAnswer, RenewRequest, key_pin},
};
use http::StatusCode;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use std::net::IpAddr;

/// Renews a certificate.
pub async fn renew(hub: &Hub, request: &RenewRequest, from: IpAddr) -> Result<RenewAnswer, ApiError> {
    request.schema.check_supported().map_err(|error| {
        refusal(
            StatusCode::BAD_REQUEST,
            codes::SCHEMA_UNSUPPORTED,
            &error.to_string(),
            "update the hub",
        )
    })?;
    let unreadable = |reason: &dyn std::fmt::Display| {
        refusal(
            StatusCode::BAD_REQUEST,
            codes::BAD_REQUEST,
            &format!("certificate: {reason}"),
            "send the node's present certificate in PEM, its own first",
        )
    };
    let (_, block) = x509_parser::pem::parse_x509_pem(request.certificate.as_bytes())
        .map_err(|error| unreadable(&error))?;
    let certificate = block.parse_x509().map_err(|error| unreadable(&error))?;
    let public_key = certificate.public_key();

    // Known by its digest, so it is one that this hub issued: nothing else in it has to be checked.
    let known = nodes::certificate(hub.database.read(), &Digest::of(&block.contents)).await?;
    let Some(known) = known else {
        return Err(if hub.limiter.refused(from) {
            refusal(
                StatusCode::FORBIDDEN,
                hub_codes::CERTIFICATE_UNKNOWN,
                "the certificate was not issued by this hub",
                "enrol the box at this hub with a new token",
            )
        } else {
            crate::api::too_many(hub)
        });
    };
    if known.revoked {
        return Err(enrolment::revoked(&known.node));
    }
    let signed_by_key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &*public_key.subject_public_key.data)
        .verify(&request.signed_bytes(), &request.signature)
        .is_ok();
    let asked = Request::from_pem(&request.csr)?;
    if !signed_by_key || asked.key_digest != known.key_digest || key_pin(public_key.raw) != known.key_digest {
        return Err(refusal(
            StatusCode::FORBIDDEN,
            hub_codes::RENEWAL_SIGNATURE_INVALID,
            "the renewal is not signed by the key of the certificate, or asks for another key",
            "sign it with the device key; a box with a new key must enrol again",
        ));
    }

    let sealing_key = enrolment::sealing_key(&asked, request.sealing_key.as_ref())?;
    let lifetime = hub.config.enrolment.certificate_lifetime.0;
    let issued = hub.authority.issue_node(&asked, known.node.as_str(), lifetime)?;
    let mut tx = hub.database.write().await?;
    // Asked again within the transaction: a deletion may have come first.
    if nodes::key_digest(&mut tx, &known.node).await? != Some(known.key_digest) {
        return Err(enrolment::revoked(&known.node));
    }
    nodes::renew(&mut tx, &known.node, &issued.record(known.key_digest)).await?;
    if let Some(key) = sealing_key
        && nodes::set_sealing_key(&mut tx, &known.node, &key).await?
    {
        audit::record(
            &mut tx,
            &Actor::Node(known.node.to_string()),
            "node.sealing-key",
            &format!("node/{}", known.node),
            &format!(
                "{}; what was sealed to an earlier key is to be sealed again",
                key.digest()
            ),
        )
        .await?;
    }
    audit::record(
        &mut tx,
        &Actor::Node(known.node.to_string()),
        "node.renew",
        &format!("node/{}", known.node),
        &format!(
            "until {}; the one before ended {}; from {from}, whose clock says {}",
            issued.not_after, known.not_after, request.at
        ),
    )
    .await?;
    tx.commit().await?;
    hub.changed(&known.node);
    Ok(RenewAnswer {
        schema: SchemaVersion::CURRENT,
        certificate: issued.pem,
        ca_certificates: hub.authority.ca_pem().to_owned(),
        brokers: hub.broker_addresses(),
        trust: hub.authority.trust(),
        signed_time: hub.authority.signed_time(),
    })
}

fn refusal(status: StatusCode, code: &'static str, message: &str, action: &'static str) -> ApiError {
    ApiError::new(status, Problem::new(code, message, action))
}
