//! Checks of the Kubernetes of the box: the program to start, and the API that answers.

use super::{Check, PATIENCE};
use crate::{kubernetes::client, settings::Settings};
use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{process::Command, time::timeout};

/// What the version of a real k3s starts with.
const REAL_K3S: &str = "k3s version ";

pub(super) async fn program(settings: &Settings) -> Check {
    const NAME: &str = "kubernetes-program";
    if !settings.kubernetes.supervise {
        return Check::ok(
            NAME,
            "Kubernetes is started by someone else (kubernetes.supervise = false)",
        );
    }
    let binary = &settings.kubernetes.binary;
    let Some(path) = find(binary) else {
        return Check::fail(
            NAME,
            format!("{binary} is not there"),
            "install k3s, or set kubernetes.binary to its path; holdfast starts it as soon as it is there",
        );
    };
    let output = Command::new(&path)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let text = match timeout(PATIENCE, output).await {
        Ok(Ok(output)) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(Ok(output)) => {
            return Check::fail(
                NAME,
                format!("{} --version ended with {}", path.display(), output.status),
                "install a k3s for this machine's architecture",
            );
        }
        Ok(Err(error)) => {
            return Check::fail(
                NAME,
                format!("{} cannot be run: {error}", path.display()),
                "install a k3s for this machine's architecture",
            );
        }
        Err(_) => {
            return Check::warn(
                NAME,
                format!(
                    "{} --version did not answer within {} s",
                    path.display(),
                    PATIENCE.as_secs()
                ),
                "see whether the machine is overloaded",
            );
        }
    };
    let version = text.lines().next().unwrap_or_default().trim();
    if version.starts_with(REAL_K3S) && !nix::unistd::geteuid().is_root() {
        return Check::warn(
            NAME,
            format!(
                "{}: {version}; a real k3s needs root, and this command does not run as root",
                path.display()
            ),
            "run holdfast as root, as the systemd unit does",
        );
    }
    Check::ok(NAME, format!("{}: {version}", path.display()))
}

/// Finds a program as execvp(3) does: a path as it is, a name in PATH.
fn find(binary: &str) -> Option<PathBuf> {
    let executable =
        |path: &Path| path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok();
    if binary.contains('/') {
        return Some(PathBuf::from(binary)).filter(|path| executable(path));
    }
    env::split_paths(&env::var_os("PATH")?)
        .map(|directory| directory.join(binary))
        .find(|path| executable(path))
}

pub(super) async fn api(settings: &Settings) -> Check {
    const NAME: &str = "kubernetes-api";
    let kubeconfig = &settings.kubernetes.kubeconfig;
    if !kubeconfig.exists() {
        return Check::warn(
            NAME,
            format!(
                "{} does not exist: Kubernetes has not started yet",
                kubeconfig.display()
            ),
            "start holdfast; if it runs, see the output of Kubernetes in its log",
        );
    }
    let ask = async {
        let client = client::connect(kubeconfig)
            .await
            .map_err(|error| error.to_string())?;
        client
            .apiserver_version()
            .await
            .map_err(|error| error.to_string())
    };
    match timeout(PATIENCE, ask).await {
        Ok(Ok(version)) => Check::ok(NAME, format!("answers, {}", version.git_version)),
        Ok(Err(reason)) => Check::warn(
            NAME,
            format!("does not answer: {reason}"),
            "holdfast starts Kubernetes again by itself; holdfast status says how often it had to",
        ),
        Err(_) => Check::warn(
            NAME,
            format!("did not answer within {} s", PATIENCE.as_secs()),
            "see whether the machine is overloaded: holdfast status",
        ),
    }
}
