//! Directories on a real disk, good and bad.

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
        ("k3s: {nodeAddress: 300.1.1.1}", "release.yaml:1:1: k3s: ", ""),
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

#[test]
fn a_chart_becomes_the_same_object_every_time() {
    let files = [
        (
            "till/helm.yaml",
            "chart: chart\nreleaseName: shop-till\nnamespace: till\nvaluesFile: values.yaml\nversion: 1.2.3\nvalues:\n  replicas: ${variables.replicas}\n  title: till of ${node.labels.site}\n",
        ),
        ("till/values.yaml", "replicas: 1\nimage: {tag: \"7\"}\n"),
        (
            "till/namespace.yaml",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: till}\n",
        ),
        (
            "till/chart/Chart.yaml",
            "apiVersion: v2\nname: till\nversion: 1.2.3\n",
        ),
        ("till/chart/templates/a.yaml", "kind: {{ .Values.x }}\n"),
        ("till/chart/.helmignore", "*.md\n"),
        (
            "release.yaml",
            "variables: {replicas: {type: integer, default: 2}}\n",
        ),
    ];
    let (one, other) = (directory(&files), directory(&files));
    let release = load(one.path()).unwrap();
    assert_eq!(release.content, load(other.path()).unwrap().content);
    assert_eq!(release.objects, 2);
    let labels = [("site".to_owned(), "a \"b\"".to_owned())].into();
    let rendered = release.render(&"shop-17".parse().unwrap(), &labels).unwrap();
    let ManifestSource::Inline(objects) = &rendered.content.apps[0].manifests[0] else {
        panic!("{rendered:?}");
    };
    let chart = &objects[1];
    assert_eq!(chart["apiVersion"], "helm.cattle.io/v1");
    assert_eq!(
        chart["metadata"],
        json!({"name": "shop-till", "namespace": "kube-system"})
    );
    assert_eq!(chart["spec"]["targetNamespace"], "till");
    let values: Value = serde_json::from_str(chart["spec"]["valuesContent"].as_str().unwrap()).unwrap();
    assert_eq!(
        values,
        json!({"replicas": 2, "image": {"tag": "7"}, "title": "till of a \"b\""})
    );
}

#[test]
fn the_packed_chart_is_one_that_tar_can_read() {
    let found = directory(&[
        ("till/helm.yaml", "chart: chart\n"),
        (
            "till/chart/Chart.yaml",
            "apiVersion: v2\nname: till\nversion: 1.2.3\n",
        ),
        ("till/chart/templates/a.yaml", "kind: ConfigMap\n"),
    ]);
    let release = load(found.path()).unwrap();
    let ManifestSource::Inline(objects) = &release.content.apps[0].manifests[0] else {
        panic!("{release:?}");
    };
    let packed = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        objects[0]["spec"]["chartContent"].as_str().unwrap(),
    )
    .unwrap();
    let file = found.path().join("till.tgz");
    fs::File::create(&file).unwrap().write_all(&packed).unwrap();
    let out = std::process::Command::new("tar")
        .arg("tzvf")
        .arg(&file)
        .output()
        .unwrap();
    let list = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{list}");
    assert!(
        list.contains("till/Chart.yaml") && list.contains("till/templates/a.yaml"),
        "{list}"
    );
    // And as a file of its own, with the version that is in it.
    let again = directory(&[("till/helm.yaml", "chart: ../till.tgz\nversion: 1.2.3\n")]);
    fs::copy(&file, again.path().join("till.tgz")).unwrap();
    let same = load(again.path()).unwrap();
    assert_eq!(same.content.apps[0].manifests, release.content.apps[0].manifests);
}

#[test]
fn a_chart_that_cannot_be_used_is_refused() {
    let chart = (
        "till/chart/Chart.yaml",
        "apiVersion: v2\nname: till\nversion: 1.2.3\n",
    );
    let noise: String = {
        // Text that does not compress: digests of numbers.
        (0..30_000_u32)
            .map(|number| Digest::of(&number.to_be_bytes()).hex())
            .collect()
    };
    for (helm, more, word) in [
        ("releaseName: x", ("till/chart/x.txt", ""), "names no chart"),
        (
            "chart: https://example.com/till.tgz",
            ("till/chart/x.txt", ""),
            "helm pull",
        ),
        ("chart: other", ("till/chart/x.txt", ""), "other"),
        (
            "chart: chart\nversion: 2.0.0",
            ("till/chart/x.txt", ""),
            "wants 2.0.0",
        ),
        (
            "chart: chart\nvaluse: {}",
            ("till/chart/x.txt", ""),
            "did you mean \"values\"?",
        ),
        (
            "chart: chart",
            ("till/chart/Chart.lock", "x"),
            "helm dependency build",
        ),
        ("chart: chart", ("till/chart/x.txt", noise.as_str()), "at most"),
        (
            "chart: chart/x.tgz",
            ("till/chart/x.tgz", "no chart"),
            "no packed chart",
        ),
    ] {
        let problem = refused(&[chart, ("till/helm.yaml", helm), more]);
        assert!(problem.to_string().contains(word), "{word}: {problem}");
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

#[test]
fn a_kustomization_is_rendered_by_the_real_kustomize() {
    let k3s = test_cluster().expect("no test cluster: run cargo xtask cluster, or set HOLDFAST_K3S");
    let found = directory(&[
        (
            "till/kustomization.yaml",
            "resources: [base]\nnamePrefix: berlin-\nlabels: [{pairs: {site: \"${node.labels.site}\"}}]\n",
        ),
        ("till/base/kustomization.yaml", "resources: [a.yaml]\n"),
        ("till/base/a.yaml", &config_map("a")),
    ]);
    let options = Options {
        kustomize: Some(format!("{k3s} kubectl kustomize")),
        allow_remote: false,
    };
    let release = super::load(found.path(), &options).unwrap();
    assert_eq!(release.objects, 1);
    let ManifestSource::Inline(objects) = &release.content.apps[0].manifests[0] else {
        panic!("{release:?}");
    };
    assert_eq!(objects[0]["metadata"]["name"], "berlin-a");
    assert_eq!(objects[0]["metadata"]["labels"]["site"], "${node.labels.site}");

    let broken = directory(&[("till/kustomization.yaml", "resources: [missing.yaml]\n")]);
    let problem = super::load(broken.path(), &options).unwrap_err();
    assert_eq!(problem.code, codes::KUSTOMIZE_FAILED);
    assert!(problem.message.contains("missing.yaml"), "{problem}");
}

#[test]
fn a_kustomization_that_reads_the_network_or_has_no_kustomize_is_refused() {
    let remote = "resources: [\"https://github.com/example/app//deploy?ref=v1\"]\n";
    for files in [
        vec![("till/kustomization.yaml", remote)],
        vec![
            ("till/kustomization.yaml", "resources: [base]\n"),
            ("till/base/kustomization.yaml", remote),
        ],
    ] {
        let problem = refused(&files);
        assert_eq!(problem.code, codes::KUSTOMIZE_FAILED);
        assert!(problem.action.contains("--allow-remote"), "{problem}");
    }
    let found = directory(&[("till/kustomization.yaml", "resources: []\n")]);
    let options = Options {
        kustomize: Some("/nowhere/kustomize build".into()),
        allow_remote: false,
    };
    let problem = super::load(found.path(), &options).unwrap_err();
    assert_eq!(problem.code, codes::KUSTOMIZE_MISSING);
}

#[test]
fn the_examples_are_releases() {
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let hello = load(&examples.join("hello")).unwrap();
    assert_eq!(hello.content.apps[0].name, "hello");
    assert_eq!(hello.objects, 4);
    let crd = load(&examples.join("crd")).unwrap();
    assert_eq!(crd.content.apps.len(), 2);
    assert_eq!(crd.objects, 3);

    let site = load(&examples.join("site")).unwrap();
    let labels = [("site".to_owned(), "berlin".to_owned())].into();
    let rendered = site.render(&"shop-17".parse().unwrap(), &labels).unwrap();
    document("shop-17".parse().unwrap(), rendered.content.clone())
        .validate()
        .unwrap();
    let window = &rendered.content.policy.windows[0];
    assert_eq!(window.time_zone, "Europe/Berlin");
    let till = rendered
        .content
        .apps
        .iter()
        .find(|app| app.name == "till")
        .unwrap();
    let ManifestSource::Inline(objects) = &till.manifests[0] else {
        panic!("{till:?}");
    };
    assert_eq!(
        objects[1]["data"]["greeting"],
        "Welcome at berlin, served by shop-17"
    );
    assert_eq!(
        objects[1]["data"]["settings.json"],
        "{\"tier\": \"gold\", \"replicas\": 3}\n"
    );
    let script = objects[1]["data"]["start.sh"].as_str().unwrap();
    assert!(
        script.contains("${HOME}/till") && script.contains("\"${node.name} is"),
        "{script}"
    );
    assert_eq!(objects[2]["spec"]["replicas"], 3);
    let problem = site.render(&"shop-18".parse().unwrap(), &[].into()).unwrap_err();
    assert!(
        problem.message.contains("the variable site has no value"),
        "{problem}"
    );

    let chart = load(&examples.join("chart")).unwrap();
    let rendered = chart
        .render(&"shop-17".parse().unwrap(), &[].into())
        .unwrap()
        .content;
    let ManifestSource::Inline(objects) = &rendered.apps[0].manifests[0] else {
        panic!("{rendered:?}");
    };
    let values = objects[0]["spec"]["valuesContent"].as_str().unwrap();
    assert_eq!(values, "{\"greeting\":\"Welcome at shop-17\",\"replicas\":2}");

    let k3s = test_cluster().expect("no test cluster: run cargo xtask cluster, or set HOLDFAST_K3S");
    let options = Options {
        kustomize: Some(format!("{k3s} kubectl kustomize")),
        allow_remote: false,
    };
    let kustomized = super::load(&examples.join("kustomize"), &options).unwrap();
    let ManifestSource::Inline(objects) = &kustomized.content.apps[0].manifests[0] else {
        panic!("{kustomized:?}");
    };
    assert_eq!(objects[0]["metadata"]["name"], "shop-till");
}

/// Every block of YAML in the documentation that begins with a comment naming its file is part of one release that works.
#[test]
fn the_documentation_shows_what_works() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/releases.md");
    let text = fs::read_to_string(page).unwrap();
    let blocks: Vec<(&str, &str)> = text
        .split("```yaml\n# ")
        .skip(1)
        .filter_map(|rest| rest.split("```").next()?.split_once('\n'))
        .collect();
    let mut settings = String::new();
    let mut files: Vec<(&str, String)> = Vec::new();
    for (name, body) in &blocks {
        if *name == SETTINGS_FILE {
            settings.push_str(body);
        } else {
            files.push((name, (*body).to_owned()));
        }
    }
    assert!(blocks.len() >= 8, "{blocks:?}");
    files.push((SETTINGS_FILE, settings));
    files.push(("images/till.tar", "an archive".into()));
    files.push((
        "till/chart/Chart.yaml",
        "apiVersion: v2\nname: till\nversion: 1.2.3\n".into(),
    ));
    files.push(("lamps/a.yaml", config_map("lamps")));
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let found = directory(&files);
    let release = load(found.path()).unwrap_or_else(|problem| panic!("{problem}"));
    let labels = [("site", "berlin"), ("address", "10.200.0.7")];
    let labels = labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let rendered = release.render(&"shop-17".parse().unwrap(), &labels).unwrap();
    document("shop-17".parse().unwrap(), rendered.content)
        .validate()
        .unwrap();
}
