//! Dependencies point one way, and each has a reason on record.

use crate::{files, shell};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const RECORD: &str = "docs/decisions/0002-dependencies.md";

/// The crates of the product and the crates of the workspace each may depend on in its normal build.
const ALLOWED: &[(&str, &[&str])] = &[
    ("holdfast-protocol", &[]),
    ("holdfast-release", &["holdfast-protocol", "holdfast-os"]),
    ("holdfast-os", &["holdfast-protocol"]),
    ("holdfast-core", &["holdfast-protocol"]),
    ("holdfast-memory", &[]),
    ("holdfast-store", &["holdfast-protocol", "holdfast-core"]),
    (
        "holdfast",
        &[
            "holdfast-protocol",
            "holdfast-release",
            "holdfast-os",
            "holdfast-core",
            "holdfast-store",
            "holdfast-memory",
        ],
    ),
    (
        "holdfast-hub",
        &["holdfast-protocol", "holdfast-release", "holdfast-os"],
    ),
    (
        "holdfastctl",
        &["holdfast-protocol", "holdfast-release", "holdfast-os"],
    ),
];

/// What the core may not depend on, directly or not: it decides, and does nothing.
const NOT_IN_CORE: &[&str] = &["tokio", "rusqlite", "reqwest", "hyper", "kube", "rumqttc", "mio"];

/// `cargo metadata` of the workspace with all dependencies resolved.
pub fn metadata() -> Result<Value> {
    let text = shell::output(shell::cargo().args(["metadata", "--locked", "--format-version", "1"]))?;
    serde_json::from_str(&text).context("the output of `cargo metadata`")
}

/// Every dependency of a product crate that its place in the order does not allow.
pub fn direction_faults(metadata: &Value) -> Vec<String> {
    let crates = workspace_crates(metadata);
    let mut faults = Vec::new();
    for (name, allowed) in ALLOWED {
        let Some(package) = crates.get(name) else {
            faults.push(format!("the workspace has no crate {name}"));
            continue;
        };
        for dependency in normal_dependencies(package) {
            if crates.contains_key(dependency) && !allowed.contains(&dependency) {
                faults.push(format!(
                    "{name} depends on {dependency}; it may only depend on {allowed:?}"
                ));
            }
        }
    }
    let reachable = reachable_from(metadata, "holdfast-core");
    for banned in NOT_IN_CORE {
        if reachable.contains(*banned) {
            faults.push(format!(
                "holdfast-core pulls in {banned}; it must stay free of input and output"
            ));
        }
    }
    faults
}

/// Every outside dependency of the workspace that the record does not name, and the reverse.
pub fn record_faults(metadata: &Value) -> Result<Vec<String>> {
    let crates = workspace_crates(metadata);
    let used: BTreeSet<&str> = crates
        .values()
        .flat_map(|package| package["dependencies"].as_array().into_iter().flatten())
        .filter_map(|dependency| dependency["name"].as_str())
        .filter(|name| !crates.contains_key(name))
        .collect();
    let record = files::read(RECORD)?;
    // A table's row begins with the crate's name: | `name` | reason |
    let recorded: BTreeSet<&str> = record
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let missing = used
        .difference(&recorded)
        .map(|name| format!("{RECORD} gives no reason for the dependency {name}"));
    let stale = recorded
        .difference(&used)
        .map(|name| format!("{RECORD} names {name}, which nothing depends on"));
    Ok(missing.chain(stale).collect())
}

fn workspace_crates(metadata: &Value) -> BTreeMap<&str, &Value> {
    let members: BTreeSet<&str> = metadata["workspace_members"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    packages(metadata)
        .filter(|package| package["id"].as_str().is_some_and(|id| members.contains(id)))
        .filter_map(|package| Some((package["name"].as_str()?, package)))
        .collect()
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

/// Names of what a package needs to run, without what only its tests or build scripts need.
fn normal_dependencies(package: &Value) -> impl Iterator<Item = &str> {
    package["dependencies"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|dependency| dependency["kind"].is_null())
        .filter_map(|dependency| dependency["name"].as_str())
}

/// Names of all packages that the crate needs to run, however far down.
fn reachable_from<'a>(metadata: &'a Value, name: &str) -> BTreeSet<&'a str> {
    let names: BTreeMap<&str, &str> = packages(metadata)
        .filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?)))
        .collect();
    let edges: BTreeMap<&str, Vec<&str>> = metadata["resolve"]["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|node| Some((node["id"].as_str()?, normal_edges(node))))
        .collect();
    let mut waiting: Vec<&str> = names
        .iter()
        .filter(|(_, package)| **package == name)
        .map(|(id, _)| *id)
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if seen.insert(id) {
            waiting.extend(edges.get(id).into_iter().flatten());
        }
    }
    seen.into_iter().filter_map(|id| names.get(id).copied()).collect()
}

fn normal_edges(node: &Value) -> Vec<&str> {
    let is_normal = |edge: &&Value| {
        edge["dep_kinds"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|kind| kind["kind"].is_null())
    };
    node["deps"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(is_normal)
        .filter_map(|edge| edge["pkg"].as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn crate_dependencies_point_one_way() {
        assert_eq!(direction_faults(&metadata().unwrap()), Vec::<String>::new());
    }

    #[test]
    fn every_dependency_has_its_reason_on_record() {
        assert_eq!(record_faults(&metadata().unwrap()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_dependency_against_the_direction_is_a_fault() {
        let mut metadata = metadata().unwrap();
        let protocol = metadata["packages"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .find(|package| package["name"] == "holdfast-protocol")
            .unwrap();
        let wrong = json!({"name": "holdfast-store", "kind": null});
        protocol["dependencies"].as_array_mut().unwrap().push(wrong);
        let faults = direction_faults(&metadata);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with("holdfast-protocol depends on holdfast-store"));
    }

    #[test]
    fn a_dependency_that_does_input_and_output_is_found_however_far_down() {
        let reachable = metadata().unwrap();
        assert!(reachable_from(&reachable, "holdfast").contains("mio"));
    }
}
