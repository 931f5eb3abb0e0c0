//! Enrolment: how a token becomes a node.
//!
//! In: a request with token and certificate request. Out: certificate, brokers, trust, time, first desired state. Guarantees: a token
//! is bound to one key in the transaction that makes the node, so that of any race exactly one key wins; the winner may ask again
//! and gets the same certificate; every refusal has its own code and, where the token exists, a line in the audit log.

use crate::{
    api::{ApiError, too_many},
    authority::{CsrError, Request},
    codes as hub_codes,
    database::{
        Write,
        audit::{self, Actor},
        documents, nodes,
        tokens::{self, Spent, StoredToken},
    },
    hub::Hub,
    render,
};
use holdfast_protocol::{
    Digest, NodeId, Problem, SchemaVersion, codes,
    enrol::{EnrolAnswer, EnrolRequest},
    envelope::Envelope,
    operator::TokenState,
    sealing::{SealingKeyStatement, SealingPublicKey},
    token::EnrolmentToken,
};
use http::StatusCode;
use serde_json::Map;
use std::net::IpAddr;

/// Most that a machine may say of itself, in bytes of JSON.
const MAX_HARDWARE_BYTES: usize = 16 * 1024;
/// Action of refusals in the audit log.
const REFUSED: &str = "node.enrol.refused";
/// Refusals of one token that are noted: whoever found a spent token cannot fill the log with it.
const MAX_REFUSALS: i64 = 100;

/// What to do about a token that is over.
const NEW_TOKEN: &str = "make a new token: `holdfastctl token create`";

/// How an enrolment went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolled {
    /// The token was spent now.
    First,
    /// The key that spent it asked again.
    Again,
}

/// Enrols a box.
pub async fn enrol(
    hub: &Hub,
    request: &EnrolRequest,
    from: IpAddr,
) -> Result<(Enrolled, EnrolAnswer), ApiError> {
    request.schema.check_supported().map_err(|error| {
        refusal(
            StatusCode::BAD_REQUEST,
            codes::SCHEMA_UNSUPPORTED,
            error.to_string(),
            "update the hub",
        )
    })?;
    let hardware = serde_json::to_string(&request.hardware).map_or(0, |text| text.len());
    if hardware > MAX_HARDWARE_BYTES {
        return Err(ApiError::bad_request(
            format!("hardware: {hardware} bytes; at most {MAX_HARDWARE_BYTES}"),
            "send what the machine says of itself, no more",
        ));
    }
    let asked = Request::from_pem(&request.csr)?;
    let known = tokens::get(hub.database.read(), &request.token_id, crate::database::now()).await?;
    let Some(known) = known.filter(|token| secret_fits(token, &request.token_secret)) else {
        if !hub.limiter.refused(from) {
            return Err(too_many(hub));
        }
        return Err(refusal(
            StatusCode::FORBIDDEN,
            codes::TOKEN_UNKNOWN,
            "this hub does not know the enrolment token".to_owned(),
            "copy the token whole; if it is of another hub or was deleted, make a new one: `holdfastctl token create`",
        ));
    };

    let mut tx = hub.database.write().await?;
    let now = crate::database::now();
    // Read again: between the first look and the writing turn another box may have come.
    let token = tokens::get_for_update(&mut tx, &known.info.id, now)
        .await?
        .unwrap_or(known);
    match decide(hub, &mut tx, &token, &asked, request, now).await? {
        Decision::Refused(refused) => {
            let subject = format!("token/{}", token.info.id);
            if audit::count(&mut tx, &subject, REFUSED).await? < MAX_REFUSALS {
                let actor = Actor::Address(from.to_string());
                let detail = format!("{} (key {})", refused.problem, asked.key_digest);
                audit::record(&mut tx, &actor, REFUSED, &subject, &detail).await?;
                tx.commit().await?;
            }
            Err(refused)
        }
        Decision::Repeated(spent) => {
            if let Some(key) = sealing_key(&asked, request.sealing_key.as_ref())?
                && nodes::set_sealing_key(&mut tx, &spent.node, &key).await?
            {
                tx.commit().await?;
            } else {
                drop(tx);
            }
            revoked_since(hub, &spent).await?;
            tracing::info!(node = %spent.node, token = token.info.id, "the box asked again and got the same answer");
            Ok((Enrolled::Again, answer(hub, &spent).await?))
        }
        Decision::Enrolled(spent) => {
            let actor = Actor::Node(spent.node.to_string());
            let detail = format!(
                "with token/{} from {from} (key {})",
                token.info.id, spent.key_digest
            );
            audit::record(
                &mut tx,
                &actor,
                "node.enrol",
                &format!("node/{}", spent.node),
                &detail,
            )
            .await?;
            tx.commit().await?;
            hub.changed(&spent.node);
            Ok((Enrolled::First, answer(hub, &spent).await?))
        }
    }
}

enum Decision {
    Enrolled(Spent),
    Repeated(Spent),
    Refused(ApiError),
}

async fn decide(
    hub: &Hub,
    tx: &mut Write,
    token: &StoredToken,
    asked: &Request,
    request: &EnrolRequest,
    now: jiff::Timestamp,
) -> Result<Decision, ApiError> {
    let refused = |status, code, message: &str, action| {
        Ok(Decision::Refused(refusal(
            status,
            code,
            message.to_owned(),
            action,
        )))
    };
    match token.info.state {
        TokenState::Spent => {
            return match &token.spent {
                Some(spent) if spent.key_digest == asked.key_digest => Ok(Decision::Repeated(spent.clone())),
                _ => refused(
                    StatusCode::CONFLICT,
                    codes::TOKEN_SPENT,
                    "the enrolment token was spent by another key",
                    "make a new token; if nobody of yours used this one, delete the node that did: `holdfastctl audit` names it",
                ),
            };
        }
        TokenState::Expired => {
            let message = format!("the enrolment token expired at {}", token.info.expires_at);
            return refused(StatusCode::FORBIDDEN, codes::TOKEN_EXPIRED, &message, NEW_TOKEN);
        }
        TokenState::Revoked => {
            return refused(
                StatusCode::FORBIDDEN,
                codes::TOKEN_REVOKED,
                "the enrolment token was revoked by an operator",
                NEW_TOKEN,
            );
        }
        TokenState::Open => {}
    }
    if let Some(serial) = &token.info.serial
        && request.hardware.serial.as_ref() != Some(serial)
    {
        let message = format!(
            "the enrolment token is for the machine with serial number {serial:?}, and this one says {:?}",
            request.hardware.serial.as_deref().unwrap_or("nothing")
        );
        let action = "use the token on its machine, or make one without a serial number";
        return refused(
            StatusCode::FORBIDDEN,
            codes::TOKEN_WRONG_MACHINE,
            &message,
            action,
        );
    }
    let Some(node) = choose_name(tx, token, asked, request).await? else {
        let name = token
            .info
            .node_name
            .as_ref()
            .map(NodeId::as_str)
            .unwrap_or_default();
        let message =
            format!("the name {name:?}, which the token gives, is taken by a node with another key");
        let action = "delete the old node (`holdfastctl node delete`), or make a token with another name";
        return refused(StatusCode::CONFLICT, codes::NAME_TAKEN, &message, action);
    };
    let sealing_key = sealing_key(asked, request.sealing_key.as_ref())?;
    let lifetime = hub.config.enrolment.certificate_lifetime.0;
    let issued = hub.authority.issue_node(asked, node.as_str(), lifetime)?;
    let spent = Spent {
        key_digest: asked.key_digest,
        node,
        certificate: issued.pem.clone(),
    };
    if !tokens::spend(tx, &token.info.id, &spent, now).await? {
        return Err(ApiError::internal(&"a token that was open could not be spent"));
    }
    let enrolled = nodes::Enrolled {
        id: &spent.node,
        labels: &token.info.labels,
        hardware: &request.hardware,
        key_digest: &asked.key_digest,
        sealing_key: sealing_key.as_ref(),
    };
    nodes::enrol(tx, &enrolled, &issued.record(asked.key_digest), now).await?;
    // A box that comes back with other labels gets what they say. Where its release cannot be rendered with them it keeps what it has: it
    // must come back in any case.
    if let Err(error) = render::again(hub, tx, &spent.node).await {
        tracing::warn!(node = %spent.node, problem = %error.problem, "the release of a node that enrolled again cannot be rendered");
    }
    Ok(Decision::Enrolled(spent))
}

/// The sealing key that a box says is its own, checked; none where it says none.
pub fn sealing_key(
    asked: &Request,
    statement: Option<&SealingKeyStatement>,
) -> Result<Option<SealingPublicKey>, ApiError> {
    let Some(statement) = statement else {
        return Ok(None);
    };
    asked.sealing_key(statement).map(Some).ok_or_else(|| {
        refusal(
            StatusCode::BAD_REQUEST,
            hub_codes::SEALING_KEY_INVALID,
            "the sealing key is not signed by the device key, or nothing can be sealed to it".to_owned(),
            "send an X25519 key with a signature of the device key, or none",
        )
    })
}

/// The name of the node: what the token says; else what the box wishes, made unique by its key where another box has it; else one made of
/// its key. None where the token's name is taken.
async fn choose_name(
    tx: &mut Write,
    token: &StoredToken,
    asked: &Request,
    request: &EnrolRequest,
) -> Result<Option<NodeId>, ApiError> {
    let mine = |holder: Option<Digest>| holder.is_none_or(|holder| holder == asked.key_digest);
    if let Some(name) = &token.info.node_name {
        let holder = nodes::key_digest(tx, name).await?;
        return Ok(mine(holder).then(|| name.clone()));
    }
    let wish = request
        .requested_name
        .clone()
        .or_else(|| request.hardware.serial.as_deref().and_then(NodeId::sanitised));
    if let Some(wish) = &wish
        && mine(nodes::key_digest(tx, wish).await?)
    {
        return Ok(Some(wish.clone()));
    }
    let stem: String = wish
        .as_ref()
        .map_or("node", NodeId::as_str)
        .chars()
        .take(50)
        .collect();
    let unique = format!("{}-{}", stem.trim_end_matches('-'), &asked.key_digest.hex()[..12]);
    let name: NodeId = unique.parse().map_err(|error| ApiError::internal(&error))?;
    Ok(mine(nodes::key_digest(tx, &name).await?).then_some(name))
}

async fn revoked_since(hub: &Hub, spent: &Spent) -> Result<(), ApiError> {
    let (_, block) = x509_parser::pem::parse_x509_pem(spent.certificate.as_bytes())
        .map_err(|error| ApiError::internal(&error))?;
    let known = nodes::certificate(hub.database.read(), &Digest::of(&block.contents)).await?;
    if known.is_none_or(|known| known.revoked) {
        return Err(revoked(&spent.node));
    }
    Ok(())
}

/// 403: the certificate of a node was revoked.
pub fn revoked(node: &NodeId) -> ApiError {
    refusal(
        StatusCode::FORBIDDEN,
        codes::CERTIFICATE_REVOKED,
        format!("node {node} was deleted and its certificate revoked"),
        "enrol the box again with a new token",
    )
}

async fn answer(hub: &Hub, spent: &Spent) -> Result<EnrolAnswer, ApiError> {
    let desired = documents::envelope(hub.database.read(), &spent.node).await?;
    Ok(EnrolAnswer {
        schema: SchemaVersion::CURRENT,
        node: spent.node.clone(),
        certificate: spent.certificate.clone(),
        ca_certificates: hub.authority.ca_pem().to_owned(),
        hub_url: hub.public_url.clone(),
        brokers: hub.broker_addresses(),
        trust: hub.authority.trust(),
        signed_time: hub.authority.signed_time(),
        desired: desired
            .map(|text| Envelope::from_json(text.as_bytes()))
            .transpose()
            .map_err(|error| ApiError::internal(&error))?,
        extra: Map::new(),
    })
}

/// Compares hashes, and all of their bytes however early two differ: the time tells nothing about the secret.
fn secret_fits(token: &StoredToken, secret: &[u8]) -> bool {
    let given = EnrolmentToken::secret_hash(secret);
    let pairs = given.as_bytes().iter().zip(token.secret_hash.as_bytes());
    std::hint::black_box(pairs.fold(0, |differing, (left, right)| differing | (left ^ right))) == 0
}

fn refusal(status: StatusCode, code: &'static str, message: String, action: &'static str) -> ApiError {
    ApiError::new(status, Problem::new(code, message, action))
}

impl From<CsrError> for ApiError {
    fn from(error: CsrError) -> Self {
        refusal(
            StatusCode::BAD_REQUEST,
            codes::CSR_INVALID,
            error.to_string(),
            "send a PKCS #10 request in PEM for an ECDSA P-256 key, signed by that key",
        )
    }
}
