//! Directories on a real disk, good and bad.

mod apps;
mod examples;
mod os;

use super::*;
use crate::render::objects;
use holdfast_protocol::{
    MAX_INLINE_BYTES,
    document::{DriftPolicy, FailurePolicy, ManifestSource},
};
use serde_json::json;
use std::{fs, io::Write as _, path::PathBuf};
use tempfile::TempDir;

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::Builder::new().prefix("Shop-").tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }
    directory
}

fn config_map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n")
}

fn load(path: &Path) -> Result<Release> {
    super::load(path, &Options::default())
}

fn refused(files: &[(&str, &str)]) -> Problem {
    load(directory(files).path())
        .map(|_| ())
        .expect_err("must be refused")
}

#[test]
fn a_named_pipe_in_a_release_is_refused_by_its_name() {
    let settings = "k3s: {version: v1.36.3+k3s1}\nimages: {amd64: [{file: images/till.tar}]}\n";
    for pipe in [
        "till/pipe.yaml",
        "till/notes",
        "release.yaml",
        "camera/pipe",
        "images/till.tar",
    ] {
        let found = directory(&[
            ("till/a.yaml", &config_map("a")),
            ("camera/b.yaml", &config_map("b")),
        ]);
        let path = found.path().join(pipe);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if pipe.starts_with("images") {
            let mut file = fs::File::create(found.path().join("release.yaml")).unwrap();
            file.write_all(settings.as_bytes()).unwrap();
        }
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Opening it would wait for a writer: what hangs must fail here all the same.
        let (done, answer) = std::sync::mpsc::channel();
        let root = found.path().to_owned();
        std::thread::spawn(move || done.send(load(&root).map(|_| ()).expect_err("must be refused")));
        let problem = answer
            .recv_timeout(std::time::Duration::from_secs(20))
            .expect(pipe);
        assert!(problem.message.contains(path.to_str().unwrap()), "{problem:?}");
        assert!(problem.message.contains("named pipe"), "{problem:?}");
    }
}

#[test]
fn each_directory_is_an_app_and_its_files_are_found_at_any_depth() {
    let found = directory(&[
        ("till/a.yaml", &config_map("a")),
        ("till/deeper/b.yml", &config_map("b")),
        ("till/README.md", "not a manifest"),
        (
            "camera/c.json",
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}"#,
        ),
        (".git/d.yaml", "hidden: true"),
        (
            "release.yaml",
            "k3s: {version: v1.36.3+k3s1}\npolicy: {drift: report}\nnamespace: shop\napps: {till: {namespace: till}}\n",
        ),
    ]);
    let release = load(found.path()).unwrap();
    let apps: Vec<_> = release
        .content
        .apps
        .iter()
        .map(|app| (app.name.as_str(), app.namespace.as_deref()))
        .collect();
    assert_eq!(apps, [("camera", Some("shop")), ("till", Some("till"))]);
    assert_eq!(release.objects, 3);
    assert_eq!(release.content.policy.drift, DriftPolicy::Report);
    assert!(
        release.content.policy.prune,
        "what is not named keeps its default"
    );
    assert_eq!(
        release.content.k3s.unwrap().version.as_deref(),
        Some("v1.36.3+k3s1")
    );
}

#[test]
fn a_directory_without_directories_and_a_file_are_one_app() {
    let found = directory(&[("x.yaml", &config_map("x"))]);
    let release = load(found.path()).unwrap();
    assert!(
        release.content.apps[0].name.starts_with("shop-"),
        "{}",
        release.content.apps[0].name
    );
    let release = load(&found.path().join("x.yaml")).unwrap();
    assert_eq!(release.content.apps[0].name, "x");
}

#[test]
fn lists_are_split_into_their_items() {
    let found = directory(&[(
        "a.yaml",
        "kind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n",
    )]);
    assert_eq!(load(found.path()).unwrap().objects, 2);
}

#[test]
fn an_object_in_two_apps_is_refused_with_both_places() {
    let failure = refused(&[
        ("one/a.yaml", &config_map("same")),
        (
            "two/b.yaml",
            &format!("{}---\n{}", config_map("other"), config_map("same")),
        ),
    ]);
    assert!(failure.message.contains("two/b.yaml:6 (document 2)"), "{failure}");
    assert!(failure.message.contains("one/a.yaml:1"), "{failure}");
    assert!(failure.message.contains("ConfigMap default/same"), "{failure}");
}

#[test]
fn the_same_name_in_two_namespaces_is_two_objects() {
    let found = directory(&[
        ("one/a.yaml", &config_map("same")),
        ("two/a.yaml", &config_map("same")),
        ("release.yaml", "apps: {two: {namespace: two}}"),
    ]);
    load(found.path()).unwrap();
}

#[test]
fn a_large_app_becomes_a_blob_of_its_digest() {
    let large = format!(
        "{}data:\n  text: {}\n",
        config_map("large"),
        "x".repeat(MAX_INLINE_BYTES)
    );
    let found = directory(&[("large/a.yaml", &large), ("small/b.yaml", &config_map("small"))]);
    let release = load(found.path()).unwrap();
    let ManifestSource::Blob(blob) = &release.content.apps[0].manifests[0] else {
        panic!("not a blob: {:?}", release.content.apps[0]);
    };
    let content = &release.blobs[&blob.digest];
    assert_eq!(Digest::of(content), blob.digest);
    assert_eq!(content.len() as u64, blob.size);
    check_object(&objects(content).unwrap()[0]).unwrap();
    assert!(matches!(
        release.content.apps[1].manifests[0],
        ManifestSource::Inline(_)
    ));
}

#[test]
fn mistakes_say_where_and_what_to_do() {
    for (files, word) in [
        (vec![("a.yaml", "a: 1\na: 2\n")], "a.yaml:2:1"),
        (
            vec![("a.yaml", "kind: ConfigMap\nmetadata: {name: x}\n")],
            "apiVersion",
        ),
        (
            vec![(
                "a.yaml",
                "apiVersion: v1\nkind: Pod\nmetadata: {generateName: x}\n",
            )],
            "generateName",
        ),
        (vec![("a.yaml", "- 1\n")], "no Kubernetes object"),
        (vec![("a.json", "{")], "a.json:1:"),
        (vec![("README.md", "x")], "no manifest"),
        (vec![("empty/README.md", "x")], "no manifest"),
        (vec![("a.yaml", "# only a comment\n")], "no object"),
        (
            vec![("app/deeper/kustomization.yaml", "resources: []")],
            "top of the app",
        ),
        (vec![("chart/Chart.yaml", "name: x")], "helm.yaml"),
        (
            vec![("holdfast.yaml", "policy: {}"), ("a/a.yaml", "x: 1")],
            "rename it to release.yaml",
        ),
        (vec![("Not_A_Name/a.yaml", "x: 1")], "name of an app"),
        (
            vec![("a.yaml", "x: 1"), ("app/b.yaml", "x: 1")],
            "belongs to no app",
        ),
    ] {
        let failure = refused(&files);
        assert!(failure.to_string().contains(word), "{word}: {failure}");
        assert!(!failure.action.is_empty(), "{failure}");
    }
}

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

#[test]
fn values_of_a_node_are_filled_in_with_their_types_in_the_document_and_in_blobs() {
    let web = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, labels: {site: \"${node.labels.site}\"}}\nspec: {replicas: \"${variables.replicas}\"}\n";
    let large = format!(
        "{}data:\n  where: ${{node.name}} in ${{node.labels.site}}\n  text: {}\n",
        config_map("large"),
        "x".repeat(MAX_INLINE_BYTES)
    );
    let found = directory(&[
        ("web/a.yaml", web),
        ("large/b.yaml", &large),
        (
            "release.yaml",
            "variables: {replicas: {type: integer, default: 2, max: 5}}\nvalues: [{selector: site=berlin, set: {replicas: 3}}]\n",
        ),
    ]);
    let release = load(found.path()).unwrap();
    assert_eq!(release.content.templates.len(), 1);
    let render = |node: &str, site: &str| {
        let labels = [("site".to_owned(), site.to_owned())].into();
        release.render(&node.parse().unwrap(), &labels)
    };
    let berlin = render("shop-17", "berlin").unwrap();
    let ManifestSource::Inline(web) = &berlin.content.apps[1].manifests[0] else {
        panic!("{berlin:?}");
    };
    assert_eq!(web[0]["spec"]["replicas"], 3);
    assert_eq!(web[0]["metadata"]["labels"]["site"], "berlin");
    let large = berlin.blobs.values().next().unwrap();
    assert_eq!(large[0]["data"]["where"], "shop-17 in berlin");
    assert_eq!(
        render("shop-17", "berlin").unwrap().content,
        berlin.content,
        "the same again"
    );
    assert_ne!(
        render("shop-18", "berlin").unwrap().blobs.keys().next(),
        berlin.blobs.keys().next()
    );
    assert_eq!(render("a", "hamburg").unwrap().variables["replicas"], 2);

    let problem = release
        .render(&"shop-17".parse().unwrap(), &[].into())
        .unwrap_err();
    for word in [
        "shop-17",
        "app large, ConfigMap large: data.where",
        "no label site",
    ] {
        assert!(problem.message.contains(word), "{word}: {problem}");
    }
}

#[test]
fn a_release_that_asks_for_what_is_not_declared_is_refused() {
    for (text, word) in [
        ("${variables.replica}", "did you mean \"replicas\"?"),
        ("${variable.replicas}", "variables."),
        ("${node.lable.x}", "node.labels.KEY"),
    ] {
        let object = format!("{}data: {{x: \"{text}\"}}\n", config_map("a"));
        let problem = refused(&[
            ("app/a.yaml", &object),
            ("release.yaml", "variables: {replicas: {}}"),
        ]);
        assert!(problem.message.contains(word), "{text}: {problem}");
        assert!(problem.message.contains("app app"), "{text}: {problem}");
    }
}

fn test_cluster() -> Option<String> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/testcluster/k3s");
    let given = std::env::var_os("HOLDFAST_K3S").map(PathBuf::from);
    given
        .into_iter()
        .chain([beside])
        .find(|path| path.exists())
        .map(|path| path.display().to_string())
}
