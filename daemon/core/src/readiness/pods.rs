//! Why pods are not ready, in words.

use holdfast_protocol::Problem;
use serde_json::Value;

/// The first cause that holds pods back: the most telling one, in the order image, configuration, crash, memory, scheduling,
/// eviction, probe. `events` are the events about these pods, where the caller has them. None where nothing is wrong.
pub fn pod_cause(_pods: &[Value], _events: &[Value]) -> Option<Problem> {
    None
}
