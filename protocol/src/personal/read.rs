//! Reading `personal.toml`.
//!
//! In: the text of the file. Out: all values that can be used, and a problem for each that cannot. Guarantees: one wrong value costs no other.

use super::{Personal, bad, hostname, network, wifi};
use crate::Problem;
use toml::{Table, Value};

impl Personal {
    /// Reads the file. Each value that cannot be used is a problem, and all others are there: a wrong address must not cost the
    /// wireless network.
    pub fn read(text: &str) -> (Self, Vec<Problem>) {
        let mut personal = Self::default();
        let mut problems = Vec::new();
        let table = match text.parse::<Table>() {
            Ok(table) => table,
            // The parser's own message shows the line, which may be the one with the passphrase.
            Err(error) => {
                let line = error
                    .span()
                    .map(|span| {
                        text.bytes()
                            .take(span.start)
                            .filter(|byte| *byte == b'\n')
                            .count()
                            + 1
                    })
                    .map(|line| format!(", from line {line} on"))
                    .unwrap_or_default();
                return (personal, vec![bad("the file", &format!("is no TOML{line}"))]);
            }
        };
        for (key, value) in &table {
            match (key.as_str(), value) {
                ("hostname", Value::String(text)) => {
                    take(&mut problems, hostname(text), |name| {
                        personal.hostname = Some(name);
                    });
                }
                ("network", Value::Table(table)) => {
                    let read = read_network(table, &mut problems);
                    take(&mut problems, read, |network| personal.network = Some(network));
                }
                ("wifi", Value::Table(table)) => {
                    let read = read_wifi(table, &mut problems);
                    take(&mut problems, read, |wifi| personal.wifi = Some(wifi));
                }
                ("hostname", _) => problems.push(bad(key, "must be a text in quotes")),
                ("network" | "wifi", _) => problems.push(bad(key, "must be a section")),
                _ => problems.push(bad(&clean(key), "is no key that is known")),
            }
        }
        (personal, problems)
    }
}

fn take<T>(problems: &mut Vec<Problem>, read: Result<T, Problem>, keep: impl FnOnce(T)) {
    match read {
        Ok(value) => keep(value),
        Err(problem) => problems.push(problem),
    }
}

fn clean(key: &str) -> String {
    key.chars()
        .filter(|character| !character.is_control())
        .take(40)
        .collect()
}

fn known(section: &str, table: &Table, keys: &[&str], problems: &mut Vec<Problem>) {
    for key in table.keys().filter(|key| !keys.contains(&key.as_str())) {
        problems.push(bad(
            &format!("{section}.{}", clean(key)),
            "is no key that is known",
        ));
    }
}

fn text<'a>(section: &str, table: &'a Table, key: &str) -> Result<Option<&'a str>, Problem> {
    match table.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(bad(&format!("{section}.{key}"), "must be a text in quotes")),
    }
}

fn needed<'a>(section: &str, table: &'a Table, key: &str) -> Result<&'a str, Problem> {
    text(section, table, key)?.ok_or_else(|| bad(&format!("{section}.{key}"), "is missing"))
}

fn read_network(table: &Table, problems: &mut Vec<Problem>) -> Result<super::Network, Problem> {
    known(
        "network",
        table,
        &["interface", "address", "gateway", "dns"],
        problems,
    );
    let dns = match table.get("dns") {
        None => Vec::new(),
        Some(Value::Array(servers)) => servers
            .iter()
            .map(|server| {
                server
                    .as_str()
                    .ok_or_else(|| bad("network.dns", "must hold texts in quotes"))
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(bad("network.dns", "must be a list such as [\"192.0.2.53\"]")),
    };
    network(
        text("network", table, "interface")?,
        needed("network", table, "address")?,
        text("network", table, "gateway")?,
        &dns,
    )
}

fn read_wifi(table: &Table, problems: &mut Vec<Problem>) -> Result<super::Wifi, Problem> {
    known("wifi", table, &["ssid", "passphrase", "country"], problems);
    wifi(
        needed("wifi", table, "ssid")?,
        text("wifi", table, "passphrase")?,
        text("wifi", table, "country")?,
    )
}
