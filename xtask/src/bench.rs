//! `cargo xtask bench`: builds what is shipped as it is shipped, then measures it.

mod images;

use crate::{cluster, prerequisites, shell};
use anyhow::Result;
use clap::Args;

#[derive(Args)]
pub struct Options {
    /// Passed on to the benchmarks, e.g. `--only latency --changes 20`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

/// The groups among those asked for that look at images, and are given none.
fn looking_at_images(arguments: &[String]) -> Vec<&'static str> {
    let given = |name: &str| arguments.iter().any(|argument| argument.starts_with(name));
    let only: Vec<&str> = arguments
        .iter()
        .zip(arguments.iter().skip(1))
        .filter_map(|(name, value)| (name == "--only").then_some(value.as_str()))
        .chain(
            arguments
                .iter()
                .filter_map(|argument| argument.strip_prefix("--only=")),
        )
        .flat_map(|groups| groups.split(','))
        .collect();
    let mut groups = images::GROUPS.to_vec();
    groups.retain(|group| !given("--only") || only.contains(group));
    groups.retain(|group| {
        !given(if *group == "boot" {
            "--boot-images"
        } else {
            "--image"
        })
    });
    if given("--help") {
        groups.clear();
    }
    groups
}

pub fn run(options: &Options) -> Result<()> {
    let groups = looking_at_images(&options.arguments);
    let mut purposes = vec![prerequisites::Purpose::Demo, prerequisites::Purpose::Cross];
    if !groups.is_empty() {
        purposes.push(prerequisites::Purpose::Image);
    }
    if groups.contains(&"boot") {
        purposes.push(prerequisites::Purpose::ImageTest);
    }
    prerequisites::install(&purposes, false)?;
    let k3s = cluster::choose()?;
    let built = shell::output(shell::command("bash").arg("cross/build.sh"))?;
    print!("{built}");
    let packages = ["holdfast-hub", "holdfastctl", "holdfast-bench"];
    shell::run(
        shell::cargo()
            .args(["build", "--locked", "--release"])
            .args(packages.iter().flat_map(|package| ["-p", package])),
    )?;
    let node = shell::target_directory().join("cross/x86_64-unknown-linux-musl");
    images::build(&groups, &node.join("holdfast"), &k3s)?;
    shell::run(
        shell::command(shell::target_directory().join("release/holdfast-bench"))
            .args(&options.arguments)
            .env("HOLDFAST_K3S", k3s)
            .env("HOLDFAST_BIN_DIR", node)
            .env_remove("RUST_BACKTRACE"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_built_for_what_looks_at_them_unless_they_are_given() {
        let looking = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
            looking_at_images(&arguments)
        };
        assert_eq!(looking(&[]), images::GROUPS);
        assert_eq!(looking(&["--only", "size,image"]), ["image"]);
        assert_eq!(looking(&["--only=boot", "--boots", "3"]), ["boot"]);
        assert!(looking(&["--only", "size"]).is_empty());
        assert!(looking(&["--only=size,idle", "--changes", "20"]).is_empty());
        assert_eq!(
            looking(&["--only", "update,boot", "--image", "one", "--next-image", "two"]),
            ["boot"]
        );
        assert!(looking(&["--only=boot", "--boot-images=here"]).is_empty());
    }
}
