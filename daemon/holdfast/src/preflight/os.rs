//! Whether the operating system of a document can be had on this box.
//!
//! In: what the document wants. Out: a refusal, before anything was touched.

use crate::{codes, reconcile::system::System};
use holdfast_core::{failure::Failure, reconcile::DocumentRef};
use holdfast_protocol::Problem;

/// Refuses what cannot be had: by a box whose system is no image, or one that was tried and did not come up, or whose slots, ESP or signers do not fit.
///
/// # Errors
/// The first reason.
pub(super) async fn check(system: Option<&System>, document: &DocumentRef) -> Result<(), Failure> {
    match system {
        Some(system) => system.check(document).await,
        None if document.os.is_some() => Err(Failure::of_document(not_managed(document), false)),
        None => Ok(()),
    }
}

/// The refusal of a box whose operating system is not an image of Holdfast.
pub fn not_managed(document: &DocumentRef) -> Problem {
    let version = document.os.as_ref().map_or("", |os| os.version.as_str());
    Problem::new(
        codes::OS_NOT_MANAGED,
        format!(
            "document {} wants version {version} of the operating system, but this box runs one that is not Holdfast's",
            document.generation
        ),
        "leave `os` out of what this box gets, or install the appliance image on it",
    )
}
