//! Looks at everything that can be wrong with a box, and says what to do about it.
//!
//! Works with and without a daemon, enrolled or not. Changes nothing. A box without a link is not sick: what only costs the link is
//! a warning; what can stop or endanger the box itself, or what someone must look at, is a failure.

mod daemon;
mod kubernetes;
mod local;
mod network;

use crate::{
    identity::{Identity, clock::TimeFloor},
    settings::{Settings, SettingsError},
};
use holdfast_protocol::Problem;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// The longest that a single question to another machine or process may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Outcome of a check, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Worth a look; nothing that runs is in danger.
    Warn,
    /// Someone must act.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Stable name of the check.
    pub name: String,
    /// Its outcome.
    pub outcome: Outcome,
    /// What was found, in one line.
    pub message: String,
    /// Code of the problem, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What to do, in one line; empty where nothing is to be done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub action: String,
}

impl Check {
    fn ok(name: &str, message: impl Into<String>) -> Self {
        Self::new(name, Outcome::Ok, message, "")
    }

    fn warn(name: &str, message: impl Into<String>, action: impl Into<String>) -> Self {
        Self::new(name, Outcome::Warn, message, action)
    }

    fn fail(name: &str, message: impl Into<String>, action: impl Into<String>) -> Self {
        Self::new(name, Outcome::Fail, message, action)
    }

    fn new(name: &str, outcome: Outcome, message: impl Into<String>, action: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            outcome,
            message: message.into(),
            code: None,
            action: action.into(),
        }
    }

    fn problem(name: &str, outcome: Outcome, problem: &Problem) -> Self {
        Self {
            code: Some(problem.code.to_string()),
            ..Self::new(name, outcome, &*problem.message, &*problem.action)
        }
    }
}

/// All checks of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Examination {
    /// The worst outcome.
    pub outcome: Outcome,
    /// The checks, in the order in which a person reads them.
    pub checks: Vec<Check>,
}

impl From<Vec<Check>> for Examination {
    fn from(checks: Vec<Check>) -> Self {
        let outcome = checks
            .iter()
            .map(|check| check.outcome)
            .max()
            .unwrap_or(Outcome::Ok);
        Self { outcome, checks }
    }
}

/// Examines the box. Settings that cannot be read are the first finding; the rest is looked at with the defaults then.
pub async fn examine(settings: &Result<Settings, SettingsError>) -> Examination {
    let defaults = Settings::default();
    let mut checks = vec![match settings {
        Ok(_) => Check::ok("settings", "readable, with known keys only"),
        Err(error) => Check::problem("settings", Outcome::Fail, &error.into()),
    }];
    let settings = settings.as_ref().unwrap_or(&defaults);
    checks.push(local::state_directory(settings));
    checks.extend(local::reset(settings));
    checks.extend(local::boot_record(settings));
    checks.push(local::disk(settings));

    let floor = TimeFloor::open(&settings.identity_dir()).ok().map(Arc::new);
    checks.push(local::clock(floor.as_deref()));
    let identity = Identity::load(&settings.identity_dir());
    checks.push(local::identity(&identity));
    if let (Ok(Some(identity)), Some(floor)) = (&identity, &floor) {
        checks.push(local::certificate(identity, floor));
        let (hub, brokers) = futures::join!(network::hub(identity), network::brokers(identity));
        checks.push(hub);
        checks.extend(brokers);
    }
    checks.extend(daemon::daemon(&settings.socket).await);
    checks.push(kubernetes::program(settings).await);
    checks.push(kubernetes::api(settings).await);
    checks.into()
}
