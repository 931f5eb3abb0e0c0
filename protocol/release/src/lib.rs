//! What an operator writes, and what becomes of it.
//!
//! - [`directory`]: a directory of manifests, charts and settings becomes the content of a release.
//! - [`os`]: images of the operating system become part of a release.
//! - [`variables`] and [`template`]: values that differ between nodes are declared, given, checked and filled in.
//! - [`render`]: the content of a release becomes that of one node.
//! - [`seed`]: a release becomes part of an image.
//! - [`selector`]: which nodes are meant.
//!
//! Used by the command line that makes releases, by the hub that renders them, and by `holdfast plan`: all three say the same.

pub mod codes;
pub mod directory;
pub mod os;
pub mod render;
pub mod seed;
pub mod selector;
pub mod template;
pub mod variables;

use holdfast_protocol::Problem;

/// What fails here fails with a problem that names the place and what to do.
pub type Result<T> = std::result::Result<T, Problem>;

/// The nearest of some known names, for a mistyped one.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, known)| *distance <= 1.max(known.len() / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}
