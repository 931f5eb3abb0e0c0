//! What our own writes made of objects, so that a watch can tell their echo from somebody else's change.
//!
//! In: begin and end of each write, and what is recorded of those of an earlier run. Out: for an object, the version after our last write. It
//! guarantees that an echo which comes before the answer of its own write is not judged until the answer is here.

use super::keys::Stamp;
use crate::kubernetes::cluster::ObjectVersion;
use holdfast_core::object::ObjectKey;
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Versions by object.
#[derive(Debug, Default)]
pub struct Versions {
    inner: Mutex<Inner>,
    /// Rings when writes have ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<Stamp, ObjectVersion>,
    writing: HashMap<Stamp, usize>,
    /// Objects whose writes ended since they were last taken.
    ended: HashSet<ObjectKey>,
    /// Objects whose records were taken in since they were last taken.
    recorded: HashSet<ObjectKey>,
}

/// A write that is under way; it counts as ended when this is dropped.
#[derive(Debug)]
pub struct Writing<'a> {
    versions: &'a Versions,
    key: ObjectKey,
    stamp: Stamp,
}

impl Versions {
    /// Marks an object as being written.
    pub fn begin(&self, key: &ObjectKey) -> Writing<'_> {
        let stamp = Stamp::of(key);
        *self.locked().writing.entry(stamp).or_default() += 1;
        Writing {
            versions: self,
            key: key.clone(),
            stamp,
        }
    }

    /// Takes in the fingerprints that the last writes of an earlier time left, whatever was known before: any state of these objects is
    /// judged by them from now on, an older one too. Objects that are being written are left alone.
    pub fn recorded(&self, records: impl IntoIterator<Item = (ObjectKey, u64)>) {
        let mut inner = self.locked();
        for (key, fingerprint) in records {
            let stamp = Stamp::of(&key);
            if !inner.writing.contains_key(&stamp) {
                inner.known.insert(stamp, ObjectVersion::recorded(fingerprint));
                inner.recorded.insert(key);
            }
        }
        drop(inner);
        self.ended.notify_one();
    }

    /// An object is as it was recorded: it is this one, and no other of the same name.
    pub fn met(&self, key: &ObjectKey, seen: ObjectVersion) {
        let stamp = Stamp::of(key);
        let mut inner = self.locked();
        if inner.writing.contains_key(&stamp) {
            return;
        }
        if let Some(known) = inner.known.get_mut(&stamp)
            && *known == ObjectVersion::recorded(seen.owned)
        {
            *known = seen;
        }
    }

    /// The version after our last write; none where there was no write since the start, or one is under way.
    pub fn settled(&self, key: &ObjectKey) -> Option<ObjectVersion> {
        let stamp = Stamp::of(key);
        let inner = self.locked();
        if inner.writing.contains_key(&stamp) {
            return None;
        }
        inner.known.get(&stamp).copied()
    }

    /// Objects whose writes ended since the last call.
    pub fn take_ended(&self) -> HashSet<ObjectKey> {
        std::mem::take(&mut self.locked().ended)
    }

    /// Objects whose records were taken in since the last call.
    pub fn take_recorded(&self) -> HashSet<ObjectKey> {
        std::mem::take(&mut self.locked().recorded)
    }

    /// Waits for the end of a write, or for records. Cancel safe.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Forgets all objects but these, and of what ended.
    pub fn retain(&self, keep: impl Iterator<Item = ObjectKey>) {
        let mut inner = self.locked();
        let mut known: HashMap<_, _> = keep
            .map(|key| Stamp::of(&key))
            .filter_map(|stamp| Some((stamp, *inner.known.get(&stamp)?)))
            .collect();
        known.shrink_to_fit();
        inner.known = known;
        inner.writing.shrink_to_fit();
        inner.ended = HashSet::new();
        inner.recorded = HashSet::new();
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        // Every change is one insert or remove; a panic between them leaves at worst an object that is judged once too often.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writing<'_> {
    /// The write succeeded, with this result.
    pub fn done(self, version: ObjectVersion) {
        let mut inner = self.versions.locked();
        let newer = inner
            .known
            .get(&self.stamp)
            .is_none_or(|known| known.uid != version.uid || !known.is_after(&version));
        if newer {
            inner.known.insert(self.stamp, version);
        }
    }

    /// The write deleted the object: that it is gone now is nobody else's doing.
    pub fn deleted(self) {
        self.versions.locked().known.remove(&self.stamp);
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut inner = self.versions.locked();
        if let Some(count) = inner.writing.get_mut(&self.stamp) {
            *count -= 1;
            if *count == 0 {
                inner.writing.remove(&self.stamp);
                inner.ended.insert(self.key.clone());
            }
        }
        drop(inner);
        self.versions.ended.notify_one();
    }
}
