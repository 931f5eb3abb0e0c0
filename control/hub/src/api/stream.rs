//! The live stream of node changes, as server-sent events.
//!
//! Guarantees: it starts with a `tick`; every change after that is sent, or the stream ends (a reader that is too slow connects again and reads
//! everything anew). Several quick changes of one node may come as one.

use super::{auth::Viewer, error::Result};
use crate::{
    database::nodes,
    hub::{Change, Hub},
    metrics,
};
use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, stream};
use holdfast_protocol::operator::{NodeDeleted, StreamEvent, Tick};
use http::header;
use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};

/// A sign of life at least this often; the reader's own patience is a multiple of it.
const TICK: Duration = Duration::from_secs(10);

/// Changes of nodes as they happen.
#[utoipa::path(get, path = "/api/v1/stream", tag = "nodes",
    responses((status = 200, description = "Server-sent events: `node`, `node-deleted`, `tick`", body = StreamEvent, content_type = "text/event-stream")))]
pub async fn stream(State(hub): State<Arc<Hub>>, _viewer: Viewer) -> Result<Response> {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Tells proxies of the nginx kind not to hold events back.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(events(hub))).into_response())
}

/// Counts readers, whichever way they leave.
struct Reader {
    hub: Arc<Hub>,
    changes: Receiver<Change>,
    first: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.hub.metrics.add(metrics::STREAM_READERS, &[], -1.0);
    }
}

fn events(hub: Arc<Hub>) -> impl Stream<Item = std::result::Result<Bytes, Infallible>> + Send {
    hub.metrics.add(metrics::STREAM_READERS, &[], 1.0);
    let reader = Reader {
        changes: hub.changes.subscribe(),
        hub,
        first: true,
    };
    stream::unfold(reader, |mut reader| async move {
        let text = reader.next().await?;
        Some((Ok(Bytes::from(text)), reader))
    })
}

impl Reader {
    /// The next piece of the stream, one or more whole events; none ends it.
    async fn next(&mut self) -> Option<String> {
        if std::mem::take(&mut self.first) {
            return tick();
        }
        let first = tokio::select! {
            () = self.hub.shutdown.cancelled() => return None,
            change = tokio::time::timeout(TICK, self.changes.recv()) => match change {
                Err(_) => return tick(),
                Ok(Err(RecvError::Lagged(_) | RecvError::Closed)) => return None,
                Ok(Ok(change)) => change,
            },
        };
        let mut batch = vec![first];
        loop {
            match self.changes.try_recv() {
                Ok(change) => batch.push(change),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Lagged(_) | TryRecvError::Closed) => return None,
            }
        }
        self.render(batch).await
    }

    async fn render(&self, batch: Vec<Change>) -> Option<String> {
        let mut text = String::new();
        let mut seen = HashSet::new();
        for change in batch {
            let event = match change {
                Change::Deleted(id) => {
                    // A node of the same name that comes after must be shown again.
                    seen.remove(&id);
                    StreamEvent::NodeDeleted(NodeDeleted { id })
                }
                Change::Changed(id) => {
                    if !seen.insert(id.clone()) {
                        continue;
                    }
                    match nodes::get(self.hub.database.read(), &id).await {
                        Ok(Some(node)) => StreamEvent::Node(Box::new(node)),
                        Ok(None) => continue,
                        Err(error) => {
                            tracing::error!(%error, "a node cannot be read for the stream");
                            return None;
                        }
                    }
                }
            };
            text.push_str(&render(&event)?);
        }
        // Nothing to say after all: a comment keeps the stream going.
        Some(if text.is_empty() { ":\n\n".to_owned() } else { text })
    }
}

fn tick() -> Option<String> {
    render(&StreamEvent::Tick(Tick {
        now: crate::database::now(),
    }))
}

fn render(event: &StreamEvent) -> Option<String> {
    let data = match event {
        StreamEvent::Node(node) => serde_json::to_string(node),
        StreamEvent::NodeDeleted(deleted) => serde_json::to_string(deleted),
        StreamEvent::Tick(tick) => serde_json::to_string(tick),
    };
    let data = data
        .inspect_err(|error| tracing::error!(%error, "an event cannot be written"))
        .ok()?;
    Some(format!("event: {}\ndata: {data}\n\n", event.name()))
}
