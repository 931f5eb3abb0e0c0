//! The hub's stream of changes: server-sent events in, [`StreamEvent`]s out.

use crate::{
    client::Client,
    failure::{Failure, Result},
};
use holdfast_protocol::operator::StreamEvent;
use std::time::Duration;

/// The hub says something every 10 seconds; three times that without a word means that the link is dead.
const SILENCE: Duration = Duration::from_secs(30);

/// The largest event that is looked at, in bytes.
const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// An open stream.
pub struct Stream {
    response: reqwest::Response,
    parser: Parser,
}

impl Stream {
    /// Opens the stream of all nodes' changes.
    pub async fn open(client: &Client) -> Result<Self> {
        Ok(Self {
            response: client.stream("api/v1/stream").await?,
            parser: Parser::default(),
        })
    }

    /// The next event; an error where the stream is cut or silent for too long.
    pub async fn next(&mut self) -> Result<StreamEvent> {
        let cut = |reason: String| {
            Failure::new(
                crate::codes::HUB_UNREACHABLE,
                format!("the stream of changes ended: {reason}"),
                "check that the hub runs",
            )
        };
        loop {
            if let Some(event) = self.parser.next() {
                return Ok(event);
            }
            if self.parser.buffer.len() > MAX_EVENT_BYTES {
                return Err(cut("an event is larger than any should be".to_owned()));
            }
            let chunk = tokio::time::timeout(SILENCE, self.response.chunk())
                .await
                .map_err(|_| cut(format!("nothing for {} s", SILENCE.as_secs())))?
                .map_err(|error| cut(error.to_string()))?
                .ok_or_else(|| cut("the hub closed it".to_owned()))?;
            self.parser.buffer.extend_from_slice(&chunk);
        }
    }
}

/// Cuts bytes into events.
#[derive(Default)]
struct Parser {
    buffer: Vec<u8>,
}

impl Iterator for Parser {
    type Item = StreamEvent;

    /// The next whole event; kinds that this version does not know are passed over.
    fn next(&mut self) -> Option<StreamEvent> {
        loop {
            let end = self.buffer.windows(2).position(|pair| pair == b"\n\n")? + 2;
            let block: Vec<u8> = self.buffer.drain(..end).collect();
            let text = String::from_utf8_lossy(&block);
            let mut name = "";
            let mut data = String::new();
            for line in text.lines() {
                if let Some(value) = line.strip_prefix("event:") {
                    name = value.trim();
                } else if let Some(value) = line.strip_prefix("data:") {
                    data.push_str(value.strip_prefix(' ').unwrap_or(value));
                }
            }
            let event = serde_json::from_str::<serde_json::Value>(&data)
                .ok()
                .and_then(|data| {
                    serde_json::from_value(serde_json::json!({ "event": name, "data": data })).ok()
                });
            if event.is_some() {
                return event;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_whatever_the_cuts() {
        let text =
            b": hello\n\nevent: later\ndata: {}\n\nevent: node-deleted\ndata: {\"id\":\"shop-17\"}\n\nevent: ti";
        let mut parser = Parser::default();
        let mut found = Vec::new();
        for byte in text {
            parser.buffer.push(*byte);
            found.extend(&mut parser);
        }
        assert_eq!(found.len(), 1);
        assert!(matches!(&found[0], StreamEvent::NodeDeleted(node) if node.id.as_str() == "shop-17"));
    }
}
