//! Keeps a session: connects, waits, connects again, for as long as the daemon runs.
//!
//! In: the identity with its brokers, the settings. Out: a [`LinkState`] that says whether there is a session, and why not. It
//! guarantees that brokers are tried in turn, that every wait is jittered and bounded, and that a wrong clock never ends the attempts.

use super::{BrokerAddress, ending::Ending, mailbox::Mailbox, session::Session};
use crate::{
    codes, enrol::tls, identity::Identity, pace::Pace, quiet, settings::Settings, telemetry::metrics::METRICS,
};
use holdfast_protocol::{
    MAX_ENVELOPE_BYTES, NodeId, Problem, SchemaVersion,
    report::Presence,
    topic::{Topic, Up},
};
use rumqttc::{
    Transport,
    v5::{AsyncClient, EventLoop, MqttOptions, mqttbytes::QoS, mqttbytes::v5::LastWill},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// The largest MQTT packet that is accepted, in bytes: an envelope a little too large must arrive, to be refused by name.
const MAX_PACKET: u32 = MAX_ENVELOPE_BYTES as u32 + 256 * 1024;
/// Publishes in flight. More would gain nothing on one link; the library sets memory aside for each.
const IN_FLIGHT: u16 = 64;
/// Documents that the broker may send before the first is acknowledged.
const RECEIVE_MAXIMUM: u16 = 4;
/// The library accepts no shorter keep-alive.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// A session that lived this long was a good one; the next failure is a first one again.
const GOOD_SESSION: Duration = Duration::from_secs(30);

/// Whether there is a session with a broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Whether there is one now.
    pub connected: bool,
    /// The broker, of the present session or of the last attempt.
    pub broker: Option<String>,
    /// Why there is none.
    pub cause: Option<Problem>,
    /// Attempts since the last session.
    pub attempts: u32,
}

/// By which the rest of the node tells the link that there is something to send.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// The outbox has a new event.
    pub outbox: Arc<Notify>,
    /// There is a new status report.
    pub status: Arc<Notify>,
}

/// The link, before it runs.
pub struct Link {
    /// Keep-alive, expiry, backoff.
    pub settings: Arc<Settings>,
    /// Who the node is; a renewed certificate is used from the next connect on.
    pub identity: watch::Receiver<Arc<Identity>>,
    /// Hints that there is something to send.
    pub signals: Signals,
    /// Where the state is told.
    pub state: watch::Sender<LinkState>,
    /// The end of the daemon.
    pub shutdown: CancellationToken,
}

impl Link {
    /// Runs until shutdown.
    pub async fn run(mut self, mut mailbox: impl Mailbox) {
        let sync = &self.settings.sync;
        let mut pace = Pace::new(sync.backoff_min, sync.backoff_max);
        let mut turn = 0;
        let mut redirect: Option<BrokerAddress> = None;
        while !self.shutdown.is_cancelled() {
            let identity = self.identity.borrow_and_update().clone();
            let (broker, last_in_round) = match redirect.take() {
                Some(broker) => (Ok(broker), true),
                None => pick(&identity.brokers, turn),
            };
            turn += 1;
            let begun = tokio::time::Instant::now();
            let ending = match broker {
                Ok(broker) => {
                    let span = tracing::info_span!("session", %broker);
                    self.session(&identity, &broker, &mut mailbox)
                        .instrument(span)
                        .await
                }
                Err(problem) => Ending::failed(problem),
            };
            if matches!(ending, Ending::Shutdown) {
                break;
            }
            let Ending::Lost {
                problem,
                was_connected,
                wait_at_least,
                redirect: to,
            } = ending
            else {
                break;
            };
            if was_connected {
                turn = 0;
                if begun.elapsed() >= GOOD_SESSION {
                    pace.reset();
                }
            }
            METRICS.link_failures.add(1);
            METRICS.link_connected.set(0);
            tracing::info!(%problem, "no session");
            self.state.send_modify(|state| {
                state.connected = false;
                state.cause = Some(problem);
                state.attempts = state.attempts.saturating_add(1);
            });
            redirect = to;
            if !last_in_round && !was_connected && wait_at_least.is_zero() {
                continue;
            }
            let wait = pace.next_wait_of_at_least(wait_at_least);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shutdown.cancelled() => break,
            }
        }
    }

    async fn session(
        &mut self,
        identity: &Identity,
        broker: &BrokerAddress,
        mailbox: &mut impl Mailbox,
    ) -> Ending {
        let (client, events) = match self.connect(identity, broker) {
            Ok(pair) => pair,
            Err(problem) => return Ending::failed(problem),
        };
        self.state
            .send_modify(|state| state.broker = Some(broker.to_string()));
        Session::new(client, &identity.node, mailbox, &self.state)
            .run(events, &self.signals, &self.shutdown)
            .await
    }

    fn connect(
        &self,
        identity: &Identity,
        broker: &BrokerAddress,
    ) -> Result<(AsyncClient, EventLoop), Problem> {
        quiet::stir();
        let tls = tls::authenticated(identity).map_err(|error| {
            Problem::new(
                codes::IDENTITY_UNUSABLE,
                error.to_string(),
                "restore the identity directory, or move it away and enrol with a new token",
            )
        })?;
        let sync = &self.settings.sync;
        let node = identity.node.as_str();
        let mut options = MqttOptions::new(node, broker.host.clone(), broker.port);
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        options
            .set_transport(Transport::tls_with_config(tls.into()))
            .set_credentials(node, "")
            .set_clean_start(false)
            .set_manual_acks(true)
            .set_keep_alive(sync.keep_alive.max(SHORTEST_KEEP_ALIVE))
            .set_session_expiry_interval(Some(seconds(sync.session_expiry)))
            .set_connection_timeout(sync.connect_timeout.as_secs().max(1))
            .set_max_packet_size(Some(MAX_PACKET))
            .set_receive_maximum(Some(RECEIVE_MAXIMUM))
            .set_outgoing_inflight_upper_limit(IN_FLIGHT)
            .set_last_will(LastWill::new(
                presence_topic(&identity.node),
                presence(false),
                QoS::AtLeastOnce,
                true,
                None,
            ));
        let mut network = options.network_options();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(sync.connect_timeout.as_secs().max(1));
        options.set_network_options(network);
        Ok(AsyncClient::new(options, usize::from(IN_FLIGHT)))
    }
}

/// The broker of this turn, and whether it is the last one of its round.
fn pick(brokers: &[String], turn: usize) -> (Result<BrokerAddress, Problem>, bool) {
    let address = |reason: String| {
        Problem::new(
            codes::BROKER_ADDRESS,
            reason,
            "correct the broker addresses in the hub's configuration; the node learns them with its next renewal",
        )
    };
    let Some(index) = turn.checked_rem(brokers.len()) else {
        return (Err(address("the hub gave no broker".into())), true);
    };
    let parsed = brokers[index]
        .parse()
        .map_err(|error: super::InvalidBroker| address(error.to_string()));
    (parsed, index + 1 == brokers.len())
}

pub(super) fn presence_topic(node: &NodeId) -> String {
    Topic::up(node, Up::Presence).to_string()
}

pub(super) fn presence(online: bool) -> Vec<u8> {
    let presence = Presence {
        schema: SchemaVersion::CURRENT,
        online,
    };
    // A struct of a text and a boolean always serialises.
    serde_json::to_vec(&presence).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_tried_in_turn() {
        let brokers = ["mqtts://a:1".to_owned(), "mqtts://b:2".to_owned()];
        let picks: Vec<_> = (0..4)
            .map(|turn| {
                let (broker, last) = pick(&brokers, turn);
                (broker.unwrap().host, last)
            })
            .collect();
        let expected = [("a", false), ("b", true), ("a", false), ("b", true)];
        assert_eq!(picks, expected.map(|(host, last)| (host.to_owned(), last)));
    }

    #[test]
    fn a_wrong_address_is_named_and_waited_after() {
        let (broker, last) = pick(&["mqtt://plain".into()], 0);
        assert_eq!(broker.unwrap_err().code, codes::BROKER_ADDRESS);
        assert!(last);
        assert!(pick(&[], 5).0.is_err());
    }
}
