//! The hub's side of the seam, in memory: what nodes said, who is online, what is retained; and faults on demand.

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_hub::broker::{Ingest, IngestError};
use holdfast_protocol::{
    NodeId, Problem, codes,
    report::Presence,
    topic::{Topic, Up},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};
use tokio::sync::watch;

use super::within;

/// What a hub has seen and keeps.
#[derive(Default)]
pub struct State {
    /// Messages that were stored, in order.
    pub stored: Vec<(NodeId, Up, Bytes)>,
    /// How often a message was offered and could not be stored.
    pub failed: usize,
    /// Every change of presence, in order.
    pub presence: Vec<(NodeId, bool)>,
    pub online: HashMap<NodeId, bool>,
    pub retained: HashMap<Topic, Bytes>,
    pub revoked: HashSet<Vec<u8>>,
    /// How many more messages cannot be stored.
    pub fail_next: usize,
}

/// A hub.
pub struct Recorder {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    /// Whether presence comes as messages, as an external broker gives it.
    presence_in_messages: bool,
}

impl Recorder {
    pub fn new(presence_in_messages: bool) -> Self {
        Self {
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            presence_in_messages,
        }
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let result = look(&mut self.state.lock().unwrap());
        self.changes.send_modify(|changes| *changes += 1);
        result
    }

    /// Waits until `holds`, looking again after each change.
    pub async fn until(&self, what: &str, mut holds: impl FnMut(&State) -> bool) {
        let mut changes = self.changes.subscribe();
        within(what, async {
            while !holds(&self.state.lock().unwrap()) {
                changes.changed().await.unwrap();
            }
        })
        .await;
    }

    /// Waits until a message has been stored.
    pub async fn until_stored(&self, node: &str, payload: &'static str) {
        self.until(&format!("{payload:?} of {node} to be stored"), |state| {
            state
                .stored
                .iter()
                .any(|(from, _, bytes)| from.as_str() == node && bytes == payload.as_bytes())
        })
        .await;
    }

    pub async fn until_online(&self, node: &str, online: bool) {
        self.until(&format!("{node} online: {online}"), |state| {
            state
                .online
                .iter()
                .any(|(name, now)| name.as_str() == node && *now == online)
        })
        .await;
    }

    /// All payloads of `node` on a channel, as text.
    pub fn said(&self, node: &str, channel: Up) -> Vec<String> {
        self.with(|state| {
            state
                .stored
                .iter()
                .filter(|(from, on, _)| from.as_str() == node && *on == channel)
                .map(|(_, _, bytes)| String::from_utf8_lossy(bytes).into_owned())
                .collect()
        })
    }
}

#[async_trait]
impl Ingest for Recorder {
    async fn message(&self, node: &NodeId, channel: Up, payload: Bytes) -> Result<(), IngestError> {
        self.with(|state| {
            if state.fail_next > 0 {
                state.fail_next -= 1;
                state.failed += 1;
                return Err(IngestError("disk full".to_owned()));
            }
            state.stored.push((node.clone(), channel, payload.clone()));
            if self.presence_in_messages
                && channel == Up::Presence
                && let Ok(presence) = serde_json::from_slice::<Presence>(&payload)
            {
                state.presence.push((node.clone(), presence.online));
                state.online.insert(node.clone(), presence.online);
            }
            Ok(())
        })
    }

    async fn presence(&self, node: &NodeId, online: bool) {
        self.with(|state| {
            state.presence.push((node.clone(), online));
            state.online.insert(node.clone(), online);
        });
    }

    async fn authorise(&self, node: &NodeId, certificate_der: &[u8]) -> Result<(), Problem> {
        if self.with(|state| state.revoked.contains(certificate_der)) {
            return Err(Problem::new(
                codes::CERTIFICATE_REVOKED,
                format!("the certificate of {node} is revoked"),
                "",
            ));
        }
        Ok(())
    }

    async fn retained(&self, topic: &Topic) -> Result<Option<Bytes>, IngestError> {
        Ok(self.with(|state| state.retained.get(topic).cloned()))
    }

    async fn retained_topics(&self) -> Result<Vec<Topic>, IngestError> {
        Ok(self.with(|state| state.retained.keys().cloned().collect()))
    }
}
