//! What an update is made of: the chunks of an image in a pack, and the manifest that names them, signed by the builder.
//!
//! In: the slot, the hash tree and the kernel image as they lie in the output directory. Out, beside them: `.pack` and `.manifest.json`, which
//! `holdfastctl os push` and `os` of a release take. The same image and key give the same bytes.

use super::{Architecture, keys::Keys};
use crate::files;
use anyhow::{Context as _, Result};
use holdfast_os::{Files, pack, sign};
use std::path::Path;

/// The parts of an image.
pub struct Parts<'a> {
    pub version: &'a str,
    pub architecture: Architecture,
    pub usr_hash: &'a str,
    pub usr: &'a Path,
    pub verity: &'a Path,
    pub kernel_image: &'a Path,
}

/// Writes pack and manifest to `output`, named `name`.
pub fn write(parts: &Parts<'_>, output: &Path, name: &str, keys: &Keys) -> Result<()> {
    let architecture = match parts.architecture {
        Architecture::X86_64 => holdfast_os::Architecture::Amd64,
        Architecture::Aarch64 => holdfast_os::Architecture::Arm64,
    };
    let files = Files {
        version: parts.version,
        architecture,
        usr_hash: parts.usr_hash,
        usr: parts.usr,
        verity: parts.verity,
        uki: parts.kernel_image,
    };
    let manifest =
        pack(&files, &output.join(format!("{name}.pack"))).context("cannot make the pack of the update")?;
    let signed = sign(&manifest, &[&keys.signer()?]).context("cannot sign the manifest of the update")?;
    files::replace(output.join(format!("{name}.manifest.json")), signed)
}
