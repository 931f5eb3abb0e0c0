//! Releases of every shape arrive whole, go away whole, and say why when they cannot work.

use anyhow::{Context as _, Result, ensure};
use holdfast_e2e::{IMAGE, SOON, config_map, deployment, run_web, web_uid};
use holdfast_harness::{Site, site::KUBERNETES, wait};
use holdfast_protocol::{
    document::{App, BlobRef, ManifestSource},
    operator::ReleaseContent,
    report::{Health, Phase},
};
use serde_json::{Value, json};

fn app(name: &str, manifests: Vec<ManifestSource>) -> App {
    App {
        name: name.to_owned(),
        namespace: None,
        manifests,
        ..App::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_with_crds_and_blobs_arrive_and_what_left_them_is_pruned() -> Result<()> {
    let site = Site::start().await?;
    let node = site.enrolled_node("shapes").await?;
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "lamps.example.dev"},
        "spec": {
            "group": "example.dev", "scope": "Namespaced",
            "names": {"plural": "lamps", "singular": "lamp", "kind": "Lamp"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {"lit": {"type": "boolean"}}}}}}}],
        },
    });
    let lamp = json!({"apiVersion": "example.dev/v1", "kind": "Lamp", "metadata": {"name": "one", "namespace": "lit"}, "spec": {"lit": true}});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lit"}});
    // Many objects, above what fits inline, in the wrong order on purpose.
    let many: Vec<Value> = (0..60)
        .map(|number| config_map(&format!("page-{number}"), &"x".repeat(400)))
        .collect();
    let content = serde_json::to_vec(&many)?;
    let size = content.len() as u64;
    let digest = site.hub.put_blob(content).await?;
    let release = ReleaseContent {
        apps: vec![
            app("lamps", vec![ManifestSource::Inline(vec![lamp, crd, namespace])]),
            app("pages", vec![ManifestSource::Blob(BlobRef { digest, size })]),
        ],
        ..ReleaseContent::default()
    };
    site.hub.create_release_of("full", release).await?;
    let full = site.hub.assign("full", "shapes").await?;
    let seen = site.hub.wait_for_proven("shapes", full, KUBERNETES).await?;
    let status = seen.status.context("a status")?;
    ensure!(
        status
            .apps
            .iter()
            .map(|app| (app.ready, app.objects))
            .eq([(3, 3), (60, 60)]),
        "{:?}",
        status.apps
    );
    ensure!(
        node.kubectl
            .get("lit", "lamps.example.dev", "one")
            .await?
            .is_some()
    );

    site.hub
        .create_release("small", "pages", vec![config_map("page-0", "kept")])
        .await?;
    let small = site.hub.assign("small", "shapes").await?;
    site.hub.wait_for_proven("shapes", small, KUBERNETES).await?;
    wait::until("the rest is pruned", SOON, || async {
        let names = node.kubectl.run(&["get", "configmaps", "-o", "name"]).await?;
        let pages = names.lines().filter(|name| name.contains("page-")).count();
        let definition = node.kubectl.get("default", "crd", "lamps.example.dev").await?;
        Ok((pages == 1 && definition.is_none()).then_some(()))
    })
    .await?;
    let page = node
        .kubectl
        .get("default", "configmap", "page-0")
        .await?
        .context("page-0")?;
    ensure!(page["data"]["value"] == "kept");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn causes_reach_the_hub_in_words_and_a_refused_manifest_leaves_the_running_app_alone() -> Result<()> {
    let site = Site::start().await?;
    let node = site.enrolled_node("causes").await?;
    run_web(&site, "causes").await?;
    let before = web_uid(&node).await?;

    let mut refused = deployment("other", IMAGE);
    refused["spec"]["selector"]["matchLabels"] = json!({"app": "something-else"});
    site.hub
        .create_release(
            "refused",
            "web",
            vec![config_map("page", "1"), deployment("web", IMAGE), refused],
        )
        .await?;
    // One write alone is not rehearsed: it is refused when it is made, and there is nothing to undo.
    let generation = site.hub.assign("refused", "causes").await?;
    let seen = site
        .hub
        .wait_for_node("causes", "the refusal is told", SOON, |node| {
            node.status.as_ref().is_some_and(|status| {
                status.generation.accepted == Some(generation) && status.generation.phase == Phase::RolledBack
            })
        })
        .await?;
    let cause = seen
        .status
        .and_then(|status| status.generation.cause)
        .context("a cause")?;
    ensure!(
        cause.message.contains("other") && cause.message.contains("selector"),
        "{cause}"
    );
    let after = web_uid(&node).await?;
    ensure!(before == after, "the running app was replaced");

    site.hub
        .create_release(
            "unpullable",
            "web",
            vec![deployment("web", "invalid.example/no/such:image")],
        )
        .await?;
    site.hub.assign("unpullable", "causes").await?;
    let seen = site
        .hub
        .wait_for_node("causes", "the image's cause is told", SOON, |node| {
            let causes = node
                .status
                .iter()
                .flat_map(|status| &status.apps)
                .filter_map(|app| app.cause.as_ref());
            causes
                .into_iter()
                .any(|cause| cause.message.contains("image can't be pulled"))
        })
        .await?;
    ensure!(seen.health != Health::Healthy, "{:?}", seen.health);
    Ok(())
}
