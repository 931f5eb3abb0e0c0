//! Names of many objects in little memory.
//!
//! In: keys. Out: the same keys by their places, and the place of a key. It guarantees that a thousand names are a handful of pieces of
//! memory, not thousands: each small piece that lives long keeps a page in memory that would be free without it.

use super::watches::KindName;
use holdfast_core::object::ObjectKey;
use ring::digest::{SHA256, digest};
use std::cmp::Ordering;

/// Keys in an order of the caller's; none of them twice.
#[derive(Debug, Default)]
pub(super) struct Keys {
    kinds: Vec<KindName>,
    namespaces: Vec<String>,
    /// All names, one after the other.
    names: Box<str>,
    places: Vec<Key>,
    /// Places of the keys, in the order of what they say.
    sorted: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Key {
    kind: u32,
    namespace: Option<u32>,
    name_begin: u32,
    name_end: u32,
}

impl Keys {
    /// These keys, in this order.
    pub(super) fn new<'a>(all: impl ExactSizeIterator<Item = &'a ObjectKey>) -> Self {
        let mut keys = Self {
            places: Vec::with_capacity(all.len()),
            ..Self::default()
        };
        let mut names = String::new();
        for key in all {
            let kind = keys.kinds.iter().position(|kind| is_of(kind, key));
            let kind = kind.unwrap_or_else(|| {
                keys.kinds.push((key.api_version.clone(), key.kind.clone()));
                keys.kinds.len() - 1
            });
            let namespace = key.namespace.as_ref().map(|namespace| {
                let known = keys.namespaces.iter().position(|known| known == namespace);
                known.unwrap_or_else(|| {
                    keys.namespaces.push(namespace.clone());
                    keys.namespaces.len() - 1
                })
            });
            let name_begin = names.len() as u32;
            names.push_str(&key.name);
            keys.places.push(Key {
                kind: kind as u32,
                namespace: namespace.map(|namespace| namespace as u32),
                name_begin,
                name_end: names.len() as u32,
            });
        }
        keys.names = names.into();
        let mut sorted: Vec<_> = (0..keys.places.len() as u32).collect();
        sorted.sort_unstable_by(|a, b| {
            let [a, b] = [a, b].map(|place| keys.parts(*place as usize));
            a.cmp(&b)
        });
        keys.sorted = sorted;
        keys
    }

    pub(super) fn kinds(&self) -> &[KindName] {
        &self.kinds
    }

    /// Kind of the key at a place.
    pub(super) fn kind(&self, place: usize) -> &KindName {
        &self.kinds[self.places[place].kind as usize]
    }

    /// The key at a place.
    pub(super) fn get(&self, place: usize) -> ObjectKey {
        let (kind, namespace, name) = self.parts(place);
        ObjectKey {
            api_version: kind.0.clone(),
            kind: kind.1.clone(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        }
    }

    /// All keys, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = ObjectKey> {
        (0..self.places.len()).map(|place| self.get(place))
    }

    /// Where a key is.
    pub(super) fn place(&self, key: &ObjectKey) -> Option<usize> {
        let found = self.sorted.binary_search_by(|place| {
            let (kind, namespace, name) = self.parts(*place as usize);
            let kind = (kind.0.as_str(), kind.1.as_str()).cmp(&(&key.api_version, &key.kind));
            let rest = || (namespace, name).cmp(&(key.namespace.as_deref(), &key.name));
            kind.then_with(rest)
        });
        found.ok().map(|sorted| self.sorted[sorted] as usize)
    }

    fn parts(&self, place: usize) -> (&KindName, Option<&str>, &str) {
        let key = self.places[place];
        let namespace = key
            .namespace
            .map(|namespace| self.namespaces[namespace as usize].as_str());
        let name = &self.names[key.name_begin as usize..key.name_end as usize];
        (&self.kinds[key.kind as usize], namespace, name)
    }
}

fn is_of(kind: &KindName, key: &ObjectKey) -> bool {
    (&kind.0, &kind.1).cmp(&(&key.api_version, &key.kind)) == Ordering::Equal
}

/// What stands for a key where the key itself is not needed: half of a SHA-256, so that no two keys have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stamp([u8; 16]);

impl Stamp {
    /// The stamp of a key.
    pub(super) fn of(key: &ObjectKey) -> Self {
        // No part of a key has a zero byte in it.
        let parts = [
            &key.api_version,
            &key.kind,
            key.namespace.as_deref().unwrap_or_default(),
            &key.name,
        ];
        let hash = digest(&SHA256, parts.join("\0").as_bytes());
        let mut stamp = [0; 16];
        stamp.copy_from_slice(&hash.as_ref()[..16]);
        Self(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> ObjectKey {
        ObjectKey {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: namespace.map(Into::into),
            name: name.into(),
        }
    }

    #[test]
    fn every_key_is_found_at_its_place_and_no_other_is() {
        let all = [
            key("v1", "ConfigMap", Some("b"), "x"),
            key("v1", "Namespace", None, "b"),
            key("apps/v1", "Deployment", Some("a"), "x"),
            key("v1", "ConfigMap", Some("a"), "xy"),
            key("v1", "ConfigMap", Some("a"), "x"),
            key("v1", "Secret", Some("a"), "x"),
        ];
        let keys = Keys::new(all.iter());
        for (place, key) in all.iter().enumerate() {
            assert_eq!(keys.place(key), Some(place));
            assert_eq!(keys.get(place), *key);
            assert_eq!(*keys.kind(place), (key.api_version.clone(), key.kind.clone()));
        }
        assert!(keys.iter().eq(all.iter().cloned()));
        assert_eq!(keys.kinds().len(), 4);
        for other in [
            key("v1", "ConfigMap", None, "x"),
            key("v1", "ConfigMap", Some("c"), "x"),
            key("v1", "ConfigMap", Some("a"), ""),
            key("v2", "ConfigMap", Some("a"), "x"),
        ] {
            assert_eq!(keys.place(&other), None, "{other}");
        }
        assert_eq!(Keys::default().place(&all[0]), None);
    }

    #[test]
    fn keys_that_differ_in_one_part_have_different_stamps() {
        let base = key("v1", "ConfigMap", Some("a"), "x");
        let others = [
            key("v2", "ConfigMap", Some("a"), "x"),
            key("v1", "Config", Some("a"), "x"),
            key("v1", "ConfigMap", None, "x"),
            key("v1", "ConfigMap", Some("ax"), ""),
        ];
        assert_eq!(Stamp::of(&base), Stamp::of(&base.clone()));
        assert!(others.iter().all(|other| Stamp::of(other) != Stamp::of(&base)));
    }
}
