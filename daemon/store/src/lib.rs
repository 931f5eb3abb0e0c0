//! What the Holdfast node keeps on its disk.
//!
//! What comes in: verified documents, what was applied, events, blobs. What goes out: the same after any crash.
//! What it guarantees: whatever a call that returned `Ok` stored is there after a power cut; nothing that admission did not verify
//! can be stored as desired state; the highest accepted generation never sinks, even if the database is lost; a disk that is full,
//! read-only or failing, a damaged file and a file of a newer version are told apart, each with what to do.
//!
//! ```text
//! STATE/lock                        held by the one daemon of this state directory   StateLock
//! STATE/store/node.db               desired state, history, inventory, outbox         Store
//! STATE/store/node.db.schema-N      as it was before a newer version changed its schema
//! STATE/store/floor.json            what must outlive the database                    Store
//! STATE/store/blobs/sha256/HEX      blobs by content                                  Blobs
//! STATE/store/blobs/partial/HEX     blobs that are being fetched                      BlobWriter
//! ```
//!
//! All calls are synchronous and short; none writes unless something changed, so an idle node writes nothing.

mod blobs;
mod boots;
pub mod codes;
mod database;
mod desired;
mod error;
mod floor;
mod former;
pub mod fs;
mod inventory;
mod journal;
mod lock;
mod outbox;
mod pause;
mod restarts;
mod store;

pub use blobs::{BlobError, BlobWriter, Blobs, Collected};
pub use desired::{KEPT_PROVEN, Recovered, StoredDocument};
pub use error::StoreError;
pub use inventory::ApplyRecord;
pub use journal::HistoryEntry;
pub use lock::{LockError, StateLock};
pub use outbox::PendingEvent;
pub use pause::Pause;
pub use store::{Options, Quarantined, Store};
