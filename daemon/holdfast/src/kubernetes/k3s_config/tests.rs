use super::*;
use holdfast_protocol::{
    seal::{SealingKey, seal},
    sealing::{JOIN_TOKEN_NAME, secret_name},
};
use serde_json::json;
use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt as _, path::Path};

fn node() -> NodeId {
    "shop-17".parse().unwrap()
}

fn section(value: &Value) -> K3sSection {
    serde_json::from_value(value.clone()).unwrap()
}

fn sealed() -> Value {
    json!({"key": Digest::of(b"key"), "encapsulated": "AAAA", "ciphertext": "BBBB"})
}

/// All that k3s is started with, as one text.
fn whole(config: &K3sConfig) -> String {
    let mut text = format!(
        "role {:?}, address {:?}\n\n--- config.yaml\n{}",
        config.role, config.address, config.text
    );
    for file in &config.files {
        let content = file.content.as_sealed();
        let _ = write!(
            text,
            "\n--- {} {:04o}\n{}\n",
            file.path.display(),
            file.mode,
            content.trim_end()
        );
    }
    for path in &config.absent {
        let _ = write!(text, "\n--- {} must not be there\n", path.display());
    }
    text
}

#[track_caller]
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/kubernetes/k3s_config/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        crate::identity::write_private(&path, text.as_bytes()).unwrap();
    }
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        text,
        "{name} is not what this build writes"
    );
}

#[test]
fn a_box_alone_has_its_golden_configuration() {
    golden("alone.txt", &whole(&render(&Settings::default(), &node(), None)));
}

#[test]
fn a_box_with_everything_has_its_golden_configuration() {
    let section = section(&json!({
        "nodeAddress": "10.200.0.1",
        "registries": {
            "mirrors": {"docker.io": {"endpoint": ["https://harbor.example.com"]}},
            "configs": {"harbor.example.com": {"tls": {"ca_file": "/etc/ssl/harbor.pem"}}},
            "credentials": {"harbor.example.com": {"source": "harbor", "sealed": sealed()}},
        },
        "kubelet": {"maxPods": 60, "imageGCHighThresholdPercent": 80},
        "auditPolicy": {"rules": [{"level": "Metadata"}]},
        "config": {"disable": ["traefik"], "kube-apiserver-arg": "v=2", "service-cidr": "10.50.0.0/16,fd00:50::/112"},
    }));
    golden(
        "everything.txt",
        &whole(&render(&Settings::default(), &node(), Some(&section))),
    );
}

#[test]
fn an_agent_has_its_golden_configuration() {
    let section = section(&json!({
        "role": "agent",
        "nodeAddress": "10.7.0.12",
        "join": {"server": "https://10.7.0.1:6443", "token": sealed()},
        "auditPolicy": {"rules": [{"level": "Metadata"}]},
    }));
    golden(
        "agent.txt",
        &whole(&render(&Settings::default(), &node(), Some(&section))),
    );
}

#[test]
fn each_of_three_servers_has_its_golden_configuration() {
    let first = section(&json!({"join": {"token": sealed(), "etcd": true}}));
    golden(
        "first-server.txt",
        &whole(&render(&Settings::default(), &node(), Some(&first))),
    );
    let other =
        section(&json!({"join": {"server": "https://10.7.0.1:6443", "token": sealed(), "etcd": true}}));
    golden(
        "other-server.txt",
        &whole(&render(&Settings::default(), &node(), Some(&other))),
    );
    let one = section(&json!({"join": {"token": sealed()}}));
    assert!(
        !render(&Settings::default(), &node(), Some(&one))
            .text
            .contains("cluster-init")
    );
}

#[test]
fn the_document_wins_over_the_settings_but_not_over_what_ties_k3s_to_the_box() {
    let mut settings = Settings::default();
    settings.kubernetes.config = serde_json::from_value(json!({"disable": ["traefik"], "v": 1})).unwrap();
    settings.kubernetes.node_address = Some("10.200.0.9".parse().unwrap());
    settings.kubernetes.kubelet =
        serde_json::from_value(json!({"maxPods": 10, "failSwapOn": false})).unwrap();
    settings.kubernetes.registries =
        serde_json::from_value(json!({"mirrors": {"quay.io": {"endpoint": ["https://own"]}}})).unwrap();
    let own = render(&settings, &node(), None);
    assert!(own.text.contains("\nnode-ip: [\"10.200.0.9\"]\n"), "{}", own.text);
    let section = section(&json!({
        "config": {"v": 2, "https-listen-port": 1, "data-dir": "/elsewhere"},
        "nodeAddress": "10.200.0.1",
        "kubelet": {"maxPods": 60},
        "registries": {"mirrors": {"docker.io": {"endpoint": ["https://harbor"]}}},
    }));
    let both = render(&settings, &node(), Some(&section));
    for line in [
        "v: 2",
        "disable: [\"traefik\"]",
        "https-listen-port: 6443",
        "data-dir: \"/var/lib/rancher/k3s\"",
        "node-name: \"shop-17\"",
        "node-ip: [\"10.200.0.1\"]",
    ] {
        assert!(
            both.text.contains(&format!("\n{line}\n")),
            "{line}: {}",
            both.text
        );
    }
    let files = whole(&both);
    assert!(
        files.contains("\nmaxPods: 60\n") && files.contains("\nfailSwapOn: false\n"),
        "{files}"
    );
    assert!(
        files.contains("quay.io") && files.contains("docker.io"),
        "{files}"
    );
}

#[test]
fn the_digest_changes_with_the_configuration_and_with_nothing_else() {
    let settings = Settings::default();
    let digest = |value: Value| render(&settings, &node(), Some(&section(&value))).digest;
    let plain = render(&settings, &node(), None);
    assert_eq!(plain, render(&settings, &node(), Some(&K3sSection::default())));
    let mut seen = vec![plain.digest];
    for value in [
        json!({"config": {"debug": true}}),
        json!({"kubelet": {"maxPods": 60}}),
        json!({"auditPolicy": {"rules": []}}),
        json!({"nodeAddress": "10.200.0.1"}),
        json!({"registries": {"mirrors": {"docker.io": {}}}}),
        json!({"registries": {"credentials": {"docker.io": {"source": "a", "sealed": sealed()}}}}),
        json!({"join": {"token": sealed()}}),
    ] {
        let one = digest(value.clone());
        assert_eq!(one, digest(value.clone()));
        assert!(!seen.contains(&one), "{value}");
        seen.push(one);
    }
    let mut arguments = settings.clone();
    arguments.kubernetes.extra_args = vec!["--debug".into()];
    assert_ne!(plain.digest, render(&arguments, &node(), None).digest);
}

fn placed(directory: &Path) -> Settings {
    let mut settings = Settings {
        state_dir: directory.join("state"),
        ..Settings::default()
    };
    settings.kubernetes.data_dir = directory.join("k3s");
    settings.kubernetes.secrets_dir = directory.join("run");
    fs::create_dir_all(settings.identity_dir()).unwrap();
    settings
}

#[test]
fn secrets_are_opened_into_private_files_and_removed_with_the_document() {
    let directory = tempfile::tempdir().unwrap();
    let settings = placed(directory.path());
    let key = crate::identity::Identity::load_or_make_sealing(&settings.identity_dir()).unwrap();
    let token = seal(&key.public(), JOIN_TOKEN_NAME, b"site-secret").unwrap();
    let auth = br#"{"username":"robot","password":"hunter2"}"#;
    let auth = seal(&key.public(), &secret_name("harbor"), auth).unwrap();
    let section = section(&json!({
        "join": {"token": token},
        "registries": {"credentials": {"harbor.example.com": {"source": "harbor", "sealed": auth}}},
    }));
    let config = render(&settings, &node(), Some(&section));
    check(&section, Some(&key)).unwrap();
    assert!(!directory.path().join("run").exists(), "a check writes nothing");
    config.put_in_place(&settings).unwrap();
    let read = |name: &str| fs::read_to_string(directory.path().join("run").join(name)).unwrap();
    assert_eq!(read("token"), "site-secret\n");
    assert!(
        read("registries.yaml").contains(r#""password":"hunter2""#),
        "{}",
        read("registries.yaml")
    );
    for name in ["token", "registries.yaml"] {
        let mode = fs::metadata(directory.path().join("run").join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    let shown = format!("{config:?} {}", whole(&config));
    assert!(
        !shown.contains("hunter2") && !shown.contains("site-secret"),
        "{shown}"
    );

    render(&settings, &node(), None).put_in_place(&settings).unwrap();
    assert_eq!(fs::read_dir(directory.path().join("run")).unwrap().count(), 0);
}

#[test]
fn a_value_that_does_not_open_is_named_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let settings = placed(directory.path());
    let key = crate::identity::Identity::load_or_make_sealing(&settings.identity_dir()).unwrap();
    let other = SealingKey::generate();
    let credentials = |value: Value| section(&json!({"registries": {"credentials": {"r": value}}}));
    let sealed_for = |key: &SealingKey, name: &str, value: &[u8]| json!({"source": "harbor", "sealed": seal(&key.public(), name, value).unwrap()});
    let name = secret_name("harbor");
    for (value, expected) in [
        (json!({"source": "harbor"}), "holds no value for this box"),
        (sealed_for(&other, &name, b"{}"), "older or another key"),
        (
            sealed_for(&key, &secret_name("other"), b"{}"),
            "sealed for another place",
        ),
        (
            sealed_for(&key, &name, b"hunter2"),
            "no JSON object with username",
        ),
        (
            sealed_for(&key, &name, br#"{"password":7}"#),
            "no JSON object with username",
        ),
    ] {
        let section = credentials(value);
        let problem = check(&section, Some(&key)).unwrap_err().problem();
        assert!(problem.message.contains(expected), "{problem}");
        assert!(
            problem.message.contains("k3s.registries.credentials.r") && !problem.message.contains("hunter2")
        );
        assert!(
            render(&settings, &node(), Some(&section))
                .put_in_place(&settings)
                .is_err()
        );
        assert!(!directory.path().join("run/registries.yaml").exists());
    }
}
