//! The hub's one connection to the broker: kept up for ever, with paced attempts.
//!
//! In come settings and the client's event loop; out go messages to the inbox and answers to the waiting. Guarantees: after
//! every new connection the hub has subscribed and has published again all that is retained in its database; certificates are
//! read anew for each attempt; attempts are paced with full jitter, at most [`LONGEST_PAUSE`] apart.

use super::{Shared, waiting::Epoch};
use crate::broker::{BrokerError, tls};
use futures::future::OptionFuture;
use holdfast_protocol::topic::{Filter, Up};
use rumqttc::{
    Outgoing, TlsConfiguration, Transport,
    v5::{
        ConnectionError, Event, EventLoop,
        mqttbytes::{
            QoS,
            v5::{Filter as Subscription, Packet, Publish, SubscribeReasonCode},
        },
    },
};
use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{select, sync::mpsc::Sender, task::JoinHandle, time::sleep};

/// Longest pause between attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// First pause; doubled with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// A connection that held this long was a good one: the next pause is a short one.
const GOOD: Duration = Duration::from_secs(60);

/// Keeps the connection up until the hub stops.
pub(super) async fn run(shared: Arc<Shared>, mut events: EventLoop, inbox: Sender<(Epoch, Publish)>) {
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let end = connection(&shared, &mut events, &inbox).await;
        if shared.connected.send_replace(false) {
            shared.ingest.presence_lost().await;
        }
        shared.waiting.lost();
        // Twice: once by the client itself on most errors, and once for what came in since.
        events.clean();
        events.pending.clear();
        match end {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "no connection to the broker; the hub tries again"),
        }
        failures = if begun.elapsed() > GOOD { 0 } else { failures + 1 };
        select! {
            () = shared.stopping.cancelled() => return,
            () = sleep(pause(failures)) => {}
        }
    }
}

/// One connection from its first attempt to its end; `Ok` when the hub stops.
async fn connection(
    shared: &Arc<Shared>,
    events: &mut EventLoop,
    inbox: &Sender<(Epoch, Publish)>,
) -> Result<(), BrokerError> {
    let tls = tls::client_config(&shared.settings.tls)?;
    events
        .options
        .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(
            tls,
        ))));
    let mut epoch = 0;
    let mut filling: Option<Filling> = None;
    loop {
        let event = select! {
            () = shared.stopping.cancelled() => return Ok(()),
            () = shared.again.notified() => {
                return Err(BrokerError::Unavailable("a message could not be stored".to_owned()));
            }
            Some(filled) = OptionFuture::from(filling.as_mut().map(|filling| &mut filling.0)) => {
                filling = None;
                filled.unwrap_or_else(|error| Err(BrokerError::Unavailable(error.to_string())))?;
                continue;
            }
            event = events.poll() => event.map_err(|error| explained(&error))?,
        };
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                epoch = shared.waiting.connected();
                shared
                    .client
                    .try_subscribe_many(subscriptions())
                    .map_err(|error| BrokerError::Unavailable(error.to_string()))?;
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                let refused = |code: &&SubscribeReasonCode| !matches!(code, SubscribeReasonCode::Success(_));
                if let Some(reason) = ack.return_codes.iter().find(refused) {
                    return Err(BrokerError::Refused(format!(
                        "the hub's subscription ({reason:?}); does its access list let the hub read?"
                    )));
                }
                tracing::info!(host = shared.settings.host, "connected to the broker");
                shared.connected.send_replace(true);
                filling = Some(Filling(tokio::spawn(super::publish_all(shared.clone()))));
            }
            Event::Incoming(Packet::Publish(publish)) => {
                if let Err(error) = inbox.try_send((epoch, publish)) {
                    // Only QoS 0 can be more than the hub has room for, as the broker keeps to the receive maximum.
                    tracing::warn!(%error, "message dropped");
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => shared.waiting.answered(&ack),
            Event::Outgoing(Outgoing::Publish(packet)) => shared.waiting.sent(packet),
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }
}

/// The task that publishes all that is retained; ends with the connection.
struct Filling(JoinHandle<Result<(), BrokerError>>);

impl Drop for Filling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn subscriptions() -> Vec<Subscription> {
    [Up::Status, Up::Event, Up::Presence]
        .map(|channel| Subscription::new(Filter::every_node(channel).to_string(), QoS::AtLeastOnce))
        .to_vec()
}

fn explained(error: &ConnectionError) -> BrokerError {
    match error {
        ConnectionError::ConnectionRefused(code) => {
            BrokerError::Refused(format!("the hub's session: {code:?}"))
        }
        error => BrokerError::Unavailable(error.to_string()),
    }
}

/// Full jitter: anything from nothing to the doubled pause.
fn pause(failures: u32) -> Duration {
    let longest = FIRST_PAUSE
        .saturating_mul(2_u32.saturating_pow(failures.min(16)))
        .min(LONGEST_PAUSE);
    let random = RandomState::new().hash_one(failures);
    longest.mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_no_further() {
        for failures in [0, 1, 5, 40, u32::MAX] {
            for _ in 0..100 {
                assert!(pause(failures) <= LONGEST_PAUSE);
            }
        }
        assert!((0..100).any(|_| pause(12) > FIRST_PAUSE * 4));
    }
}
