//! The image of a box: how large it is, how long it takes to build, whether a second build is the same.
//!
//! In: the output directory of `cargo xtask image --check-reproducible`. Guarantees: an image that was not compared or not compressed is an error and no
//! figure.

use crate::figures::Figures;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Most bytes of the compressed image, without k3s.
const COMPRESSED: f64 = 200_000_000.0;

/// An image as its build left it.
pub struct Built {
    pub directory: PathBuf,
    described: Value,
}

impl Built {
    /// The image in the output directory of a build.
    pub fn read(directory: &Path) -> Result<Self> {
        Ok(Self {
            described: json(&directory.join("image.json"))?,
            directory: directory.to_owned(),
        })
    }

    /// A text of what the build says of the image.
    pub fn text(&self, pointer: &str) -> Result<&str> {
        self.described
            .pointer(pointer)
            .and_then(Value::as_str)
            .with_context(|| format!("{}: image.json has no {pointer}", self.directory.display()))
    }

    /// The file that it names there.
    pub fn file(&self, pointer: &str) -> Result<PathBuf> {
        Ok(self.directory.join(self.text(pointer)?))
    }

    /// The file of the image that ends so.
    pub fn ending(&self, ending: &str) -> Result<PathBuf> {
        let raw = self.text("/raw")?;
        let name = raw.strip_suffix(".raw").unwrap_or(raw);
        Ok(self.directory.join(format!("{name}{ending}")))
    }
}

fn json(path: &Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| {
        format!(
            "{}: build it with `cargo xtask image --without-k3s --check-reproducible`",
            path.display()
        )
    })?;
    Ok(serde_json::from_slice(&text)?)
}

/// Reads what the build left in `directory`.
pub fn measure(directory: &Path, figures: &mut Figures) -> Result<()> {
    let image = Built::read(directory)?;
    let build = json(&directory.join("build.json"))?;
    let compressed = image.described["compressedBytes"]
        .as_u64()
        .context("the image is not compressed: build it without --quick")?;
    figures.add(
        "image.compressed_bytes",
        compressed as f64,
        "bytes",
        Some(COMPRESSED),
        format!(
            "the disk image for {} by zstd -15, static node, without k3s",
            image.text("/architecture")?
        ),
    );
    figures.add(
        "image.build_s",
        build["seconds"]
            .as_u64()
            .context("build.json says no seconds")? as f64,
        "s",
        None,
        "the image alone, compressed, with the chunks of an update; caches warm: tools and node built, packages downloaded and installed before",
    );
    ensure!(
        build["reproducible"].is_boolean(),
        "the image was not built twice: build it with --check-reproducible"
    );
    figures.add(
        "image.reproducible",
        f64::from(build["reproducible"] == true),
        "",
        None,
        "1: two builds, the second elsewhere and with all packages installed anew, gave the same /usr, verity data and kernel image",
    );
    Ok(())
}
