//! All keys of the configuration, each declared once with type, default and documentation.

use super::{ConfigError, TextDuration};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// One key, for the documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Section, empty for the top level.
    pub section: &'static str,
    /// Name within the section.
    pub name: &'static str,
    /// Type in words.
    pub kind: &'static str,
    /// Default as TOML, or `unset`.
    pub default: String,
    /// What it does.
    pub doc: String,
}

impl Key {
    /// `section.name`.
    pub fn path(&self) -> String {
        if self.section.is_empty() {
            self.name.to_owned()
        } else {
            format!("{}.{}", self.section, self.name)
        }
    }
}

/// Declares a section: its struct, its defaults, and the documentation of its keys.
macro_rules! section {
    ($(#[$outer:meta])* $name:ident($section:literal) { $($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:expr, $kind:literal;)* }) => {
        $(#[$outer])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl $name {
            fn keys(into: &mut Vec<Key>) {
                let defaults = toml::Value::try_from(Self::default()).ok();
                $(into.push(Key {
                    section: $section,
                    name: stringify!($key),
                    kind: $kind,
                    default: defaults
                        .as_ref()
                        .and_then(|value| value.get(stringify!($key)))
                        .map_or_else(|| "unset".to_owned(), ToString::to_string),
                    doc: [$($doc.trim()),+].join(" "),
                });)*
            }
        }
    };
}

section! {
    /// The listeners of the HTTP API.
    Api("api") {
        /// Address of the HTTPS listener for operators, the web page and nodes. Port 0 takes a free one.
        listen: SocketAddr = (Ipv4Addr::UNSPECIFIED, 8443).into(), "address";
        /// Address of a listener without TLS for a reverse proxy on the same machine; off where unset. Port 0 takes a free one.
        plain_listen: Option<SocketAddr> = None, "address";
        /// Allows `api.plain_listen` beyond the loopback interface. Bearer tokens and session cookies then travel unencrypted.
        plain_allow_remote: bool = false, "true or false";
        /// DNS names and IP addresses by which nodes and operators reach the hub; they go into its certificate. `localhost`, the loopback addresses and the host name are always in it.
        names: Vec<String> = Vec::new(), "list of names";
        /// URL that goes into enrolment tokens. Where unset: `https://`, the first of `api.names` (or the host name; `127.0.0.1` on a loopback listener) and the port.
        public_url: Option<String> = None, "https URL";
        /// Largest body of a request to the API in bytes; blobs have `api.max_blob_bytes`.
        max_body_bytes: usize = 2 * 1024 * 1024, "bytes";
        /// Largest blob in bytes.
        max_blob_bytes: u64 = 1024 * 1024 * 1024, "bytes";
        /// Time after which a browser must log in again.
        session_lifetime: TextDuration = hours(12), "duration";
    }
}

section! {
    /// The MQTT broker.
    Broker("broker") {
        /// `embedded` runs a broker in the hub's process; `external` uses one that runs elsewhere with the shipped configuration.
        kind: BrokerKind = BrokerKind::Embedded, "`embedded` or `external`";
        /// Address of the embedded broker's MQTT listener with mutual TLS. Port 0 takes a free one.
        listen: SocketAddr = (Ipv4Addr::UNSPECIFIED, 8883).into(), "address";
        /// Address of the external broker, `host:port`, that the hub connects to with its own certificate.
        address: Option<String> = None, "host:port";
        /// Addresses that nodes are told to connect to, `mqtts://host:port`, in the order to try. Where unset: the public host of the API with the broker's port.
        public: Vec<String> = Vec::new(), "list of mqtts URLs";
        /// Program and arguments to run after a certificate was revoked and the revocation list written, so that an external broker reads it again and ends the session. Not run by a shell.
        revocation_command: Vec<String> = Vec::new(), "list of texts";
    }
}

section! {
    /// Enrolment and certificates.
    Enrolment("enrolment") {
        /// Lifetime of an enrolment token where its maker names none; at most 366 days.
        token_lifetime: TextDuration = hours(24), "duration";
        /// Lifetime of a node's certificate; nodes renew at two thirds of it.
        certificate_lifetime: TextDuration = hours(30 * 24), "duration";
        /// Lifetime of the hub's own certificate; it renews itself at two thirds of it.
        hub_certificate_lifetime: TextDuration = hours(90 * 24), "duration";
        /// Refused attempts (unknown tokens, wrong bearer tokens) that one address may make at once; one more every six seconds.
        attempts: u32 = 20, "number";
    }
}

section! {
    /// How long history is kept.
    Retention("retention") {
        /// Newest events kept of each node.
        events_per_node: u32 = 1_000, "number";
    }
}

section! {
    /// The log, on standard error.
    Log("log") {
        /// What is logged: `error`, `warn`, `info`, `debug` or `trace`.
        level: String = "info".to_owned(), "level";
        /// `human` for people, `json` for machines.
        format: LogFormat = LogFormat::Human, "`human` or `json`";
    }
}

/// Which broker is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BrokerKind {
    /// In the hub's process.
    Embedded,
    /// Elsewhere.
    External,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// See [`keys`].
    pub data_dir: PathBuf,
    /// The listeners of the HTTP API.
    pub api: Api,
    /// The MQTT broker.
    pub broker: Broker,
    /// Enrolment and certificates.
    pub enrolment: Enrolment,
    /// How long history is kept.
    pub retention: Retention,
    /// The log.
    pub log: Log,
}

const DATA_DIR: &str = "/var/lib/holdfast-hub";

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: DATA_DIR.into(),
            api: Api::default(),
            broker: Broker::default(),
            enrolment: Enrolment::default(),
            retention: Retention::default(),
            log: Log::default(),
        }
    }
}

impl Config {
    /// Checks what types alone cannot hold.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let invalid = |key: &'static str, reason: String| Err(ConfigError::Invalid { key, reason });
        if let Some(plain) = self.api.plain_listen
            && !plain.ip().is_loopback()
            && !self.api.plain_allow_remote
        {
            return invalid(
                "api.plain_listen",
                format!(
                    "{plain} is reachable from other machines without TLS; use a loopback address, or set api.plain_allow_remote = true"
                ),
            );
        }
        for name in &self.api.names {
            if !is_host(name) {
                return invalid(
                    "api.names",
                    format!(
                        "{name:?} is no DNS name and no IP address; write it like \"hub.example\" or \"192.0.2.1\", without scheme and port"
                    ),
                );
            }
        }
        if let Some(url) = &self.api.public_url
            && !url.starts_with("https://")
        {
            return invalid("api.public_url", format!("{url:?} is not an https:// URL"));
        }
        for address in &self.broker.public {
            if !address.starts_with("mqtts://") {
                return invalid("broker.public", format!("{address:?} is not an mqtts:// URL"));
            }
        }
        if self.broker.kind == BrokerKind::External && self.broker.address.is_none() {
            return invalid(
                "broker.address",
                "is needed with broker.kind = \"external\": write \"host:port\" of the broker".to_owned(),
            );
        }
        let lifetimes = [
            ("enrolment.token_lifetime", self.enrolment.token_lifetime, 366),
            (
                "enrolment.certificate_lifetime",
                self.enrolment.certificate_lifetime,
                3_660,
            ),
            (
                "enrolment.hub_certificate_lifetime",
                self.enrolment.hub_certificate_lifetime,
                3_660,
            ),
            ("api.session_lifetime", self.api.session_lifetime, 366),
        ];
        for (key, TextDuration(lifetime), days) in lifetimes {
            if lifetime.is_zero() || lifetime > Duration::from_secs(days * 86_400) {
                return invalid(key, format!("must be above 0s and at most {days}d"));
            }
        }
        if !["error", "warn", "info", "debug", "trace"].contains(&self.log.level.as_str()) {
            return invalid(
                "log.level",
                format!("{:?} is none of error, warn, info, debug, trace", self.log.level),
            );
        }
        Ok(())
    }
}

/// Whether `name` can stand in a certificate and in a URL: an IP address, or a DNS name (RFC 1123, section 2.1; at most 253
/// bytes, 63 a label).
fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    // What looks like an IPv4 address but is none ("300.1.1.1") is no DNS name either: no top-level domain is a number.
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.parse::<IpAddr>().is_ok()
        || (name.len() <= 253 && name.split('.').all(label) && !name.rsplit('.').next().is_some_and(numeric))
}

/// Every key with its documentation, in the order of the page.
pub fn keys() -> Vec<Key> {
    let mut keys = vec![Key {
        section: "",
        name: "data_dir",
        kind: "path",
        default: format!("\"{DATA_DIR}\""),
        doc: "Directory of the database, the keys and the blobs; made with mode 0700 where it is missing."
            .to_owned(),
    }];
    Api::keys(&mut keys);
    Broker::keys(&mut keys);
    Enrolment::keys(&mut keys);
    Retention::keys(&mut keys);
    Log::keys(&mut keys);
    keys
}

const fn hours(number: u64) -> TextDuration {
    TextDuration(Duration::from_secs(number * 3_600))
}
