//! What the hub has sent to the broker and not yet heard back about: publishes in, acknowledgements matched to them out.
//!
//! Guarantees: every publish gets an answer, at the latest when the connection is lost; an acknowledgement of one connection
//! is never sent on another one, where the same packet id means another message.

use crate::broker::BrokerError;
use rumqttc::v5::{
    AsyncClient,
    mqttbytes::{
        QoS,
        v5::{PubAck, PubAckReason, Publish},
    },
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Number of a connection, from 1; 0 before the first.
pub(super) type Epoch = u64;

/// Where the answer to a publish goes; the permit makes room for another one when it is there.
struct Waiter {
    answer: oneshot::Sender<Result<(), BrokerError>>,
    _permit: OwnedSemaphorePermit,
}

/// Everything under way on the current connection.
pub(super) struct Waiting {
    client: AsyncClient,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    epoch: Epoch,
    connected: bool,
    /// Handed to the client, in order, without a packet id yet.
    queued: VecDeque<Waiter>,
    /// On the wire, by packet id.
    sent: HashMap<u16, Waiter>,
}

impl Waiting {
    pub(super) fn new(client: AsyncClient) -> Self {
        Self {
            client,
            state: Mutex::default(),
        }
    }

    /// Puts a retained message into the client's queue; the receiver gets the broker's answer.
    pub(super) fn publish(
        &self,
        topic: String,
        payload: bytes::Bytes,
        permit: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Result<(), BrokerError>>, BrokerError> {
        let mut state = self.state();
        if !state.connected {
            return Err(BrokerError::Unavailable(
                "the hub is not connected to it".to_owned(),
            ));
        }
        self.client
            .try_publish(topic, QoS::AtLeastOnce, true, payload)
            .map_err(|error| BrokerError::Unavailable(error.to_string()))?;
        let (answer, receiver) = oneshot::channel();
        state.queued.push_back(Waiter {
            answer,
            _permit: permit,
        });
        Ok(receiver)
    }

    /// The client has put the oldest queued publish on the wire.
    pub(super) fn sent(&self, packet: u16) {
        let mut state = self.state();
        if let Some(waiter) = state.queued.pop_front() {
            state.sent.insert(packet, waiter);
        }
    }

    /// The broker has answered.
    pub(super) fn answered(&self, ack: &PubAck) {
        let waiter = self.state().sent.remove(&ack.pkid);
        if let Some(waiter) = waiter {
            let answer = match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
                reason => Err(BrokerError::Refused(format!(
                    "{reason:?}; does its access list let the hub write?"
                ))),
            };
            // Nobody listens where the caller has given up.
            let _ = waiter.answer.send(answer);
        }
    }

    /// Acknowledges a stored message, if it came on the connection that is there now.
    pub(super) fn acknowledge(&self, epoch: Epoch, publish: &Publish) -> Result<(), BrokerError> {
        let state = self.state();
        if state.epoch != epoch || !state.connected {
            // The broker sends it again on the next connection.
            return Ok(());
        }
        self.client
            .try_ack(publish)
            .map_err(|error| BrokerError::Unavailable(error.to_string()))
    }

    /// A connection is there.
    pub(super) fn connected(&self) -> Epoch {
        let mut state = self.state();
        state.epoch += 1;
        state.connected = true;
        state.epoch
    }

    pub(super) fn is_current(&self, epoch: Epoch) -> bool {
        let state = self.state();
        state.connected && state.epoch == epoch
    }

    /// The connection is lost, and with it the answers to all that was under way.
    pub(super) fn lost(&self) {
        let mut state = self.state();
        state.connected = false;
        let queued = std::mem::take(&mut state.queued);
        let sent = std::mem::take(&mut state.sent);
        drop(state);
        for waiter in queued.into_iter().chain(sent.into_values()) {
            let _ = waiter.answer.send(Err(BrokerError::Unavailable(
                "the connection to it was lost".to_owned(),
            )));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
