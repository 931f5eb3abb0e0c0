//! How a session ended, and what follows from it.
//!
//! In: the error of the connection, the broker's last words. Out: a problem for people, how long to stay away, where else to go.

use super::BrokerAddress;
use crate::codes;
use holdfast_protocol::Problem;
use rumqttc::v5::{
    ConnectionError,
    mqttbytes::v5::{ConnectReturnCode, Disconnect},
};
use std::{error::Error as _, time::Duration};

/// The user property of MQTT by which the hub asks a node to stay away for some seconds.
const RETRY_AFTER: &str = "retry-after";
/// Shortest wait after a broker that says it has too much to do.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(10);
/// The longest wait that a hub can ask for: longer would be a node that seems lost.
const LONGEST_ASKED_WAIT: Duration = Duration::from_hours(1);

/// How a session ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// By the end of the daemon.
    Shutdown,
    /// By anything else.
    Lost {
        problem: Problem,
        /// Whether the broker had welcomed the node.
        was_connected: bool,
        /// What the hub asked for.
        wait_at_least: Duration,
        /// Where the hub sends the node.
        redirect: Option<BrokerAddress>,
    },
}

impl Ending {
    /// No session came about.
    pub(super) const fn failed(problem: Problem) -> Self {
        Self::Lost {
            problem,
            was_connected: false,
            wait_at_least: Duration::ZERO,
            redirect: None,
        }
    }

    /// By the connection, or by the broker in words of its own.
    pub(super) fn lost(error: &ConnectionError, farewell: Option<&Disconnect>, was_connected: bool) -> Self {
        let properties = farewell.and_then(|packet| packet.properties.as_ref());
        let asked = properties.and_then(|properties| {
            let (_, value) = properties
                .user_properties
                .iter()
                .find(|(key, _)| key == RETRY_AFTER)?;
            value.trim().parse().ok().map(Duration::from_secs)
        });
        let redirect = properties
            .and_then(|properties| properties.server_reference.as_deref())
            .and_then(|list| list.split_whitespace().find_map(BrokerAddress::from_authority));
        Self::Lost {
            wait_at_least: asked.unwrap_or_else(|| wait_after(error)).min(LONGEST_ASKED_WAIT),
            problem: problem(error, farewell),
            was_connected,
            redirect,
        }
    }
}

/// The broker's welcome has no room for a wanted wait in this library, so its reasons stand for one.
fn wait_after(error: &ConnectionError) -> Duration {
    use ConnectReturnCode as Code;
    match error {
        ConnectionError::ConnectionRefused(
            Code::ServerBusy
            | Code::ServerUnavailable
            | Code::ServiceUnavailable
            | Code::QuotaExceeded
            | Code::ConnectionRateExceeded,
        ) => BUSY_WAIT,
        _ => Duration::ZERO,
    }
}

fn problem(error: &ConnectionError, farewell: Option<&Disconnect>) -> Problem {
    if let Some(packet) = farewell {
        let reason = packet
            .properties
            .as_ref()
            .and_then(|properties| properties.reason_string.clone())
            .unwrap_or_default();
        return Problem::new(
            codes::BROKER_REFUSED,
            format!("the broker ended the session: {:?} {reason}", packet.reason_code),
            "nothing where the hub restarts; else see the hub's audit log for this node",
        );
    }
    if let ConnectionError::ConnectionRefused(code) = error {
        return Problem::new(
            codes::BROKER_REFUSED,
            format!("the broker refuses the session: {code:?}"),
            "see the hub's audit log for this node: its certificate may be revoked or the node deleted",
        );
    }
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let text = inner.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        source = inner.source();
    }
    Problem::new(
        codes::BROKER_UNREACHABLE,
        format!("no session with the broker: {reason}"),
        "check the network between the box and the hub's MQTT port; what runs keeps running",
    )
}
