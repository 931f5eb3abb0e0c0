//! Names of the problems of release directories and of rendering. Each is a heading in `docs/troubleshooting.md`.

/// A file that was named cannot be read.
pub const FILE_UNREADABLE: &str = "file-unreadable";
/// A manifest, `release.yaml` or the content of a release breaks a rule; the message names the place.
pub const RELEASE_INVALID: &str = "release-invalid";
/// A chart or `helm.yaml` cannot be used.
pub const CHART_INVALID: &str = "chart-invalid";
/// A directory needs kustomize, and there is none.
pub const KUSTOMIZE_MISSING: &str = "kustomize-missing";
/// Kustomize refused a directory, or it would read what is not in the release.
pub const KUSTOMIZE_FAILED: &str = "kustomize-failed";
/// A release needs a value that nothing gives for a node.
pub const VARIABLE_MISSING: &str = "variable-missing";
/// A value breaks what its variable declares.
pub const VARIABLE_INVALID: &str = "variable-invalid";
