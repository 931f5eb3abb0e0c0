//! Enrolment: in comes a token, out comes an identity on the disk.
//!
//! The device key is on the disk before the request leaves, and the same key asks every time: the hub binds the token to it, so a lost
//! answer is simply asked for again. What is wrong is said with the hub's own code; nothing half done is ever kept.

use super::{
    facts,
    hardware::hostname,
    https::{HttpsError, Target},
    tls::{self, Trust},
    verify,
};
use crate::{
    codes,
    identity::{DeviceKey, Identity, IdentityError, clock::TimeFloor, sealing_statement, write_private},
    seed,
    settings::Settings,
};
use holdfast_core::clock;
use holdfast_protocol::{
    NodeId, Problem, SchemaVersion, codes as shared,
    enrol::{EnrolAnswer, EnrolRequest},
    envelope::Envelope,
    token::EnrolmentToken,
};
use serde_json::Map;
use std::{fs, io, path::PathBuf, sync::Arc};

/// Why a box could not be enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The exchange with the hub failed.
    #[error(transparent)]
    Hub(Box<HttpsError>),
    /// The identity cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate request cannot be made.
    #[error("cannot make a certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// The hub's answer cannot be used.
    #[error("the hub's answer cannot be used: {reason}")]
    Answer {
        /// What is wrong with it.
        reason: String,
    },
    /// The box is enrolled already.
    #[error("this box is enrolled already, as {node}")]
    AlreadyEnrolled {
        /// Its name.
        node: NodeId,
    },
}

impl From<HttpsError> for EnrolError {
    fn from(error: HttpsError) -> Self {
        Self::Hub(Box::new(error))
    }
}

impl EnrolError {
    /// Whether the same token may succeed later without anyone doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Hub(error) => error.is_transient(),
            Self::Identity(IdentityError::Io { .. } | IdentityError::Write(_)) => true,
            Self::Identity(_) | Self::Request(_) | Self::Answer { .. } | Self::AlreadyEnrolled { .. } => {
                false
            }
        }
    }
}

impl From<&EnrolError> for Problem {
    fn from(error: &EnrolError) -> Self {
        match error {
            EnrolError::Hub(error) => with_action(error.as_ref().into()),
            EnrolError::Identity(error) => error.into(),
            EnrolError::Request(_) => Self::new(
                shared::INTERNAL,
                error.to_string(),
                "report this with the log of the same moment",
            ),
            EnrolError::Answer { .. } => Self::new(
                codes::HUB_ANSWER_INVALID,
                error.to_string(),
                "see the hub's log; nothing was changed on this box",
            ),
            EnrolError::AlreadyEnrolled { .. } => Self::new(
                codes::ALREADY_ENROLLED,
                error.to_string(),
                "to enrol it anew, stop holdfast and move the identity directory away",
            ),
        }
    }
}

/// Adds what to do where the hub named the problem only.
fn with_action(mut problem: Problem) -> Problem {
    if problem.action.is_empty() {
        let action = match problem.code.as_ref() {
            shared::TOKEN_EXPIRED | shared::TOKEN_REVOKED | shared::TOKEN_UNKNOWN => {
                "make a new token: holdfastctl token create"
            }
            shared::TOKEN_SPENT => {
                "another box has used this token; make a new one, and look at the hub's audit log if that was not intended"
            }
            shared::TOKEN_WRONG_MACHINE => "use the token on the machine it was made for, or make a new one",
            shared::NAME_TAKEN => {
                "set enrolment.name to another name, or delete the old node: holdfastctl node delete"
            }
            _ => "",
        };
        action.clone_into(&mut problem.action);
    }
    problem
}

/// Enrols this box with `token`. The state directory must have been prepared.
pub async fn enrol(
    settings: &Settings,
    token: &EnrolmentToken,
    floor: &TimeFloor,
) -> Result<Identity, EnrolError> {
    let directory = settings.identity_dir();
    if let Some(identity) = Identity::load(&directory)? {
        return Err(EnrolError::AlreadyEnrolled { node: identity.node });
    }
    let key = DeviceKey::load_or_make(&directory)?;
    let sealing = Identity::load_or_make_sealing(&directory)?;
    let requested_name = requested_name(settings);
    let request = EnrolRequest {
        schema: SchemaVersion::CURRENT,
        token_id: token.id.clone(),
        token_secret: token.secret.to_vec(),
        csr: key.certificate_request(requested_name.as_ref().map_or("node", NodeId::as_str))?,
        requested_name,
        hardware: facts(),
        sealing_key: Some(sealing_statement(&sealing, &key)?),
        extra: Map::new(),
    };
    let trust = token.ca_pin.map_or(Trust::Public, Trust::Pin);
    let tls = Arc::new(tls::anonymous(&trust).map_err(HttpsError::from)?);
    let answer: EnrolAnswer = Target::parse(&token.hub_url)?
        .post(tls, "/v1/enrol", &request, settings.enrolment.request_timeout)
        .await?;

    let unusable = |reason: String| EnrolError::Answer { reason };
    answer
        .schema
        .check_supported()
        .map_err(|error| unusable(error.to_string()))?;
    verify::certificate(
        &answer.certificate,
        &answer.ca_certificates,
        &answer.node,
        &key.public_key_info(),
    )
    .map_err(unusable)?;
    if let Some(pin) = token.ca_pin
        && !verify::has_pin(&answer.ca_certificates, pin).map_err(unusable)?
    {
        return Err(unusable(
            "none of its CA certificates has the key that the token names".into(),
        ));
    }
    Target::parse(&answer.hub_url).map_err(|error| unusable(error.to_string()))?;
    verify::usable(&answer.brokers, &answer.trust).map_err(unusable)?;
    let time = clock::verified_time(&answer.signed_time, &answer.trust)
        .map_err(|problem| unusable(problem.message))?;

    let identity = Identity {
        node: answer.node,
        hub_url: answer.hub_url,
        brokers: answer.brokers,
        trust: answer.trust,
        public_roots: token.ca_pin.is_none(),
        enrolled_by: Some(token.id.clone()),
        certificate: answer.certificate,
        ca_certificates: answer.ca_certificates,
        key: Arc::new(key),
        told_sealing: Some(sealing.public().digest()),
        sealing: Some(sealing),
        seed: seed::trust(&directory)?.map(Arc::new),
    };
    if let Some(desired) = &answer.desired {
        write_private(&first_desired_file(settings), &desired.to_json())?;
    }
    floor.raise(time)?;
    identity.store(&directory)?;
    Ok(identity)
}

/// The name that this box would like: the configured one, or its host name.
pub(crate) fn requested_name(settings: &Settings) -> Option<NodeId> {
    match &settings.enrolment.name {
        Some(name) => name.parse().ok(),
        None => NodeId::sanitised(&hostname()?),
    }
}

fn first_desired_file(settings: &Settings) -> PathBuf {
    settings.identity_dir().join("first-desired.json")
}

/// The first desired state that came with the enrolment, until [`forget_first_desired`]. It goes through admission like any other.
pub fn first_desired(settings: &Settings) -> Option<Envelope> {
    let bytes = fs::read(first_desired_file(settings)).ok()?;
    Envelope::from_json(&bytes).ok()
}

/// Removes what [`first_desired`] gives, once it has been decided on.
pub fn forget_first_desired(settings: &Settings) -> io::Result<()> {
    match fs::remove_file(first_desired_file(settings)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
