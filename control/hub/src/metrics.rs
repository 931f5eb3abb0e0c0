//! What the hub counts, in the Prometheus text format, each figure documented where it is declared.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

/// A figure: name, type, labels, and what it says.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Name in the Prometheus form.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, with its unit.
    pub help: &'static str,
}

macro_rules! figures {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $kind:literal, [$($label:literal),*];)*) => {
        $($(#[doc = $doc])+ pub const $name: Figure = Figure {
            name: $text,
            kind: $kind,
            labels: &[$($label),*],
            help: concat!($($doc),+),
        };)*

        /// Every figure, in the order of the page.
        pub const ALL: &[Figure] = &[$($name),*];
    };
}

figures! {
    /// Always 1; its label says which release of the hub runs.
    BUILD_INFO = "holdfast_hub_build_info", "gauge", ["version"];
    /// Nodes in the fleet, by whether they have a session (`online`, `offline`).
    NODES = "holdfast_hub_nodes", "gauge", ["presence"];
    /// Nodes in the fleet by the health in their last report.
    NODES_HEALTH = "holdfast_hub_nodes_health", "gauge", ["health"];
    /// Nodes in the fleet by the version of the operating system in their last report, where that is an image of Holdfast.
    NODES_OS = "holdfast_hub_nodes_os", "gauge", ["version"];
    /// Documents and removals that the broker has not taken yet.
    OUTBOX_PENDING = "holdfast_hub_outbox_pending", "gauge", [];
    /// 1 while the hub is connected to its broker, else 0; always 1 with the embedded one.
    BROKER_CONNECTED = "holdfast_hub_broker_connected", "gauge", [];
    /// Documents and removals handed to the broker, by result (`ok`, `failed`).
    PUBLISHES = "holdfast_hub_publishes_total", "counter", ["result"];
    /// Messages of nodes by channel (`status`, `event`, `presence`) and result (`stored`, `known`, `refused`, `failed`).
    MESSAGES = "holdfast_hub_messages_total", "counter", ["channel", "result"];
    /// Enrolments by result: `ok`, `repeated`, or the code of the problem.
    ENROLMENTS = "holdfast_hub_enrolments_total", "counter", ["result"];
    /// Renewals of certificates by result: `ok` or the code of the problem.
    RENEWALS = "holdfast_hub_renewals_total", "counter", ["result"];
    /// Requests to the HTTP API by method and status code.
    HTTP_REQUESTS = "holdfast_hub_http_requests_total", "counter", ["method", "status"];
    /// Time spent on requests to the HTTP API, in seconds; streams count until their first byte.
    HTTP_SECONDS = "holdfast_hub_http_request_seconds_total", "counter", [];
    /// TLS handshakes that failed.
    TLS_FAILURES = "holdfast_hub_tls_failures_total", "counter", [];
    /// Readers of the live stream now.
    STREAM_READERS = "holdfast_hub_stream_readers", "gauge", [];
}

type Series = BTreeMap<(&'static str, Vec<String>), f64>;

/// The counted figures; those that the database knows are added when the page is made.
#[derive(Debug, Default)]
pub struct Metrics {
    series: Mutex<Series>,
}

impl Metrics {
    /// Adds to a figure.
    pub fn add(&self, figure: Figure, labels: &[&str], amount: f64) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        *series.entry(key(figure, labels)).or_default() += amount;
    }

    /// Adds one to a figure.
    pub fn count(&self, figure: Figure, labels: &[&str]) {
        self.add(figure, labels, 1.0);
    }

    /// Sets a figure.
    pub fn set(&self, figure: Figure, labels: &[&str], value: f64) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.insert(key(figure, labels), value);
    }

    /// Sets all series of a figure with one label; those that are not named are gone.
    pub fn set_all(&self, figure: Figure, values: &BTreeMap<&str, f64>) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.retain(|(name, _), _| *name != figure.name);
        for (label, value) in values {
            series.insert(key(figure, &[label]), *value);
        }
    }

    /// The page, in the Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = String::new();
        // Writing to a string cannot fail.
        for figure in ALL {
            let _ = writeln!(page, "# HELP {} {}", figure.name, figure.help.trim());
            let _ = writeln!(page, "# TYPE {} {}", figure.name, figure.kind);
            for ((name, values), value) in series.iter().filter(|((name, _), _)| *name == figure.name) {
                let labels: Vec<_> = figure
                    .labels
                    .iter()
                    .zip(values)
                    .map(|(label, value)| format!("{label}=\"{}\"", escape(value)))
                    .collect();
                let labels = if labels.is_empty() {
                    String::new()
                } else {
                    format!("{{{}}}", labels.join(","))
                };
                let _ = writeln!(page, "{name}{labels} {value}");
            }
        }
        page
    }
}

fn key(figure: Figure, labels: &[&str]) -> (&'static str, Vec<String>) {
    debug_assert_eq!(figure.labels.len(), labels.len(), "{}", figure.name);
    (
        figure.name,
        labels.iter().map(|&label| label.to_owned()).collect(),
    )
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// The page of all figures, as Markdown.
pub fn markdown() -> String {
    let mut text = String::from("| name | type | labels | what it says |\n|---|---|---|---|\n");
    for figure in ALL {
        let labels: Vec<_> = figure.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            figure.name,
            figure.kind,
            labels.join(", "),
            figure.help.trim()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.count(ENROLMENTS, &["token-spent"]);
        metrics.count(ENROLMENTS, &["token-spent"]);
        metrics.set(NODES, &["on\"line"], 3.0);
        metrics.set_all(NODES_OS, &BTreeMap::from([("1", 2.0)]));
        metrics.set_all(NODES_OS, &BTreeMap::from([("2", 1.0), ("3", 1.0)]));
        let page = metrics.render();
        assert!(!page.contains("nodes_os{version=\"1\"}"), "{page}");
        assert!(page.contains("nodes_os{version=\"3\"} 1\n"), "{page}");
        assert!(page.contains("# TYPE holdfast_hub_enrolments_total counter\nholdfast_hub_enrolments_total{result=\"token-spent\"} 2\n"));
        assert!(page.contains("holdfast_hub_nodes{presence=\"on\\\"line\"} 3\n"));
        assert!(page.contains("# HELP holdfast_hub_build_info Always 1;"));
    }
}
