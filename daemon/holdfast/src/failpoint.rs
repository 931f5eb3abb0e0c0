//! Places at which a test can end the process as a power cut would: without a word, and without any cleaning up.
//!
//! `HOLDFAST_FAILPOINT=after-intents` aborts the process when it gets there. Only builds with debug assertions or the feature `failpoints` look at
//! the variable; in all others this is nothing.

/// Names of all places, in the order of a document's way.
pub const ALL: &[&str] = &[
    "before-commit",
    "after-commit",
    "after-fetch",
    "before-preflight",
    "after-preflight",
    "before-gate",
    "after-gate",
    "before-switch",
    "after-switch-journal",
    "after-switch",
    "before-intents",
    "after-intents",
    "before-record",
    "after-record",
    "before-prune",
    "after-prune",
    "before-applied",
    "after-applied",
    "before-stability",
    "before-proven",
    "after-proven",
    "before-failed",
    "after-failed",
    "before-rolling-back",
    "after-rolling-back",
    "before-restore",
    "after-restore",
    "before-rolled-back",
    "after-rolled-back",
];

/// Names of the places at which k3s is switched and brought back, in their order.
pub const SWITCH: &[&str] = &[
    "switch-begun",
    "switch-stopped",
    "switch-snapshot",
    "switch-committed",
    "switch-pointed",
    "restore-begun",
    "restore-stopped",
    "restore-halfway",
    "restore-datastore",
    "restore-committed",
    "restore-done",
];

/// Names of the places at which the operating system is exchanged and gone back from, in their order.
pub const OS: &[&str] = &[
    "before-stage-os",
    "after-stage-os",
    "before-switch-os",
    "os-journalled",
    "os-written-down",
    "os-stopped",
    "os-kept",
    "os-armed",
    "os-restarting",
    "after-switch-os",
    "os-fell-back",
    "before-restore-os",
    "os-returning",
    "os-returned",
    "after-restore-os",
];

/// Names of the places at which the record of boots is written and made smaller.
pub const BOOTS: &[&str] = &[
    "boots-before-append",
    "boots-half-append",
    "boots-after-append",
    "boots-before-compaction",
    "boots-after-compaction",
];

/// Names of the places of a factory reset, in their order.
pub const RESET: &[&str] = &[
    "reset-marked",
    "reset-keys-half",
    "reset-keys",
    "reset-kubernetes",
    "reset-store",
    "reset-personal",
    "reset-trimmed",
    "reset-done",
];

/// Names of the places at which an image of the operating system gets into its slot and becomes the next to boot.
pub const SLOTS: &[&str] = &[
    "os-old-uki-gone",
    "os-slot-disowned",
    "os-slot-part",
    "os-slot-verified",
    "os-slot-given",
    "os-uki-written",
    "os-other-armed",
];

/// Ends the process if this is the place.
pub fn reach(name: &str) {
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    {
        debug_assert!(
            [ALL, SWITCH, BOOTS, RESET, OS, SLOTS]
                .iter()
                .any(|list| list.contains(&name)),
            "{name} is not in the list of failpoints"
        );
        if std::env::var_os("HOLDFAST_FAILPOINT").is_some_and(|wanted| wanted == name) {
            std::process::abort();
        }
    }
    #[cfg(not(any(debug_assertions, feature = "failpoints")))]
    let _ = name;
}
