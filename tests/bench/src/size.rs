//! Sizes of the node as it is shipped.

use crate::figures::Figures;
use anyhow::{Context as _, Result};
use std::{fs, path::Path};

/// Most bytes of one binary.
const LIMIT: f64 = 10_000_000.0;

/// Measures both targets below `cross`.
pub fn measure(cross: &Path, figures: &mut Figures) -> Result<()> {
    for (name, target) in [
        ("node.binary_bytes.x86_64", "x86_64-unknown-linux-musl"),
        ("node.binary_bytes.aarch64", "aarch64-unknown-linux-musl"),
    ] {
        let path = cross.join(target).join("holdfast");
        let size = fs::metadata(&path)
            .with_context(|| format!("{}: run `cargo xtask cross` first", path.display()))?
            .len();
        figures.add(
            name,
            size as f64,
            "bytes",
            Some(LIMIT),
            "size of the static, stripped file",
        );
    }
    Ok(())
}
