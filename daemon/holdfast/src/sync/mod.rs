//! The link to the hub: one MQTT v5 session over TLS with the node's certificate.
//!
//! In: documents from the hub, handed to a [`Mailbox`]. Out: events and status from the same mailbox, and the node's presence. It
//! guarantees: a document is acknowledged only when it is on the disk; an event leaves the outbox only when the broker has
//! acknowledged it; a lost link is tried again for ever, spread by full jitter and stretched by the hub; nothing else in the node waits
//! for the link.

mod address;
mod ending;
mod link;
mod mailbox;
mod session;

pub use address::{BrokerAddress, InvalidBroker};
pub use link::{Link, LinkState, Signals};
pub use mailbox::{Mailbox, OutboxRow};
