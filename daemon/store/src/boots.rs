//! Up to which start of the machine the hub is told.
//!
//! In: the events of starts and the id of the last of them. Out: that id after any crash. Guarantees: id and events are stored together or
//! not at all, so no start is told twice or left out.

use crate::{
    StoreError,
    store::{Store, read_meta, write_meta},
};
use holdfast_protocol::event::Event;

/// Name of the value that holds the id.
const TOLD: &str = "boot_told";

impl Store {
    /// Id of the last start of the machine whose event was queued.
    pub fn boot_told(&self) -> Result<Option<String>, StoreError> {
        self.read(|connection| read_meta(connection, TOLD))
    }

    /// Queues the events of starts up to the one with this id.
    pub fn tell_boots(&self, events: &[Event], last: &str) -> Result<(), StoreError> {
        self.transact_with_events(events, |transaction, _| write_meta(transaction, TOLD, last))
    }
}
