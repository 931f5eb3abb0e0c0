//! The local API: HTTP/1.1 over a Unix socket that only the owner of the daemon may use, mode 0600.
//!
//! ```text
//! GET  /v1/status    LocalStatus       who am I, how far, link, certificate
//! GET  /v1/plan      Plan              what would change in Kubernetes
//! GET  /v1/history   [HistoryEntry]    documents so far, newest first
//! GET  /v1/doctor    Examination
//! GET  /v1/metrics   Prometheus text
//! POST /v1/enrol     {"token": "hf1.…"} → EnrolResult
//! POST /v1/pause     {"seconds": 7200, "reason": "…"} → Paused
//! POST /v1/resume    {} → Resumed
//! POST /v1/rollback  {"generation": "1.41"} or {} → RollingBack
//! ```
//!
//! Errors are `application/problem+json`. With `metrics.listen` set, a TCP address answers `GET /metrics`, and nothing else.

pub mod client;
mod routes;
mod socket;
pub mod view;

pub use routes::{EnrolCommand, Surroundings};
pub use socket::{SocketError, bind};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    task::JoinSet,
    time::sleep,
};

/// Connections served at the same time; more wait. People and one scraper need few.
const CONNECTIONS: usize = 8;
/// How long nothing is accepted after a failure to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The longest that a client may take for the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// Serves the local API on `listener` for ever. Connections end with it.
pub async fn serve(listener: UnixListener, surroundings: Arc<Surroundings>) {
    let mut connections = JoinSet::new();
    loop {
        make_room(&mut connections).await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let surroundings = surroundings.clone();
                connections.spawn(async move {
                    connection(stream, |request| routes::answer(surroundings.clone(), request)).await;
                });
            }
            Err(error) => not_taken(&error).await,
        }
    }
}

/// Serves `GET /metrics` on `listener` for ever.
pub async fn serve_metrics(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        make_room(&mut connections).await;
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, |request| async move {
                    routes::metrics_only(&request)
                }));
            }
            Err(error) => not_taken(&error).await,
        }
    }
}

async fn make_room(connections: &mut JoinSet<()>) {
    while connections.try_join_next().is_some() {}
    if connections.len() >= CONNECTIONS {
        connections.join_next().await;
    }
}

/// Most likely there are too many open files; a moment lets some of them close.
async fn not_taken(error: &std::io::Error) {
    tracing::warn!(%error, "a connection to the local API was not taken");
    sleep(ACCEPT_PAUSE).await;
}

async fn connection<S, F, A>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = Response<Full<Bytes>>>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the local API ended early");
    }
}
