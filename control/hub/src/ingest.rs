//! What the broker asks of the hub: stores what nodes say before it is acknowledged, and decides who may connect.

use crate::{
    broker::{Ingest, IngestError},
    codes as hub_codes,
    config::BrokerKind,
    database::{DatabaseError, documents, nodes, reports},
    hub::Hub,
    metrics,
};
use async_trait::async_trait;
use bytes::Bytes;
use holdfast_protocol::{
    Digest, NodeId, Problem, codes,
    event::Event,
    report::{Presence, StatusReport},
    topic::{Channel, Down, Topic, Up},
};
use serde::de::DeserializeOwned;

/// What became of a message.
enum Outcome {
    Stored,
    Known,
    Refused(String),
}

#[async_trait]
impl Ingest for Hub {
    async fn message(&self, node: &NodeId, channel: Up, payload: Bytes) -> Result<(), IngestError> {
        let name = match channel {
            Up::Status => "status",
            Up::Event => "event",
            Up::Presence => "presence",
        };
        let result = match channel {
            Up::Status => self.status(node, &payload).await,
            Up::Event => self.event(node, &payload).await,
            // The embedded broker knows its sessions itself; what nodes and their wills say of it may be older.
            Up::Presence if self.config.broker.kind == BrokerKind::Embedded => Ok(Outcome::Known),
            Up::Presence => self.told_presence(node, &payload).await,
        };
        let (outcome, answer) = match result {
            Ok(Outcome::Stored) => ("stored", Ok(())),
            Ok(Outcome::Known) => ("known", Ok(())),
            Ok(Outcome::Refused(reason)) => {
                tracing::warn!(%node, channel = name, reason, "a message cannot be used and was dropped");
                ("refused", Ok(()))
            }
            Err(error) => {
                tracing::error!(%node, channel = name, %error, "a message could not be stored");
                ("failed", Err(IngestError(error.to_string())))
            }
        };
        self.metrics.count(metrics::MESSAGES, &[name, outcome]);
        answer
    }

    async fn presence(&self, node: &NodeId, online: bool) {
        if let Err(error) = self.set_presence(node, online).await {
            tracing::error!(%node, online, %error, "the presence of a node could not be stored");
        }
    }

    async fn presence_lost(&self) {
        if let Err(error) = self.forget_presence().await {
            tracing::error!(%error, "that no presence is known could not be stored");
        }
    }

    async fn authorise(&self, node: &NodeId, certificate_der: &[u8]) -> Result<(), Problem> {
        let fingerprint = Digest::of(certificate_der);
        let known = nodes::certificate(self.database.read(), &fingerprint)
            .await
            .map_err(|error| error.problem())?;
        match known {
            Some(known) if known.revoked => Err(Problem::new(
                codes::CERTIFICATE_REVOKED,
                format!("the certificate of node {node} is revoked"),
                "enrol the box again with a new token",
            )),
            Some(known) if known.node == *node => Ok(()),
            _ => Err(Problem::new(
                hub_codes::CERTIFICATE_UNKNOWN,
                format!("the certificate shown for node {node} was not issued to it by this hub"),
                "enrol the box at this hub",
            )),
        }
    }

    async fn retained(&self, topic: &Topic) -> Result<Option<Bytes>, IngestError> {
        match topic.channel {
            Channel::Down(Down::Desired) => documents::envelope(self.database.read(), &topic.node)
                .await
                .map(|envelope| envelope.map(Bytes::from))
                .map_err(|error| IngestError(error.to_string())),
            Channel::Up(_) => Ok(None),
        }
    }

    async fn retained_topics(&self) -> Result<Vec<Topic>, IngestError> {
        let nodes = documents::nodes(self.database.read())
            .await
            .map_err(|error| IngestError(error.to_string()))?;
        Ok(nodes
            .iter()
            .map(|node| Topic::down(node, Down::Desired))
            .collect())
    }
}

impl Hub {
    async fn status(&self, node: &NodeId, payload: &[u8]) -> Result<Outcome, DatabaseError> {
        let report = match parse::<StatusReport>(payload) {
            Ok(report) => report,
            Err(reason) => return Ok(Outcome::Refused(reason)),
        };
        if let Err(error) = report.schema.check_supported() {
            return Ok(Outcome::Refused(error.to_string()));
        }
        if i64::try_from(report.sequence).is_err() {
            return Ok(Outcome::Refused(format!(
                "its sequence {} is out of range",
                report.sequence
            )));
        }
        if report.node != *node {
            return Ok(Outcome::Refused(format!("it says to be of node {}", report.node)));
        }
        let mut tx = self.database.write().await?;
        let stored = reports::status(&mut tx, &report, crate::database::now()).await?;
        tx.commit().await?;
        self.changed(node);
        Ok(if stored { Outcome::Stored } else { Outcome::Known })
    }

    async fn event(&self, node: &NodeId, payload: &[u8]) -> Result<Outcome, DatabaseError> {
        let event = match parse::<Event>(payload) {
            Ok(event) => event,
            Err(reason) => return Ok(Outcome::Refused(reason)),
        };
        if let Err(error) = event.schema.check_supported() {
            return Ok(Outcome::Refused(error.to_string()));
        }
        if i64::try_from(event.sequence).is_err() {
            return Ok(Outcome::Refused(format!(
                "its sequence {} is out of range",
                event.sequence
            )));
        }
        if event.node != *node {
            return Ok(Outcome::Refused(format!("it says to be of node {}", event.node)));
        }
        let mut tx = self.database.write().await?;
        let keep = self.config.retention.events_per_node;
        let stored = reports::event(&mut tx, &event, keep, crate::database::now()).await?;
        tx.commit().await?;
        self.changed(node);
        Ok(if stored { Outcome::Stored } else { Outcome::Known })
    }

    async fn told_presence(&self, node: &NodeId, payload: &[u8]) -> Result<Outcome, DatabaseError> {
        match parse::<Presence>(payload) {
            Ok(presence) => {
                self.set_presence(node, presence.online).await?;
                Ok(Outcome::Stored)
            }
            Err(reason) => Ok(Outcome::Refused(reason)),
        }
    }

    async fn set_presence(&self, node: &NodeId, online: bool) -> Result<(), DatabaseError> {
        let mut tx = self.database.write().await?;
        let known = reports::presence(&mut tx, node, online, crate::database::now()).await?;
        tx.commit().await?;
        if known {
            tracing::info!(%node, online, "presence");
            self.changed(node);
        }
        Ok(())
    }

    async fn forget_presence(&self) -> Result<(), DatabaseError> {
        let mut tx = self.database.write().await?;
        let nodes = reports::all_offline(&mut tx).await?;
        tx.commit().await?;
        for node in &nodes {
            self.changed(node);
        }
        Ok(())
    }
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}
