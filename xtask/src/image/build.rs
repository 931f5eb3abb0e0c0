//! Builds the image: tools, packages, tree, image, checks, outputs.
//!
//! In: the recipe in `image/`, a mirror, keys, the node's binary. Out: see [`outputs`]. Guarantees: everything of a build that
//! failed is told with the command that failed; what is in the output directory is of one build.

use super::{
    Architecture, foreign,
    inputs::{self, Inputs},
    keys::Keys,
    lock, locked,
    mirror::{self, Chosen, Mirror},
    outputs::{self, Image},
    parts::{self, Extras},
    space,
};
use crate::{
    files,
    k3s::{self, pinned::Pinned},
    prerequisites, shell,
};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use holdfast_protocol::{Digest, document::is_os_version};
use std::{
    env,
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// The time that everything in the image is of, in seconds since 1970: the first that FAT knows. Were it that of the commit, each commit would
/// make another image of the same files.
const TIME: &str = "315532800";

#[derive(Args)]
#[group(id = "image-build")]
pub struct Options {
    /// Architecture of the box [default: that of this machine]
    #[arg(long)]
    arch: Option<Architecture>,
    /// Version of the image, at most 20 characters [default: that of the project]
    #[arg(long)]
    version: Option<String>,
    /// Mirror of Debian's packages [default: that of this machine's apt]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Mirror of Debian's security updates [default: found beside the other]
    #[arg(long, value_name = "URL")]
    security_mirror: Option<String>,
    /// Node binary for this architecture [default: built by cross/build.sh]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Program that is baked as /usr/bin/k3s, instead of what the lock file pins
    #[arg(long, value_name = "FILE")]
    k3s: Option<PathBuf>,
    /// Lock file whose k3s is baked, with the archives of its images [default: image/k3s.lock where it is there]
    #[arg(long, value_name = "FILE", conflicts_with = "k3s")]
    k3s_lock: Option<PathBuf>,
    /// Bake no k3s, whatever image/k3s.lock pins
    #[arg(long, conflicts_with_all = ["k3s", "k3s_lock"])]
    without_k3s: bool,
    /// Directory with a rendered release that a box starts with before it has seen a hub
    #[arg(long, value_name = "DIR")]
    seed: Option<PathBuf>,
    /// Directory with artifacts to bake, in sha256/HEX
    #[arg(long, value_name = "DIR")]
    artifacts: Option<PathBuf>,
    /// Directory of the builder's keys; missing ones are made [default: target/image/keys]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Directory for the results [default: target/image/ARCHITECTURE]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Directory that is copied over the root of the image
    #[arg(long, value_name = "DIR")]
    extra_tree: Option<PathBuf>,
    /// Argument of the kernel beside those of the recipe; may be given more than once
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    kernel_argument: Vec<String>,
    /// For developers: a root shell on the console, and sshd. Never for a box in the field
    #[arg(long)]
    debug_variant: bool,
    /// Pin the packages of today in image/packages.ARCHITECTURE.lock instead of checking them
    #[arg(long, conflicts_with = "package")]
    update_lock: bool,
    /// Build twice, the second time elsewhere and with all packages installed again, and fail unless both builds have the
    /// same /usr, the same verity data and the same kernel image
    #[arg(long)]
    check_reproducible: bool,
    /// Take a package in this version though the mirror has a newer one, and whatever the lock file pins; may be given more than once
    #[arg(long, value_name = "NAME=VERSION", value_parser = Chosen::parse)]
    package: Vec<Chosen>,
    /// Leave out the compressed image, the list of parts and the signatures
    #[arg(long)]
    quick: bool,
    /// Install all packages again, even where an earlier build left them installed
    #[arg(long)]
    fresh: bool,
    /// Do not look for or install packages
    #[arg(long)]
    no_prerequisites: bool,
}

impl Options {
    /// The lock file of the k3s to bake.
    fn lock_file(&self) -> Option<PathBuf> {
        match &self.k3s_lock {
            Some(lock) => Some(shell::given(lock)),
            None if self.without_k3s || self.k3s.is_some() => None,
            None => Some(shell::root().join(k3s::LOCK)).filter(|lock| lock.exists()),
        }
    }
}

pub fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let architecture = options.arch.unwrap_or(Architecture::own());
    let version = options
        .version
        .clone()
        .unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    if !is_os_version(&version) {
        bail!(
            "{version:?} cannot be the version of an image: 1 to 20 letters, digits, '.', '-', '~' or '^', beginning with a letter or digit"
        );
    }
    let lock_file = options.lock_file();
    inputs::check(
        architecture,
        &Inputs {
            binary: options.binary.as_deref(),
            k3s: options.k3s.as_deref(),
            k3s_lock: lock_file.as_deref(),
            seed: options.seed.as_deref(),
            artifacts: options.artifacts.as_deref(),
            extra_tree: options.extra_tree.as_deref(),
        },
    )?;
    if !options.no_prerequisites {
        prerequisites::install(&[prerequisites::Purpose::Image], false)?;
    }
    foreign::allow(architecture, options.no_prerequisites)?;
    let build = Build {
        architecture,
        keys: Keys::in_directory(options.keys.as_deref()),
        mirror: Mirror::choose(options.mirror.as_deref(), options.security_mirror.as_deref())?
            .preferring(options.package.clone()),
        work: shell::root().join("target/image"),
        epoch: epoch()?,
        debug: options.debug_variant,
        extra_tree: options.extra_tree.as_deref().map(shell::given),
        kernel_arguments: options.kernel_argument.clone(),
    };
    build.keys.make_missing()?;
    let _alone = build.alone()?;
    build.tidy()?;
    space::check(
        &build.work,
        build.tools_tree().is_dir() && build.archives().is_dir(),
    )?;
    let binary = match &options.binary {
        Some(binary) => shell::given(binary),
        None => node(architecture)?,
    };
    step(begun, "the tools that make the image");
    build.tools()?;
    step(begun, "the parts of the image");
    let pinned = match &lock_file {
        Some(lock) => {
            let k3s =
                Pinned::read(lock, architecture.debian())?.fetch(&build.work.join("cache/artifacts"))?;
            eprintln!("image: k3s {} is baked", k3s.version);
            Some(k3s)
        }
        None => None,
    };
    let extras = Extras {
        k3s: options.k3s.as_deref(),
        pinned: pinned.as_ref(),
        seed: options.seed.as_deref(),
        artifacts: options.artifacts.as_deref(),
    };
    // What is kept of installed packages is of those that the lock file pins.
    let first = build.attempt(
        "",
        &shell::root().join("image/recipe"),
        !options.fresh && options.package.is_empty(),
    )?;
    parts::assemble(&first.parts(), &binary, &build.keys, &extras)?;
    step(begun, "the image");
    let made = build.mkosi(&version, &first)?;
    locked::check(&made.usr(), &build.tools_tree(), options.debug_variant)?;
    let packages = lock::installed(&made.manifests(), &build.archives())?;
    let snapshot = mirror::snapshot(&build.packages(), architecture)?;
    mirror::are_chosen(&options.package, &packages)?;
    lock::check(
        architecture,
        &packages,
        snapshot,
        options.update_lock,
        options.debug_variant,
        &options.package,
    )?;
    let mut seconds = begun.elapsed();
    if options.check_reproducible {
        step(begun, "the image a second time, to compare");
        let second = build.attempt("again", &first.recipe(), false)?;
        parts::assemble(&second.parts(), &binary, &build.keys, &extras)?;
        outputs::compare(&made, &build.mkosi(&version, &second)?)?;
        fs::remove_dir_all(&second.directory)?;
    }
    step(begun, "the results");
    let results = Instant::now();
    let output = match &options.output {
        Some(output) => shell::given(output),
        None => build.work.join(architecture.name()),
    };
    outputs::write(&made, &output, &packages, &build.keys, build.epoch, options.quick)?;
    seconds += results.elapsed();
    outputs::tell(&output, seconds, options.check_reproducible)?;
    step(begun, "done");
    println!("{}", output.display());
    Ok(())
}

fn step(begun: Instant, what: &str) {
    eprintln!("image: [{:>4} s] {what}", begun.elapsed().as_secs());
}

/// The node's static binary, built where it is missing or old.
fn node(architecture: Architecture) -> Result<PathBuf> {
    prerequisites::install(&[prerequisites::Purpose::Cross], false)?;
    let built = shell::output(
        shell::command("bash")
            .arg("cross/build.sh")
            .arg(architecture.target()),
    )?;
    Ok(shell::root().join(built.trim()))
}

/// The time that the list of parts is of, in seconds since 1970: `SOURCE_DATE_EPOCH`, else that of the commit that is built.
fn epoch() -> Result<u64> {
    let text = match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => shell::output(shell::command("git").args(["log", "-1", "--format=%ct"]))
            .context("outside of a git checkout, SOURCE_DATE_EPOCH must be set")?,
    };
    text.trim()
        .parse()
        .with_context(|| format!("SOURCE_DATE_EPOCH is {text:?}: seconds since 1970 are expected"))
}

/// One of the images of a build.
struct Attempt {
    directory: PathBuf,
    /// Whether packages are taken as an earlier build left them installed.
    from_cache: bool,
}

impl Attempt {
    /// The recipe as it was when the build began, whoever changes it meanwhile.
    fn recipe(&self) -> PathBuf {
        self.directory.join("recipe")
    }

    fn parts(&self) -> PathBuf {
        self.directory.join("parts")
    }

    fn output(&self) -> PathBuf {
        self.directory.join("build")
    }
}

struct Build {
    architecture: Architecture,
    keys: Keys,
    mirror: Mirror,
    work: PathBuf,
    epoch: u64,
    debug: bool,
    extra_tree: Option<PathBuf>,
    kernel_arguments: Vec<String>,
}

impl Build {
    fn packages(&self) -> PathBuf {
        self.work.join("cache/packages").join(self.architecture.name())
    }

    fn archives(&self) -> PathBuf {
        self.packages().join("cache/apt/archives")
    }

    fn tools_tree(&self) -> PathBuf {
        self.work.join("cache/tools")
    }

    /// Waits until no other build uses the caches and the tree of tools; they stay one's own until the result is dropped.
    fn alone(&self) -> Result<File> {
        fs::create_dir_all(&self.work)?;
        let path = self.work.join("lock");
        let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        if lock.try_lock().is_err() {
            eprintln!("image: waiting for another build of an image to end");
            lock.lock()
                .with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(lock)
    }

    fn workspace(&self) -> PathBuf {
        self.work.join("work/mkosi")
    }

    /// Removes what builds that were killed left behind, some of a gigabyte each.
    fn tidy(&self) -> Result<()> {
        match fs::remove_dir_all(self.workspace()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.workspace().display()))
            }
            _ => Ok(()),
        }
    }

    /// mkosi with what every call of it has.
    fn command(&self, recipe: &Path, packages: &Path) -> Result<Command> {
        let workspace = self.workspace();
        fs::create_dir_all(&workspace)?;
        fs::create_dir_all(packages)?;
        let mut command = shell::command("mkosi");
        command
            .arg("--directory")
            .arg(recipe)
            .arg("--package-manager-tree")
            .arg(self.mirror.write_tree(&self.work.join("work/apt"))?)
            .arg("--package-cache-dir")
            .arg(packages)
            .arg("--workspace-dir")
            .arg(workspace)
            .arg("--force");
        Ok(command)
    }

    /// The tree of tools, made where there is none of this recipe.
    fn tools(&self) -> Result<()> {
        let mark = self.work.join("cache/tools.recipe");
        let recipe = ["mkosi.conf", "mkosi.finalize"]
            .map(|file| files::read(&format!("image/tools/{file}")))
            .into_iter()
            .collect::<Result<String>>()?;
        let recipe = Digest::of(recipe.as_bytes()).hex();
        if fs::read_to_string(&mark).is_ok_and(|made| made == recipe) && self.tools_tree().is_dir() {
            return Ok(());
        }
        let packages = self.work.join("cache/packages/tools");
        shell::run(
            self.command(&shell::root().join("image/tools"), &packages)?
                .arg("--output-dir")
                .arg(self.work.join("cache"))
                .arg("build"),
        )?;
        files::replace(mark, recipe)?;
        Ok(())
    }

    /// Where one image is made by a copy of the recipe, emptied: below `work/<architecture>`, and there below `below`.
    fn attempt(&self, below: &str, recipe: &Path, from_cache: bool) -> Result<Attempt> {
        let directory = self.work.join("work").join(self.architecture.name()).join(below);
        let attempt = Attempt {
            directory,
            from_cache,
        };
        for directory in [attempt.output(), attempt.recipe()] {
            if directory.exists() {
                fs::remove_dir_all(directory)?;
            }
        }
        fs::create_dir_all(attempt.output())?;
        shell::output(
            shell::command("cp")
                .args(["--archive", "--"])
                .args([recipe, &attempt.recipe()]),
        )?;
        Ok(attempt)
    }

    /// Makes the image of the parts that lie where it is made.
    fn mkosi(&self, version: &str, attempt: &Attempt) -> Result<Image> {
        let directory = attempt.output();
        let mut command = self.command(&attempt.recipe(), &self.packages())?;
        command
            .arg("--tools-tree")
            .arg(self.tools_tree())
            .arg("--output-dir")
            .arg(&directory)
            .args([
                "--architecture",
                self.architecture.mkosi(),
                "--image-version",
                version,
            ])
            .args(["--source-date-epoch", TIME])
            .arg("--extra-tree")
            .arg(attempt.parts())
            // What is enrolled is among the parts.
            .args(["--secure-boot", "yes", "--secure-boot-auto-enroll", "no"])
            .arg("--secure-boot-key")
            .arg(self.keys.secure_boot_key())
            .arg("--secure-boot-certificate")
            .arg(self.keys.secure_boot_certificate());
        if let Some(tree) = &self.extra_tree {
            command.arg("--extra-tree").arg(tree);
        }
        for argument in &self.kernel_arguments {
            command.arg("--kernel-command-line").arg(argument);
        }
        if self.debug {
            command.args(["--profile", "debug"]);
        }
        if attempt.from_cache {
            // Installed packages are kept between builds; mkosi makes them anew when their list changes.
            // What is of another time in them, such as the days in /etc/shadow, would be in the image.
            let variant = if self.debug { "-debug" } else { "" };
            let cache = self.work.join(format!("cache/installed{variant}-{TIME}"));
            fs::create_dir_all(&cache)?;
            command.args(["--incremental", "yes", "--cache-dir"]).arg(cache);
        }
        shell::run(command.arg("build"))?;
        Ok(Image {
            directory,
            version: version.to_owned(),
            architecture: self.architecture,
        })
    }
}
