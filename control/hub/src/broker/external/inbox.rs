//! Messages of nodes as the broker hands them on: stored one after the other, then acknowledged.
//!
//! Guarantees: nothing is acknowledged before it is stored; when something cannot be stored, nothing after it on the same
//! connection is stored either, and the link is told to connect again, so that the broker sends all of it once more, in order.

use super::{Shared, waiting::Epoch};
use holdfast_protocol::topic::{Channel, Topic};
use rumqttc::v5::mqttbytes::v5::Publish;
use std::sync::Arc;
use tokio::sync::mpsc::Receiver;

/// Stores until the sender is gone.
pub(super) async fn work(shared: Arc<Shared>, mut messages: Receiver<(Epoch, Publish)>) {
    let mut failed: Epoch = 0;
    while let Some((epoch, publish)) = messages.recv().await {
        if epoch == failed || !shared.waiting.is_current(epoch) {
            continue;
        }
        let stored = store(&shared, &publish).await;
        let done = stored.and_then(|()| {
            shared
                .waiting
                .acknowledge(epoch, &publish)
                .map_err(|error| error.to_string())
        });
        if let Err(error) = done {
            tracing::error!(%error, "message not acknowledged: the hub connects again, the broker sends it again");
            failed = epoch;
            shared.again.notify_one();
        }
    }
}

async fn store(shared: &Shared, publish: &Publish) -> Result<(), String> {
    let topic = String::from_utf8_lossy(&publish.topic);
    let Ok(Topic {
        node,
        channel: Channel::Up(channel),
    }) = topic.parse()
    else {
        tracing::warn!(topic = %topic.chars().take(120).collect::<String>(), "message on an unknown topic dropped");
        return Ok(());
    };
    shared
        .ingest
        .message(&node, channel, publish.payload.clone())
        .await
        .map_err(|error| error.to_string())
}
