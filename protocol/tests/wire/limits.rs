//! A document with everything a document can say, and each rule about it.

use crate::{document::full, golden};
use holdfast_protocol::{
    Digest,
    document::{
        Artifact, ArtifactSource, Datastore, DesiredState, FailurePolicy, K3sJoin, MAX_ARTIFACT_BYTES,
        MaintenanceWindow, Probe, ProbeCheck, ProbeTarget, Registries, Sealed, SealedSecret, SealedValue,
        Weekday,
    },
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

fn artifact(name: &str) -> Artifact {
    Artifact {
        digest: Digest::of(name.as_bytes()),
        size: 1_234,
        name: name.into(),
        sources: vec![
            ArtifactSource::Oci("harbor.example.com/edge/k3s".into()),
            ArtifactSource::Url("https://example.com/k3s".into()),
        ],
        extra: Map::new(),
    }
}

fn sealed() -> Sealed {
    Sealed {
        key: Digest::of(b"key"),
        encapsulated: "AA".into(),
        ciphertext: "BB".into(),
    }
}

fn map(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn probe(name: &str, check: ProbeCheck) -> Probe {
    Probe {
        name: name.into(),
        check,
        period_seconds: 5,
        timeout_seconds: 4,
        failure_threshold: 3,
    }
}

fn everything() -> DesiredState {
    let mut document = full();
    let k3s = document.k3s.as_mut().unwrap();
    k3s.binaries.insert("amd64".into(), artifact("k3s"));
    k3s.images
        .insert("amd64".into(), vec![artifact("k3s-airgap-images-amd64.tar.zst")]);
    k3s.join = Some(K3sJoin {
        server: Some("https://10.7.0.1:6443".into()),
        token: sealed(),
        etcd: true,
    });
    k3s.datastore = Some(Datastore::Ram);
    k3s.node_address = Some("10.200.0.1".parse().unwrap());
    k3s.registries = Some(Registries {
        mirrors: map(&json!({"docker.io": {"endpoint": ["https://harbor.example.com"]}})),
        configs: map(&json!({"harbor.example.com": {"tls": {"insecure_skip_verify": true}}})),
        credentials: BTreeMap::from([(
            "harbor.example.com".into(),
            SealedValue {
                source: "harbor".into(),
                sealed: Some(sealed()),
            },
        )]),
    });
    k3s.kubelet = map(&json!({"maxPods": 60}));
    k3s.audit_policy = map(&json!({"rules": [{"level": "Metadata"}]}));
    let app = &mut document.apps[0];
    app.on_failure = FailurePolicy::Isolate;
    app.images.insert("arm64".into(), vec![artifact("web.tar")]);
    app.secrets = vec![SealedSecret {
        name: "web".into(),
        namespace: None,
        kind: None,
        data: BTreeMap::from([(
            "password".into(),
            SealedValue {
                source: "web-password".into(),
                sealed: Some(sealed()),
            },
        )]),
    }];
    let service = ProbeTarget::Service {
        namespace: None,
        name: "web".into(),
        port: 80,
    };
    app.probes = vec![
        probe(
            "page",
            ProbeCheck::Http {
                target: service,
                path: "/healthz".into(),
                tls: false,
            },
        ),
        probe(
            "port",
            ProbeCheck::Tcp {
                target: ProbeTarget::Address("127.0.0.1:8080".into()),
            },
        ),
        probe(
            "command",
            ProbeCheck::Exec {
                namespace: None,
                workload: "Deployment/web".into(),
                container: None,
                command: vec!["/bin/check".into(), "--fast".into()],
            },
        ),
    ];
    document.policy.stability_seconds = 60;
    document.policy.on_failure = FailurePolicy::Isolate;
    document.policy.urgent = true;
    document.policy.windows_without_clock = true;
    document.policy.windows = vec![MaintenanceWindow {
        days: vec![Weekday::Sat, Weekday::Sun],
        start: "22:00".into(),
        end: "04:30".into(),
        time_zone: "Europe/Zurich".into(),
    }];
    document
}

#[test]
fn a_document_with_everything_has_its_golden_form() {
    golden::check("desired-state.everything.json", &everything());
    everything().validate().unwrap();
}

#[test]
fn all_artifacts_of_a_document_are_found() {
    let document = everything();
    let names: Vec<&str> = document
        .artifacts()
        .map(|artifact| artifact.name.as_str())
        .collect();
    assert_eq!(names, ["k3s", "k3s-airgap-images-amd64.tar.zst", "web.tar"]);
}

/// Sets what is at a JSON pointer of the document with everything.
fn with(pointer: &str, value: Value) -> Result<(), String> {
    let mut json = serde_json::to_value(everything()).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match json.pointer_mut(parent).expect(pointer) {
        Value::Object(map) => {
            map.insert(key.replace("~1", "/"), value);
        }
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        other => panic!("{pointer}: {other}"),
    }
    let document: DesiredState = serde_json::from_value(json).map_err(|error| error.to_string())?;
    document.validate().map_err(|error| error.to_string())
}

#[test]
fn each_rule_about_what_a_document_can_say_is_told_with_its_place() {
    let page = "/apps/0/probes/0/check/http";
    let source = |kind: &str, text: &str| json!([{kind: text}]);
    let url = "k3s.binaries.amd64.sources[0].url";
    let oci = "k3s.binaries.amd64.sources[0].oci";
    let sources = "/k3s/binaries/amd64/sources";
    for (pointer, value, expected) in [
        (
            "/policy/stabilitySeconds",
            json!(900),
            "policy.stabilitySeconds: 900 is not below",
        ),
        (
            "/policy/windows",
            json!(vec![json!({"start": "1:00", "end": "02:00"}); 33]),
            "policy.windows: 33 windows",
        ),
        (
            "/policy/windows/0/start",
            json!("24:00"),
            "policy.windows[0].start: \"24:00\"",
        ),
        (
            "/policy/windows/0/end",
            json!("4:30"),
            "policy.windows[0].end: \"4:30\"",
        ),
        ("/policy/windows/0/end", json!("+1:30"), "policy.windows[0].end: "),
        (
            "/policy/windows/0/days",
            json!(["sat", "sat"]),
            "policy.windows[0].days: a day is named twice",
        ),
        (
            "/policy/windows/0/timeZone",
            json!("../etc"),
            "policy.windows[0].timeZone: \"../etc\"",
        ),
        (
            "/policy/windows/0/timeZone",
            json!(""),
            "policy.windows[0].timeZone: ",
        ),
        (
            "/apps/0/probes/1/name",
            json!("page"),
            "apps[0].probes[1].name: \"page\" is the name of an earlier",
        ),
        (
            "/apps/0/probes/0/name",
            json!("Page"),
            "apps[0].probes[0].name: \"Page\"",
        ),
        (
            "/apps/0/probes/0/periodSeconds",
            json!(0),
            "apps[0].probes[0].periodSeconds: 0 is not",
        ),
        (
            "/apps/0/probes/0/timeoutSeconds",
            json!(301),
            "apps[0].probes[0].timeoutSeconds: 301",
        ),
        (
            "/apps/0/probes/0/failureThreshold",
            json!(0),
            "apps[0].probes[0].failureThreshold: 0",
        ),
        (
            "/apps/0/probes/0/check/http/path",
            json!("healthz"),
            "apps[0].probes[0].check.http.path: ",
        ),
        (
            "/apps/0/probes/0/check/http/path",
            json!("/a b"),
            "apps[0].probes[0].check.http.path: ",
        ),
        (
            page,
            json!({"target": {"service": {"name": "web", "port": 0}}}),
            "apps[0].probes[0].check.http.target.service.port: 0",
        ),
        (
            page,
            json!({"target": {"service": {"name": "a/b", "port": 1}}}),
            "apps[0].probes[0].check.http.target.service.name: ",
        ),
        (
            "/apps/0/probes/1/check/tcp/target/address",
            json!("localhost"),
            "apps[0].probes[1].check.tcp.target.address: ",
        ),
        (
            "/apps/0/probes/2/check/exec/workload",
            json!("Job/x"),
            "apps[0].probes[2].check.exec.workload: \"Job/x\"",
        ),
        (
            "/apps/0/probes/2/check/exec/command",
            json!([]),
            "apps[0].probes[2].check.exec.command: ",
        ),
        (
            "/apps/0/secrets/0/name",
            json!("a/b"),
            "apps[0].secrets[0].name: \"a/b\"",
        ),
        (
            "/apps/0/secrets/0/data",
            json!({}),
            "apps[0].secrets[0].data: 0 values",
        ),
        (
            "/apps/0/secrets/0/data",
            json!({"a/b": {"source": "x"}}),
            "apps[0].secrets[0].data.a/b: ",
        ),
        (
            "/apps/0/secrets/0/data/password/source",
            json!(""),
            "apps[0].secrets[0].data.password.source: ",
        ),
        (
            "/apps/0/images/arm64/0/size",
            json!(0),
            "apps[0].images.arm64[0].size: 0 bytes",
        ),
        (
            "/apps/0/images/arm64/0/size",
            json!(MAX_ARTIFACT_BYTES + 1),
            "apps[0].images.arm64[0].size: ",
        ),
        (
            "/apps/0/images/arm64/0/name",
            json!("../x"),
            "apps[0].images.arm64[0].name: ",
        ),
        (
            "/apps/0/images",
            json!({"ARM": []}),
            "apps[0].images.ARM: \"ARM\" is no architecture",
        ),
        (sources, source("url", "http://example.com/k3s"), url),
        (sources, source("url", "https://user:pass@example.com/k3s"), url),
        (sources, source("oci", "https://harbor.example.com/k3s"), oci),
        (sources, source("oci", "k3s"), oci),
        ("/k3s/version", json!("v1.36 .3"), "k3s.version: "),
        (
            "/k3s/version",
            json!("latest"),
            "k3s.version: \"latest\" is no version",
        ),
        ("/k3s/version", json!("v1.36"), "k3s.version: "),
        ("/k3s/version", json!("1.36.3+k3s1"), "k3s.version: "),
        ("/k3s/version", json!("v1.036.3+k3s1"), "k3s.version: "),
        ("/k3s/version", json!("v1.36.3+"), "k3s.version: "),
        (
            "/k3s/nodeAddress",
            json!("127.0.0.1"),
            "k3s.nodeAddress: 127.0.0.1 cannot be",
        ),
        ("/k3s/join/server", json!("10.7.0.1"), "k3s.join.server: "),
        ("/k3s/site", json!({"servers": 2}), "k3s.site.servers: 2"),
        ("/k3s/site", json!({"servers": 3}), "k3s.join: the hub makes it"),
        (
            "/k3s/registries/mirrors",
            json!({"docker.io": 1}),
            "k3s.registries.mirrors.docker.io: is no map",
        ),
        (
            "/k3s/registries/configs",
            json!({"docker.io": {"auth": {}}}),
            "k3s.registries.configs.docker.io.auth: a password",
        ),
    ] {
        let error = with(pointer, value).expect_err(pointer);
        assert!(
            error.starts_with(expected),
            "{error:?} does not start with {expected:?}"
        );
    }
}

#[test]
fn what_an_operator_would_write_is_taken() {
    for (pointer, value) in [
        (
            "/policy/windows/0/timeZone",
            json!("America/Argentina/Buenos_Aires"),
        ),
        ("/policy/windows/0/start", json!("00:00")),
        ("/policy/windows/0/end", json!("23:59")),
        ("/policy/stabilitySeconds", json!(0)),
        ("/apps/0/probes/1/check/tcp/target/address", json!("[::1]:8080")),
        ("/apps/0/probes/2/check/exec/workload", json!("StatefulSet/db")),
        (
            "/apps/0/secrets/0/data",
            json!({"tls.crt": {"source": "site/tls"}}),
        ),
        ("/k3s/nodeAddress", json!("fd00::1")),
        (
            "/k3s/registries/mirrors",
            json!({"*": {"endpoint": ["https://harbor.example.com/v2"]}}),
        ),
    ] {
        with(pointer, value).unwrap_or_else(|error| panic!("{pointer}: {error}"));
    }
}

/// What is refused of a k3s section, in a document with an app.
fn section(k3s: Value) -> Result<(), String> {
    let mut document = everything();
    document.k3s = Some(serde_json::from_value(k3s).unwrap());
    document.validate().map_err(|error| error.to_string())
}

#[test]
fn an_agent_without_servers_to_join_is_refused_with_what_to_do() {
    let error = section(json!({"role": "agent"})).unwrap_err();
    assert!(
        error.starts_with("k3s.role: an agent needs servers to join: use k3s.site"),
        "{error}"
    );
    let error = section(json!({"role": "agent", "site": {}})).unwrap_err();
    assert!(error.starts_with("k3s.role: agents take no apps"), "{error}");
    section(json!({"role": "server"})).unwrap();
    section(json!({"site": {}})).unwrap();
    let mut document = everything();
    document.apps.clear();
    document.k3s = Some(serde_json::from_value(json!({"role": "agent", "site": {}})).unwrap());
    document.validate().unwrap();
    // As the hub makes it for one agent of a site.
    let join = everything().k3s.unwrap().join.unwrap();
    document.k3s = Some(serde_json::from_value(json!({"role": "agent", "join": join})).unwrap());
    document.validate().unwrap();
}

#[test]
fn a_key_of_k3s_that_has_a_place_of_its_own_is_refused_with_that_place() {
    for (key, instead) in [
        ("data-dir", "kubernetes.data_dir"),
        ("d", "kubernetes.data_dir"),
        ("write-kubeconfig", "kubernetes.kubeconfig"),
        ("https-listen-port", "kubernetes.https_port"),
        ("token", "k3s.site"),
        ("token+", "k3s.site"),
        ("agent-token", "k3s.site"),
        ("server", "k3s.site"),
        ("cluster-init", "servers: 3"),
    ] {
        let error = section(json!({"config": {"debug": true, key: "x"}})).unwrap_err();
        assert!(error.starts_with(&format!("k3s.config.{key}: ")), "{error}");
        assert!(error.contains(instead), "{error}");
    }
    section(json!({"config": {"debug": true, "node-label+": ["a=b"], "write-kubeconfig-mode": "0600"}}))
        .unwrap();
}
