//! Listeners: accepts connections, ends TLS, serves HTTP/1.1, and lets requests finish on shutdown.

use crate::{api::Peer, hub::Hub, metrics};
use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// Connections of one listener at once.
const MAX_CONNECTIONS: usize = 10_000;
/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// Time for the head of a request, and for which an idle connection is kept.
const HEAD: Duration = Duration::from_secs(60);
/// Pause after the system could not give a connection, as when file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until shutdown; connections are tasks of `tasks`. Without `tls` it is plain HTTP.
pub async fn serve(
    hub: Arc<Hub>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    tasks: TaskTracker,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = hub.shutdown.cancelled() => return,
            accepted = accept(&listener, &permits) => accepted,
        };
        let (stream, address, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (hub, router, tls) = (Arc::clone(&hub), router.clone(), tls.clone());
        tasks.spawn(async move {
            connection(&hub, stream, address, tls, router).await;
            drop(permit);
        });
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, permit))
}

async fn connection(
    hub: &Hub,
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
) {
    // Answers are small and people wait for them; where it fails they come a little later.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        let peer = Peer {
            address,
            tls: false,
            certificate: None,
        };
        return requests(hub, stream, peer, router).await;
    };
    let handshake = timeout(HANDSHAKE, tls.accept(stream));
    let result = tokio::select! {
        () = hub.shutdown.cancelled() => return,
        result = handshake => result,
    };
    let stream = match result {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            hub.metrics.count(metrics::TLS_FAILURES, &[]);
            tracing::debug!(%address, %error, "TLS handshake failed");
            return;
        }
        Err(_) => {
            hub.metrics.count(metrics::TLS_FAILURES, &[]);
            tracing::debug!(%address, "TLS handshake took too long");
            return;
        }
    };
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .map(|certificate| certificate.clone().into_owned());
    let peer = Peer {
        address,
        tls: true,
        certificate,
    };
    requests(hub, stream, peer, router).await;
}

async fn requests<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    hub: &Hub,
    stream: S,
    peer: Peer,
    router: Router,
) {
    let address = peer.address;
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(stream), service)
    );
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = hub.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%address, %error, "a connection broke off");
    }
}
