//! Commands that only look.

use super::{Common, Exit, Output, complain, exit::say, render, render_boots};
use crate::{
    boots::BootLog,
    doctor::{self, Outcome},
    local_api::{client::ask, view::LocalStatus},
};
use holdfast_core::plan::Plan;
use holdfast_protocol::{Problem, SchemaVersion, codes as shared};
use holdfast_store::HistoryEntry;
use http::Method;
use serde::{Serialize, de::DeserializeOwned};
use std::env::consts::ARCH;

pub(super) type Done = Result<Exit, Problem>;

async fn get<T: DeserializeOwned>(common: &Common, path: &str) -> Result<T, Problem> {
    exchange(common, Method::GET, path, Vec::new()).await
}

/// Asks the daemon to do something.
pub(super) async fn post<T: DeserializeOwned>(
    common: &Common,
    path: &str,
    order: &impl Serialize,
) -> Result<T, Problem> {
    let body =
        serde_json::to_vec(order).map_err(|error| Problem::new(shared::INTERNAL, error.to_string(), ""))?;
    exchange(common, Method::POST, path, body).await
}

async fn exchange<T: DeserializeOwned>(
    common: &Common,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<T, Problem> {
    let body = ask(&common.settings()?.socket, method, path, body)
        .await
        .map_err(|error| Problem::from(&error))?;
    serde_json::from_slice(&body).map_err(|error| {
        Problem::new(
            shared::INTERNAL,
            format!("the daemon's answer cannot be read: {error}"),
            "use the command of the same version as the daemon",
        )
    })
}

/// Shows `value` in the wanted form.
pub(super) fn show<T: Serialize>(
    output: Output,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), Problem> {
    match output {
        Output::Text => say(&text(value)),
        Output::Json => {
            let json = serde_json::to_string_pretty(value)
                .map_err(|error| Problem::new(shared::INTERNAL, error.to_string(), ""))?;
            say(&format!("{json}\n"))
        }
    }
}

pub(super) async fn status(common: &Common) -> Done {
    let status: LocalStatus = get(common, "/v1/status").await?;
    show(common.output, &status, render::status)?;
    Ok(if status.enrolled {
        Exit::Done
    } else {
        Exit::NotEnrolled
    })
}

pub(super) async fn plan(common: &Common) -> Done {
    let plan: Plan = get(common, "/v1/plan").await?;
    show(common.output, &plan, render::plan)?;
    Ok(Exit::Done)
}

pub(super) async fn history(common: &Common) -> Done {
    let entries: Vec<HistoryEntry> = get(common, "/v1/history").await?;
    show(common.output, &render::past(entries), |entries| {
        render::history(entries)
    })?;
    Ok(Exit::Done)
}

/// The starts of the machine, from the record itself: it is read where no daemon comes up, too.
pub(super) fn boots(common: &Common) -> Done {
    let (mut boots, problem) = BootLog::new(&common.settings()?.state_dir).examine();
    boots.reverse();
    match problem {
        Some(problem) if boots.is_empty() => return Err(problem),
        Some(problem) => drop(complain(&problem, common.output)),
        None => {}
    }
    show(common.output, &boots, |boots| render_boots::boots(boots))?;
    Ok(Exit::Done)
}

pub(super) async fn doctor(common: &Common) -> Done {
    let examination = doctor::examine(&common.sources().load()).await;
    show(common.output, &examination, render::examination)?;
    Ok(if examination.outcome == Outcome::Fail {
        Exit::Failed
    } else {
        Exit::Done
    })
}

/// Answer of `holdfast version`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    #[serde(rename = "version")]
    holdfast: &'static str,
    /// Commit of the source, where the build knew it.
    commit: Option<&'static str>,
    target: String,
    schema: SchemaVersion,
}

pub(super) fn version(output: Output) -> Done {
    let version = Version {
        holdfast: env!("CARGO_PKG_VERSION"),
        commit: option_env!("HOLDFAST_COMMIT"),
        target: format!(
            "{ARCH}-unknown-linux-{}",
            if cfg!(target_env = "musl") { "musl" } else { "gnu" }
        ),
        schema: SchemaVersion::CURRENT,
    };
    show(output, &version, |version| {
        let commit = version
            .commit
            .map(|commit| format!(", commit {commit}"))
            .unwrap_or_default();
        format!(
            "holdfast {}{commit}, {}, schema {}\n",
            version.holdfast, version.target, version.schema
        )
    })?;
    Ok(Exit::Done)
}
