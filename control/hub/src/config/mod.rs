//! Configuration of the hub: one TOML file in, checked [`Config`] out.
//!
//! Guarantees: an unknown key is refused with its place and the nearest known name; each key has its documentation from
//! the same line that declares it, so `holdfast-hub docs configuration` cannot lag behind.

mod duration;
mod schema;

pub use duration::{InvalidTextDuration, TextDuration};
pub use schema::{Api, Broker, BrokerKind, Config, Enrolment, Key, Log, LogFormat, Retention, keys};

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {path} cannot be read: {source}")]
    Unreadable {
        /// Which file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not TOML, or a value has the wrong type.
    #[error("configuration {path}: {reason}")]
    Malformed {
        /// Which file.
        path: String,
        /// What the parser says, with the place.
        reason: String,
    },
    /// A key that does not exist.
    #[error("configuration {path}: unknown key {key:?}{}", .nearest.as_ref().map(|name| format!("; did you mean {name:?}?")).unwrap_or_default())]
    UnknownKey {
        /// Which file.
        path: String,
        /// The key as `section.name`.
        key: String,
        /// The nearest known key.
        nearest: Option<String>,
    },
    /// A value that cannot work.
    #[error("configuration: {key}: {reason}")]
    Invalid {
        /// The key as `section.name`.
        key: &'static str,
        /// What is wrong with it, and what to write instead.
        reason: String,
    },
}

/// Reads and checks the configuration file.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: shown.clone(),
        source,
    })?;
    parse(&text, &shown)
}

/// Reads and checks the text of a configuration; `path` is only named in errors.
pub fn parse(text: &str, path: &str) -> Result<Config, ConfigError> {
    let malformed = |error: toml::de::Error| ConfigError::Malformed {
        path: path.to_owned(),
        reason: error.to_string().trim_end().to_owned(),
    };
    let table: toml::Table = text.parse().map_err(malformed)?;
    refuse_unknown(&table, path)?;
    let config: Config = toml::from_str(text).map_err(malformed)?;
    config.check()?;
    Ok(config)
}

fn refuse_unknown(table: &toml::Table, path: &str) -> Result<(), ConfigError> {
    let known: BTreeSet<String> = keys().into_iter().map(|key| key.path()).collect();
    let sections: BTreeSet<&str> = known
        .iter()
        .filter_map(|key| key.split_once('.').map(|(section, _)| section))
        .collect();
    let mut found = Vec::new();
    for (name, value) in table {
        match value {
            toml::Value::Table(inner) if sections.contains(name.as_str()) => {
                found.extend(inner.keys().map(|key| format!("{name}.{key}")));
            }
            _ => found.push(name.clone()),
        }
    }
    for key in found {
        if !known.contains(&key) && !sections.contains(key.as_str()) {
            return Err(ConfigError::UnknownKey {
                path: path.to_owned(),
                nearest: nearest(&key, known.iter().map(String::as_str)).map(str::to_owned),
                key,
            });
        }
    }
    Ok(())
}

/// The candidate that is most like `text`, if any is like it at all.
pub fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this likeness (Jaro-Winkler, 0 to 1) a hint would confuse more than help.
    const LIKE: f64 = 0.75;
    candidates
        .map(|candidate| (strsim::jaro_winkler(text, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKE)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

/// The page of all keys, as Markdown.
pub fn markdown() -> String {
    let mut text = String::from("| key | type | default | what it does |\n|---|---|---|---|\n");
    for key in keys() {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | `{}` | {} |",
            key.path(),
            key.kind,
            key.default,
            key.doc
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_name() {
        let error = parse("[api]\nlistn = \"127.0.0.1:0\"\n", "hub.toml").unwrap_err();
        assert_eq!(
            error.to_string(),
            "configuration hub.toml: unknown key \"api.listn\"; did you mean \"api.listen\"?"
        );
        let error = parse("data_dri = \"/x\"\n", "hub.toml").unwrap_err().to_string();
        assert!(error.contains("did you mean \"data_dir\"?"), "{error}");
        assert!(parse("[brokr]\nkind = \"embedded\"\n", "hub.toml").is_err());
    }

    #[test]
    fn an_empty_file_is_the_documented_defaults() {
        let config = parse("", "hub.toml").unwrap();
        let written = toml::Value::try_from(&config).unwrap();
        for key in keys() {
            let mut value = Some(&written);
            for part in key.path().split('.') {
                value = value.and_then(|value| value.get(part));
            }
            let shown = value.map_or_else(|| "unset".to_owned(), ToString::to_string);
            assert_eq!(shown, key.default, "{}", key.path());
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_names_its_place() {
        let error = parse("[api]\nlisten = 8443\n", "hub.toml")
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn the_plain_listener_is_refused_beyond_loopback_unless_allowed() {
        let text = "[api]\nplain_listen = \"0.0.0.0:8080\"\n";
        let error = parse(text, "hub.toml").unwrap_err().to_string();
        assert!(error.contains("api.plain_listen"), "{error}");
        assert!(parse(&format!("{text}plain_allow_remote = true\n"), "hub.toml").is_ok());
    }

    #[test]
    fn a_name_that_no_certificate_can_hold_is_refused() {
        let with = |name: &str| {
            parse(
                &format!("[api]\nnames = [\"hub.example\", {name:?}]\n"),
                "hub.toml",
            )
        };
        for name in [
            "",
            "bad name",
            "https://hub.example",
            "hub.example:8443",
            "a..b",
            "-a",
            "[::1]",
            "300.1.1.1",
        ] {
            let error = with(name).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("configuration: api.names: {name:?} is no DNS name")),
                "{error}"
            );
        }
        for name in ["hub", "hub-1.example", "192.0.2.1", "2001:db8::1"] {
            assert!(with(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn an_external_broker_needs_an_address() {
        let error = parse("[broker]\nkind = \"external\"\n", "hub.toml")
            .unwrap_err()
            .to_string();
        assert!(error.contains("broker.address"), "{error}");
    }
}
