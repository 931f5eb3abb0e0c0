//! What time it is on a box that may have no battery clock.
//!
//! In: the wall clock, the persisted floor, signed times of the hub. Out: the time to work with and whether it can be trusted.
//! Guarantees: the time never lies below the floor, and the floor never sinks. Nothing that runs is ever stopped by the time;
//! it only matters for certificates and for people.

#[cfg(test)]
mod tests;

use holdfast_protocol::{
    Problem, codes as protocol_codes,
    envelope::{Envelope, TIME_TYPE, TimeStatement},
    trust::{Role, TrustPolicy},
};
use jiff::Timestamp;

/// The time to work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectiveTime {
    /// The wall clock, or the floor where the wall clock is behind it.
    pub time: Timestamp,
    /// Whether the wall clock is at or above the floor; the status report says so.
    pub trusted: bool,
}

/// The time to work with, given the wall clock, the persisted floor (none on a new box) and the newest signed time that came
/// since the start (none while offline).
pub fn effective(wall: Timestamp, floor: Option<Timestamp>, signed: Option<Timestamp>) -> EffectiveTime {
    match raised_floor(floor, signed) {
        Some(floor) if wall < floor => EffectiveTime {
            time: floor,
            trusted: false,
        },
        _ => EffectiveTime {
            time: wall,
            trusted: true,
        },
    }
}

/// The floor after a signed time came: the later of both.
pub fn raised_floor(floor: Option<Timestamp>, signed: Option<Timestamp>) -> Option<Timestamp> {
    floor.max(signed)
}

/// Reads a signed statement of the hub's time.
///
/// Only the signature makes it a floor: a broker or a proxy could otherwise move the clock of a box into the future for good.
pub fn verified_time(envelope: &Envelope, trust: &TrustPolicy) -> Result<Timestamp, Problem> {
    if envelope.payload_type != TIME_TYPE {
        return Err(Problem::new(
            protocol_codes::PAYLOAD_TYPE_UNKNOWN,
            format!(
                "the time statement has the payload type {:?}",
                envelope.payload_type
            ),
            "update the older of node and hub",
        ));
    }
    envelope.verify(trust, Role::Time).map_err(|error| {
        Problem::new(
            protocol_codes::SIGNATURE_INVALID,
            format!("the hub's time statement cannot be trusted: {error}"),
            "check which keys the node trusts; enrol it again where the hub was made anew",
        )
    })?;
    let statement: TimeStatement = serde_json::from_slice(&envelope.payload).map_err(|error| {
        Problem::new(
            protocol_codes::DOCUMENT_MALFORMED,
            format!("the hub's time statement cannot be read: {error}"),
            "update the older of node and hub",
        )
    })?;
    Ok(statement.time)
}
