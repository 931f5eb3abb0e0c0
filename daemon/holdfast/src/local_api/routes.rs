//! Answers of the local API.

use super::view::{EnrolOrder, EnrolResult, LocalStatus, RunningNode};
use crate::{
    boots::BootLog,
    codes, doctor,
    enrol::{renew::validity, token},
    health::{self, Check, Verdict},
    identity::Identity,
    reset,
    settings::Settings,
    telemetry::metrics,
};
use bytes::Bytes;
use holdfast_protocol::{Problem, codes as shared, token::EnrolmentToken};
use holdfast_store::Store;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// The largest body of a request, in bytes.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// The largest document that is planned, in bytes, with the content of its blobs in it.
const MAX_DOCUMENT_BYTES: usize = 32 << 20;

/// The most documents of the history that are shown.
const HISTORY: usize = 100;

/// How long an answer waits for a better verdict. A disk that takes no file tells nobody when it does again.
const VERDICT_PATIENCE: Duration = Duration::from_secs(5);

/// An order to enrol, and where its outcome goes.
pub type EnrolCommand = (EnrolmentToken, oneshot::Sender<Result<EnrolResult, Problem>>);

/// What the answers are made of.
pub struct Surroundings {
    /// The daemon's settings.
    pub settings: Arc<Settings>,
    /// Who the box is; none before it is enrolled.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// Why the last enrolment failed.
    pub enrolment_problem: watch::Receiver<Option<Problem>>,
    /// The running node; none before it is enrolled.
    pub node: watch::Receiver<Option<Arc<dyn RunningNode>>>,
    /// The node's store; none where the disk lets nobody open it.
    pub store: Option<Arc<Store>>,
    /// Takes orders to enrol.
    pub enrol: mpsc::Sender<EnrolCommand>,
}

type Answer = Result<Response<Full<Bytes>>, (StatusCode, Problem)>;

pub(super) async fn answer(
    surroundings: Arc<Surroundings>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let answered = match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/status") => Ok(json(&status(&surroundings))),
        (&Method::GET, "/v1/plan") => plan(&surroundings).await,
        (&Method::POST, "/v1/plan") => foresee(&surroundings, request).await,
        (&Method::GET, "/v1/health") => Ok(json(&verdict(&surroundings))),
        (&Method::GET, "/v1/health/wait") => Ok(json(&awaited_verdict(&surroundings).await)),
        (&Method::GET, "/v1/history") => history(&surroundings),
        (&Method::GET, "/v1/doctor") => Ok(json(
            &doctor::examine(&Ok(surroundings.settings.as_ref().clone())).await,
        )),
        (&Method::GET, "/v1/metrics") => Ok(metrics()),
        (&Method::POST, "/v1/enrol") => enrol(&surroundings, request).await,
        (&Method::POST, "/v1/pause") => match order(&surroundings, request).await {
            Ok((node, order)) => done(node.pause(order).await),
            Err(refused) => Err(refused),
        },
        (&Method::POST, "/v1/resume") => match order::<Nothing>(&surroundings, request).await {
            Ok((node, Nothing {})) => done(node.resume().await),
            Err(refused) => Err(refused),
        },
        (&Method::POST, "/v1/rollback") => match order(&surroundings, request).await {
            Ok((node, order)) => done(node.roll_back(order).await),
            Err(refused) => Err(refused),
        },
        (method, path) => Err(unknown(method, path)),
    };
    answered.unwrap_or_else(|(status, problem)| refusal(status, &problem))
}

pub(super) fn metrics_only(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => metrics(),
        (method, path) => {
            let (status, problem) = unknown(method, path);
            refusal(status, &problem)
        }
    }
}

fn status(surroundings: &Surroundings) -> LocalStatus {
    let identity = surroundings.identity.borrow().clone();
    let node = surroundings.node.borrow().clone();
    let state_dir = &surroundings.settings.state_dir;
    LocalStatus {
        version: env!("CARGO_PKG_VERSION").into(),
        enrolled: identity.is_some(),
        node: identity.as_ref().map(|identity| identity.node.clone()),
        hub_url: identity.as_ref().map(|identity| identity.hub_url.clone()),
        certificate_until: identity
            .and_then(|identity| validity(&identity.certificate).ok())
            .map(|(_, end)| end),
        enrolment_problem: surroundings.enrolment_problem.borrow().clone(),
        factory_reset: reset::pending(state_dir, &BootLog::new(state_dir)),
        link: node.as_ref().map(|node| node.link()),
        details: node.as_ref().map(|node| node.details()).unwrap_or_default(),
        report: node.map(|node| node.status()),
    }
}

/// Whether this start of the machine is good, now.
fn verdict(surroundings: &Surroundings) -> Verdict {
    let mut checks = match &surroundings.store {
        Some(store) => health::of_disk(&surroundings.settings.state_dir, store),
        None => vec![Check::of(health::STORE, Some(not_open()))],
    };
    let node = surroundings.node.borrow().clone();
    match node {
        Some(node) => {
            checks.insert(0, Check::of(health::DAEMON, None));
            checks.extend(node.health());
        }
        // One that is not enrolled has nothing more to run.
        None => {
            let starting = surroundings.identity.borrow().is_some().then(|| {
                Problem::new(
                    codes::NODE_STARTING,
                    "the node is still starting",
                    "try again in a moment",
                )
            });
            checks.insert(0, Check::of(health::DAEMON, starting));
        }
    }
    Verdict::of(checks)
}

/// The same once it is good, or something of it changed, or after a while.
async fn awaited_verdict(surroundings: &Surroundings) -> Verdict {
    let mut known = surroundings.node.clone();
    let first = verdict(surroundings);
    if first.good {
        return first;
    }
    let node = known.borrow_and_update().clone();
    let changed = async {
        match &node {
            Some(node) => node.changed().await,
            // It cannot end before the daemon does.
            None => drop(known.changed().await),
        }
    };
    let _ = timeout(VERDICT_PATIENCE, changed).await;
    verdict(surroundings)
}

async fn plan(surroundings: &Surroundings) -> Answer {
    let node = running(surroundings)?;
    let plan = node
        .plan()
        .await
        .map_err(|problem| (StatusCode::CONFLICT, problem))?;
    Ok(json(&plan))
}

async fn foresee(surroundings: &Surroundings, request: Request<Incoming>) -> Answer {
    let node = running(surroundings)?;
    let bad = |message: String| {
        let problem = Problem::new(shared::BAD_REQUEST, message, "send a document in JSON");
        (StatusCode::BAD_REQUEST, problem)
    };
    let body = Limited::new(request.into_body(), MAX_DOCUMENT_BYTES)
        .collect()
        .await
        .map_err(|error| bad(format!("the body cannot be read: {error}")))?
        .to_bytes();
    let document =
        serde_json::from_slice(&body).map_err(|error| bad(format!("the body is no document: {error}")))?;
    let foresight = node
        .foresee(document)
        .await
        .map_err(|problem| (StatusCode::CONFLICT, problem))?;
    Ok(json(&foresight))
}

fn history(surroundings: &Surroundings) -> Answer {
    if surroundings.identity.borrow().is_none() {
        return Err((StatusCode::CONFLICT, not_enrolled()));
    }
    let Some(store) = &surroundings.store else {
        return Err((StatusCode::CONFLICT, not_open()));
    };
    let entries = store
        .history(HISTORY)
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.problem()))?;
    Ok(json(&entries))
}

fn running(surroundings: &Surroundings) -> Result<Arc<dyn RunningNode>, (StatusCode, Problem)> {
    surroundings.node.borrow().clone().ok_or_else(|| {
        let problem = if surroundings.identity.borrow().is_some() {
            Problem::new(
                codes::NODE_STARTING,
                "the node is still starting",
                "try again in a moment",
            )
        } else {
            not_enrolled()
        };
        (StatusCode::CONFLICT, problem)
    })
}

/// The problem of every question that needs the store, where the disk lets nobody open it.
fn not_open() -> Problem {
    Problem::new(
        codes::NODE_STARTING,
        "the store is not open, as the disk takes nothing",
        "see `holdfast status`; the node starts by itself once the disk takes something",
    )
}

/// The problem of every question that needs an enrolled node.
pub(crate) fn not_enrolled() -> Problem {
    Problem::new(
        codes::NOT_ENROLLED,
        "this box is not enrolled",
        "make a token (holdfastctl token create) and run: holdfast enrol TOKEN",
    )
}

async fn enrol(surroundings: &Surroundings, request: Request<Incoming>) -> Answer {
    let bad = |message: String| {
        (
            StatusCode::BAD_REQUEST,
            Problem::new(shared::BAD_REQUEST, message, "send {\"token\": \"hf1.…\"}"),
        )
    };
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES)
        .collect()
        .await
        .map_err(|error| bad(format!("the body cannot be read: {error}")))?
        .to_bytes();
    // The parser's message could quote the token.
    let order: EnrolOrder =
        serde_json::from_slice(&body).map_err(|_| bad("the body is not an enrolment order".into()))?;
    let token = token::parse(&order.token).map_err(|problem| (StatusCode::BAD_REQUEST, problem))?;
    let (sender, outcome) = oneshot::channel();
    let stopping = || {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            Problem::new(
                codes::NODE_STARTING,
                "the daemon takes no enrolment now",
                "try again in a moment",
            ),
        )
    };
    surroundings
        .enrol
        .send((token, sender))
        .await
        .map_err(|_| stopping())?;
    match outcome.await {
        Ok(Ok(result)) => Ok(json(&result)),
        Ok(Err(problem)) => Err((StatusCode::CONFLICT, problem)),
        Err(_) => Err(stopping()),
    }
}

/// A body without content: `{}`, or none at all.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// The node, and the order in the body of the request.
async fn order<T: DeserializeOwned>(
    surroundings: &Surroundings,
    request: Request<Incoming>,
) -> Result<(Arc<dyn RunningNode>, T), (StatusCode, Problem)> {
    let node = running(surroundings)?;
    let bad = |message: String| {
        (
            StatusCode::BAD_REQUEST,
            Problem::new(
                shared::BAD_REQUEST,
                message,
                "send what the local API's description says",
            ),
        )
    };
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES)
        .collect()
        .await
        .map_err(|error| bad(format!("the body cannot be read: {error}")))?
        .to_bytes();
    let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
    let order =
        serde_json::from_slice(body).map_err(|error| bad(format!("the body is no such order: {error}")))?;
    Ok((node, order))
}

/// The outcome of an order.
fn done<T: Serialize>(outcome: Result<T, Problem>) -> Answer {
    match outcome {
        Ok(value) => Ok(json(&value)),
        Err(problem) if problem.code == shared::BAD_REQUEST => Err((StatusCode::BAD_REQUEST, problem)),
        Err(problem) => Err((StatusCode::CONFLICT, problem)),
    }
}

fn unknown(method: &Method, path: &str) -> (StatusCode, Problem) {
    let path: String = path.chars().take(80).collect();
    (
        StatusCode::NOT_FOUND,
        Problem::new(shared::NOT_FOUND, format!("there is no {method} {path} here"), ""),
    )
}

fn metrics() -> Response<Full<Bytes>> {
    respond(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        metrics::text().into_bytes(),
    )
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(body) => respond(StatusCode::OK, "application/json", body),
        Err(error) => refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            &Problem::new(
                shared::INTERNAL,
                format!("the answer cannot be written: {error}"),
                "",
            ),
        ),
    }
}

fn refusal(status: StatusCode, problem: &Problem) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(problem).unwrap_or_default();
    respond(status, "application/problem+json", body)
}

fn respond(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    response
}
