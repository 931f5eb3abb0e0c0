//! What `holdfast plan` foresees.

use super::*;

#[tokio::test]
async fn a_release_directory_is_planned_on_a_machine_that_is_no_box() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        put(&path, text);
    };
    let large = "x".repeat(20_000);
    file(
        "web/a.yaml",
        &format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: web}}\ndata: {{site: \"${{node.labels.site}}\", text: {large}}}\n"
        ),
    );
    file(
        "lamps/b.yaml",
        "apiVersion: example.com/v1\nkind: Lamp\nmetadata: {name: red}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {password: till-secret}\n",
    );
    let node = TestBox::new("");
    let path = directory.path().display().to_string();
    let planned = run(&node, &["plan", &path, "--label", "site=berlin", "-o", "json"]).await;
    assert_eq!(code(&planned), 0, "{}", String::from_utf8_lossy(&planned.stderr));
    assert!(!String::from_utf8_lossy(&planned.stdout).contains("till-secret"));
    let plan = json(&planned.stdout);
    assert_eq!(plan["basis"], "nothing");
    let created: usize = plan["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["create"].as_array().unwrap().len())
        .sum();
    assert_eq!(created, 3);
    assert!(
        plan["notes"][0].as_str().unwrap().contains("Lamp.example.com"),
        "{plan}"
    );
    let text = run(&node, &["plan", &path, "--label", "site=berlin"]).await;
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("no box here") && text.contains("ConfigMap"),
        "{text}"
    );
    assert!(!text.contains("till-secret"));

    // A box that is not enrolled is as good as none.
    let (child, _notify) = daemon(&node).await;
    let beside = run(&node, &["plan", &path, "--label", "site=berlin", "-o", "json"]).await;
    assert_eq!(json(&beside.stdout), plan);
    assert_eq!(end(child, Signal::SIGTERM).await, 0);

    let missing = run(&node, &["plan", &path, "-o", "json"]).await;
    assert_eq!(code(&missing), 1);
    let problem = json(&missing.stderr);
    assert_eq!(problem["code"], "variable-missing");
    assert!(
        problem["message"].as_str().unwrap().contains("data.site"),
        "{problem}"
    );
}

#[tokio::test]
async fn a_document_is_planned_as_it_is_and_refused_where_it_breaks_a_rule() {
    let node = TestBox::new("");
    let mut document = serde_json::json!({
        "schema": "1.0", "node": "shop-17", "generation": "1.7", "issuedAt": "2026-01-01T00:00:00Z",
        "apps": [{"name": "web", "manifests": [
            {"inline": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}}]},
            {"blob": {"digest": format!("sha256:{}", "0".repeat(64)), "size": 7}},
        ]}],
    });
    let path = node.path("document.json");
    put(&path, &document.to_string());
    let planned = run(&node, &["plan", &path.display().to_string(), "-o", "json"]).await;
    assert_eq!(code(&planned), 0, "{}", String::from_utf8_lossy(&planned.stderr));
    let plan = json(&planned.stdout);
    assert_eq!(plan["generation"], "1.7");
    assert!(
        plan["notes"][0].as_str().unwrap().contains("not on this machine"),
        "{plan}"
    );
    document["policy"] = serde_json::json!({"readyDeadlineSeconds": 0});
    put(&path, &document.to_string());
    let refused = run(&node, &["plan", &path.display().to_string(), "-o", "json"]).await;
    assert_eq!(code(&refused), 1);
    assert!(
        json(&refused.stderr)["message"]
            .as_str()
            .unwrap()
            .contains("policy.readyDeadlineSeconds")
    );
}
