//! Directories on a real disk, good and bad.

use super::*;
use holdfast_protocol::document::DriftPolicy;
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

fn refused(files: &[(&str, &str)]) -> Failure {
    load(directory(files).path()).expect_err("must be refused")
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
            "holdfast.yaml",
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
    assert!(
        failure.0.message.contains("two/b.yaml:6 (document 2)"),
        "{failure}"
    );
    assert!(failure.0.message.contains("one/a.yaml:1"), "{failure}");
    assert!(failure.0.message.contains("ConfigMap default/same"), "{failure}");
}

#[test]
fn the_same_name_in_two_namespaces_is_two_objects() {
    let found = directory(&[
        ("one/a.yaml", &config_map("same")),
        ("two/a.yaml", &config_map("same")),
        ("holdfast.yaml", "apps: {two: {namespace: two}}"),
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
    let objects: Vec<Value> = serde_json::from_slice(content).unwrap();
    check_object(&objects[0]).unwrap();
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
        (vec![("kustomization.yaml", "resources: []")], "kubectl kustomize"),
        (vec![("chart/Chart.yaml", "name: x")], "helm template"),
        (vec![("Not_A_Name/a.yaml", "x: 1")], "name of an app"),
        (
            vec![("a.yaml", "x: 1"), ("app/b.yaml", "x: 1")],
            "belongs to no app",
        ),
    ] {
        let failure = refused(&files);
        assert!(failure.to_string().contains(word), "{word}: {failure}");
        assert!(!failure.0.action.is_empty(), "{failure}");
    }
}

#[test]
fn a_mistyped_setting_is_refused() {
    for (text, word) in [
        ("polcy: {}", "polcy"),
        ("policy: {prunee: true}", "prunee"),
        ("k3s: {versoin: x}", "versoin"),
        ("apps: {other: {}}", "other"),
        ("policy: {readyDeadlineSeconds: 0}", "readyDeadlineSeconds"),
    ] {
        let good = config_map("a");
        let failure = refused(&[("app/a.yaml", good.as_str()), ("holdfast.yaml", text)]);
        assert!(failure.to_string().contains(word), "{text}: {failure}");
    }
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
}
