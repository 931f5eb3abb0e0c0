//! Directories on a real disk, good and bad.

mod apps;
mod examples;
mod os;
mod settings;

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
