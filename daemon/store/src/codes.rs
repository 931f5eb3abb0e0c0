//! Names of the problems that the node's store finds. Each is a heading in `docs/troubleshooting.md`; those that the hub knows
//! too (`disk-full`, `disk-read-only`) are in [`holdfast_protocol::codes`].

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*

        /// Every name above, for the check that each is documented.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

codes! {
    /// The disk reports an error.
    DISK_ERROR = "disk-error";
    /// The store's file is damaged.
    STORE_CORRUPT = "store-corrupt";
    /// The store's file was written by a newer version of Holdfast.
    STORE_NEWER = "store-newer";
    /// The file in the store's place belongs to another program.
    STORE_FOREIGN = "store-foreign";
    /// Another process has the store's file open.
    STORE_BUSY = "store-busy";
    /// A file or directory may not be used by this user.
    STORE_FORBIDDEN = "store-forbidden";
    /// Another daemon runs on the same state directory.
    STATE_LOCKED = "state-locked";
    /// A blob came with more or fewer bytes than the document says.
    BLOB_SIZE_MISMATCH = "blob-size-mismatch";
}
