//! The process is killed at random moments, over and over, while good and bad documents come: nothing is lost, nothing gets stuck, nothing
//! is done or told twice.
//!
//! `HOLDFAST_KILLS` is the number of kills, 40 by default; `HOLDFAST_KILLS_SEED` repeats a run (`cargo xtask test --kills … --seed …`).

// Fixtures may be written plainly, and a test may end by its panic.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine_support;

use anyhow::{Context as _, Result, ensure};
use engine_support::{
    PATIENCE, app, broker::Hub, config_map, daemon::Daemon, deployment, namespace, node::Node,
};
use holdfast_harness::wait;
use holdfast_protocol::{
    Generation,
    event::{Event, EventKind},
};
use holdfast_store::{Blobs, Options, Store};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// Nodes that are killed at the same time.
const NODES: u64 = 4;

/// A small generator (splitmix64): a run can be repeated by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// One node, and what must be true of it.
struct Trial<'a> {
    node: &'a Node,
    hub: &'a Hub,
    random: Random,
    /// The newest document that was left for it, and whether it is good.
    newest: (u64, bool),
    /// The newest good one before it that was seen good.
    proven: u64,
    /// What was told of each document so far.
    told: BTreeSet<String>,
    last_sequence: u64,
    /// The version of the object that no document changes.
    kept: Option<Value>,
}

impl Trial<'_> {
    fn document(&mut self, counter: u64, good: bool) -> Result<Value> {
        let name = &self.node.name;
        let blob = serde_json::to_vec(&[config_map(&format!("only-{counter}"), "1")])?;
        let digest = Blobs::open(&self.node.settings.state_dir)?.put(&blob)?;
        let mut objects = vec![
            namespace(name),
            config_map("kept", "1"),
            config_map("changing", &counter.to_string()),
        ];
        if !good {
            objects.push(deployment("broken", "registry.invalid/web:1"));
        }
        let mut document = self.node.document(counter, &[app("web", name, &objects)]);
        let manifests = document["apps"][0]["manifests"]
            .as_array_mut()
            .context("manifests")?;
        manifests.push(json!({"blob": {"digest": digest, "size": blob.len()}}));
        document["k3s"] = json!({"config": {"v": self.random.below(3)}});
        document["policy"] = json!({"readyDeadlineSeconds": if good { 600 } else { 1 }});
        Ok(document)
    }

    fn leave_document(&mut self) -> Result<()> {
        let counter = self.newest.0 + 1;
        // The first is good, so that there is something to go back to.
        let good = counter == 1 || self.random.below(3) > 0;
        let document = self.document(counter, good)?;
        self.node.leave_document(self.hub, &document)?;
        self.newest = (counter, good);
        Ok(())
    }

    /// Runs it for a random time and kills it; sometimes it is given the time to come to rest first.
    async fn kill(&mut self, rest: bool) -> Result<()> {
        let daemon = Daemon::of(self.node);
        let mut process = daemon.start(None)?;
        if rest {
            self.come_to_rest(&daemon).await?;
        } else {
            let longest = if self.random.below(10) < 7 { 400 } else { 3_000 };
            let moment = Duration::from_millis(self.random.below(longest));
            tokio::time::sleep(moment).await;
        }
        process.kill().await?;
        self.check_store(rest)?;
        if rest {
            self.check_cluster().await?;
        }
        Ok(())
    }

    async fn come_to_rest(&mut self, daemon: &Daemon<'_>) -> Result<()> {
        let (counter, good) = self.newest;
        let accepted = format!("1.{counter}");
        let phase = if good { "committed" } else { "rolled-back" };
        wait::until(&format!("{accepted} is {phase}"), PATIENCE, async || {
            let seen = daemon.generation().await?;
            if seen["accepted"] == accepted && seen["phase"] == phase {
                return Ok(Some(()));
            }
            anyhow::bail!("{seen}")
        })
        .await?;
        if good {
            self.proven = counter;
        }
        Ok(())
    }

    /// What is on the disk after a kill.
    fn check_store(&mut self, rested: bool) -> Result<()> {
        let store = Store::open(&self.node.settings.state_dir, Options::default())?;
        let recovered = store.recover()?;
        let newest = recovered
            .newest
            .as_ref()
            .map_or(0, |newest| newest.generation.counter);
        let is_left = self
            .node
            .settings
            .identity_dir()
            .join("first-desired.json")
            .exists();
        ensure!(
            newest == self.newest.0 || is_left,
            "1.{} is lost: the newest is 1.{newest}",
            self.newest.0
        );
        if recovered
            .proven
            .is_some_and(|proven| proven.counter > self.proven)
        {
            self.proven = recovered.proven.map_or(0, |proven| proven.counter);
        }
        // Something good is always there to go back to, once there was something good.
        ensure!(
            self.proven == 0
                || newest == self.proven
                || recovered.fallback.as_ref().map(|fallback| fallback.generation)
                    == Some(Generation {
                        epoch: 1,
                        counter: self.proven
                    }),
            "1.{} was good, but the fallback is {:?}",
            self.proven,
            recovered.fallback.map(|fallback| fallback.generation)
        );
        let mut seen = Vec::new();
        for row in store.pending_events(10_000)? {
            ensure!(
                row.sequence == self.last_sequence + 1,
                "event {} follows {}",
                row.sequence,
                self.last_sequence
            );
            self.last_sequence = row.sequence;
            seen.push(row.sequence);
            let event: Event = serde_json::from_slice(&row.payload)?;
            let once = matches!(
                event.kind,
                EventKind::DocumentAccepted
                    | EventKind::DocumentProven
                    | EventKind::DocumentFailed
                    | EventKind::DocumentRolledBack
            );
            if once {
                let key = format!("{:?} {}", event.kind, event.generation.context("a generation")?);
                ensure!(self.told.insert(key.clone()), "{key} was told twice");
            }
        }
        store.acknowledge_events(&seen)?;
        if rested {
            let (counter, good) = self.newest;
            let expected: &[&str] = if good {
                &["DocumentAccepted", "DocumentProven"]
            } else {
                &["DocumentAccepted", "DocumentFailed", "DocumentRolledBack"]
            };
            for kind in expected {
                let key = format!("{kind} 1.{counter}");
                ensure!(self.told.contains(&key), "{key} was never told");
            }
        }
        Ok(())
    }

    /// What is in the cluster when all is at rest: the running document, and nothing else.
    async fn check_cluster(&mut self) -> Result<()> {
        let text = self
            .node
            .kubectl
            .run(&[
                "-n",
                &self.node.name,
                "get",
                "configmaps,deployments",
                "-o",
                "json",
            ])
            .await?;
        let list: Value = serde_json::from_str(&text)?;
        let mut found: BTreeMap<String, Value> = BTreeMap::new();
        for item in list["items"].as_array().context("items")? {
            let name = item["metadata"]["name"].as_str().context("a name")?;
            if name != "kube-root-ca.crt" && item["metadata"]["deletionTimestamp"].is_null() {
                found.insert(name.to_owned(), item.clone());
            }
        }
        let running = self.proven;
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        let own = format!("only-{running}");
        ensure!(
            names == ["changing", "kept", own.as_str()],
            "1.{running} runs, but there are {names:?}"
        );
        ensure!(
            found["changing"]["data"]["key"].as_str() == Some(running.to_string().as_str()),
            "1.{running} runs, but an object is of {}",
            found["changing"]["data"]["key"]
        );
        let version = found["kept"]["metadata"]["resourceVersion"].clone();
        let before = self.kept.get_or_insert_with(|| version.clone());
        ensure!(
            *before == version,
            "the object that never changes was written again"
        );
        Ok(())
    }
}

async fn survives(hub: &Hub, name: &str, kills: u64, seed: u64) -> Result<()> {
    let node = Node::enrolled(hub, name).await?;
    let mut trial = Trial {
        node: &node,
        hub,
        random: Random(seed),
        newest: (0, true),
        proven: 0,
        told: BTreeSet::new(),
        last_sequence: 0,
        kept: None,
    };
    trial.leave_document()?;
    trial.kill(true).await.context("the first document")?;
    for number in 1..kills {
        // A document is left only when the one before was taken: its file would be replaced.
        let is_left = node.settings.identity_dir().join("first-desired.json").exists();
        if !is_left && trial.random.below(3) > 0 {
            trial.leave_document()?;
        }
        let rest = number + 1 == kills || trial.random.below(12) == 0;
        trial
            .kill(rest)
            .await
            .with_context(|| format!("{name}, seed {seed}, kill {number}, document {:?}", trial.newest))?;
    }
    Ok(())
}

#[tokio::test]
async fn pain_20_random_kills_lose_nothing_block_nothing_and_do_nothing_twice() -> Result<()> {
    let hub = Hub::start().await?;
    let kills = number("HOLDFAST_KILLS").unwrap_or(40).max(NODES);
    let seed = number("HOLDFAST_KILLS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let begun = Instant::now();
    let trials = (0..NODES).map(|index| {
        let hub = &hub;
        async move { survives(hub, &format!("kills-{index}"), kills / NODES, seed + index).await }
    });
    for result in futures::future::join_all(trials).await {
        result?;
    }
    eprintln!("{kills} kills in {} s, seed {seed}", begun.elapsed().as_secs());
    Ok(())
}
