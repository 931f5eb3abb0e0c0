//! Apps that are made: of charts, and by kustomize.

use super::{super::*, config_map, directory, load, refused, test_cluster};
use holdfast_protocol::document::ManifestSource;
use serde_json::json;
use std::{fs, io::Write as _};

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
        ..Options::default()
    };
    let release = super::super::load(found.path(), &options).unwrap();
    assert_eq!(release.objects, 1);
    let ManifestSource::Inline(objects) = &release.content.apps[0].manifests[0] else {
        panic!("{release:?}");
    };
    assert_eq!(objects[0]["metadata"]["name"], "berlin-a");
    assert_eq!(objects[0]["metadata"]["labels"]["site"], "${node.labels.site}");

    let broken = directory(&[("till/kustomization.yaml", "resources: [missing.yaml]\n")]);
    let problem = super::super::load(broken.path(), &options).unwrap_err();
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
        ..Options::default()
    };
    let problem = super::super::load(found.path(), &options).unwrap_err();
    assert_eq!(problem.code, codes::KUSTOMIZE_MISSING);
}
