//! `holdfast plan [FILE|DIR]`: what would change, by the newest document, by any document, or by a release directory.
//!
//! In: nothing, a document in JSON (signed or not), or a release directory. Out: the plan. Where a daemon runs, it answers: against its
//! Kubernetes, with what the API server would refuse. Where none runs, the box's own store is compared with. Where there is no box at
//! all, the plan is that of an empty one. Nothing is changed in any of these cases, and no value of a Secret is shown.

use super::{Common, Exit, query::Done, query::show, render};
use crate::{
    codes,
    foresee::{Basis, Foresight, compare},
    local_api::{
        client::{LocalError, ask},
        view::LocalStatus,
    },
};
use clap::Args;
use holdfast_core::object::{PrepareError, Scopes, prepare_document};
use holdfast_protocol::{
    Digest, NodeId, Problem, codes as shared,
    document::{BlobRef, DesiredState, ManifestSource},
    envelope::Envelope,
    report::OsStatus,
};
use holdfast_release::directory::{Options, document as document_of, load};
use holdfast_store::{Blobs, Options as StoreOptions, StateLock, Store};
use http::Method;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

/// What is planned.
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// A document in JSON, signed or not, or a release directory; the newest document of this box where absent
    #[arg(value_name = "FILE|DIR")]
    pub path: Option<PathBuf>,
    /// Name of the node that a release directory is rendered for
    #[arg(long, value_name = "NAME", requires = "path")]
    pub node: Option<NodeId>,
    /// A label of the node that a release directory is rendered for; can be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", requires = "path", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Command that renders kustomizations, to which the directory is added: 'k3s kubectl kustomize'
    #[arg(long, value_name = "COMMAND", requires = "path", env = "HOLDFAST_KUSTOMIZE")]
    pub kustomize: Option<String>,
    /// Let kustomize read what is not on this machine
    #[arg(long, requires = "path")]
    pub allow_remote: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is no label: write KEY=VALUE"))
}

/// Carries the command out.
pub(super) async fn run(arguments: PlanArguments, common: &Common) -> Done {
    let Some(path) = &arguments.path else {
        return super::query::plan(common).await;
    };
    let document = read(path, &arguments)?;
    let settings = common.settings()?;
    let body = serde_json::to_vec(&document)
        .map_err(|error| Problem::new(shared::INTERNAL, error.to_string(), ""))?;
    let mut foresight: Foresight = match ask(&settings.socket, Method::POST, "/v1/plan", body).await {
        Ok(answer) => serde_json::from_slice(&answer).map_err(|error| {
            Problem::new(
                shared::INTERNAL,
                format!("the daemon's answer cannot be read: {error}"),
                "use the command of the same version as the daemon",
            )
        })?,
        Err(LocalError::Unreachable { source, .. }) if nobody(&source) => {
            offline(&document, &settings.state_dir)?
        }
        Err(LocalError::Refused(problem)) if problem.code == codes::NOT_ENROLLED => {
            offline(&document, Path::new(""))?
        }
        Err(error) => return Err(Problem::from(&error)),
    };
    if let Some(wanted) = &document.os {
        let status = ask(&settings.socket, Method::GET, "/v1/status", Vec::new()).await;
        let status = status
            .ok()
            .and_then(|status| serde_json::from_slice(&status).ok());
        let os = status.and_then(|status: LocalStatus| status.report?.os);
        foresight.notes.insert(0, os_note(&wanted.version, os.as_ref()));
    }
    show(common.output, &foresight, text)?;
    Ok(if foresight.refused.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// What becomes of the operating system.
fn os_note(wanted: &str, os: Option<&OsStatus>) -> String {
    let Some(os) = os else {
        return format!("the operating system is to be {wanted}; nobody here says which one runs");
    };
    let running = &os.version;
    let what = if running == wanted {
        format!("the operating system stays {wanted}")
    } else if os.bad.iter().any(|bad| bad == wanted) {
        format!(
            "the operating system stays {running}: {wanted} did not come up on this box, and is refused unless its image is another one"
        )
    } else if os.other.as_deref() == Some(wanted) {
        format!(
            "the operating system goes from {running} to {wanted}, which is in the other slot: the box restarts into it"
        )
    } else {
        format!(
            "the operating system goes from {running} to {wanted}: it is written beside the one that runs, and the box restarts into it"
        )
    };
    format!("{what} (now {})", render::os_slots(os))
}

fn nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// The document that a path holds, with all content in it that is at hand.
fn read(path: &Path, arguments: &PlanArguments) -> Result<DesiredState, Problem> {
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    if path.is_file() && is_json {
        let unreadable = |error: &dyn std::fmt::Display| {
            Problem::new(
                shared::BAD_REQUEST,
                format!("{} is no document: {error}", path.display()),
                "give a document in JSON, signed or not, or a release directory",
            )
        };
        let bytes = fs::read(path).map_err(|error| unreadable(&error))?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?;
        if value.get("payload").is_some() {
            // For looking at: nothing that is shown here takes effect, so the signatures are left to admission.
            let envelope = Envelope::from_json(&bytes).map_err(|error| unreadable(&error))?;
            let document = serde_json::from_slice(&envelope.payload).map_err(|error| unreadable(&error))?;
            return checked(document, path);
        }
        if value.get("kind").is_none() {
            let document = serde_json::from_value(value).map_err(|error| unreadable(&error))?;
            return checked(document, path);
        }
    }
    let options = Options {
        kustomize: arguments.kustomize.clone(),
        allow_remote: arguments.allow_remote,
        os_keys: None,
    };
    let release = load(path, &options)?;
    let node = match &arguments.node {
        Some(node) => node.clone(),
        None => "node"
            .parse()
            .map_err(|error| Problem::new(shared::INTERNAL, format!("{error}"), ""))?,
    };
    let labels = arguments.labels.iter().cloned().collect();
    let rendered = release.render(&node, &labels)?;
    let mut document = document_of(node, rendered.content);
    for source in document.apps.iter_mut().flat_map(|app| &mut app.manifests) {
        if let ManifestSource::Blob(blob) = source
            && let Some(objects) = rendered.blobs.get(&blob.digest)
        {
            *source = ManifestSource::Inline(objects.clone());
        }
    }
    Ok(document)
}

/// Holds a document that nobody checked yet against the rules.
fn checked(document: DesiredState, path: &Path) -> Result<DesiredState, Problem> {
    match document.validate() {
        Ok(()) => Ok(document),
        Err(error) => Err(Problem::new(
            shared::BAD_REQUEST,
            format!("{}: {error}", path.display()),
            "correct the document at this place",
        )),
    }
}

/// The plan without a daemon: against the store of the box, where there is one.
fn offline(document: &DesiredState, state_dir: &Path) -> Result<Foresight, Problem> {
    let has_store = !state_dir.as_os_str().is_empty() && state_dir.join("store").is_dir();
    let (inventory, blobs) = if has_store {
        // A daemon at another socket must not be disturbed.
        let _lock = StateLock::acquire(state_dir).map_err(|error| error.problem())?;
        let store = Store::open(state_dir, StoreOptions::default()).map_err(|error| error.problem())?;
        let blobs = Blobs::open(state_dir).map_err(|error| error.problem())?;
        (store.inventory().map_err(|error| error.problem())?, Some(blobs))
    } else {
        (Vec::new(), None)
    };
    let mut missing: BTreeMap<Digest, u64> = BTreeMap::new();
    let read = |blob: &BlobRef| -> Result<Vec<u8>, Problem> {
        if let Some(bytes) = blobs.as_ref().and_then(|blobs| blobs.read(blob.digest).ok()) {
            return Ok(bytes);
        }
        missing.insert(blob.digest, blob.size);
        Ok(b"[]".to_vec())
    };
    let prepared = prepare_document(document, &Scopes::default(), read).map_err(|error| match error {
        PrepareError::Blob(problem) | PrepareError::Refused(problem) => problem,
    })?;
    let basis = if has_store {
        Basis::Inventory
    } else {
        Basis::Nothing
    };
    let mut foresight = compare(document, &prepared, &inventory, basis);
    for (digest, size) in missing {
        foresight.notes.push(format!(
            "the {size} bytes of blob {digest} are not on this machine, and are left out"
        ));
    }
    Ok(foresight)
}

fn text(foresight: &Foresight) -> String {
    let mut text = match foresight.basis {
        Basis::Cluster => "compared with Kubernetes\n".to_owned(),
        Basis::Inventory => "compared with what was applied before; Kubernetes was not asked\n".to_owned(),
        Basis::Nothing => "there is no box here: what an empty one would get\n".to_owned(),
    };
    text.push_str(&render::plan(&foresight.plan));
    for refusal in &foresight.refused {
        let problem = &refusal.problem;
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            text,
            "would be refused: {} ({}) [{}]",
            render::printable(&problem.message),
            refusal.object.app,
            problem.code
        );
    }
    for note in &foresight.notes {
        let _ = writeln!(text, "note: {}", render::printable(note));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_operating_system_is_part_of_the_plan() {
        let os = |other: &str, bad: &str| OsStatus {
            version: "1".into(),
            slot: "a".into(),
            good: true,
            other: Some(other.into()),
            bad: vec![bad.into()],
        };
        let note = |wanted: &str| os_note(wanted, Some(&os("2", "3")));
        assert!(note("1").contains("stays 1 (now version 1 from slot a, good; version 2 in the other slot"));
        assert!(note("2").contains("from 1 to 2, which is in the other slot"));
        assert!(note("3").contains("stays 1: 3 did not come up on this box"));
        assert!(note("4").contains("from 1 to 4: it is written"));
        assert!(note("4").contains("not tried again: 3"));
        assert!(os_note("2", None).contains("is to be 2"));
    }
}
