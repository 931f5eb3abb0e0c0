//! Schema versions: `major.minor`, where only the major decides whether a document can be read.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// Version of a document's schema, written `major.minor` on the wire, for example `"1.0"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaVersion {
    /// Raised when old readers would misread the document; they refuse it.
    pub major: u16,
    /// Raised when fields are added; old readers keep and ignore them.
    pub minor: u16,
}

impl SchemaVersion {
    /// The version that this build writes.
    pub const CURRENT: Self = Self { major: 1, minor: 0 };

    /// Checks that a document of this version can be read here.
    pub fn check_supported(self) -> Result<(), UnsupportedMajor> {
        if self.major == Self::CURRENT.major {
            Ok(())
        } else {
            Err(UnsupportedMajor { found: self })
        }
    }
}

impl Default for SchemaVersion {
    fn default() -> Self {
        Self::CURRENT
    }
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A schema version that is not `major.minor`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema version {found:?} is not of the form \"major.minor\", such as \"1.0\"")]
pub struct InvalidSchemaVersion {
    found: String,
}

/// A document of a major version that this build cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema {found} is not supported: this build reads major version {}; update the older side first", SchemaVersion::CURRENT.major)]
pub struct UnsupportedMajor {
    /// The version that the document names.
    pub found: SchemaVersion,
}

impl FromStr for SchemaVersion {
    type Err = InvalidSchemaVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (major, minor) = text.split_once('.')?;
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            (digits(major) && digits(minor)).then_some(())?;
            Some(Self {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
            })
        };
        parse().ok_or_else(|| InvalidSchemaVersion {
            found: text.to_owned(),
        })
    }
}

impl Serialize for SchemaVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SchemaVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
