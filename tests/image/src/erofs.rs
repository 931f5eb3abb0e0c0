//! Where a file lies in an image of `/usr`.
//!
//! In: the image, a path in it, and the tools that built it, which `HOLDFAST_IMAGE_TOOLS` names: this machine's may be older than the image. Out: where
//! its first bytes are.

use anyhow::{Context as _, Result};
use holdfast_harness::process::run;
use std::{
    env,
    path::{Path, PathBuf},
};
use tokio::process::Command;

/// Where the first bytes of the file lie, in bytes from the beginning of the image; `path` begins with `/` and names a file below `/usr`.
pub async fn place(image: &Path, path: &str) -> Result<u64> {
    let tools = PathBuf::from(
        env::var_os("HOLDFAST_IMAGE_TOOLS")
            .context("HOLDFAST_IMAGE_TOOLS names no tree of tools: run `cargo xtask test --image=full`")?,
    );
    let (loader, libraries) = if cfg!(target_arch = "aarch64") {
        ("usr/lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu")
    } else {
        ("usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu")
    };
    let mut command = Command::new(tools.join(loader));
    command
        .arg("--library-path")
        .arg(tools.join(libraries))
        .arg(tools.join("usr/bin/dump.erofs"))
        .arg(format!("--path={path}"))
        .arg("-e")
        .arg(image);
    let said = run(command).await?;
    first(&said).with_context(|| format!("dump.erofs names no place of {path}: {said}"))
}

/// The physical beginning of extent 0, in what `dump.erofs -e` prints: `0:  0..  8977 |  8977 :  2727936..  2732032 |  4096`.
fn first(said: &str) -> Option<u64> {
    let extent = said
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("0:"))?;
    let (_, physical) = extent.split_once(':')?;
    physical.split_once("..")?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_extent_is_read_from_what_the_tool_prints() {
        let said = "Path : /bin/holdfast\nSize: 9892408  On-disk size: 6664192  regular file\n\n \
            Ext:   logical offset   |  length :     physical offset    |  length\n   \
            0:        0..    8977 |    8977 :    2727936..   2732032 |    4096\n   \
            1:     8977..   13886 |    4909 :    2732032..   2736128 |    4096\n";
        assert_eq!(first(said), Some(2_727_936));
        assert_eq!(first("Path : /bin/holdfast\n"), None);
    }
}
