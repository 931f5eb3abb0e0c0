//! Names of the problems of OS images. Each is a heading in `docs/troubleshooting.md`.

/// The manifest of an OS image is not what it should be.
pub const OS_MANIFEST_INVALID: &str = "os-manifest-invalid";
/// Nobody whom the running OS trusts signed the manifest.
pub const OS_MANIFEST_UNTRUSTED: &str = "os-manifest-untrusted";
/// A chunk of an OS image has another content than the manifest says.
pub const OS_CHUNK_DAMAGED: &str = "os-chunk-damaged";

/// Every name above, for the check that each is documented.
pub const ALL: &[&str] = &[OS_MANIFEST_INVALID, OS_MANIFEST_UNTRUSTED, OS_CHUNK_DAMAGED];
