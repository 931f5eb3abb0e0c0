//! One HTTP request over a connection of its own, as the hub's node API and the local API are asked.
//!
//! In: a connected stream, a request. Out: status and body of the answer, or what broke. It guarantees that no more than the given number of
//! bytes is read, and that nothing of the connection is left when it returns or is dropped.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use std::error::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// Sends `request` over `stream` and reads the whole answer, of which the body may have `most` bytes.
///
/// # Errors
/// What broke; its text is fit for people.
pub async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<(StatusCode, Bytes), Box<dyn Error + Send + Sync>> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), most).collect().await?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(exchange);
    // The connection is driven only as long as the exchange needs it.
    tokio::select! {
        done = &mut exchange => done,
        ended = connection => {
            ended?;
            exchange.await
        }
    }
}
