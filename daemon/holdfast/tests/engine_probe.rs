//! Probes of apps, and apps that fail alone, against a real Kubernetes and real servers.

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result};
use engine_support::{broker::Hub, config_map, deployment, namespace, node::Node};
use holdfast::codes;
use holdfast_core::codes as core_codes;
use holdfast_protocol::{
    event::EventKind,
    report::{Health, Phase},
};
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// An HTTP server that answers 200 once it is told to, and 503 before.
struct Server {
    port: u16,
    ready: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

impl Server {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("0.0.0.0:0").await?;
        let port = listener.local_addr()?.port();
        let (ready, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let server = Self {
            port,
            ready: ready.clone(),
            asked: asked.clone(),
        };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let is_health = request[..read].starts_with(b"GET /healthz");
                asked.fetch_add(1, Ordering::SeqCst);
                let status = if is_health && ready.load(Ordering::SeqCst) {
                    "200 OK"
                } else {
                    "503 Service Unavailable"
                };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Ok(server)
    }
}

fn app(name: &str, space: &str, objects: &[Value], probes: &[Value]) -> Value {
    json!({"name": name, "namespace": space, "manifests": [{"inline": objects}], "probes": probes})
}

#[tokio::test]
async fn a_document_is_good_only_once_its_probes_are_answered_well() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "probed").await?;
    let (http, service) = (Server::start().await?, Server::start().await?);
    // A pod on the host's network has the address on which the server of this test listens.
    let mut web = deployment("web", "registry.example/web:1");
    web["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    let objects = [
        namespace("probed"),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": service.port}]}
        }),
        web,
    ];
    let ask = |check: Value, name: &str| json!({"name": name, "check": check, "periodSeconds": 1});
    let direct = json!({"address": format!("127.0.0.1:{}", http.port)});
    let probes = [
        ask(json!({"http": {"target": direct, "path": "/healthz"}}), "direct"),
        ask(json!({"tcp": {"target": direct}}), "port"),
        ask(
            json!({"http": {"target": {"service": {"name": "web", "port": 80}}, "path": "/healthz"}}),
            "service",
        ),
    ];
    node.publish(&hub, 1, &[app("web", "probed", &objects, &probes)])
        .await?;
    let status = node
        .until("the probe's answer is the cause", |status| {
            status.generation.phase == Phase::Verifying
                && status
                    .generation
                    .cause
                    .as_ref()
                    .is_some_and(|cause| cause.code == codes::PROBE_FAILED)
        })
        .await?;
    assert_eq!(status.apps[0].health, Health::Progressing);
    http.ready.store(true, Ordering::SeqCst);
    node.until("the Service is waited for", |status| {
        let cause = status.generation.cause.as_ref();
        // Until the API server's proxy has learned of the endpoints, it says so itself.
        cause.is_some_and(|cause| cause.message.contains("/healthz answers 503"))
    })
    .await?;
    service.ready.store(true, Ordering::SeqCst);
    node.until_proven(1).await?;
    // A good document is left alone: nothing is asked that nobody waits for.
    let asked = http.asked.load(Ordering::SeqCst);
    node.publish(
        &hub,
        2,
        &[app(
            "web",
            "probed",
            &[namespace("probed"), config_map("next", "1")],
            &[],
        )],
    )
    .await?;
    node.until_proven(2).await?;
    assert!(http.asked.load(Ordering::SeqCst) <= asked + 1);
    Ok(())
}

#[tokio::test]
async fn pain_13_an_app_that_runs_but_does_not_answer_is_gone_back_from() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "silent").await?;
    let base = app(
        "web",
        "silent",
        &[namespace("silent"), config_map("page", "1")],
        &[],
    );
    node.publish(&hub, 1, &[base]).await?;
    node.until_proven(1).await?;
    let server = Server::start().await?;
    let probe = json!({
        "name": "page", "periodSeconds": 1,
        "check": {"http": {"target": {"address": format!("127.0.0.1:{}", server.port)}}}
    });
    let mut document = node.document(
        2,
        &[app(
            "web",
            "silent",
            &[namespace("silent"), config_map("page", "2")],
            &[probe],
        )],
    );
    document["policy"] = json!({"readyDeadlineSeconds": 3});
    hub.publish(&node.name, hub.sign(&document).to_json()).await?;
    let status = node
        .until("it is gone back from", |status| {
            status.generation.phase == Phase::RolledBack
        })
        .await?;
    let cause = status.generation.cause.context("a cause")?;
    assert_eq!(cause.code, codes::PROBE_FAILED);
    assert_eq!(status.generation.running.map(|running| running.counter), Some(1));
    let page = node
        .object("silent", "configmap", "page")
        .await?
        .context("the page")?;
    assert_eq!(page["data"]["key"], "1");
    hub.hear_event(EventKind::DocumentRolledBack).await?;
    Ok(())
}

#[tokio::test]
async fn an_app_that_may_fail_alone_is_told_and_keeps_the_others_going() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "alone").await?;
    let good = app(
        "good",
        "alone",
        &[namespace("alone"), config_map("kept", "1")],
        &[],
    );
    let mut bad = config_map("bad", "1");
    bad["data"]["not a key"] = json!("x");
    let mut lonely = app("lonely", "alone", &[bad], &[]);
    lonely["onFailure"] = json!("isolate");
    node.publish(&hub, 1, &[good, lonely]).await?;
    let status = node.until_proven(1).await?;
    assert!(node.object("alone", "configmap", "kept").await?.is_some());
    assert_eq!(status.generation.phase, Phase::Committed);
    let told = hub.hear_event(EventKind::AppFailed).await?;
    assert!(told.message.contains("lonely"), "{}", told.message);
    assert_eq!(
        told.problem.map(|problem| problem.code.into_owned()).as_deref(),
        Some(core_codes::OBJECT_REFUSED)
    );
    Ok(())
}

#[tokio::test]
async fn an_app_that_may_fail_alone_and_never_answers_is_told_and_shown_until_it_answers() -> Result<()> {
    let hub = Hub::start().await?;
    let node = Node::start(&hub, "dark").await?;
    let good = app("good", "dark", &[namespace("dark"), config_map("kept", "1")], &[]);
    let server = Server::start().await?;
    let probe = json!({
        "name": "light", "periodSeconds": 1,
        "check": {"http": {"target": {"address": format!("127.0.0.1:{}", server.port)}, "path": "/healthz"}}
    });
    let mut lamp = app("lamp", "dark", &[config_map("bulb", "1")], &[probe]);
    lamp["onFailure"] = json!("isolate");
    // The answer is awaited before the document is good: the stability period outlasts it.
    let mut document = node.document(1, &[good, lamp]);
    document["policy"] = json!({"stabilitySeconds": 2});
    hub.publish(&node.name, hub.sign(&document).to_json()).await?;
    node.until_proven(1).await?;
    let proven = hub.hear_event(EventKind::DocumentProven).await?;
    assert!(
        proven.message.ends_with(" but lamp are ready"),
        "{}",
        proven.message
    );
    let told = hub.hear_event(EventKind::AppFailed).await?;
    assert!(told.message.contains("app lamp"), "{}", told.message);
    assert_eq!(
        told.problem.map(|problem| problem.code.into_owned()).as_deref(),
        Some(codes::PROBE_FAILED)
    );
    // It is asked on, and shown as what it is, while nothing is wrong with the other.
    let asked = server.asked.load(Ordering::SeqCst);
    let status = node
        .until("the app is degraded and asked on", |status| {
            status.apps[1].health == Health::Degraded && server.asked.load(Ordering::SeqCst) > asked + 1
        })
        .await?;
    assert_eq!(status.generation.phase, Phase::Committed);
    assert_eq!(status.apps[0].health, Health::Healthy);
    let cause = status.apps[1].cause.clone().context("a cause")?;
    assert_eq!(cause.code, codes::PROBE_FAILED);
    server.ready.store(true, Ordering::SeqCst);
    node.until("the app is healthy", |status| {
        status.apps[1].health == Health::Healthy
    })
    .await?;
    let failures = hub
        .heard()
        .events
        .iter()
        .filter(|event| event.kind == EventKind::AppFailed)
        .count();
    assert_eq!(failures, 1, "it is told once");
    Ok(())
}
