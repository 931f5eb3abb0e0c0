//! Names of the problems that only the hub knows; the shared ones are in [`holdfast_protocol::codes`]. Each is a heading in
//! `docs/troubleshooting.md`.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*

        /// Every name above, for the check that each is documented.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

codes! {
    /// The request's method is not one of this path.
    METHOD_NOT_ALLOWED = "method-not-allowed";
    /// The body is larger than the hub takes.
    BODY_TOO_LARGE = "body-too-large";
    /// The body is not declared as `application/json`.
    MEDIA_TYPE_UNSUPPORTED = "media-type-unsupported";
    /// Too many refused attempts from one address.
    TOO_MANY_ATTEMPTS = "too-many-attempts";
    /// The browser's request comes from another site.
    CROSS_SITE = "cross-site";
    /// The node's certificate is expired; it must be renewed first.
    CERTIFICATE_EXPIRED = "certificate-expired";
    /// The certificate was not issued by this hub.
    CERTIFICATE_UNKNOWN = "certificate-unknown";
    /// The renewal is not signed by the key of the certificate.
    RENEWAL_SIGNATURE_INVALID = "renewal-signature-invalid";
    /// The release breaks a rule; the message names the place.
    RELEASE_INVALID = "release-invalid";
    /// The label selector cannot be read.
    SELECTOR_INVALID = "selector-invalid";
    /// A label's key or value is not one that Kubernetes would take.
    LABEL_INVALID = "label-invalid";
    /// A sealing key is not signed by the box's device key, or nothing can be sealed to it.
    SEALING_KEY_INVALID = "sealing-key-invalid";
    /// A value is sealed to another key than the node has now.
    SEALED_TO_OTHER_KEY = "sealed-to-other-key";
    /// A node that a release was given to lacks a value of one of its secrets.
    SECRET_MISSING = "secret-missing";
    /// A node has no sealing key yet, so nothing can be sealed to it.
    SEALING_KEY_MISSING = "sealing-key-missing";
    /// A release makes a node join the others of its site, and the hub cannot say how.
    SITE_INVALID = "site-invalid";
    /// The range of a blob that was asked for does not exist.
    RANGE_NOT_SATISFIABLE = "range-not-satisfiable";
    /// The hub is starting, stopping, or cannot reach its database.
    NOT_READY = "not-ready";
    /// The database was written by a newer release of the hub.
    DATABASE_NEWER = "database-newer";
    /// The database file is damaged.
    DATABASE_CORRUPT = "database-corrupt";
    /// Others than the owner can read a private key.
    KEY_MODE_TOO_WIDE = "key-mode-too-wide";
    /// The hub's keys are missing though its database exists.
    KEYS_MISSING = "keys-missing";
    /// A key or certificate file cannot be used.
    KEY_FILE_UNUSABLE = "key-file-unusable";
}
