//! What writing a thousand objects costs, and what it costs when nothing changed: by Holdfast, by kubectl, and by a generator of the same
//! load that does nothing but send.
//!
//! Each repetition has a Kubernetes of its own, so that none inherits what another left; the three take turns in coming first.

use crate::{
    access::Access,
    figures::{Figures, median},
    machine,
    objects::{COUNT, Set},
};
use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use holdfast_harness::{Kubectl, Node, Site, site::KUBERNETES};
use holdfast_protocol::{Generation, event::EventKind};
use jiff::Timestamp;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

/// Requests at the same time, of the generator; as many as Holdfast's `apply.concurrency` allows.
const CONCURRENCY: usize = 16;
/// Longest time of one document.
const LONGEST: Duration = Duration::from_secs(180);

/// What one repetition gave, in seconds where nothing else is said.
#[derive(Default)]
struct Times {
    whole: Vec<f64>,
    applying: Vec<f64>,
    kubectl: Vec<f64>,
    generator: Vec<f64>,
    unchanged: Vec<f64>,
    kubectl_unchanged: Vec<f64>,
    /// Requests of the unchanged document.
    writes: Vec<f64>,
    gets: Vec<f64>,
    lists: Vec<f64>,
    /// KiB.
    peak: Vec<f64>,
}

/// Measures so many repetitions.
pub async fn measure(repetitions: usize, figures: &mut Figures) -> Result<()> {
    let mut times = Times::default();
    for repetition in 0..repetitions {
        one(repetition, &mut times)
            .await
            .with_context(|| format!("repetition {repetition}"))?;
    }
    report(repetitions, &mut times, figures);
    Ok(())
}

async fn one(repetition: usize, times: &mut Times) -> Result<()> {
    let site = Site::start().await?;
    let mut node = site.enrolled_node("thousand").await?;
    // An empty document: Kubernetes is up and everybody has spoken with everybody before the clock starts.
    site.hub.create_release("warm", "warm", Vec::new()).await?;
    let generation = site.hub.assign("warm", "thousand").await?;
    site.hub
        .wait_for_proven("thousand", generation, KUBERNETES)
        .await?;
    let access = Access::from_kubeconfig(&node.kubectl.kubeconfig)?;
    for turn in 0..3 {
        match (repetition + turn) % 3 {
            0 => holdfast(&site, &mut node, &access, times)
                .await
                .context("holdfast")?,
            1 => kubectl(&site, &node.kubectl, times).await.context("kubectl")?,
            _ => generator(&access, times).await.context("generator")?,
        }
    }
    Ok(())
}

async fn holdfast(site: &Site, node: &mut Node, access: &Access, times: &mut Times) -> Result<()> {
    let set = Set::new("holdfast");
    let content = set.release(&site.hub).await?;
    site.hub.create_release_of("first", content.clone()).await?;
    // Another document, for an equal one would be no new generation; the same objects.
    let mut again = content;
    again.policy.ready_deadline_seconds += 1;
    site.hub.create_release_of("again", again).await?;
    let before = Timestamp::now();
    let first = site.hub.assign("first", "thousand").await?;
    site.hub.wait_for_proven("thousand", first, LONGEST).await?;
    let (accepted, applied) = moments(site, first).await?;
    times.whole.push(seconds(before, applied));
    times.applying.push(seconds(accepted, applied));
    let process = node.process()?.id().context("the node ended")?;
    times.peak.push(machine::peak_memory(process)? as f64);

    let counted = access.requests().await?;
    let before = Timestamp::now();
    let generation = site.hub.assign("again", "thousand").await?;
    ensure!(generation != first, "no new generation");
    site.hub.wait_for_proven("thousand", generation, LONGEST).await?;
    let (_, applied) = moments(site, generation).await?;
    times.unchanged.push(seconds(before, applied));
    let now = access.requests().await?;
    let of = |verbs: &[&str]| {
        let sum =
            |counts: &BTreeMap<String, f64>| verbs.iter().filter_map(|verb| counts.get(*verb)).sum::<f64>();
        sum(&now) - sum(&counted)
    };
    times.writes.push(of(&[
        "APPLY",
        "PATCH",
        "POST",
        "PUT",
        "DELETE",
        "DELETECOLLECTION",
    ]));
    times.gets.push(of(&["GET"]));
    times.lists.push(of(&["LIST"]));
    Ok(())
}

/// When a document was accepted and when all of its objects were written, by the node's own clock, which is this machine's.
async fn moments(site: &Site, generation: Generation) -> Result<(Timestamp, Timestamp)> {
    let events = site.hub.events("thousand").await?;
    let at = |kind: &EventKind| {
        events
            .iter()
            .find(|event| event.kind == *kind && event.generation == Some(generation))
            .map(|event| event.at)
            .with_context(|| format!("no event {kind:?} of {generation}"))
    };
    Ok((
        at(&EventKind::DocumentAccepted)?,
        at(&EventKind::DocumentApplied)?,
    ))
}

async fn kubectl(site: &Site, kubectl: &Kubectl, times: &mut Times) -> Result<()> {
    let set = Set::new("kubectl");
    let first = site.directory().join("first.json");
    let others = site.directory().join("others.json");
    list(&first, &set.first)?;
    list(&others, &set.others)?;
    for times in [&mut times.kubectl, &mut times.kubectl_unchanged] {
        let begun = Instant::now();
        apply(kubectl, &first).await?;
        let definition = format!("crd/{}", set.definition());
        kubectl
            .run(&[
                "wait",
                "--for=condition=established",
                "--timeout=60s",
                &definition,
            ])
            .await?;
        apply(kubectl, &others).await?;
        times.push(begun.elapsed().as_secs_f64());
    }
    Ok(())
}

async fn apply(kubectl: &Kubectl, path: &Path) -> Result<()> {
    let path = path.to_string_lossy();
    kubectl
        .run(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "-o",
            "name",
            "-f",
            &path,
        ])
        .await
        .map(drop)
}

fn list(path: &Path, objects: &[Value]) -> Result<()> {
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
    Ok(fs::File::create(path)?.write_all(&serde_json::to_vec(&list)?)?)
}

/// Sends what was made ready before, in the order that Kubernetes demands.
async fn generator(access: &Access, times: &mut Times) -> Result<()> {
    let set = Set::new("generator");
    let prepare = |objects: &[Value]| -> Result<Vec<_>> {
        let state = |object: &Value| Ok((set.path(object)?, prepared(object)));
        objects.iter().map(state).collect()
    };
    let (mut first, others) = (prepare(&set.first)?, prepare(&set.others)?);
    // The definition is the last of the first ones.
    let definition = first.split_off(first.len() - 1);
    let begun = Instant::now();
    send(access, first).await?;
    send(access, definition).await?;
    let path = format!(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}",
        set.definition()
    );
    access
        .until(&path, |object| {
            let conditions = object["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            conditions
                .iter()
                .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
        })
        .await?;
    send(access, others).await?;
    times.generator.push(begun.elapsed().as_secs_f64());
    Ok(())
}

async fn send(access: &Access, requests: Vec<(String, Vec<u8>)>) -> Result<()> {
    stream::iter(requests)
        .map(async |(path, body)| access.apply(&path, body).await)
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

/// The body that Holdfast sends: with its labels.
fn prepared(object: &Value) -> Vec<u8> {
    let mut object = object.clone();
    object["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "generator".into();
    object["metadata"]["labels"]["holdfast.dev/app"] = "thousand".into();
    object.to_string().into_bytes()
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

fn report(repetitions: usize, times: &mut Times, figures: &mut Figures) {
    let ratio = |above: &mut [f64], below: &[f64]| {
        let mut ratios: Vec<_> = above
            .iter()
            .zip(below)
            .map(|(above, below)| above / below)
            .collect();
        median(&mut ratios)
    };
    let turn = format!("{repetitions} repetitions in turn, each on a new Kubernetes");
    let whole = median(&mut times.whole.clone());
    let kubectl = median(&mut times.kubectl.clone());
    let generator = median(&mut times.generator.clone());
    figures.add(
        "apply.1000_ratio",
        ratio(&mut times.whole, &times.kubectl),
        "",
        Some(0.6),
        format!(
            "first apply of {COUNT} mixed objects, from the request to assign at the hub until all are written ({whole:.2} s), over `kubectl apply --server-side` of the same files ({kubectl:.2} s); p50 of {turn}"
        ),
    );
    figures.add(
        "apply.1000_limit_ratio",
        ratio(&mut times.applying, &times.generator),
        "",
        Some(1.15),
        format!(
            "from acceptance until all are written, over a bare client that sends the same prepared requests, {CONCURRENCY} at once ({generator:.2} s); p50 of {turn}"
        ),
    );
    figures.add(
        "apply.1000_unchanged_writes",
        times.writes.iter().copied().fold(0.0, f64::max),
        "",
        Some(0.0),
        "writes that the API server counted of the kinds in question for a new generation of the same objects; the most of all repetitions",
    );
    figures.add(
        "apply.1000_unchanged_gets",
        times.gets.iter().copied().fold(0.0, f64::max),
        "",
        Some(10.0),
        format!(
            "GET requests of single objects for the same, controllers' included; beside them {} lists (a page each)",
            median(&mut times.lists)
        ),
    );
    figures.add(
        "apply.1000_unchanged_ratio",
        ratio(&mut times.unchanged, &times.kubectl_unchanged),
        "",
        Some(0.05),
        format!(
            "a new generation of the same objects over `kubectl apply` of the same files again; p50 of {turn}"
        ),
    );
    figures.add(
        "apply.1000_peak_rss_kib",
        times.peak.iter().copied().fold(0.0, f64::max),
        "KiB",
        Some(16_384.0),
        "VmHWM of the daemon after the first apply; the most of all repetitions",
    );
}
