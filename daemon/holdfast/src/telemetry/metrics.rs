//! Metrics of the node: one table of documented names, kept as atomic numbers, written in Prometheus's text format on request.
//!
//! Nothing is allocated or timed until someone asks. `docs/metrics.md` is generated from the same table.

use std::{
    fmt::Write as _,
    fs,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The number so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }
}

/// A number that rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    const fn new() -> Self {
        Self(AtomicI64::new(0))
    }
}

trait Metric {
    const KIND: &'static str;
    fn text(&self) -> String;
}

impl Metric for Counter {
    const KIND: &'static str = "counter";

    fn text(&self) -> String {
        self.get().to_string()
    }
}

impl Metric for Gauge {
    const KIND: &'static str = "gauge";

    fn text(&self) -> String {
        self.get().to_string()
    }
}

/// One row of the table.
struct Row {
    name: &'static str,
    kind: &'static str,
    doc: &'static str,
    value: String,
}

macro_rules! metrics {
    ($(#[doc = $doc:literal] $field:ident : $type:ident = $name:literal;)+) => {
        /// All metrics of the node.
        #[derive(Debug)]
        pub struct Metrics {
            $(#[doc = $doc] pub $field: $type,)+
        }

        /// The metrics of this process.
        pub static METRICS: Metrics = Metrics { $($field: $type::new(),)+ };

        impl Metrics {
            fn rows(&self) -> Vec<Row> {
                vec![$(Row {
                    name: $name,
                    kind: <$type as Metric>::KIND,
                    doc: $doc.trim_ascii(),
                    value: self.$field.text(),
                }),+]
            }
        }
    };
}

metrics! {
    /// When the process started, in seconds since 1970 by its own clock.
    started: Gauge = "holdfast_start_time_seconds";
    /// Memory of the process that is resident, in bytes.
    resident: Gauge = "holdfast_resident_memory_bytes";
    /// Whether the box is enrolled.
    enrolled: Gauge = "holdfast_enrolled";
    /// When the node's certificate ends, in seconds since 1970.
    certificate_expiry: Gauge = "holdfast_certificate_expiry_timestamp_seconds";
    /// Renewals of the certificate.
    certificate_renewals: Counter = "holdfast_certificate_renewals_total";
    /// Renewals of the certificate that failed.
    certificate_renewal_failures: Counter = "holdfast_certificate_renewal_failures_total";
    /// How far the system clock is behind the newest signed time of the hub, in seconds; 0 where it is not.
    clock_behind: Gauge = "holdfast_clock_behind_seconds";
    /// Whether there is a session with a broker.
    link_connected: Gauge = "holdfast_link_connected";
    /// Sessions with a broker that were set up.
    link_connects: Counter = "holdfast_link_connects_total";
    /// Connections to a broker that failed or broke.
    link_failures: Counter = "holdfast_link_failures_total";
    /// Documents that were accepted and stored.
    documents_accepted: Counter = "holdfast_documents_accepted_total";
    /// Documents that were refused.
    documents_rejected: Counter = "holdfast_documents_rejected_total";
    /// Documents that failed to apply or to become ready in time.
    documents_failed: Counter = "holdfast_documents_failed_total";
    /// Counter of the newest accepted generation.
    generation_accepted: Gauge = "holdfast_generation_accepted";
    /// Counter of the newest generation that was seen applied and ready.
    generation_proven: Gauge = "holdfast_generation_proven";
    /// Objects written to Kubernetes.
    objects_written: Counter = "holdfast_objects_written_total";
    /// Objects deleted from Kubernetes because they left the desired state.
    objects_pruned: Counter = "holdfast_objects_pruned_total";
    /// Writes that Kubernetes refused or did not answer.
    object_failures: Counter = "holdfast_object_failures_total";
    /// Changes by others that were put back.
    drift_corrected: Counter = "holdfast_drift_corrected_total";
    /// Apps of the desired state.
    apps: Gauge = "holdfast_apps";
    /// Apps that are healthy.
    apps_healthy: Gauge = "holdfast_apps_healthy";
    /// Whether the Kubernetes API is ready.
    kubernetes_ready: Gauge = "holdfast_kubernetes_ready";
    /// Times that Kubernetes was started.
    kubernetes_starts: Counter = "holdfast_kubernetes_starts_total";
    /// Snapshots of a datastore in memory that were written to the disk.
    datastore_snapshots: Counter = "holdfast_datastore_snapshots_total";
    /// Size of the datastore and its log, in bytes.
    datastore_bytes: Gauge = "holdfast_datastore_bytes";
    /// Damaged parts of Kubernetes that were set aside and rebuilt.
    kubernetes_heals: Counter = "holdfast_kubernetes_heals_total";
    /// Bytes free on the file system of the state directory, when it was looked at last.
    disk_free: Gauge = "holdfast_disk_free_bytes";
    /// Bytes written to the device below the state directory since boot.
    flash_written: Gauge = "holdfast_flash_written_bytes";
    /// Bytes that k3s and what it starts wrote to the flash.
    flash_kubernetes: Gauge = "holdfast_flash_written_by_kubernetes_bytes";
    /// Bytes that Holdfast wrote to the flash since it was started.
    flash_holdfast: Gauge = "holdfast_flash_written_by_holdfast_bytes";
    /// Part of its life that the device says is used, in percent; -1 where it says nothing.
    flash_life_used: Gauge = "holdfast_flash_life_used_percent";
    /// Bytes of blobs that were fetched.
    blob_bytes: Counter = "holdfast_blob_fetched_bytes_total";
    /// Fetches of blobs that broke and were resumed or tried again.
    blob_failures: Counter = "holdfast_blob_failures_total";
    /// Status reports that the broker took.
    reports_sent: Counter = "holdfast_reports_sent_total";
    /// Events that the broker took.
    events_sent: Counter = "holdfast_events_sent_total";
    /// Events that wait for the link.
    outbox_events: Gauge = "holdfast_outbox_events";
}

/// All metrics in Prometheus's text format, version 0.0.4.
pub fn text() -> String {
    if let Some(bytes) = resident_bytes() {
        METRICS.resident.set(bytes);
    }
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(
        "# HELP holdfast_build_info Version of holdfast; always 1.\n# TYPE holdfast_build_info gauge\n\
         holdfast_build_info{{version=\"{version}\"}} 1\n"
    );
    for row in METRICS.rows() {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "# HELP {0} {1}\n# TYPE {0} {2}\n{0} {3}",
            row.name, row.doc, row.kind, row.value
        );
    }
    text
}

/// The reference of all metrics, in Markdown.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics of the node\n\n\
         <!-- Generated by `holdfast docs metrics`; change daemon/holdfast/src/telemetry/metrics.rs instead. -->\n\n\
         `GET /v1/metrics` on the node's socket answers them in Prometheus's text format; with `metrics.listen` set, `GET /metrics` on\n\
         that address does too.\n\n| name | type | meaning |\n|---|---|---|\n\
         | `holdfast_build_info` | gauge | Version of holdfast in its label `version`; always 1. |\n",
    );
    for row in METRICS.rows() {
        let _ = writeln!(text, "| `{}` | {} | {} |", row.name, row.kind, row.doc);
    }
    text
}

/// Resident pages by statm(5); pages have 4 KiB on the machines that Holdfast is built for.
fn resident_bytes() -> Option<i64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<i64>().ok()? * 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_has_a_name_of_its_own_in_the_prometheus_form() {
        let rows = METRICS.rows();
        let mut names: Vec<_> = rows.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows.len());
        for row in rows {
            assert!(row.name.starts_with("holdfast_"), "{}", row.name);
            assert_eq!(
                row.name.ends_with("_total"),
                row.kind == "counter",
                "{}",
                row.name
            );
            assert!(row.doc.ends_with('.'), "{}", row.name);
        }
    }

    #[test]
    fn the_text_shows_what_was_counted() {
        METRICS.blob_failures.add(2);
        METRICS.outbox_events.set(-3);
        let text = text();
        assert!(
            text.contains("\n# TYPE holdfast_blob_failures_total counter\nholdfast_blob_failures_total 2\n")
        );
        assert!(text.contains("\nholdfast_outbox_events -3\n"));
        assert!(METRICS.resident.get() > 0);
    }
}
