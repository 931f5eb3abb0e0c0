//! What makes an appliance its own before its first start: host name, network and wireless network, in `holdfast/personal.toml` on the
//! EFI system partition. The tool that writes it and the box that reads it share this form and its checks.
//!
//! ```toml
//! hostname = "shop-17"
//!
//! [network]
//! interface = "eth0"
//! address = "192.0.2.17/24"
//! gateway = "192.0.2.1"
//! dns = ["192.0.2.53"]
//!
//! [wifi]
//! ssid = "till"
//! passphrase = "correct horse"
//! country = "DE"
//! ```
//!
//! In: texts. Out: values that a system can be configured with, and a problem for each that is none. Guarantees: whatever passes the
//! checks cannot break out of the files it is written to; a passphrase is in no message and no debug form.

#[cfg(feature = "personal")]
mod read;

use crate::{Problem, codes};
use std::{
    fmt::{self, Write as _},
    net::IpAddr,
};

/// Path of the file below the root of the EFI system partition.
pub const FILE: &str = "holdfast/personal.toml";
/// Path of the enrolment token below the root of the EFI system partition. It is removed once it is spent.
pub const TOKEN_FILE: &str = "holdfast/token";

/// The most bytes of a host name: it is a label of DNS, and the name of a Kubernetes node.
pub const MAX_HOSTNAME_BYTES: usize = 63;
/// The most bytes of the name of a wireless network (IEEE 802.11).
pub const MAX_SSID_BYTES: usize = 32;

/// What is personal to a box. What is absent is left as the image has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Personal {
    /// Host name.
    pub hostname: Option<String>,
    /// A fixed address; where absent, every wired interface asks DHCP.
    pub network: Option<Network>,
    /// A wireless network.
    pub wifi: Option<Wifi>,
}

/// A fixed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Name of the interface (`eth0`, `enp1s0`), where it must be a certain one; any wired one where absent.
    pub interface: Option<String>,
    /// The address.
    pub address: IpAddr,
    /// Bits of the network in it: 1 to 32, or to 128 for IPv6.
    pub prefix: u8,
    /// The router to everywhere else.
    pub gateway: Option<IpAddr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
}

/// A wireless network.
#[derive(Clone, PartialEq, Eq)]
pub struct Wifi {
    /// Its name, 1 to 32 bytes.
    pub ssid: String,
    /// Its passphrase, 8 to 63 printable ASCII characters, or 64 hexadecimal digits of the key itself; an open network where absent.
    pub passphrase: Option<String>,
    /// The country whose radio rules hold, as ISO 3166 has it: `DE`.
    pub country: Option<String>,
}

impl fmt::Debug for Wifi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wifi")
            .field("ssid", &self.ssid)
            .field("passphrase", &self.passphrase.as_ref().map(|_| "…"))
            .field("country", &self.country)
            .finish()
    }
}

fn bad(key: &str, reason: &str) -> Problem {
    Problem::new(
        codes::PERSONAL_INVALID,
        format!("{key} of the box's personal settings {reason}"),
        "write it as docs/image.md shows, in holdfast/personal.toml on the EFI system partition",
    )
}

/// A host name: letters, digits and inner hyphens, at most 63. Gives it in lower case.
pub fn hostname(text: &str) -> Result<String, Problem> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    if bytes.len() > MAX_HOSTNAME_BYTES
        || !bytes.iter().copied().all(inner)
        || !edge(bytes.first())
        || !edge(bytes.last())
    {
        return Err(bad(
            "hostname",
            "must be 1 to 63 letters, digits and hyphens, with no hyphen at its ends",
        ));
    }
    Ok(text.to_ascii_lowercase())
}

/// A fixed address: `192.0.2.17/24` or `2001:db8::17/64`, with what goes with it.
pub fn network(
    interface: Option<&str>,
    address: &str,
    gateway: Option<&str>,
    dns: &[&str],
) -> Result<Network, Problem> {
    if let Some(name) = interface
        && (name.is_empty()
            || name.len() > 15
            || name == "."
            || name == ".."
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)))
    {
        return Err(bad(
            "network.interface",
            "is no name of a network interface such as eth0",
        ));
    }
    let ip = |key: &str, text: &str| {
        text.parse::<IpAddr>()
            .map_err(|_| bad(key, "is no IP address such as 192.0.2.1"))
    };
    let (host, prefix) = address.split_once('/').ok_or_else(|| {
        bad(
            "network.address",
            "has no length of its network, as in 192.0.2.17/24",
        )
    })?;
    let host = ip("network.address", host)?;
    let longest = if host.is_ipv4() { 32 } else { 128 };
    let prefix = prefix
        .parse::<u8>()
        .ok()
        .filter(|prefix| (1..=longest).contains(prefix))
        .ok_or_else(|| bad("network.address", "has a length of its network that cannot be"))?;
    if !is_of_a_machine(host) || host.is_loopback() {
        return Err(bad("network.address", "is no address that a box can have"));
    }
    if is_reserved(host, prefix) {
        return Err(bad(
            "network.address",
            "is the address of the network itself, or of all boxes in it",
        ));
    }
    let gateway = gateway.map(|text| ip("network.gateway", text)).transpose()?;
    if let Some(router) = gateway {
        if router.is_ipv4() != host.is_ipv4() {
            return Err(bad(
                "network.gateway",
                "is of another IP version than network.address",
            ));
        }
        if !is_of_a_machine(router) || router.is_loopback() || is_reserved(router, prefix) {
            return Err(bad("network.gateway", "is no address that a router can have"));
        }
        if router == host {
            return Err(bad("network.gateway", "is the address of the box itself"));
        }
        if !is_link_local(router) && !same_network(host, router, prefix) {
            return Err(bad(
                "network.gateway",
                "is not within the network of network.address",
            ));
        }
    }
    let dns: Vec<IpAddr> = dns
        .iter()
        .map(|text| ip("network.dns", text))
        .collect::<Result<_, _>>()?;
    if !dns.iter().copied().all(is_of_a_machine) {
        return Err(bad("network.dns", "is no address that a name server can have"));
    }
    Ok(Network {
        interface: interface.map(str::to_owned),
        address: host,
        prefix,
        gateway,
        dns,
    })
}

/// Whether it is of one machine: not of none (RFC 1122 has all of 0.0.0.0/8 so), several or all.
fn is_of_a_machine(address: IpAddr) -> bool {
    let none_or_all = match address {
        IpAddr::V4(address) => address.octets().first() == Some(&0) || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unspecified() || address.to_ipv4_mapped().is_some(),
    };
    !none_or_all && !address.is_multicast()
}

/// Whether an address of IPv4 has only zeros or only ones behind its network's part. Networks of one or two addresses have no such (RFC 3021).
fn is_reserved(address: IpAddr, prefix: u8) -> bool {
    let IpAddr::V4(address) = address else {
        return false;
    };
    let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    let host = address.to_bits() & hosts;
    prefix < 31 && (host == 0 || host == hosts)
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.segments().first().is_some_and(|first| first & 0xffc0 == 0xfe80))
}

fn same_network(one: IpAddr, other: IpAddr, prefix: u8) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            let differing = u32::from(one) ^ u32::from(other);
            differing.leading_zeros() >= u32::from(prefix)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            let differing = u128::from(one) ^ u128::from(other);
            differing.leading_zeros() >= u32::from(prefix)
        }
        _ => false,
    }
}

/// A wireless network.
pub fn wifi(ssid: &str, passphrase: Option<&str>, country: Option<&str>) -> Result<Wifi, Problem> {
    if ssid.is_empty() || ssid.len() > MAX_SSID_BYTES || ssid.chars().any(char::is_control) {
        return Err(bad(
            "wifi.ssid",
            "must be 1 to 32 bytes without control characters",
        ));
    }
    if let Some(phrase) = passphrase {
        let words =
            (8..=63).contains(&phrase.len()) && phrase.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let key = phrase.len() == 64 && phrase.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !words && !key {
            return Err(bad(
                "wifi.passphrase",
                "must be 8 to 63 printable ASCII characters, or 64 hexadecimal digits",
            ));
        }
    }
    if let Some(country) = country
        && (country.len() != 2 || !country.bytes().all(|byte| byte.is_ascii_alphabetic()))
    {
        return Err(bad(
            "wifi.country",
            "must be the two letters of a country, such as DE",
        ));
    }
    Ok(Wifi {
        ssid: ssid.to_owned(),
        passphrase: passphrase.map(str::to_owned),
        country: country.map(str::to_ascii_uppercase),
    })
}

impl Personal {
    /// The file's text, which [`Self::read`] reads back as it was.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        if let Some(hostname) = &self.hostname {
            let _ = writeln!(text, "hostname = {}", quoted(hostname));
        }
        if let Some(network) = &self.network {
            text.push_str("\n[network]\n");
            if let Some(interface) = &network.interface {
                let _ = writeln!(text, "interface = {}", quoted(interface));
            }
            let _ = writeln!(text, "address = \"{}/{}\"", network.address, network.prefix);
            if let Some(gateway) = network.gateway {
                let _ = writeln!(text, "gateway = \"{gateway}\"");
            }
            if !network.dns.is_empty() {
                let servers: Vec<_> = network.dns.iter().map(|server| format!("\"{server}\"")).collect();
                let _ = writeln!(text, "dns = [{}]", servers.join(", "));
            }
        }
        if let Some(wifi) = &self.wifi {
            let _ = writeln!(text, "\n[wifi]\nssid = {}", quoted(&wifi.ssid));
            if let Some(passphrase) = &wifi.passphrase {
                let _ = writeln!(text, "passphrase = {}", quoted(passphrase));
            }
            if let Some(country) = &wifi.country {
                let _ = writeln!(text, "country = {}", quoted(country));
            }
        }
        text
    }
}

/// A basic string of TOML. What passed the checks has no control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(all(test, feature = "personal"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_as_it_was() {
        let personal = Personal {
            hostname: Some(hostname("Shop-17").unwrap()),
            network: Some(
                network(
                    Some("enp1s0"),
                    "192.0.2.17/24",
                    Some("192.0.2.1"),
                    &["192.0.2.53", "2001:db8::53"],
                )
                .unwrap(),
            ),
            wifi: Some(wifi(r#"till "one" \ Zürich"#, Some(r#"co\rr"ect horse"#), Some("ch")).unwrap()),
        };
        let (read, problems) = Personal::read(&personal.to_toml());
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(read, personal);
        assert_eq!(read.hostname.as_deref(), Some("shop-17"));
        assert_eq!(Personal::read(&Personal::default().to_toml()), Default::default());
    }

    #[test]
    fn a_wrong_value_is_named_and_costs_no_other() {
        let (read, problems) = Personal::read(
            "hostname = \"-x-\"\ncolour = 1\n[network]\naddress = \"192.0.2.17\"\n[wifi]\nssid = \"till\"\nsecret = 1\n",
        );
        assert_eq!(read.wifi.unwrap().ssid, "till");
        assert!(read.hostname.is_none() && read.network.is_none());
        let told: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
        for key in ["hostname", "colour", "network.address", "wifi.secret"] {
            assert!(told.iter().any(|text| text.starts_with(key)), "{key} in {told:?}");
        }
        assert!(
            problems
                .iter()
                .all(|problem| problem.code == codes::PERSONAL_INVALID)
        );
    }

    #[test]
    fn no_message_and_no_debug_form_has_the_passphrase() {
        let (_, problems) = Personal::read("[wifi]\nssid = \"till\"\npassphrase = \"hunter2 é is long\"\n");
        assert_eq!(problems.len(), 1);
        let (_, torn) = Personal::read("[wifi]\nssid = \"till\"\npassphrase = \"hunter2");
        assert_eq!(torn.len(), 1);
        let whole = wifi("till", Some("hunter2hunter2"), None).unwrap();
        for text in [format!("{problems:?}"), format!("{torn:?}"), format!("{whole:?}")] {
            assert!(!text.contains("hunter2"), "{text}");
        }
        assert!(torn[0].message.contains("line 3"), "{torn:?}");
    }

    #[test]
    fn values_that_no_system_takes_are_refused() {
        for name in ["", "-a", "a-", "a b", "a.b", "ä", "a\n", &"a".repeat(64)] {
            assert!(hostname(name).is_err(), "{name:?}");
        }
        let refused = |address: &str, gateway: Option<&str>, dns: &[&str]| {
            network(None, address, gateway, dns).is_err()
        };
        assert!(refused("192.0.2.17", None, &[]));
        assert!(refused("192.0.2.17/33", None, &[]));
        assert!(refused("192.0.2.17/0", None, &[]));
        assert!(refused("127.0.0.1/8", None, &[]));
        assert!(refused("224.0.0.1/8", None, &[]));
        assert!(refused("10.0.0.0/24", None, &[]));
        assert!(refused("10.0.0.255/24", None, &[]));
        assert!(!refused("10.0.0.0/31", None, &[]));
        assert!(!refused("10.0.1.0/23", None, &[]));
        assert!(refused("192.0.2.17/24", Some("192.0.3.1"), &[]));
        assert!(refused("192.0.2.17/24", Some("192.0.2.17"), &[]));
        assert!(refused("192.0.2.17/24", Some("2001:db8::1"), &[]));
        assert!(refused("192.0.2.17/24", None, &["dns.example"]));
        assert!(!refused("2001:db8::17/64", Some("fe80::1"), &[]));
        for address in ["0.0.0.1/24", "255.255.255.255/32", "::ffff:192.0.2.17/120"] {
            assert!(refused(address, None, &[]), "{address}");
        }
        for router in ["192.0.2.0", "192.0.2.255"] {
            assert!(refused("192.0.2.17/24", Some(router), &[]), "{router}");
        }
        for server in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::"] {
            assert!(refused("192.0.2.17/24", None, &[server]), "{server}");
        }
        assert!(!refused("192.0.2.17/24", Some("192.0.2.1"), &["127.0.0.1"]));
        for name in ["", "a/b", "..", "eth0\nDHCP=yes", "0123456789abcdef"] {
            assert!(
                network(Some(name), "192.0.2.17/24", None, &[]).is_err(),
                "{name:?}"
            );
        }
        assert!(wifi("", None, None).is_err());
        assert!(wifi("a\nb", None, None).is_err());
        assert!(wifi(&"a".repeat(33), None, None).is_err());
        assert!(wifi("till", Some("short"), None).is_err());
        assert!(wifi("till", Some("line\nbreak1"), None).is_err());
        assert!(wifi("till", None, Some("DEU")).is_err());
    }
}
