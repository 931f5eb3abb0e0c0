//! What the link needs of the rest of the node: a place for what comes, and what is to be sent.

use bytes::Bytes;
use holdfast_protocol::Problem;

/// One event that waits for the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Place in the outbox; rises.
    pub id: u64,
    /// The event's JSON form.
    pub json: Bytes,
}

/// Where documents go and events come from. Every method returns only when its effect is on the disk.
pub trait Mailbox: Send {
    /// Takes the bytes of an envelope: stored, known already, or refused with the refusal noted down in the outbox.
    ///
    /// Only then is it acknowledged. An error means that nothing could be written down; it is offered again later.
    fn desired(&mut self, envelope: &[u8]) -> Result<(), Problem>;

    /// Events above place `after`, at most `limit`, in order.
    fn outbox(&mut self, after: u64, limit: usize) -> Result<Vec<OutboxRow>, Problem>;

    /// These events were taken over by the broker: they are removed.
    fn delivered(&mut self, ids: &[u64]) -> Result<(), Problem>;

    /// The newest status report, to be sent now; none where there is none yet.
    fn status(&mut self) -> Option<Bytes>;
}
