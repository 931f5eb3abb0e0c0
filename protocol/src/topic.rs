//! MQTT topics: the one schema from which every topic string of Holdfast comes.
//!
//! ```text
//! hf/v1/{node}/down/desired    hub → node   retained, QoS 1   Envelope of a DesiredState
//! hf/v1/{node}/up/status       node → hub   QoS 1             StatusReport, the latest wins
//! hf/v1/{node}/up/event        node → hub   QoS 1             Event, in order of its sequence
//! hf/v1/{node}/up/presence     node → hub   retained, QoS 1   Presence; also the node's last will
//! ```
//!
//! A node may publish only below its own `up`, and subscribe only below its own `down`. Certificate common name, user name and client id
//! are all the node's name, so a broker can hold that rule with a pattern.
//!
//! ```
//! use holdfast_protocol::{NodeId, topic::{Topic, Down, Up}};
//!
//! let node: NodeId = "shop-17".parse()?;
//! let topic = Topic::up(&node, Up::Status);
//! assert_eq!(topic.to_string(), "hf/v1/shop-17/up/status");
//! assert_eq!("hf/v1/shop-17/up/status".parse::<Topic>()?, topic);
//! assert_eq!(Topic::down(&node, Down::Desired).to_string(), "hf/v1/shop-17/down/desired");
//! assert!("hf/v1/+/up/status".parse::<Topic>().is_err());
//! assert!("hf/v2/shop-17/up/status".parse::<Topic>().is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::NodeId;
use std::{fmt, str::FromStr};

/// First two levels of every topic: the product and the version of this schema.
pub const ROOT: &str = "hf/v1";

/// Prefix of the topics that brokers fill with their own news; nodes may neither read nor write there.
pub const SYSTEM_PREFIX: &str = "$SYS/";

/// What the hub says to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Down {
    /// The signed desired state; retained, so that a node gets the newest one on every connect.
    Desired,
}

/// What a node says to the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Up {
    /// State of the node; the latest wins.
    Status,
    /// Something that happened; kept in order.
    Event,
    /// Whether the node has a session; its last will says that it has none any more.
    Presence,
}

/// Direction and channel of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// From the hub to the node.
    Down(Down),
    /// From the node to the hub.
    Up(Up),
}

impl Channel {
    /// All channels, in the order of this module's table.
    pub const ALL: [Self; 4] = [
        Self::Down(Down::Desired),
        Self::Up(Up::Status),
        Self::Up(Up::Event),
        Self::Up(Up::Presence),
    ];

    const fn path(self) -> &'static str {
        match self {
            Self::Down(Down::Desired) => "down/desired",
            Self::Up(Up::Status) => "up/status",
            Self::Up(Up::Event) => "up/event",
            Self::Up(Up::Presence) => "up/presence",
        }
    }

    /// Whether the broker keeps the last message of this channel for new subscribers.
    pub const fn is_retained(self) -> bool {
        matches!(self, Self::Down(Down::Desired) | Self::Up(Up::Presence))
    }
}

/// One concrete topic of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topic {
    /// Whose topic it is.
    pub node: NodeId,
    /// What it carries, and in which direction.
    pub channel: Channel,
}

impl Topic {
    /// The topic on which `node` is told something.
    pub fn down(node: &NodeId, channel: Down) -> Self {
        Self {
            node: node.clone(),
            channel: Channel::Down(channel),
        }
    }

    /// The topic on which `node` says something.
    pub fn up(node: &NodeId, channel: Up) -> Self {
        Self {
            node: node.clone(),
            channel: Channel::Up(channel),
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}/{}/{}", self.node, self.channel.path())
    }
}

/// A topic outside the schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("topic {found:?} is not one of Holdfast's: expected {ROOT}/NODE/{{up,down}}/CHANNEL")]
pub struct UnknownTopic {
    found: String,
}

impl FromStr for Topic {
    type Err = UnknownTopic;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (node, path) = text.strip_prefix(ROOT)?.strip_prefix('/')?.split_once('/')?;
            let channel = Channel::ALL.into_iter().find(|channel| channel.path() == path)?;
            Some(Self {
                node: node.parse().ok()?,
                channel,
            })
        };
        parse().ok_or_else(|| UnknownTopic {
            found: text.chars().take(120).collect(),
        })
    }
}

/// What the hub subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter(Up);

impl Filter {
    /// One channel of all nodes.
    pub const fn every_node(channel: Up) -> Self {
        Self(channel)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}/+/{}", Channel::Up(self.0).path())
    }
}

/// Pattern of the topics below which a node may publish; `identity` is how the broker spells "this client's name".
pub fn publish_pattern(identity: &str) -> String {
    format!("{ROOT}/{identity}/up/#")
}

/// Pattern of the topics below which a node may subscribe; `identity` is how the broker spells "this client's name".
pub fn subscribe_pattern(identity: &str) -> String {
    format!("{ROOT}/{identity}/down/#")
}

/// Whether the node `client` may publish to `topic`: only to a known topic of its own, upwards.
///
/// ```
/// use holdfast_protocol::topic::may_publish;
/// let node = "shop-17".parse()?;
/// assert!(may_publish(&node, "hf/v1/shop-17/up/status"));
/// assert!(!may_publish(&node, "hf/v1/shop-18/up/status"));
/// assert!(!may_publish(&node, "hf/v1/shop-17/down/desired"));
/// # Ok::<(), holdfast_protocol::InvalidName>(())
/// ```
pub fn may_publish(client: &NodeId, topic: &str) -> bool {
    topic
        .parse::<Topic>()
        .is_ok_and(|topic| topic.node == *client && matches!(topic.channel, Channel::Up(_)))
}

/// Whether the node `client` may subscribe to `filter`: only to a known topic of its own, downwards, without any wildcard, or to
/// all of them by [`subscribe_pattern`].
///
/// ```
/// use holdfast_protocol::topic::may_subscribe;
/// let node = "shop-17".parse()?;
/// assert!(may_subscribe(&node, "hf/v1/shop-17/down/desired"));
/// assert!(may_subscribe(&node, "hf/v1/shop-17/down/#"));
/// assert!(!may_subscribe(&node, "hf/v1/+/down/desired"));
/// assert!(!may_subscribe(&node, "$share/x/hf/v1/shop-17/down/desired"));
/// assert!(!may_subscribe(&node, "#"));
/// # Ok::<(), holdfast_protocol::InvalidName>(())
/// ```
pub fn may_subscribe(client: &NodeId, filter: &str) -> bool {
    filter == subscribe_pattern(client.as_str())
        || filter
            .parse::<Topic>()
            .is_ok_and(|topic| topic.node == *client && matches!(topic.channel, Channel::Down(_)))
}
