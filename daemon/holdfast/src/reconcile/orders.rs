//! What a person at the box asks of the driver.

use holdfast_protocol::{Generation, Problem};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// The longest pause. A longer one is forgotten by whoever made it.
pub const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Where the outcome of an order goes.
pub type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// An order.
#[derive(Debug)]
pub enum Order {
    /// No changes for so long.
    Pause {
        /// How long.
        length: SignedDuration,
        /// Why, in the person's own words; may be empty.
        reason: String,
        /// For the outcome.
        reply: Reply<Paused>,
    },
    /// Changes again.
    Resume {
        /// For the outcome.
        reply: Reply<Resumed>,
    },
    /// Go back to an earlier document, until a newer one comes.
    RollBack {
        /// Which; the last good one before the present one where absent.
        to: Option<Generation>,
        /// For the outcome.
        reply: Reply<RollingBack>,
    },
}

/// The most bytes that a reason has: it stands in every status that goes to the hub.
const MAX_REASON_BYTES: usize = 1024;

/// What is wrong with the reason of a pause: what is told to the hub and shown in terminals is one short line.
pub fn reason_fault(text: &str) -> Option<String> {
    if text.len() > MAX_REASON_BYTES {
        return Some(format!(
            "it has {} bytes, at most {MAX_REASON_BYTES} are taken; say it shorter",
            text.len()
        ));
    }
    (text.chars().any(char::is_control))
        .then(|| "it has control characters, such as the end of a line; write it on one line".to_owned())
}

/// Outcome of a pause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Paused {
    /// When it ends by itself, by the node's clock.
    pub paused_until: Timestamp,
}

/// Outcome of the end of a pause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resumed {
    /// Whether there was a pause.
    pub was_paused: bool,
}

/// Outcome of an order to go back: the way back has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollingBack {
    /// The newest document, which is gone back from.
    pub from: Generation,
    /// The document that is gone back to.
    pub to: Generation,
}
