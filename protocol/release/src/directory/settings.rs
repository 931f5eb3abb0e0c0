//! `holdfast.yaml` of a release directory: what holds for the release as a whole. All of it is optional.
//!
//! ```yaml
//! k3s:
//!   version: v1.36.3+k3s1        # the version that must run
//!   config: {disable: [traefik]} # keys of k3s's own config.yaml
//! policy:
//!   drift: correct               # or: report
//!   prune: true
//!   readyDeadlineSeconds: 600
//! namespace: shop                # for objects that name none, in every app
//! apps:
//!   till: {namespace: till}      # the same for one app
//! ```

use holdfast_protocol::document::{K3sSection, Policy};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Name of the file.
pub const FILE: &str = "holdfast.yaml";

/// Its content.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// The Kubernetes of the box.
    pub k3s: Option<K3sSection>,
    /// How to treat the apps.
    pub policy: Option<Policy>,
    /// Namespace for objects that name none.
    pub namespace: Option<String>,
    /// What holds for single apps.
    pub apps: BTreeMap<String, AppSettings>,
}

/// What holds for one app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AppSettings {
    /// Namespace for objects that name none.
    pub namespace: Option<String>,
}

impl Settings {
    /// Reads the content; an unknown key is refused, for it is a mistyped one.
    pub fn from_value(value: Value) -> Result<Self, String> {
        let settings: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let unknown = |section: &str, extra: &Map<String, Value>| {
            extra
                .keys()
                .next()
                .map_or(Ok(()), |key| Err(format!("unknown field `{key}` in {section}")))
        };
        if let Some(k3s) = &settings.k3s {
            unknown("k3s: expected version, config", &k3s.extra)?;
        }
        if let Some(policy) = &settings.policy {
            unknown(
                "policy: expected drift, prune, readyDeadlineSeconds",
                &policy.extra,
            )?;
        }
        Ok(settings)
    }
}
