//! Follows an assignment until every node has proven it.
//!
//! In: what was assigned, and the stream of changes. Out: progress on the standard error, and in the end yes, or the first reason why
//! not. Every decision is made on what the hub last said of a node, so a cut stream costs nothing: it is opened again, and all nodes are
//! read again.

use super::state::phase_words;
use crate::{
    client::Client,
    codes,
    failure::{Failure, Result},
    output,
    stream::Stream,
};
use holdfast_protocol::{
    Generation, NodeId, codes as shared,
    operator::{Assigned, NodeInfo, StreamEvent},
    report::Phase,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Where a node is on the way to its generation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    Waiting(String),
    Proven,
    Failed(String),
}

/// Waits until all nodes of `assigned` have proven their generation, for at most `timeout`.
pub async fn until_proven(
    client: &Client,
    stream: Stream,
    assigned: &Assigned,
    timeout: Duration,
) -> Result<()> {
    let mut follow = Follow {
        targets: assigned
            .generations
            .iter()
            .map(|(node, generation)| (node.clone(), (*generation, Progress::Waiting("sent".to_owned()))))
            .collect(),
        started: Instant::now(),
    };
    if tokio::time::timeout(timeout, follow.run(client, stream))
        .await
        .is_err()
    {
        let late: Vec<String> = follow
            .targets
            .iter()
            .filter_map(|(node, (_, progress))| match progress {
                Progress::Waiting(what) => Some(format!("{node}: {what}")),
                _ => None,
            })
            .collect();
        let more = late.len().saturating_sub(10);
        let mut shown = late.iter().take(10).cloned().collect::<Vec<_>>().join("; ");
        if more > 0 {
            shown = format!("{shown}; and {more} more");
        }
        return Err(Failure::new(
            codes::WAIT_TIMED_OUT,
            format!(
                "not all nodes proved {} within {}: {shown}",
                assigned.release,
                output::span(timeout.as_secs().cast_signed())
            ),
            "nothing was undone: the nodes go on; look with holdfastctl node list, or wait longer with --wait=1h",
        ));
    }
    follow.verdict(&assigned.release)
}

struct Follow {
    targets: BTreeMap<NodeId, (Generation, Progress)>,
    started: Instant,
}

impl Follow {
    /// Follows until no node is on its way any more.
    async fn run(&mut self, client: &Client, stream: Stream) {
        let mut open = Some(stream);
        let mut pause = Duration::from_millis(500);
        loop {
            let stream = match open.take() {
                Some(stream) => Ok(stream),
                None => Stream::open(client).await,
            };
            if let Ok(mut stream) = stream {
                // What happened before the stream was open is only in the list.
                if let Ok(nodes) = client.get_pages::<NodeInfo>("api/v1/nodes", "").await {
                    for node in &nodes {
                        self.look(node);
                    }
                    for missing in self
                        .targets
                        .keys()
                        .filter(|id| !nodes.iter().any(|node| node.id == **id))
                        .cloned()
                        .collect::<Vec<_>>()
                    {
                        self.gone(&missing);
                    }
                    pause = Duration::from_millis(500);
                    loop {
                        if self.settled() {
                            return;
                        }
                        match stream.next().await {
                            Ok(StreamEvent::Node(node)) => self.look(&node),
                            Ok(StreamEvent::NodeDeleted(node)) => self.gone(&node.id),
                            Ok(StreamEvent::Tick(_)) => {}
                            Err(_) => break,
                        }
                    }
                }
            }
            output::note("the hub does not answer; trying again …");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(15));
        }
    }

    fn settled(&self) -> bool {
        !self
            .targets
            .values()
            .any(|(_, progress)| matches!(progress, Progress::Waiting(_)))
    }

    fn look(&mut self, node: &NodeInfo) {
        if let Some((generation, _)) = self.targets.get(&node.id) {
            let progress = progress(node, *generation);
            self.set(&node.id, progress);
        }
    }

    fn gone(&mut self, node: &NodeId) {
        if self.targets.contains_key(node) {
            self.set(node, Progress::Failed("it was taken out of the fleet".to_owned()));
        }
    }

    fn set(&mut self, node: &NodeId, progress: Progress) {
        let Some((generation, known)) = self.targets.get_mut(node) else {
            return;
        };
        // Proven stays proven: this command asks for the moment, not for the rest of the node's life.
        if *known == progress || *known == Progress::Proven {
            return;
        }
        let words = match &progress {
            Progress::Waiting(what) => what.clone(),
            Progress::Proven => format!(
                "proven {generation} after {:.1} s",
                self.started.elapsed().as_secs_f64()
            ),
            Progress::Failed(why) => format!("failed: {why}"),
        };
        output::note(&format!("{node}: {}", output::printable(&words)));
        *known = progress;
    }

    fn verdict(&self, release: &str) -> Result<()> {
        let failed: Vec<String> = self
            .targets
            .iter()
            .filter_map(|(node, (_, progress))| match progress {
                Progress::Failed(why) => Some(format!("{node}: {why}")),
                _ => None,
            })
            .collect();
        match failed.first() {
            None => Ok(()),
            Some(first) => Err(Failure::new(
                codes::WAIT_FAILED,
                format!(
                    "{release} failed on {} of {} nodes; {first}",
                    failed.len(),
                    self.targets.len()
                ),
                "look at it with holdfastctl node show NODE, and assign a release that works",
            )),
        }
    }
}

/// Where `node` is on the way to `generation`.
fn progress(node: &NodeInfo, generation: Generation) -> Progress {
    if let Some(newer) = node
        .accepted
        .filter(|accepted| *accepted > generation && node.wanted.is_none_or(|wanted| wanted < *accepted))
    {
        // What the hub sends is older than what the node has, so the node refuses it: that it proved something newer proves nothing here.
        return Progress::Failed(format!(
            "it has {newer} already, which is newer than anything this hub sent: the hub was restored from a backup, and `holdfast-hub restored` was not run"
        ));
    }
    if node.proven.is_some_and(|proven| proven >= generation) {
        return Progress::Proven;
    }
    if let Some(conflict) = another_document(node, generation) {
        return Progress::Failed(conflict);
    }
    if let Some(newer) = node.wanted.filter(|wanted| *wanted > generation) {
        return Progress::Failed(format!(
            "generation {newer} took the place of {generation} before it was proven"
        ));
    }
    if node.accepted.is_none_or(|accepted| accepted < generation) {
        return Progress::Waiting(if node.online {
            format!("{generation} sent, not accepted yet")
        } else {
            format!("offline; {generation} waits for the link")
        });
    }
    let Some(status) = &node.status else {
        return Progress::Waiting(format!("{generation} accepted"));
    };
    // Rolled back is failed as well: what was asked for does not run. While it rolls back, the cause is known already, but not how it ends.
    let gave_up = matches!(status.generation.phase, Phase::Failed | Phase::RolledBack);
    if status.generation.accepted == Some(generation) && gave_up {
        return Progress::Failed(
            status
                .generation
                .cause
                .as_ref()
                .or(node.cause.as_ref())
                .map_or_else(|| format!("{generation} failed"), |cause| cause.message.clone()),
        );
    }
    let app = status
        .apps
        .iter()
        .find_map(|app| app.cause.as_ref().map(|cause| (&app.name, cause)));
    let why = match (&status.generation.cause, app) {
        (Some(cause), _) if status.generation.accepted == Some(generation) => format!(" ({})", cause.message),
        (_, Some((name, cause))) => format!(" ({name}: {})", cause.message),
        _ => String::new(),
    };
    Progress::Waiting(format!(
        "{generation} {}{why}",
        phase_words(status.generation.phase)
    ))
}

/// What the hub says where the node has this generation, and another document by it: it takes no second one, so there is nothing to wait for.
fn another_document(node: &NodeInfo, generation: Generation) -> Option<String> {
    let reported = node.status.as_ref()?.generation.accepted?;
    // What the node says of an earlier conflict is no word about this generation.
    if reported != generation || node.accepted == Some(generation) {
        return None;
    }
    let cause = node.cause.as_ref()?;
    (cause.code == shared::GENERATION_CONFLICT).then(|| cause.message.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(changes: &serde_json::Value) -> NodeInfo {
        let mut value = json!({
            "id": "shop-17", "labels": {}, "hardware": {}, "enrolledAt": "2026-01-01T00:00:00Z",
            "certificateExpiresAt": "2026-02-01T00:00:00Z", "online": true, "lastHeardAt": null, "release": "r",
            "wanted": "1.4", "proven": null, "accepted": null, "health": "unknown", "cause": null, "status": null,
        });
        for (key, change) in changes.as_object().unwrap() {
            value[key] = change.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_way_to_a_generation_is_told_step_by_step() {
        let generation = "1.4".parse().unwrap();
        let at = |changes| progress(&node(&changes), generation);
        let waits = |progress: Progress, word: &str| match progress {
            Progress::Waiting(what) => assert!(what.contains(word), "{what}"),
            other => panic!("{other:?}"),
        };
        waits(at(json!({})), "not accepted yet");
        waits(at(json!({ "online": false })), "waits for the link");
        waits(at(json!({ "accepted": "1.4" })), "accepted");
        assert_eq!(at(json!({ "proven": "1.4" })), Progress::Proven);
        assert_eq!(at(json!({ "proven": "1.5", "wanted": "1.5" })), Progress::Proven);
        assert!(matches!(
            at(json!({ "accepted": "1.9", "proven": "1.9" })),
            Progress::Failed(why) if why.contains("restored")
        ));
        assert!(matches!(
            at(json!({ "wanted": "1.5" })),
            Progress::Failed(why) if why.contains("1.5")
        ));
    }

    fn status(phase: &str, cause: &serde_json::Value) -> serde_json::Value {
        json!({
            "schema": "1.0", "node": "shop-17", "sequence": 1, "reportedAt": "2026-01-01T00:00:00Z", "clockTrusted": true,
            "agent": {"version": "", "bootId": "", "architecture": "", "operatingSystem": ""},
            "generation": {"accepted": "1.4", "acceptedDigest": null, "applied": null, "proven": null, "phase": phase, "cause": cause},
            "health": "degraded", "kubernetes": {"health": "healthy", "version": null, "restarts": 0, "cause": null},
            "apps": [], "conditions": [],
            "machine": {"hostname": "", "cpus": 1, "memoryBytes": 0, "diskBytes": 0, "diskFreeBytes": 0},
        })
    }

    #[test]
    fn what_holds_a_generation_up_is_said_while_it_is_waited_for() {
        let cause = json!({"code": "kind-unknown", "message": "the API server knows no Foo", "action": ""});
        let found = progress(
            &node(&json!({ "accepted": "1.4", "status": status("applying", &cause) })),
            "1.4".parse().unwrap(),
        );
        assert_eq!(
            found,
            Progress::Waiting("1.4 applying (the API server knows no Foo)".into())
        );
    }

    #[test]
    fn a_generation_that_the_node_has_with_other_content_ends_the_wait() {
        let generation = "1.4".parse().unwrap();
        let conflict =
            json!({"code": "generation-conflict", "message": "another document as 1.4", "action": ""});
        let mut said = json!({ "wanted": "1.4", "accepted": null, "cause": conflict, "status": status("committed", &json!(null)) });
        assert_eq!(
            progress(&node(&said), generation),
            Progress::Failed("another document as 1.4".into())
        );
        // The node still tells of a conflict in the generation before.
        said["status"]["generation"]["accepted"] = json!("1.3");
        assert!(matches!(progress(&node(&said), generation), Progress::Waiting(_)));
    }

    #[test]
    fn a_failed_generation_ends_the_wait_with_its_cause() {
        let cause = json!({"code": "apply-refused", "message": "the API server refused it", "action": ""});
        let status = status("failed", &cause);
        let found = progress(
            &node(&json!({ "accepted": "1.4", "status": status })),
            "1.4".parse().unwrap(),
        );
        assert_eq!(found, Progress::Failed("the API server refused it".into()));
    }
}
