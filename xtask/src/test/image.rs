//! `cargo xtask test --image`: images are built for the scenarios, then booted in QEMU.
//!
//! In: what `cargo xtask image` needs. Out: `target/image-tests/images/<variant>/<architecture>/`, and the scenarios' logs beside it. The
//! variants are of one recipe: each is another version, and the bad ones hold one file or one kernel argument more.

use crate::{cluster, files, prerequisites, shell};
use anyhow::{Context as _, Result};
use clap::ValueEnum;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Which scenarios.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// First boot, boots without a network or a hub, power cycles, factory reset
    Short,
    /// All: also updates that stay and that fail, power cuts in them, Secure Boot, damage
    Full,
}

/// One image that scenarios boot or update to.
struct Variant {
    name: &'static str,
    architecture: &'static str,
    version: &'static str,
    /// Files that it holds beside what every image holds, and their content.
    extra: &'static [(&'static str, &'static str)],
    /// Further arguments of the build.
    more: &'static [&'static str],
    scope: Scope,
}

const X86: &str = "x86_64";

/// What `holdfastctl release render --seed` writes for a release with a small app.
const SEED: &str = r#"{
  "schema": "1.0",
  "content": {
    "apps": [{"name": "web", "manifests": [{"inline": [{
      "apiVersion": "apps/v1", "kind": "Deployment",
      "metadata": {"name": "web", "namespace": "default"},
      "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
          "metadata": {"labels": {"app": "web"}},
          "spec": {"containers": [{"name": "main", "image": "registry.k8s.io/pause:3.10"}]}
        }
      }
    }]}]}],
    "policy": {"drift": "correct", "prune": true, "readyDeadlineSeconds": 3600, "stabilitySeconds": 10}
  }
}
"#;

/// Says on the console when the box has brought its document to its good end.
const SEED_WATCH: &str = r"[Unit]
After=holdfast.service
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'holdfast -o json status | grep -q committed && echo the seed runs'
StandardOutput=journal+console
Restart=on-failure
RestartSec=2
";

/// Writes to the datastore of the box's Kubernetes, and makes the app's pods not ready, as a system does that an app does not get along with. Ends once the node
/// does not call the start good: it is judged after that.
const BREAK_APP: &str = r"[Unit]
After=holdfast.service
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'until k3s kubectl get configmap mark || k3s kubectl create configmap mark; do sleep 1; done'
ExecStart=/bin/sh -c 'until k3s kubectl annotate --overwrite pods --all testcluster.holdfast/unready=true; do sleep 1; done'
ExecStart=/bin/sh -c 'until k3s kubectl wait --for=condition=Available=false deployment/web --timeout=10m; do sleep 1; done'
ExecStart=/bin/sh -c 'while holdfast health; do sleep 1; done'
StandardOutput=journal+console
TimeoutStartSec=10min
";

const VARIANTS: &[Variant] = &[
    Variant {
        name: "one",
        architecture: X86,
        version: "1",
        extra: &[],
        more: &[],
        scope: Scope::Short,
    },
    Variant {
        name: "two",
        architecture: X86,
        version: "2",
        extra: &[],
        more: &[],
        scope: Scope::Full,
    },
    Variant {
        name: "unhealthy",
        architecture: X86,
        version: "3",
        // All of it comes up, and the app does not get along with it. Its starts are not waited for ten minutes each.
        extra: &[
            ("usr/lib/systemd/system/break-app.service", BREAK_APP),
            (
                "usr/lib/systemd/system/holdfast.service.d/90-unhealthy.conf",
                "[Unit]\nWants=break-app.service\n",
            ),
            (
                "usr/lib/systemd/system/holdfast-health.service.d/90-unhealthy.conf",
                "[Unit]\nAfter=break-app.service\n\n[Service]\nExecStart=\nExecStart=/usr/bin/holdfast health --boot --deadline 1m\n",
            ),
        ],
        more: &[],
        scope: Scope::Full,
    },
    Variant {
        name: "panic",
        architecture: X86,
        version: "4",
        extra: &[],
        // Neither an initrd's program nor a root file system: the kernel gives up.
        more: &["--kernel-argument", "rdinit=/nonexistent"],
        scope: Scope::Full,
    },
    Variant {
        name: "debug",
        architecture: X86,
        version: "1",
        extra: &[],
        more: &["--debug-variant"],
        scope: Scope::Full,
    },
    Variant {
        name: "seeded",
        architecture: X86,
        version: "1",
        // Without a network nothing else would tell that the seed runs.
        extra: &[
            ("usr/share/holdfast/seed/release.json", SEED),
            ("usr/lib/systemd/system/seed-watch.service", SEED_WATCH),
            (
                "usr/lib/systemd/system/holdfast.service.d/90-watch.conf",
                "[Unit]\nWants=seed-watch.service\n",
            ),
        ],
        more: &[],
        scope: Scope::Full,
    },
    // Without Kubernetes: the one of this machine is for its own processor.
    Variant {
        name: "one",
        architecture: "aarch64",
        version: "1",
        extra: &[],
        more: &[],
        scope: Scope::Full,
    },
];

/// Builds what is missing or old, and runs the scenarios. `arguments` go to the tests: names to choose among them.
pub fn run(scope: Scope, no_prerequisites: bool, arguments: &[String]) -> Result<()> {
    if !no_prerequisites {
        prerequisites::install(
            &[prerequisites::Purpose::Image, prerequisites::Purpose::ImageTest],
            false,
        )?;
    }
    let k3s = cluster::choose()?;
    let directory = shell::target_directory().join("image-tests");
    let images = match env::var_os("HOLDFAST_IMAGES") {
        Some(given) => PathBuf::from(given),
        None => build(scope, &directory, &k3s)?,
    };
    shell::run(shell::cargo().args(["build", "--locked", "--workspace", "--bins"]))?;
    let mut tests = shell::cargo();
    tests
        .args(["test", "--locked", "--workspace", "--test", "image_boot"])
        .env("HOLDFAST_IMAGES", images)
        .env(
            "HOLDFAST_IMAGE_TOOLS",
            shell::target_directory().join("image/cache/tools"),
        )
        .env("HOLDFAST_BIN_DIR", shell::target_directory().join("debug"))
        .env_remove("RUST_BACKTRACE");
    if scope == Scope::Full {
        tests.args([
            "--test",
            "image_alone",
            "--test",
            "image_updates",
            "--test",
            "image_cuts",
            "--test",
            "image_hardware",
        ]);
    }
    // They take minutes each: what they say of it is shown as it comes.
    shell::run(tests.args(["--", "--nocapture"]).args(arguments))
}

fn build(scope: Scope, directory: &Path, k3s: &Path) -> Result<PathBuf> {
    let images = directory.join("images");
    for variant in VARIANTS {
        if variant.scope == Scope::Full && scope == Scope::Short {
            continue;
        }
        let mut command: Command = shell::command(env::current_exe().context("where this program is")?);
        command
            .args([
                "image",
                "--arch",
                variant.architecture,
                "--quick",
                "--version",
                variant.version,
            ])
            .arg("--keys")
            .arg(directory.join("keys"))
            .arg("--output")
            .arg(images.join(variant.name).join(variant.architecture));
        if variant.architecture == env::consts::ARCH {
            command.arg("--k3s").arg(k3s);
        }
        let tree = directory.join("extra").join(variant.name);
        for (path, content) in variant.extra {
            let file = tree.join(path);
            fs::create_dir_all(file.parent().unwrap_or(&tree))?;
            files::replace(&file, content)?;
        }
        if !variant.extra.is_empty() {
            command.arg("--extra-tree").arg(tree);
        }
        shell::run(command.args(variant.more))?;
    }
    Ok(images)
}
