//! The images that benchmarks look at.
//!
//! In: the node's static binary, and a k3s. Out, in `target/bench/image`, as `cargo xtask image` writes them: `one`, built as it is published, and
//! compared with a second build; `two`, which differs from it by one package, as `two/difference` says in words; `boot/one/x86_64` and
//! `boot/bare/x86_64`, of which the second starts the same k3s by a plain unit, and nothing of Holdfast's.

use crate::{files, image, shell};
use anyhow::{Context as _, Result};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The groups of benchmarks that look at images.
pub const GROUPS: [&str; 3] = ["image", "update", "boot"];

/// The package that is another one in the second image: a library that much depends on, and that changes often. It is one of the largest, and in
/// the initrd too.
const PACKAGE: &str = "libssl3t64";

/// What both images that are booted hold more than any other: the log goes to the console too, where it is read.
const LOG: (&str, &str) = (
    "usr/lib/systemd/journald.conf.d/90-measure.conf",
    "[Journal]\nForwardToConsole=yes\n",
);

/// What the bare one holds: k3s with the configuration that Holdfast writes on a box of this name, and a unit for it, as early as that of Holdfast.
const BARE: [(&str, &str); 2] = [
    (
        "usr/share/plain-k3s/config.yaml",
        "data-dir: \"/var/lib/rancher/k3s\"\nhttps-listen-port: 6443\nnode-name: \"box\"\n\
         write-kubeconfig: \"/etc/rancher/k3s/k3s.yaml\"\nwrite-kubeconfig-mode: \"0600\"\n",
    ),
    (
        "usr/lib/systemd/system/plain-k3s.service",
        "[Unit]\nDescription=k3s, started directly\nAfter=local-fs.target network.target time-set.target\n\n\
         [Service]\nType=exec\nExecStart=/usr/bin/k3s server --config /usr/share/plain-k3s/config.yaml\n\
         KillMode=process\nDelegate=yes\nLimitNOFILE=1048576\nLimitNPROC=infinity\nLimitCORE=infinity\nTasksMax=infinity\n",
    ),
];

/// Makes what these groups look at.
pub fn build(groups: &[&str], node: &Path, k3s: &Path) -> Result<()> {
    let directory = shell::root().join("target/bench/image");
    let image = |version: &str, output: PathBuf| -> Result<Command> {
        let mut command = shell::command(env::current_exe().context("where this program is")?);
        command
            .args(["image", "--version", version, "--binary"])
            .arg(node)
            .arg("--keys")
            .arg(directory.join("keys"))
            .arg("--output")
            .arg(output);
        Ok(command)
    };
    if groups.contains(&"image") || groups.contains(&"update") {
        shell::run(image("1", directory.join("one"))?.args(["--without-k3s", "--check-reproducible"]))?;
    }
    if groups.contains(&"update") {
        let two = directory.join("two");
        let (other, own) = image::another_version(PACKAGE)?;
        shell::run(
            image("2", two.clone())?
                .args(["--without-k3s", "--quick", "--package"])
                .arg(format!("{PACKAGE}={other}")),
        )?;
        files::replace(
            two.join("difference"),
            format!(
                "the other image has another version and one other package, {PACKAGE} {other} instead of {own}, in the system and in the initrd\n"
            ),
        )?;
    }
    if groups.contains(&"boot") {
        let boot = directory.join("boot");
        let tree = |name: &str, content: &[(&str, &str)]| -> Result<PathBuf> {
            let tree = boot.join("tree").join(name);
            if tree.exists() {
                fs::remove_dir_all(&tree)?;
            }
            for (path, text) in content {
                let file = tree.join(path);
                fs::create_dir_all(file.parent().unwrap_or(&tree))?;
                files::replace(file, text)?;
            }
            Ok(tree)
        };
        let own = env::consts::ARCH;
        shell::run(
            image("1", boot.join("one").join(own))?
                .arg("--quick")
                .arg("--k3s")
                .arg(k3s)
                .arg("--extra-tree")
                .arg(tree("one", &[LOG])?),
        )?;
        let bare = tree("bare", &[LOG, BARE[0], BARE[1]])?;
        let wants = bare.join("usr/lib/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants)?;
        std::os::unix::fs::symlink("../plain-k3s.service", wants.join("plain-k3s.service"))?;
        let mut command = image("1", boot.join("bare").join(own))?;
        command
            .arg("--quick")
            .arg("--k3s")
            .arg(k3s)
            .arg("--extra-tree")
            .arg(bare);
        for unit in units()? {
            command.args(["--kernel-argument", &format!("systemd.mask={unit}")]);
        }
        shell::run(&mut command)?;
    }
    Ok(())
}

/// Holdfast's own units.
fn units() -> Result<Vec<String>> {
    let mut units: Vec<String> = fs::read_dir(shell::root().join("systemd"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    units.retain(|name| name.starts_with("holdfast") && name.ends_with(".service") && !name.contains('@'));
    units.sort();
    Ok(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_holdfast_is_masked_in_the_bare_image() {
        let units = units().unwrap();
        for unit in [
            "holdfast.service",
            "holdfast-health.service",
            "holdfast-boots.service",
        ] {
            assert!(units.iter().any(|found| found == unit), "{units:?}");
        }
        assert!(!units.iter().any(|unit| unit == "k3s.service"));
    }
}
