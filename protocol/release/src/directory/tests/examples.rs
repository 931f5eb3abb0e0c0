//! What the repository shows to operators works.

use super::{super::*, config_map, directory, load, test_cluster};
use holdfast_protocol::document::ManifestSource;
use std::{fs, path::PathBuf};

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
        ..Options::default()
    };
    let kustomized = super::super::load(&examples.join("kustomize"), &options).unwrap();
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
