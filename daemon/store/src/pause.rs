//! The pause that a person at the box made.
//!
//! In: since when, until when, why. Out: the same after a restart.

use crate::{
    StoreError,
    desired::to_text,
    store::{Store, read_meta, write_meta},
};
use holdfast_protocol::event::Event;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Name of the value that holds the pause.
const PAUSE: &str = "pause";

/// No changes until then. Times are by the node's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// When it was made.
    pub since: Timestamp,
    /// When it ends by itself.
    pub until: Timestamp,
    /// Why, in the person's own words; empty where they gave none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl Store {
    /// The pause, also one that ended meanwhile and was not taken away.
    pub fn pause(&self) -> Result<Option<Pause>, StoreError> {
        let text = self.read(|connection| read_meta(connection, PAUSE))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Writes a pause down, or takes it away, with the events that tell of it.
    pub fn set_pause(&self, pause: Option<&Pause>, events: &[Event]) -> Result<(), StoreError> {
        self.transact_with_events(events, |transaction, _| match pause {
            Some(pause) => write_meta(transaction, PAUSE, &to_text(pause)),
            None => transaction
                .execute("DELETE FROM meta WHERE name = ?1", [PAUSE])
                .map(drop),
        })
    }
}
