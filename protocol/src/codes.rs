//! Names of the problems that both sides know. Each is a heading in `docs/troubleshooting.md`.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*

        /// Every name above, for the check that each is documented.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

codes! {
    /// The envelope is larger than [`crate::MAX_ENVELOPE_BYTES`].
    ENVELOPE_TOO_LARGE = "envelope-too-large";
    /// The envelope or its payload is not the JSON it should be.
    DOCUMENT_MALFORMED = "document-malformed";
    /// The envelope carries no signature.
    DOCUMENT_UNSIGNED = "document-unsigned";
    /// Not enough trusted keys of the right role signed the document.
    SIGNATURE_INVALID = "signature-invalid";
    /// The payload type is not one that belongs on this way.
    PAYLOAD_TYPE_UNKNOWN = "payload-type-unknown";
    /// The major schema version is unknown here.
    SCHEMA_UNSUPPORTED = "schema-unsupported";
    /// The document is for another node.
    WRONG_NODE = "wrong-node";
    /// The generation is below the highest ever accepted.
    GENERATION_OLDER = "generation-older";
    /// The generation was accepted before with other content.
    GENERATION_CONFLICT = "generation-conflict";
    /// The document breaks a limit or a rule of its schema.
    DOCUMENT_INVALID = "document-invalid";
    /// The enrolment token's text cannot be read.
    TOKEN_MALFORMED = "token-malformed";
    /// The enrolment token was cut short or altered in transit.
    TOKEN_TRUNCATED = "token-truncated";
    /// The hub does not know the enrolment token.
    TOKEN_UNKNOWN = "token-unknown";
    /// The enrolment token's time is over.
    TOKEN_EXPIRED = "token-expired";
    /// The enrolment token was revoked by an operator.
    TOKEN_REVOKED = "token-revoked";
    /// The enrolment token was spent by another key.
    TOKEN_SPENT = "token-spent";
    /// The enrolment token is bound to another machine's serial number.
    TOKEN_WRONG_MACHINE = "token-wrong-machine";
    /// The machine that answers is not the hub which made the token.
    HUB_IDENTITY_MISMATCH = "hub-identity-mismatch";
    /// The certificate request cannot be used.
    CSR_INVALID = "csr-invalid";
    /// The certificate was revoked.
    CERTIFICATE_REVOKED = "certificate-revoked";
    /// A name is taken by another node.
    NAME_TAKEN = "name-taken";
    /// A blob's content does not have the digest it is named by.
    BLOB_DIGEST_MISMATCH = "blob-digest-mismatch";
    /// No such blob here.
    BLOB_UNKNOWN = "blob-unknown";
    /// The request has no valid credential.
    UNAUTHENTICATED = "unauthenticated";
    /// The credential does not allow this.
    FORBIDDEN = "forbidden";
    /// No such thing here.
    NOT_FOUND = "not-found";
    /// The request is not understood.
    BAD_REQUEST = "bad-request";
    /// The thing exists already.
    CONFLICT = "conflict";
    /// The disk is full.
    DISK_FULL = "disk-full";
    /// A value of the box's personal settings on the EFI system partition cannot be used.
    PERSONAL_INVALID = "personal-invalid";
    /// The disk cannot be written.
    DISK_READ_ONLY = "disk-read-only";
    /// Something failed inside; the log of the same moment says more.
    INTERNAL = "internal";
}
