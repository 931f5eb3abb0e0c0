//! Restarts in the middle of a change.
//!
//! In: the digest of the document that is being changed to. Out: how often the daemon was started meanwhile. Guarantees: the count is on the
//! disk before it is given; one document's is never another's.

use crate::{
    StoreError,
    store::{Store, read_meta, write_meta},
};
use holdfast_protocol::Digest;

/// Name of the value: `DIGEST COUNT`. One is enough, as only the newest document's change goes on.
const CHANGE_RESTARTS: &str = "change_restarts";

impl Store {
    /// Counts a restart in the change to the document with this digest; gives the restarts up to now, this one among them.
    pub fn count_restart(&self, digest: Digest) -> Result<u32, StoreError> {
        self.write(|transaction| {
            let before = read_meta(transaction, CHANGE_RESTARTS)?
                .and_then(|text| count_of(&text, digest))
                .unwrap_or(0);
            let count = before.saturating_add(1);
            write_meta(transaction, CHANGE_RESTARTS, &format!("{digest} {count}"))?;
            Ok(count)
        })
    }
}

fn count_of(text: &str, digest: Digest) -> Option<u32> {
    let (of, count) = text.split_once(' ')?;
    (of == digest.to_string()).then(|| count.parse().ok())?
}
