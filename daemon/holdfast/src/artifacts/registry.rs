//! Access to registries, as the settings give it: `artifacts.registries."harbor.example.com"`.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// What the settings say of one registry.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// User name.
    username: Option<String>,
    /// File that holds the password; a line break at its end is not part of it.
    password_file: Option<PathBuf>,
    /// File with CA certificates (PEM) that are believed beside the system's.
    ca_file: Option<PathBuf>,
    /// Whether it is asked without TLS: for a registry on the same machine or a closed network.
    #[serde(default)]
    pub http: bool,
}

impl Access {
    /// What the settings say of `registry`; nothing special where they say nothing.
    pub fn of(registries: &Map<String, Value>, registry: &str) -> Result<Self, String> {
        let Some(value) = registries.get(registry) else {
            return Ok(Self::default());
        };
        let access: Self = serde_json::from_value(value.clone()).map_err(|error| {
            format!("{registry}: {error}; known are username, password_file, ca_file and http")
        })?;
        if access.username.is_some() != access.password_file.is_some() {
            return Err(format!("{registry}: username and password_file belong together"));
        }
        if access.http && access.username.is_some() {
            return Err(format!(
                "{registry}: a password is not sent without TLS; remove http = true"
            ));
        }
        Ok(access)
    }

    /// User name and password. Read each time, so that a new password needs no restart.
    pub fn credentials(&self) -> Result<Option<(String, String)>, String> {
        let (Some(user), Some(file)) = (&self.username, &self.password_file) else {
            return Ok(None);
        };
        let password = std::fs::read_to_string(file)
            .map_err(|error| format!("the password file {} cannot be read: {error}", file.display()))?;
        Ok(Some((
            user.clone(),
            password.trim_end_matches(['\r', '\n']).to_owned(),
        )))
    }

    /// CA certificates (PEM) of the registry's own.
    pub fn ca_certificates(&self) -> Result<String, String> {
        read_certificates(self.ca_file.as_ref())
    }
}

/// The content of a file with certificates, where one is named.
pub fn read_certificates(file: Option<&PathBuf>) -> Result<String, String> {
    file.map_or_else(
        || Ok(String::new()),
        |file| {
            std::fs::read_to_string(file)
                .map_err(|error| format!("the CA file {} cannot be read: {error}", file.display()))
        },
    )
}

/// Checks what the settings say of all registries.
pub fn check(registries: &Map<String, Value>) -> Result<(), String> {
    registries
        .keys()
        .try_for_each(|registry| Access::of(registries, registry).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mistakes_in_the_access_to_a_registry_are_named() {
        let check = |value: Value| {
            let mut map = Map::new();
            map.insert("harbor".into(), value);
            check(&map)
        };
        assert_eq!(
            check(json!({"username": "a", "password_file": "/x", "ca_file": "/y"})),
            Ok(())
        );
        assert_eq!(check(json!({"http": true})), Ok(()));
        for (wrong, word) in [
            (json!({"user": "a"}), "user"),
            (json!({"username": "a"}), "password_file"),
            (
                json!({"username": "a", "password_file": "/x", "http": true}),
                "without TLS",
            ),
            (json!("x"), "harbor"),
        ] {
            let reason = check(wrong).unwrap_err();
            assert!(reason.contains(word), "{reason}");
        }
    }
}
