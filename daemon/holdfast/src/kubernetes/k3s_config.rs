//! The configuration file of k3s: what Holdfast needs, what this box's settings add, what the desired state adds, in this order.
//!
//! In: settings and the document's k3s section. Out: the text of the file, in k3s's own keys, and a digest of everything that a
//! running k3s was started with, so that a change is seen. It guarantees that the same input gives the same bytes.

use crate::settings::Settings;
use holdfast_protocol::{Digest, NodeId, document::K3sSection};
use serde_json::{Map, Value};
use std::fmt::Write as _;

/// Keys that stay Holdfast's: a document that changed them would cut Holdfast off from its own Kubernetes.
const RESERVED: [&str; 3] = ["data-dir", "write-kubeconfig", "https-listen-port"];

/// A rendered configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct K3sConfig {
    /// Text of the file.
    pub text: String,
    /// Digest of the text and of the further arguments.
    pub digest: Digest,
}

/// Renders the file. Keys of the document win over those of the settings, except the few that tie k3s to this box.
pub fn render(settings: &Settings, node: &NodeId, section: Option<&K3sSection>) -> K3sConfig {
    let kubernetes = &settings.kubernetes;
    let name = kubernetes
        .node_name
        .clone()
        .unwrap_or_else(|| node.as_str().to_owned());
    let mut keys = Map::new();
    keys.insert("node-name".into(), name.into());
    keys.insert("write-kubeconfig-mode".into(), "0600".into());
    for source in [Some(&kubernetes.config), section.map(|section| &section.config)] {
        for (key, value) in source.into_iter().flatten() {
            keys.insert(key.clone(), value.clone());
        }
    }
    let own: [Value; 3] = [
        kubernetes.data_dir.display().to_string().into(),
        kubernetes.kubeconfig.display().to_string().into(),
        kubernetes.https_port.into(),
    ];
    for (key, value) in RESERVED.into_iter().zip(own) {
        keys.insert(key.into(), value);
    }
    let mut text = String::from("# Written by holdfast; changes are overwritten.\n");
    let mut names: Vec<_> = keys.keys().cloned().collect();
    names.sort_unstable();
    for key in names {
        // A JSON value is a YAML value; writing to a string cannot fail.
        let _ = writeln!(text, "{key}: {}", keys[&key]);
    }
    let digest = Digest::of(
        [text.as_str(), &kubernetes.extra_args.join("\0")]
            .join("\0")
            .as_bytes(),
    );
    K3sConfig { text, digest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn section(config: &Value) -> K3sSection {
        serde_json::from_value(json!({ "config": config })).unwrap()
    }

    #[test]
    fn the_document_wins_over_the_settings_but_not_over_what_ties_k3s_to_the_box() {
        let mut settings = Settings::default();
        settings.kubernetes.config = serde_json::from_value(json!({"disable": ["traefik"], "v": 1})).unwrap();
        let node = "shop-17".parse().unwrap();
        let section = section(&json!({"v": 2, "https-listen-port": 1, "data-dir": "/elsewhere"}));
        let text = render(&settings, &node, Some(&section)).text;
        assert!(text.contains("\nv: 2\n"), "{text}");
        assert!(text.contains("\ndisable: [\"traefik\"]\n"), "{text}");
        assert!(text.contains("\nhttps-listen-port: 6443\n"), "{text}");
        assert!(text.contains("\ndata-dir: \"/var/lib/rancher/k3s\"\n"), "{text}");
        assert!(text.contains("\nnode-name: \"shop-17\"\n"), "{text}");
    }

    #[test]
    fn the_digest_changes_with_the_configuration_and_with_nothing_else() {
        let settings = Settings::default();
        let node = "shop-17".parse().unwrap();
        let plain = render(&settings, &node, None);
        assert_eq!(plain, render(&settings, &node, Some(&K3sSection::default())));
        let other = render(&settings, &node, Some(&section(&json!({"debug": true}))));
        assert_ne!(plain.digest, other.digest);
        let mut arguments = settings.clone();
        arguments.kubernetes.extra_args = vec!["--debug".into()];
        assert_ne!(plain.digest, render(&arguments, &node, None).digest);
    }
}
