//! Fetches blobs from the hub, over HTTPS with the node's certificate.
//!
//! In: blobs that a document names. Out: the same in the store, verified. It guarantees that what is here costs no network, that a
//! fetch which was cut off goes on where it stopped, and that a blob with another content than its name says is refused.

use crate::{
    codes,
    enrol::{https::Target, tls},
    identity::Identity,
    settings::Settings,
    telemetry::metrics::METRICS,
};
use bytes::Bytes;
use holdfast_core::failure::Failure;
use holdfast_protocol::{MAX_ENVELOPE_BYTES, Problem, codes as protocol_codes, document::BlobRef};
use holdfast_store::{BlobError, Blobs};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};

/// Longest silence in the middle of a blob. The whole may take as long as a slow link needs.
const SILENCE: Duration = Duration::from_secs(30);

/// Fetches blobs.
#[derive(Clone)]
pub struct Fetcher {
    /// Where they go.
    pub blobs: Blobs,
    /// The hub, and the certificate to show.
    pub identity: watch::Receiver<Arc<Identity>>,
    /// Time limits.
    pub settings: Arc<Settings>,
}

impl Fetcher {
    /// Has all of these blobs in the store. Fails with the first that cannot be had.
    pub async fn fetch_all(&self, blobs: &[BlobRef]) -> Result<(), Failure> {
        for blob in blobs {
            if self.blobs.contains(blob.digest, blob.size) {
                continue;
            }
            self.fetch(blob)
                .await
                .inspect_err(|_| METRICS.blob_failures.add(1))?;
        }
        Ok(())
    }

    async fn fetch(&self, blob: &BlobRef) -> Result<(), Failure> {
        let unreachable = |reason: String| {
            Failure::of_document(
                Problem::new(
                    codes::BLOB_UNREACHABLE,
                    format!("blob {} cannot be fetched: {reason}", blob.digest),
                    "check the network between the box and the hub; the fetch goes on where it stopped",
                ),
                true,
            )
        };
        let identity = self.identity.borrow().clone();
        let target = Target::parse(&identity.hub_url).map_err(|error| unreachable(error.to_string()))?;
        let config = tls::authenticated(&identity).map_err(|error| unreachable(error.to_string()))?;
        let mut writer = self
            .blobs
            .writer(blob.digest, blob.size)
            .map_err(|error| Failure::of_document(error.problem(), true))?;

        let limit = self.settings.enrolment.request_timeout;
        let late = |what: &str| unreachable(format!("{what} took longer than {} s", limit.as_secs()));
        let stream = timeout(limit, target.connect(config.into()))
            .await
            .map_err(|_| late("connecting to the hub"))?
            .map_err(|error| unreachable(error.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let request = Request::get(target.path(&format!("/v1/blobs/{}", blob.digest)))
            .header(header::HOST, target.authority())
            .header(header::RANGE, format!("bytes={}-", writer.offset()))
            .body(Empty::<Bytes>::new())
            .map_err(|error| unreachable(error.to_string()))?;
        let transfer = async {
            // A blob that is here in whole but was not verified yet needs no byte more.
            if writer.offset() == blob.size {
                return writer.finish().map_err(|error| of_blob(&error));
            }
            let response = timeout(limit, sender.send_request(request))
                .await
                .map_err(|_| late("the answer of the hub"))?
                .map_err(|error| unreachable(error.to_string()))?;
            match response.status() {
                StatusCode::PARTIAL_CONTENT => {}
                StatusCode::OK => writer
                    .restart()
                    .map_err(|error| Failure::of_document(error.problem(), true))?,
                status => return Err(refused(blob, status, response.into_body()).await),
            }
            let mut body = response.into_body();
            loop {
                let frame = timeout(SILENCE, body.frame())
                    .await
                    .map_err(|_| unreachable(format!("nothing came for {} s", SILENCE.as_secs())))?;
                match frame {
                    None => break,
                    Some(Err(error)) => return Err(unreachable(error.to_string())),
                    Some(Ok(frame)) => {
                        if let Some(data) = frame.data_ref() {
                            METRICS.blob_bytes.add(data.len() as u64);
                            writer.write(data).map_err(|error| of_blob(&error))?;
                        }
                    }
                }
            }
            if writer.offset() < blob.size {
                return Err(unreachable(format!(
                    "the hub ended at byte {} of {}",
                    writer.offset(),
                    blob.size
                )));
            }
            writer.finish().map_err(|error| of_blob(&error))
        };
        // The connection is driven only as long as the transfer needs it.
        let mut transfer = std::pin::pin!(transfer);
        tokio::select! {
            done = &mut transfer => done,
            ended = connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "the connection for a blob ended");
                }
                // What came before the end still waits to be stored; the transfer meets the end by itself.
                transfer.await
            }
        }
    }
}

/// A wrong content is the publisher's fault and stays wrong; a wrong disk may be mended.
fn of_blob(error: &BlobError) -> Failure {
    let retryable = matches!(error, BlobError::Store(_));
    Failure::of_document(error.problem(), retryable)
}

async fn refused(blob: &BlobRef, status: StatusCode, body: Incoming) -> Failure {
    let told = match Limited::new(body, MAX_ENVELOPE_BYTES).collect().await {
        Ok(body) => serde_json::from_slice::<Problem>(&body.to_bytes()).ok(),
        Err(_) => None,
    };
    let problem = told.unwrap_or_else(|| {
        let code = if status == StatusCode::NOT_FOUND {
            protocol_codes::BLOB_UNKNOWN
        } else {
            codes::BLOB_UNREACHABLE
        };
        Problem::new(
            code,
            format!("the hub answers {status} for blob {}", blob.digest),
            "upload the release again with holdfastctl",
        )
    });
    // Even a blob that is unknown today can be uploaded tomorrow.
    Failure::of_document(problem, true)
}
