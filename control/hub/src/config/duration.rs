//! Durations as people write them: `90s`, `15m`, `24h`, `30d`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr, time::Duration};

/// A duration in whole seconds, written as a number with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TextDuration(pub Duration);

/// A text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} is not a duration: write a whole number with its unit, such as \"90s\", \"15m\", \"24h\" or \"30d\""
)]
pub struct InvalidTextDuration {
    found: String,
}

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl FromStr for TextDuration {
    type Err = InvalidTextDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let unit = text.chars().last()?;
            let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
            let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
            Some(Self(Duration::from_secs(number.checked_mul(seconds)?)))
        };
        parse().ok_or_else(|| InvalidTextDuration {
            found: text.chars().take(40).collect(),
        })
    }
}

impl fmt::Display for TextDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        for (unit, size) in UNITS {
            if seconds.is_multiple_of(size) && (seconds > 0 || unit == 's') {
                return write!(f, "{}{unit}", seconds / size);
            }
        }
        write!(f, "{seconds}s")
    }
}

impl Serialize for TextDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TextDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_keeps_its_text() {
        for text in ["90s", "15m", "1d", "30d", "0s", "25h"] {
            assert_eq!(text.parse::<TextDuration>().unwrap().to_string(), text);
        }
        assert_eq!("24h".parse::<TextDuration>().unwrap().to_string(), "1d");
    }

    #[test]
    fn a_number_without_unit_or_out_of_range_is_refused() {
        for text in [
            "",
            "90",
            "s",
            "1w",
            "-1s",
            "1.5h",
            "99999999999999999999d",
            "999999999999999999d",
        ] {
            assert!(text.parse::<TextDuration>().is_err(), "{text}");
        }
    }
}
