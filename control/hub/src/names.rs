//! By which names and addresses the hub is reached, out of the configuration and what was really bound.

use crate::config::{BrokerKind, Config};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The hub's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    certificate: Vec<String>,
    host: String,
    public_url: String,
}

impl Names {
    /// The names of a hub whose API listens on `api`.
    pub fn new(config: &Config, api: SocketAddr) -> Self {
        Self::with_host_name(config, api, host_name().as_deref())
    }

    fn with_host_name(config: &Config, api: SocketAddr, host_name: Option<&str>) -> Self {
        let from_url = config.api.public_url.as_deref().and_then(host_of_url);
        let host = from_url.map_or_else(
            || {
                config
                    .api
                    .names
                    .first()
                    .cloned()
                    .unwrap_or_else(|| match api.ip() {
                        ip if ip.is_unspecified() => host_name.unwrap_or("127.0.0.1").to_owned(),
                        ip if ip.is_loopback() => Ipv4Addr::LOCALHOST.to_string(),
                        ip => ip.to_string(),
                    })
            },
            str::to_owned,
        );
        let public_url = config.api.public_url.as_ref().map_or_else(
            || format!("https://{}:{}", bracketed(&host), api.port()),
            |url| url.trim_end_matches('/').to_owned(),
        );
        let mut certificate: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        let bound = (!api.ip().is_unspecified()).then(|| api.ip().to_string());
        let more = [host.clone()]
            .into_iter()
            .chain(config.api.names.iter().cloned())
            .chain(host_name.map(str::to_owned))
            .chain(bound);
        for name in more {
            if !certificate.contains(&name) {
                certificate.push(name);
            }
        }
        Self {
            certificate,
            host,
            public_url,
        }
    }

    /// Names that the hub's certificate must hold.
    pub fn certificate(&self) -> &[String] {
        &self.certificate
    }

    /// URL that nodes enrol at.
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// Addresses of the broker that nodes are told; `listen` is what the broker says of itself.
    pub fn broker_addresses(&self, config: &Config, listen: &str) -> Vec<String> {
        if !config.broker.public.is_empty() {
            return config.broker.public.clone();
        }
        match (config.broker.kind, listen.rsplit_once(':')) {
            (BrokerKind::Embedded, Some((_, port))) => {
                vec![format!("mqtts://{}:{port}", bracketed(&self.host))]
            }
            _ => vec![listen.to_owned()],
        }
    }

    /// The address by which a listener is reached from this machine.
    pub fn reachable(bound: SocketAddr) -> SocketAddr {
        match bound.ip() {
            ip if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port())),
            _ => bound,
        }
    }
}

fn host_of_url(url: &str) -> Option<&str> {
    let authority = url.strip_prefix("https://")?.split('/').next()?;
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next();
    }
    authority.split(':').next().filter(|host| !host.is_empty())
}

fn bracketed(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host.to_owned(),
    }
}

/// The machine's name, where it can stand in a certificate.
fn host_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = text.trim();
    let fits = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    (name.len() <= 253 && name.split('.').all(fits)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn names(text: &str, api: &str) -> Names {
        Names::with_host_name(
            &parse(text, "hub.toml").unwrap(),
            api.parse().unwrap(),
            Some("box"),
        )
    }

    #[test]
    fn a_hub_on_loopback_is_reached_on_loopback() {
        let names = names("", "127.0.0.1:4443");
        assert_eq!(names.public_url(), "https://127.0.0.1:4443");
        assert_eq!(
            names.broker_addresses(&Config::default(), "mqtts://127.0.0.1:1883"),
            ["mqtts://127.0.0.1:1883"]
        );
    }

    #[test]
    fn a_hub_on_all_interfaces_is_reached_by_its_first_name() {
        let named = names(
            "[api]\nnames = [\"hub.example\", \"192.0.2.1\"]\n",
            "0.0.0.0:8443",
        );
        assert_eq!(named.public_url(), "https://hub.example:8443");
        for name in ["localhost", "hub.example", "192.0.2.1", "box"] {
            assert!(named.certificate().iter().any(|known| known == name), "{name}");
        }
        assert_eq!(
            named.broker_addresses(&Config::default(), "mqtts://0.0.0.0:8883"),
            ["mqtts://hub.example:8883"]
        );
        assert_eq!(names("", "0.0.0.0:8443").public_url(), "https://box:8443");
    }

    #[test]
    fn a_public_url_is_taken_as_it_is_and_its_host_is_in_the_certificate() {
        let names = names(
            "[api]\npublic_url = \"https://[2001:db8::1]:9443/\"\n",
            "0.0.0.0:8443",
        );
        assert_eq!(names.public_url(), "https://[2001:db8::1]:9443");
        assert!(names.certificate().contains(&"2001:db8::1".to_owned()));
        assert_eq!(
            names.broker_addresses(&Config::default(), "mqtts://0.0.0.0:8883"),
            ["mqtts://[2001:db8::1]:8883"]
        );
    }
}
