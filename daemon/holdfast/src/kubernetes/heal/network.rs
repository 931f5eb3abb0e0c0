//! State of the pod network that a power cut leaves damaged: reserved addresses, cached results.
//!
//! In: the directory of the network plugins (`/var/lib/cni`). Out: what cannot be used any more. It guarantees that what belongs to a pod
//! which may run is never named.
//!
//! Layout: `networks/<network>/<address>` holds the id of the pod's sandbox (host-local), `results/<network>-<sandbox>-<interface>` what the
//! plugins answered for it (libcni), `flannel/<sandbox>` what the flannel plugin was asked.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

/// Files that are no JSON although they must be: a power cut after they were made and before they were written.
pub fn damaged_results(directory: &Path) -> Vec<PathBuf> {
    ["results", "flannel"]
        .into_iter()
        .flat_map(|name| files(&directory.join(name)))
        .filter(|path| {
            fs::read(path).is_ok_and(|content| {
                content.trim_ascii().is_empty()
                    || serde_json::from_slice::<serde_json::Value>(&content).is_err()
            })
        })
        .collect()
}

/// Reservations without an owner: they name no sandbox, or one for which no result is kept. Only to be asked for while nothing makes pods.
pub fn orphaned_addresses(directory: &Path) -> Vec<PathBuf> {
    let results: Vec<String> = files(&directory.join("results"))
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    let known: HashSet<&str> = results
        .iter()
        .flat_map(|name| name.split('-'))
        .filter(|part| part.len() == 64)
        .collect();
    fs::read_dir(directory.join("networks"))
        .into_iter()
        .flatten()
        .flatten()
        .flat_map(|network| files(&network.path()))
        .filter(|path| {
            // `lock` and `last_reserved_ip.0` are no reservations.
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.parse::<std::net::IpAddr>().is_ok())
        })
        .filter(|path| {
            fs::read_to_string(path).is_ok_and(|content| {
                let sandbox = content.lines().next().unwrap_or_default().trim();
                !known.contains(sandbox)
            })
        })
        .collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            entry.file_type().ok()?.is_file().then(|| entry.path())
        })
        .filter(|path| !path.to_string_lossy().contains(".damaged-"))
        .collect();
    found.sort();
    found
}
