//! How long an object that somebody deleted is gone.

use crate::{access::Access, figures::Figures};
use anyhow::Result;
use holdfast_harness::{Site, site::KUBERNETES};
use holdfast_protocol::{
    document::{App, BlobRef, ManifestSource},
    operator::ReleaseContent,
};
use serde_json::json;
use std::time::Duration;

/// Longest time of one correction.
const LONGEST: Duration = Duration::from_secs(30);

/// Deletes so many objects one after the other, each once.
pub async fn measure(deletions: usize, figures: &mut Figures) -> Result<()> {
    let site = Site::start().await?;
    let node = site.enrolled_node("drift").await?;
    let name = |number: usize| format!("page-{number}");
    let objects: Vec<_> = (0..deletions)
        .map(|number| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name(number), "namespace": "default"}, "data": {"number": number.to_string()}})
        })
        .collect();
    let content = serde_json::to_vec(&objects)?;
    let size = content.len() as u64;
    let digest = site.hub.put_blob(content).await?;
    let app = App {
        name: "pages".into(),
        manifests: vec![ManifestSource::Blob(BlobRef { digest, size })],
        ..App::default()
    };
    let content = ReleaseContent {
        apps: vec![app],
        ..ReleaseContent::default()
    };
    site.hub.create_release_of("pages", content).await?;
    let generation = site.hub.assign("pages", "drift").await?;
    site.hub.wait_for_proven("drift", generation, KUBERNETES).await?;

    let access = Access::from_kubeconfig(&node.kubectl.kubeconfig)?;
    let mut watch = access.watch_all().await?;
    // The watch begins with what is there.
    watch.until_all_added((0..deletions).map(name).collect()).await?;
    let mut times = Vec::with_capacity(deletions);
    for number in 0..deletions {
        let name = name(number);
        let deleted = access
            .delete(&format!("/api/v1/namespaces/default/configmaps/{name}"))
            .await?;
        tokio::time::timeout(LONGEST, watch.until_added(&name)).await??;
        times.push(deleted.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
    figures.add(
        "drift.corrected_ms",
        at(0.99),
        "ms",
        Some(500.0),
        format!(
            "p99 of {deletions} deletions of one object each, from the answer to the deletion until a watch sees the object again; p50 {:.1} ms",
            at(0.5)
        ),
    );
    Ok(())
}
