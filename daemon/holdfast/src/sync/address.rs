//! Addresses of brokers, as the hub gives them: `mqtts://host:port`.

use std::str::FromStr;

/// Port of MQTT over TLS, as IANA registered it.
const DEFAULT_PORT: u16 = 8883;

/// Where a broker listens. Always TLS: there is no form without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Host name or IP address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// An address that is not of the form `mqtts://host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not the address of a broker: expected mqtts://HOST or mqtts://HOST:PORT")]
pub struct InvalidBroker {
    found: String,
}

impl FromStr for BrokerAddress {
    type Err = InvalidBroker;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidBroker {
            found: text.chars().take(200).collect(),
        };
        let authority = text
            .strip_prefix("mqtts://")
            .ok_or_else(invalid)?
            .trim_end_matches('/');
        Self::from_authority(authority).ok_or_else(invalid)
    }
}

impl BrokerAddress {
    /// Reads `host`, `host:port` or `[ipv6]:port`, as MQTT's server reference has it.
    pub fn from_authority(text: &str) -> Option<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':'))
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let usable = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@?#".contains(c));
        let port = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok())?;
        usable.then(|| Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl std::fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "mqtts://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "mqtts://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_back() {
        for text in [
            "mqtts://hub.example:8884",
            "mqtts://10.0.0.1:1",
            "mqtts://[fd00::1]:8883",
        ] {
            assert_eq!(text.parse::<BrokerAddress>().unwrap().to_string(), text);
        }
        assert_eq!(
            "mqtts://hub/".parse::<BrokerAddress>().unwrap().port,
            DEFAULT_PORT
        );
    }

    #[test]
    fn an_address_without_tls_or_with_anything_odd_is_refused() {
        for text in [
            "mqtt://hub",
            "hub:8883",
            "mqtts://",
            "mqtts://hub:99999",
            "mqtts://a b",
            "mqtts://u@hub",
            "mqtts://[::1",
        ] {
            assert!(text.parse::<BrokerAddress>().is_err(), "{text}");
        }
    }
}
