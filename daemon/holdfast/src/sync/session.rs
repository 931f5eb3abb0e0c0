//! One MQTT session, from the broker's welcome to its end.
//!
//! In: packets of the broker, hints that there is something to send. Out: acknowledgements, events, status, presence. It guarantees
//! that the order of events is kept, and that of what was sent, only what the broker acknowledged counts as delivered.
//!
//! Every session starts with empty hands: the library's own list of unacknowledged publishes is not carried over, since it is dropped
//! when the broker lost the session; the outbox sends them all again, and the hub knows doubles by their sequence.

use super::{
    ending::{BUSY_WAIT, Ending},
    link::{LinkState, Signals, presence, presence_topic},
    mailbox::Mailbox,
};
use crate::{codes, pace::Pace, quiet, telemetry::metrics::METRICS};
use futures::{StreamExt as _, stream};
use holdfast_protocol::{
    NodeId, Problem,
    topic::{Down, Topic, Up},
};
use rumqttc::{
    Outgoing,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop, Incoming,
        mqttbytes::{
            QoS,
            v5::{Disconnect, PubAck, PubAckReason, Publish, SubAck, SubscribeReasonCode},
        },
    },
};
use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// Events on their way at one time.
const WINDOW: usize = 16;
/// Events are sent this long after they happened, those of a moment together: what they tell of is more urgent than telling it, and one
/// write to the disk removes all that were delivered.
const TOGETHER: Duration = Duration::from_millis(30);
/// How long the last words may take when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a publish was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Presence,
    Status,
    Event(u64),
}

pub(super) struct Session<'a, M> {
    client: AsyncClient,
    node: &'a NodeId,
    mailbox: &'a mut M,
    state: &'a watch::Sender<LinkState>,
    connected: bool,
    /// Handed to the library, in this order; it gives each a packet id in the same order.
    handed_over: VecDeque<Sent>,
    in_flight: HashMap<u16, Sent>,
    /// The last event that was handed over.
    last_row: u64,
    /// Events that the broker took and that are still in the outbox.
    delivered: Vec<u64>,
    /// When to send events and to remove those delivered.
    tidy_at: Option<Instant>,
    status_due: bool,
    /// A document that could not be stored yet; not acknowledged.
    parked: Option<Publish>,
    pace: Pace,
    /// When to try again what failed: storing a document, or sending events that nobody received.
    retry_at: Option<Instant>,
    paused: bool,
}

type Failure = (ConnectionError, Option<Disconnect>);

impl<'a, M: Mailbox> Session<'a, M> {
    pub(super) fn new(
        client: AsyncClient,
        node: &'a NodeId,
        mailbox: &'a mut M,
        state: &'a watch::Sender<LinkState>,
    ) -> Self {
        Self {
            client,
            node,
            mailbox,
            state,
            connected: false,
            handed_over: VecDeque::new(),
            in_flight: HashMap::new(),
            last_row: 0,
            delivered: Vec::new(),
            tidy_at: None,
            status_due: true,
            parked: None,
            pace: Pace::new(Duration::from_secs(2), Duration::from_mins(5)),
            retry_at: None,
            paused: false,
        }
    }

    pub(super) async fn run(
        mut self,
        events: EventLoop,
        signals: &Signals,
        shutdown: &CancellationToken,
    ) -> Ending {
        // The library's poll must not be dropped half way: it could lose a packet between counting and writing it. A stream keeps it.
        let mut packets = pin!(stream::unfold(Some(events), |events| async {
            let mut events = events?;
            match events.poll().await {
                Ok(event) => {
                    quiet::stir();
                    Some((Ok(event), Some(events)))
                }
                Err(error) => {
                    let farewell = events.state.events.drain(..).find_map(|event| match event {
                        Event::Incoming(Incoming::Disconnect(packet)) => Some(packet),
                        _ => None,
                    });
                    Some((Err((error, farewell)), None))
                }
            }
        }));
        loop {
            let retry = at(self.retry_at);
            let tidy = at(self.tidy_at);
            let step = tokio::select! {
                packet = packets.next() => match packet {
                    Some(Ok(event)) => {
                        let is_document = matches!(event, Event::Incoming(Incoming::Publish(_)));
                        let handled = self.handle(event);
                        if is_document {
                            // On the one thread of the node, what the document is for goes before telling that it came.
                            tokio::task::yield_now().await;
                        }
                        handled
                    }
                    Some(Err(failure)) => return self.lost(failure),
                    None => return self.lost((ConnectionError::RequestsDone, None)),
                },
                () = signals.status.notified() => {
                    self.status_due = true;
                    self.pump()
                }
                () = signals.outbox.notified() => {
                    self.tidy_soon();
                    Ok(())
                }
                () = tidy => self.tidy(),
                () = retry => self.retry(),
                () = shutdown.cancelled() => {
                    self.say_farewell();
                    // Not every broker closes the connection after the goodbye; it is enough to have sent it.
                    let mut end = pin!(async {
                        while let Some(Ok(event)) = packets.next().await {
                            if matches!(event, Event::Outgoing(Outgoing::Disconnect)) {
                                break;
                            }
                        }
                    });
                    if timeout(FAREWELL, &mut end).await.is_err() {
                        tracing::debug!("the goodbye could not be sent in time");
                    }
                    return Ending::Shutdown;
                }
            };
            if let Err(problem) = step {
                return Ending::Lost {
                    problem,
                    was_connected: self.connected,
                    wait_at_least: BUSY_WAIT,
                    redirect: None,
                };
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), Problem> {
        match event {
            Event::Incoming(Incoming::ConnAck(welcome)) => self.begin(welcome.session_present),
            Event::Incoming(Incoming::Publish(publish)) => {
                self.receive(publish);
                Ok(())
            }
            Event::Incoming(Incoming::SubAck(answer)) => self.check_subscription(&answer),
            Event::Incoming(Incoming::PubAck(answer)) => self.acknowledged(&answer),
            Event::Outgoing(Outgoing::Publish(id)) => {
                if let Some(sent) = self.handed_over.pop_front() {
                    self.in_flight.insert(id, sent);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, session_present: bool) -> Result<(), Problem> {
        tracing::info!(session_present, "connected");
        self.connected = true;
        METRICS.link_connects.add(1);
        METRICS.link_connected.set(1);
        self.state.send_modify(|state| {
            state.connected = true;
            state.cause = None;
            state.attempts = 0;
        });
        // Subscribing also where the broker kept the session: the retained document is then delivered anew, and its digest says whether
        // anything was missed. What is known already costs one packet and has no effect.
        let desired = Topic::down(self.node, Down::Desired).to_string();
        self.publish(Sent::Presence, presence_topic(self.node), presence(true), true)?;
        self.client
            .try_subscribe(desired, QoS::AtLeastOnce)
            .map_err(full)?;
        self.pump()
    }

    fn receive(&mut self, publish: Publish) {
        let desired = Topic::down(self.node, Down::Desired).to_string();
        if publish.topic.as_ref() != desired.as_bytes() {
            tracing::warn!(topic = %String::from_utf8_lossy(&publish.topic), "a message on a topic that was not subscribed to; passed over");
            self.acknowledge(&publish);
            return;
        }
        // A retained message with nothing in it is how MQTT clears a topic; it says nothing about the desired state.
        if publish.payload.is_empty() {
            self.acknowledge(&publish);
            return;
        }
        match self.mailbox.desired(&publish.payload) {
            Ok(()) => {
                self.acknowledge(&publish);
                self.parked = None;
                self.pace.reset();
            }
            Err(problem) => {
                tracing::error!(%problem, "a document cannot be stored; it is not acknowledged, and tried again");
                // Only the newest is worth keeping; an older one stays unacknowledged and comes again with the next session.
                self.parked = Some(publish);
                self.retry_at = Some(Instant::now() + self.pace.next_wait());
            }
        }
    }

    fn acknowledge(&self, publish: &Publish) {
        // A full queue is no loss: an unacknowledged document comes again and is then known.
        if let Err(error) = self.client.try_ack(publish) {
            tracing::warn!(%error, "cannot acknowledge a document now; it will come again");
        }
    }

    fn tidy_soon(&mut self) {
        self.tidy_at.get_or_insert_with(|| Instant::now() + TOGETHER);
    }

    fn tidy(&mut self) -> Result<(), Problem> {
        self.remove_delivered();
        self.pump()
    }

    fn remove_delivered(&mut self) {
        self.tidy_at = None;
        let ids = std::mem::take(&mut self.delivered);
        if !ids.is_empty()
            && let Err(problem) = self.mailbox.delivered(&ids)
        {
            // They stay in the outbox and are sent once more in a later session; the hub knows doubles.
            tracing::warn!(%problem, "delivered events cannot be removed");
        }
    }

    fn retry(&mut self) -> Result<(), Problem> {
        self.remove_delivered();
        self.retry_at = None;
        self.paused = false;
        if let Some(publish) = self.parked.take() {
            self.receive(publish);
        }
        self.pump()
    }

    fn acknowledged(&mut self, answer: &PubAck) -> Result<(), Problem> {
        let Some(sent) = self.in_flight.remove(&answer.pkid) else {
            return Ok(());
        };
        match (sent, answer.reason) {
            (Sent::Event(id), PubAckReason::Success) => {
                self.delivered.push(id);
                self.tidy_soon();
                return Ok(());
            }
            (Sent::Event(id), PubAckReason::NoMatchingSubscribers) => {
                // The broker took it and had nobody to give it to: without the hub, it would be lost.
                tracing::info!(id, "nobody listens to events at the broker; they are kept");
                self.last_row = self.last_row.min(id.saturating_sub(1));
                self.pause();
            }
            (Sent::Status, PubAckReason::NoMatchingSubscribers) => {
                self.status_due = true;
                self.pause();
            }
            (_, PubAckReason::Success | PubAckReason::NoMatchingSubscribers) => {}
            (sent, reason) => {
                return Err(Problem::new(
                    codes::BROKER_REFUSED,
                    format!("the broker refused a message ({sent:?}): {reason:?}"),
                    "check the broker's access rules; see the deployment guide of the hub",
                ));
            }
        }
        self.pump()
    }

    fn pause(&mut self) {
        self.paused = true;
        if self.retry_at.is_none() {
            self.retry_at = Some(Instant::now() + self.pace.next_wait_of_at_least(BUSY_WAIT));
        }
    }

    fn check_subscription(&self, answer: &SubAck) -> Result<(), Problem> {
        if answer
            .return_codes
            .iter()
            .all(|code| matches!(code, SubscribeReasonCode::Success(_)))
        {
            return Ok(());
        }
        Err(Problem::new(
            codes::BROKER_REFUSED,
            format!(
                "the broker refuses the subscription to {}'s desired state: {:?}",
                self.node, answer.return_codes
            ),
            "check the broker's access rules; see the deployment guide of the hub",
        ))
    }

    /// Sends what is due, as far as the window allows.
    fn pump(&mut self) -> Result<(), Problem> {
        if !self.connected || self.paused {
            return Ok(());
        }
        if self.status_due
            && !self.is_pending(|sent| sent == Sent::Status)
            && let Some(report) = self.mailbox.status()
        {
            self.status_due = false;
            let topic = Topic::up(self.node, Up::Status).to_string();
            self.publish(Sent::Status, topic, report.to_vec(), false)?;
        }
        let pending = self.count_pending(|sent| matches!(sent, Sent::Event(_)));
        let room = WINDOW.saturating_sub(pending);
        if room == 0 {
            return Ok(());
        }
        match self.mailbox.outbox(self.last_row, room) {
            Ok(rows) => {
                let topic = Topic::up(self.node, Up::Event).to_string();
                for row in rows {
                    if self.is_pending(|sent| sent == Sent::Event(row.id)) {
                        continue;
                    }
                    self.publish(Sent::Event(row.id), topic.clone(), row.json.to_vec(), false)?;
                    self.last_row = row.id;
                }
            }
            Err(problem) => {
                tracing::warn!(%problem, "the outbox cannot be read; tried again");
                self.pause();
            }
        }
        Ok(())
    }

    fn is_pending(&self, which: impl Fn(Sent) -> bool) -> bool {
        self.count_pending(which) > 0
    }

    fn count_pending(&self, which: impl Fn(Sent) -> bool) -> usize {
        let waiting = self.handed_over.iter().filter(|sent| which(**sent)).count();
        waiting + self.in_flight.values().filter(|sent| which(**sent)).count()
    }

    fn publish(&mut self, sent: Sent, topic: String, payload: Vec<u8>, retain: bool) -> Result<(), Problem> {
        self.client
            .try_publish(topic, QoS::AtLeastOnce, retain, payload)
            .map_err(full)?;
        self.handed_over.push_back(sent);
        Ok(())
    }

    fn say_farewell(&mut self) {
        self.remove_delivered();
        if !self.connected {
            return;
        }
        // Ending on purpose cancels the last will, so the node says by itself that it is gone.
        if let Err(problem) = self.publish(Sent::Presence, presence_topic(self.node), presence(false), true) {
            tracing::debug!(%problem, "no room for the last words");
        }
        if let Err(error) = self.client.try_disconnect() {
            tracing::debug!(%error, "no room to say goodbye");
        }
    }

    fn lost(&mut self, (error, farewell): Failure) -> Ending {
        self.remove_delivered();
        Ending::lost(&error, farewell.as_ref(), self.connected)
    }
}

/// Waits until then; for ever where there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn full(error: impl std::fmt::Display) -> Problem {
    Problem::new(
        holdfast_protocol::codes::INTERNAL,
        format!("the queue to the broker is full: {error}"),
        "nothing: the node connects again",
    )
}
