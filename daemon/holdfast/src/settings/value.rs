//! Kinds of values that a setting can have: how each is read from TOML, and how it is written in the documentation.
//!
//! In: a value of a parsed TOML file. Out: the typed value, or one sentence that says what was expected.

use serde_json::{Map, Value};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use toml::de::DeValue;

/// A type that a key of the settings can have.
pub trait SettingValue: Sized {
    /// What a person must write, for the documentation and for errors.
    const KIND: &'static str;

    /// Reads the value; the error says what was found.
    fn read(value: &DeValue<'_>) -> Result<Self, String>;

    /// Puts a value of a later file over this one. Tables merge by key; everything else is replaced.
    fn assign(&mut self, value: &DeValue<'_>) -> Result<(), String> {
        *self = Self::read(value)?;
        Ok(())
    }

    /// The value as TOML; empty where there is none.
    fn show(&self) -> String;
}

fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("found {text:?}"),
        other => format!("found a value of type {}", other.type_str()),
    }
}

fn text<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| found(value))
}

impl SettingValue for bool {
    const KIND: &'static str = "true or false";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| found(value))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl SettingValue for $type {
            const KIND: &'static str = "whole number";

            fn read(value: &DeValue<'_>) -> Result<Self, String> {
                let number = value.as_integer().ok_or_else(|| found(value))?;
                Self::from_str_radix(number.as_str(), number.radix())
                    .map_err(|_| format!("{} is not within {} and {}", number.as_str(), Self::MIN, Self::MAX))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

whole_numbers!(u16, u32, u64, usize);

impl SettingValue for String {
    const KIND: &'static str = "text";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        text(value).map(str::to_owned)
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl SettingValue for PathBuf {
    const KIND: &'static str = "path";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        match text(value)? {
            "" => Err("found an empty path".into()),
            path => Ok(path.into()),
        }
    }

    fn show(&self) -> String {
        format!("{:?}", self.display().to_string())
    }
}

impl SettingValue for IpAddr {
    const KIND: &'static str = "address, such as \"10.200.0.1\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        text(value)?.parse().map_err(|_| found(value))
    }

    fn show(&self) -> String {
        format!("{:?}", self.to_string())
    }
}

impl SettingValue for SocketAddr {
    const KIND: &'static str = "address and port, such as \"127.0.0.1:9753\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        text(value)?.parse().map_err(|_| found(value))
    }

    fn show(&self) -> String {
        format!("{:?}", self.to_string())
    }
}

impl SettingValue for Duration {
    const KIND: &'static str = "duration, such as \"250ms\", \"60s\", \"5m\", \"6h\" or \"7d\"";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        parse_duration(text(value)?).ok_or_else(|| found(value))
    }

    fn show(&self) -> String {
        format!("{:?}", format_duration(*self))
    }
}

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl SettingValue for ByteSize {
    const KIND: &'static str = "size, such as \"512KiB\", \"4MiB\" or a number of bytes";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        if value.is_integer() {
            return u64::read(value).map(Self);
        }
        parse_size(text(value)?).map(Self).ok_or_else(|| found(value))
    }

    fn show(&self) -> String {
        format!("{:?}", format_size(self.0))
    }
}

impl<T: SettingValue> SettingValue for Option<T> {
    const KIND: &'static str = T::KIND;

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        T::read(value).map(Some)
    }

    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
}

impl<T: SettingValue> SettingValue for Vec<T> {
    const KIND: &'static str = "list";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        value
            .as_array()
            .ok_or_else(|| found(value))?
            .iter()
            .map(|item| T::read(item.get_ref()))
            .collect()
    }

    fn show(&self) -> String {
        format!("[{}]", self.iter().map(T::show).collect::<Vec<_>>().join(", "))
    }
}

/// A table whose keys belong to another program; later files replace single keys of it.
impl SettingValue for Map<String, Value> {
    const KIND: &'static str = "table";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let mut map = Self::new();
        map.assign(value)?;
        Ok(map)
    }

    fn assign(&mut self, value: &DeValue<'_>) -> Result<(), String> {
        for (key, value) in value.as_table().ok_or_else(|| found(value))? {
            self.insert(key.get_ref().to_string(), json(value.get_ref())?);
        }
        Ok(())
    }

    fn show(&self) -> String {
        if self.is_empty() {
            "{}".into()
        } else {
            Value::Object(self.clone()).to_string()
        }
    }
}

fn json(value: &DeValue<'_>) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| format!("{} is too large a number", number.as_str()))?
            .into(),
        DeValue::Float(number) => number
            .as_str()
            .parse::<f64>()
            .ok()
            .and_then(serde_json::Number::from_f64)
            .map(Value::Number)
            .ok_or_else(|| format!("{} is not a finite number", number.as_str()))?,
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| json(item.get_ref()))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(_) => Value::Object(Map::read(value)?),
    })
}

const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads a whole number with a unit: `ms`, `s`, `m`, `h` or `d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, millis) = DURATION_UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    Some(Duration::from_millis(
        number.parse::<u64>().ok()?.checked_mul(*millis)?,
    ))
}

/// Writes a duration with the largest unit that fits without a rest.
pub fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, size) = DURATION_UNITS
        .into_iter()
        .find(|(_, size)| millis != 0 && millis.is_multiple_of(*size))
        .unwrap_or(("s", 1_000));
    format!("{}{unit}", millis / size)
}

const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads a whole number of bytes with a unit of IEC (`KiB`) or SI (`kB`).
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, bytes) = SIZE_UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?;
    number.parse::<u64>().ok()?.checked_mul(*bytes)
}

/// Writes a number of bytes with the largest unit that fits without a rest.
pub fn format_size(bytes: u64) -> String {
    let (unit, size) = SIZE_UNITS
        .into_iter()
        .find(|(_, size)| bytes != 0 && bytes.is_multiple_of(*size))
        .unwrap_or(("B", 1));
    format!("{}{unit}", bytes / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_back_as_written() {
        for text in ["250ms", "60s", "5m", "6h", "7d"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(
                parse_duration(&format_duration(duration)),
                Some(duration),
                "{text}"
            );
        }
        assert_eq!(format_duration(Duration::from_mins(1)), "1m");
        assert_eq!(parse_size("4 MiB"), Some(4 << 20));
        assert_eq!(format_size(4 << 20), "4MiB");
        for wrong in ["", "s", "5", "5 weeks", "-1s", "1.5s", "99999999999999999999d"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        for wrong in ["", "MiB", "5", "-1B", "99999999999GiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }
}
