//! `release.yaml`: what it can say, and how a mistake in it is told.

use super::*;

#[test]
fn a_mistyped_setting_is_refused_with_its_line_and_what_to_do() {
    for (text, place, action) in [
        (
            "namespace: a\npolcy: {}",
            "release.yaml:2:1: polcy: unknown key",
            "did you mean \"policy\"?",
        ),
        (
            "policy:\n  prunee: true",
            "release.yaml:2:3: policy.prunee",
            "did you mean \"prune\"?",
        ),
        (
            "k3s: {versoin: x}",
            "release.yaml:1:7: k3s.versoin",
            "\"version\"",
        ),
        (
            "apps: {ap: {}}",
            "release.yaml:1:8: apps.ap: there is no app",
            "did you mean \"app\"?",
        ),
        (
            "policy: {readyDeadlineSeconds: 0}",
            "release.yaml:1:10: policy.readyDeadlineSeconds: 0",
            "",
        ),
        (
            "policy: {readyDeadlineSeconds: soon}",
            "readyDeadlineSeconds is text",
            "a number",
        ),
        (
            "policy:\n  onFailure: rollback",
            "release.yaml:2:3",
            "\"roll-back\"",
        ),
        (
            "policy:\n  windows:\n  - {start: \"22:00\", end: \"4:30\"}",
            "release.yaml:3:22: policy.windows.0.end",
            "",
        ),
        (
            "policy:\n  windows:\n  - {start: \"22:00\", end: \"04:30\", timeZone: Europe/Zurch}",
            "release.yaml:3:36: policy.windows.0.timeZone: there is no time zone \"Europe/Zurch\"",
            "",
        ),
        (
            "apps:\n  app:\n    probes:\n    - {name: A, check: {tcp: {target: {address: \"x:1\"}}}}",
            "release.yaml:4:8: apps.app.probes.0.name",
            "",
        ),
        (
            "apps:\n  app:\n    probes:\n    - {name: a, check: {tcp: {targt: 1}}}",
            "release.yaml:4:31",
            "\"target\"",
        ),
        (
            "apps: {app: {secrets: [{name: a, data: {x: 1}}]}}",
            "apps.app.secrets.0.data.x",
            "",
        ),
        ("variables: {a: {type: int}}", "variables.a.type", "integer"),
        (
            "variables: {a: {min: 3, max: 1}}",
            "variables.a.min: 3 is above",
            "",
        ),
        ("values: [{node: a, set: {b: 1}}]", "values.0.set.b", ""),
        (
            "k3s:\n  datastore: ram\n  nodeAddress: 300.1.1.1",
            "release.yaml:3:3: k3s.nodeAddress: invalid IP address",
            "",
        ),
        (
            "k3s:\n  config: {}\n  version: latest",
            "release.yaml:3:3: k3s.version: \"latest\" is no version",
            "",
        ),
        (
            "k3s:\n  registries:\n    mirrors: {}\n    configs:\n      docker.io: {auth: {}}",
            "release.yaml:5:19: k3s.registries.configs.docker.io.auth: a password",
            "",
        ),
        (
            "policy:\n  prune: true\n  readyDeadlineSeconds: -1",
            "release.yaml:3:3: policy.readyDeadlineSeconds: ",
            "",
        ),
        (
            "apps:\n  app:\n    probes:\n    - {name: a, check: {tcp: {target: {address: \"x:1\"}}}}\n    - name: b",
            "release.yaml:5:7: apps.app.probes.1: missing field `check`",
            "",
        ),
        (
            "apps:\n  app:\n    namespace: web\n    secrets:\n    - {name: a, data: {x: 1}}",
            "release.yaml:5:24: apps.app.secrets.0.data.x",
            "",
        ),
        (
            "k3s: {images: {amd64: [{file: missing.tar}]}}",
            "missing.tar",
            "path",
        ),
        (
            "k3s: {images: {amd64: [{digest: \"sha256:00\"}]}}",
            "k3s.images.amd64.0: the artifact has no size",
            "file",
        ),
    ] {
        let good = config_map("a");
        let problem = refused(&[("app/a.yaml", good.as_str()), ("release.yaml", text)]);
        assert!(problem.message.contains(place), "{text}: {problem}");
        assert!(problem.action.contains(action), "{text}: {problem}");
        assert!(!problem.action.is_empty(), "{text}: {problem}");
    }
}

#[test]
fn everything_that_a_release_can_say_is_read() {
    let found = directory(&[
        ("till/a.yaml", &config_map("a")),
        ("images/till.tar", "an archive"),
        (
            "release.yaml",
            r#"
policy:
  readyDeadlineSeconds: 300
  stabilitySeconds: 30
  onFailure: isolate
  windows: [{days: [sat, sun], start: "22:00", end: "04:30", timeZone: Europe/Zurich}]
  windowsWithoutClock: true
  urgent: true
k3s:
  version: v1.36.3+k3s1
  datastore: ram
  nodeAddress: ${variables.address}
  registries: {mirrors: {docker.io: {endpoint: ["https://harbor.example.com"]}}, credentials: {harbor.example.com: harbor}}
  site: {roleLabel: kind}
  kubelet: {maxPods: 50}
  auditPolicy: {rules: [{level: Metadata}]}
  config: {disable: [traefik], node-label: ["site=${node.labels.site}"]}
variables:
  address: {from: node.labels.address, pattern: "[0-9.]+"}
apps:
  till:
    namespace: till
    onFailure: isolate
    images: {amd64: [{file: images/till.tar}]}
    secrets: [{name: till, data: {password: till-password, other: {source: till-other}}}]
    probes: [{name: page, check: {http: {target: {service: {name: till, port: 80}}, path: /healthz}}}]
"#,
        ),
    ]);
    let release = load(found.path()).unwrap();
    let content = &release.content;
    assert_eq!(content.policy.stability_seconds, 30);
    assert_eq!(content.policy.on_failure, FailurePolicy::Isolate);
    assert!(content.policy.urgent && content.policy.windows_without_clock);
    assert_eq!(content.fields["/k3s/nodeAddress"], "${variables.address}");
    let till = &content.apps[0];
    assert_eq!(till.on_failure, FailurePolicy::Isolate);
    assert_eq!(till.secrets[0].data["password"].source, "till-password");
    assert_eq!(till.secrets[0].data["other"].source, "till-other");
    let archive = &till.images["amd64"][0];
    assert_eq!((archive.digest, archive.size), (Digest::of(b"an archive"), 10));
    assert_eq!(archive.name, "till.tar");
    assert!(release.files[&archive.digest].ends_with("images/till.tar"));

    let labels = [("site", "berlin"), ("address", "10.200.0.7")];
    let labels = labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let rendered = release
        .render(&"shop-17".parse().unwrap(), &labels)
        .unwrap()
        .content;
    let k3s = rendered.k3s.unwrap();
    assert_eq!(k3s.node_address, Some("10.200.0.7".parse().unwrap()));
    assert_eq!(k3s.config["node-label"], json!(["site=berlin"]));
    assert_eq!(k3s.site.unwrap().role_label, "kind");
    assert_eq!(
        k3s.registries.unwrap().credentials["harbor.example.com"].source,
        "harbor"
    );
    assert!(rendered.variables.is_empty() && rendered.fields.is_empty());
}

#[test]
fn apps_must_stay_ready_for_a_while_where_the_file_does_not_say() {
    let with = |text: &str| {
        let found = directory(&[("app/a.yaml", &config_map("a")), ("release.yaml", text)]);
        load(found.path()).unwrap().content.policy.stability_seconds
    };
    let without = directory(&[("app/a.yaml", &config_map("a"))]);
    assert_eq!(load(without.path()).unwrap().content.policy.stability_seconds, 10);
    assert_eq!(with("policy: {prune: true}"), 10);
    assert_eq!(with("policy: {readyDeadlineSeconds: 5}"), 4);
    assert_eq!(with("policy: {stabilitySeconds: 0}"), 0);
}
