//! Values that only this box can read, opened in memory when they are needed.
//!
//! In: a sealed value with the name that it is used under, and the box's key. Out: the value, or a [`Problem`] that says what to do and
//! holds nothing of it.

use crate::{codes, kubernetes::k3s_config};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use holdfast_protocol::{
    Problem,
    document::{DesiredState, SealedValue},
    seal::{SealError, SealingKey, Zeroizing},
    sealing::secret_name,
};

/// What people see of a value that does not open; `place` says where it is used.
pub fn problem(place: &str, error: &SealError) -> Problem {
    let message = format!("{place}: {error}");
    match error {
        SealError::OtherKey { .. } => Problem::new(
            codes::SEALED_TO_OTHER_KEY,
            message,
            "seal the value to this node again: holdfastctl secret set",
        ),
        _ => Problem::new(
            codes::SEALED_VALUE_UNUSABLE,
            message,
            "seal the value to this node again: holdfastctl secret set; if it was not changed by accident, find out who writes documents",
        ),
    }
}

/// Checks that everything in a document that is sealed to this box opens, and keeps nothing of it.
pub fn check(state: &DesiredState, key: Option<&SealingKey>) -> Result<(), Problem> {
    for (index, app) in state.apps.iter().enumerate() {
        for (number, secret) in app.secrets.iter().enumerate() {
            for (name, value) in &secret.data {
                let place = format!(
                    "apps[{index}] ({}), secrets[{number}] ({}).data.{name} ({})",
                    app.name, secret.name, value.source
                );
                open(&place, value, key)?;
            }
        }
    }
    let Some(section) = &state.k3s else {
        return Ok(());
    };
    k3s_config::check(section, key).map_err(|error| error.problem())
}

/// Opens one value of a Secret, as Kubernetes takes it: in base64.
pub fn open(
    place: &str,
    value: &SealedValue,
    key: Option<&SealingKey>,
) -> Result<Zeroizing<String>, Problem> {
    let missing = |reason: &str| {
        Problem::new(
            codes::SEALED_VALUE_UNUSABLE,
            format!("{place}: {reason}"),
            "seal the value to this node and assign the release again: holdfastctl secret set",
        )
    };
    let sealed = value
        .sealed
        .as_ref()
        .ok_or_else(|| missing("the document holds no value for this box"))?;
    let key = key.ok_or_else(|| missing("this box has no sealing key"))?;
    let opened = key
        .open(&secret_name(&value.source), sealed)
        .map_err(|error| problem(place, &error))?;
    Ok(Zeroizing::new(STANDARD.encode(&*opened)))
}
