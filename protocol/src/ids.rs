//! Identifiers: node names, content digests and generations. Each is checked once, when it is made.

use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    fmt,
    fmt::Write as _,
    io::{self, Read},
    str::FromStr,
};

/// How much of a reader is in memory at once, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// Name of a node: a DNS-1123 label, 1 to 63 of `a-z`, `0-9` and `-`, starting and ending with a letter or digit.
///
/// It is at once the common name of the node's certificate, its MQTT client id and user name, and a level of its topics, so
/// it can hold no MQTT wildcard, separator or control character.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(String);

/// A name that is not a DNS-1123 label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} is not a valid name: use 1 to 63 lower-case letters, digits and '-', starting and ending with a letter or digit"
)]
pub struct InvalidName {
    found: String,
}

impl NodeId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Makes a valid name out of any text (a host name, a serial number), or none where nothing usable is left.
    pub fn sanitised(text: &str) -> Option<Self> {
        let mapped: String = text
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            })
            .take(63)
            .collect();
        mapped.trim_matches('-').parse().ok()
    }
}

impl FromStr for NodeId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let valid = (1..=63).contains(&bytes.len())
            && bytes.iter().all(|byte| alphanumeric(*byte) || *byte == b'-')
            && alphanumeric(bytes[0])
            && alphanumeric(bytes[bytes.len() - 1]);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName {
                found: text.chars().take(80).collect(),
            })
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 of some content, written `sha256:` + 64 lower-case hex digits, as OCI registries do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A digest that is not `sha256:` + 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a digest: expected \"sha256:\" and 64 lower-case hex digits")]
pub struct InvalidDigest {
    found: String,
}

impl Digest {
    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, content).as_ref());
        Self(bytes)
    }

    /// The digest of all that `reader` still gives, and how many bytes that was.
    ///
    /// ```
    /// use holdfast_protocol::Digest;
    ///
    /// let content = [7; 200_000];
    /// assert_eq!(Digest::of_reader(&content[..])?, (Digest::of(&content), 200_000));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the reader says.
    pub fn of_reader(mut reader: impl Read) -> io::Result<(Self, u64)> {
        let mut context = Context::new(&SHA256);
        let mut size = 0;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = reader.read(&mut buffer)?;
            if count == 0 {
                let mut bytes = [0; 32];
                bytes.copy_from_slice(context.finish().as_ref());
                return Ok((Self(bytes), size));
            }
            context.update(&buffer[..count]);
            size += count as u64;
        }
    }

    /// A digest from its 32 raw bytes, as a streaming hash gives them.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without the algorithm's name, fit for a file name.
    pub fn hex(&self) -> String {
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let hex = text.strip_prefix("sha256:")?.as_bytes();
            (hex.len() == 64).then_some(())?;
            let nibble = |byte: u8| match byte {
                b'0'..=b'9' => Some(byte - b'0'),
                b'a'..=b'f' => Some(byte - b'a' + 10),
                _ => None,
            };
            let mut bytes = [0; 32];
            for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
                *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
            }
            Some(Self(bytes))
        };
        parse().ok_or_else(|| InvalidDigest {
            found: text.chars().take(100).collect(),
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Place of a document in the order of all documents of one node: first by epoch, then by counter.
///
/// The epoch rises when a hub is restored from a backup, so that documents made after the restore are newer than any that
/// the lost hub sent. Written `epoch.counter` everywhere, for example `"1.42"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    /// Number of the hub's life, from 1.
    pub epoch: u32,
    /// Number of the document within the epoch, from 1. At most `i64::MAX`, so that any SQL database can hold it.
    pub counter: u64,
}

/// A generation that is not `epoch.counter`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a generation: expected \"epoch.counter\", such as \"1.42\"")]
pub struct InvalidGeneration {
    found: String,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.counter)
    }
}

impl FromStr for Generation {
    type Err = InvalidGeneration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (epoch, counter) = text.split_once('.')?;
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            (digits(epoch) && digits(counter)).then_some(())?;
            let generation = Self {
                epoch: epoch.parse().ok()?,
                counter: counter.parse().ok()?,
            };
            i64::try_from(generation.counter).ok()?;
            Some(generation)
        };
        parse().ok_or_else(|| InvalidGeneration {
            found: text.chars().take(60).collect(),
        })
    }
}

/// Serialises as text, and parses on the way in, so that no unchecked value enters through JSON.
macro_rules! serde_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(NodeId, Digest, Generation);
