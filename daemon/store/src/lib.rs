//! SQLite store of the Holdfast node: desired state, inventory, journal, outbox, blobs.
