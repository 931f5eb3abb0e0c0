//! What Holdfast looks at in an object's metadata, read without keeping the rest.
//!
//! In: JSON of the API server with whole objects or their metadata. Out: [`Metadata`]: name, identity, place in time, and a fingerprint of
//! what Holdfast owns in it. It guarantees that the tree of owned fields, most of an object's metadata, is hashed while it is read and never
//! in memory as a whole, and that the fingerprint is the same in every version of Holdfast: it is kept on disk.

use holdfast_core::object::MANAGER;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use std::fmt;

/// What an object's metadata says of its place in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectVersion {
    /// Hash of the identity over deletion and creation; 0 where any is meant.
    pub uid: u64,
    /// Rises with every change; 0 where it is not known. Opaque by its definition until Kubernetes 1.35, a number in fact.
    pub resource_version: u64,
    /// Hash of the fields that Holdfast owns in it, and of the second in which Holdfast last changed it. Whoever changes or removes one of
    /// them takes it out of this set, and an older state of the object has an older time: so the hash stays the same exactly as long as
    /// everything that Holdfast wrote is as Holdfast wrote it, whatever else happens to the object.
    pub owned: u64,
}

impl ObjectVersion {
    /// What is known of an object from an earlier run: no matter which object of the name it is, and when.
    pub const fn recorded(owned: u64) -> Self {
        Self {
            uid: 0,
            resource_version: 0,
            owned,
        }
    }

    /// Whether this state of the object comes after `other`.
    pub const fn is_after(&self, other: &Self) -> bool {
        other.resource_version != 0 && self.resource_version > other.resource_version
    }
}

/// Metadata of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Namespace; none for objects of the whole cluster.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// The rest.
    pub version: ObjectVersion,
}

/// An object of which only the metadata is read.
#[derive(Clone, Debug, Deserialize)]
pub struct Described {
    /// Its metadata.
    pub metadata: Metadata,
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub struct Page<T> {
    /// Of the list itself.
    #[serde(default)]
    pub metadata: PageMetadata,
    /// Its objects.
    #[serde(
        default = "Vec::new",
        deserialize_with = "none_or_all",
        bound(deserialize = "T: Deserialize<'de>")
    )]
    pub items: Vec<T>,
}

/// An API server says `null` where a kind has no objects at all.
fn none_or_all<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Metadata of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PageMetadata {
    /// From where a watch goes on.
    pub resource_version: String,
    /// How to ask for the next page; empty with the last one.
    #[serde(rename = "continue")]
    pub next: String,
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire {
            #[serde(default)]
            name: String,
            namespace: Option<String>,
            #[serde(default)]
            uid: String,
            #[serde(default)]
            resource_version: String,
            #[serde(default)]
            managed_fields: Owned,
        }
        let wire = Wire::deserialize(deserializer)?;
        Ok(Self {
            namespace: wire.namespace,
            name: wire.name,
            version: ObjectVersion {
                uid: match wire.uid.as_str() {
                    "" => 0,
                    uid => Hash::of(uid.as_bytes()),
                },
                resource_version: wire.resource_version.parse().unwrap_or_default(),
                owned: wire.managed_fields.0,
            },
        })
    }
}

/// Hash of what Holdfast owns, read from `managedFields`.
#[derive(Clone, Copy, Default)]
struct Owned(u64);

impl<'de> Deserialize<'de> for Owned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Entry {
            #[serde(default)]
            manager: String,
            #[serde(default)]
            operation: String,
            #[serde(default)]
            subresource: String,
            #[serde(default)]
            api_version: String,
            #[serde(default)]
            time: String,
            #[serde(rename = "fieldsV1", default)]
            fields: Fields,
        }

        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Owned;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of managed fields")
            }

            fn visit_unit<E>(self) -> Result<Owned, E> {
                Ok(Owned::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Owned, A::Error> {
                let mut hash = Hash::new();
                while let Some(entry) = entries.next_element::<Entry>()? {
                    if entry.manager == MANAGER && entry.operation == "Apply" && entry.subresource.is_empty()
                    {
                        hash.add(entry.api_version.as_bytes());
                        hash.add(entry.time.as_bytes());
                        hash.add(&entry.fields.0.to_le_bytes());
                    }
                }
                Ok(Owned(hash.0))
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

/// Hash of a tree of fields.
#[derive(Clone, Copy, Default)]
struct Fields(u64);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut hash = Hash::new();
        Tree(&mut hash).deserialize(deserializer)?;
        Ok(Self(hash.0))
    }
}

/// Reads any JSON into a hash.
struct Tree<'a>(&'a mut Hash);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.add(b"{");
        while map.next_key_seed(Tree(self.0))?.is_some() {
            map.next_value_seed(Tree(self.0))?;
        }
        self.0.add(b"}");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.0.add(b"[");
        while list.next_element_seed(Tree(self.0))?.is_some() {}
        self.0.add(b"]");
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.add(text.as_bytes());
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.0.add(&[u8::from(value)]);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.0.add(&value.to_le_bytes());
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.0.add(&value.to_le_bytes());
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.0.add(&value.to_bits().to_le_bytes());
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.0.add(b"null");
        Ok(())
    }
}

/// FNV-1a with 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): the same on every machine and in every version, which the standard
/// library does not promise of its own. Nobody gains by a collision: who may write objects may as well write them as Holdfast does.
struct Hash(u64);

impl Hash {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::new();
        hash.add(bytes);
        hash.0
    }

    /// Takes in one piece; its end counts, so that "ab", "c" is not "a", "bc".
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(metadata: &Value) -> Metadata {
        serde_json::from_value::<Described>(
            json!({"kind": "ConfigMap", "data": {"a": "b"}, "metadata": metadata}),
        )
        .unwrap()
        .metadata
    }

    fn with_fields(time: &str, fields: &Value, neighbour: &Value) -> ObjectVersion {
        read(&json!({
            "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "12",
            "managedFields": [
                {"manager": "holdfast", "operation": "Apply", "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1", "fieldsV1": fields},
                {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:09Z", "fieldsV1": neighbour, "subresource": "status"},
            ]
        }))
        .version
    }

    #[test]
    fn the_fingerprint_changes_with_our_fields_and_our_time_alone() {
        let ours = json!({"f:data": {"f:a": {}}});
        let base = with_fields("2026-01-01T00:00:00Z", &ours, &json!({}));
        assert_eq!(
            base,
            with_fields("2026-01-01T00:00:00Z", &ours, &json!({"f:status": {}}))
        );
        assert_ne!(
            base.owned,
            with_fields("2026-01-01T00:00:01Z", &ours, &json!({})).owned
        );
        for other in [
            json!({"f:data": {}}),
            json!({"f:data": {"f:b": {}}}),
            json!({"f:data": {}, "f:a": {}}),
            json!({"f:data": {"f:a": {"v:1": 1}}}),
            json!({"f:data": {"f:a": [true, null, -1, 1.5]}}),
        ] {
            let version = with_fields("2026-01-01T00:00:00Z", &other, &json!({}));
            assert_ne!(base.owned, version.owned, "{other}");
        }
    }

    #[test]
    fn the_fingerprint_is_the_one_that_earlier_versions_wrote_to_disk() {
        let version = with_fields(
            "2026-01-01T00:00:00Z",
            &json!({"f:data": {"f:a": {}}}),
            &json!({}),
        );
        assert_eq!(version.owned, FINGERPRINT, "{:#x}", version.owned);
        assert_eq!(version.resource_version, 12);
    }

    /// Computed once; a change of it would make every node write every object again after an update.
    const FINGERPRINT: u64 = 0x87c0_48c3_debb_53ed;

    #[test]
    fn metadata_without_managed_fields_is_read() {
        let metadata = read(&json!({"name": "a"}));
        assert_eq!((metadata.name.as_str(), metadata.namespace), ("a", None));
        assert_eq!((metadata.version.uid, metadata.version.resource_version), (0, 0));
        read(&json!({"name": "a", "managedFields": null, "labels": {"x": "y"}, "generation": 3}));
    }

    #[test]
    fn a_page_says_where_the_next_one_is() {
        let page: Page<Described> = serde_json::from_value(json!({
            "kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "7", "continue": "x", "remainingItemCount": 2},
            "items": [{"metadata": {"name": "a"}}]
        }))
        .unwrap();
        assert_eq!(
            (
                page.metadata.resource_version.as_str(),
                page.metadata.next.as_str()
            ),
            ("7", "x")
        );
        assert_eq!(page.items.len(), 1);
        let empty: Page<Described> =
            serde_json::from_value(json!({"metadata": {"resourceVersion": "7"}})).unwrap();
        assert!(empty.items.is_empty() && empty.metadata.next.is_empty());
    }
}
