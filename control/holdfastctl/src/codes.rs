//! Names of the problems that `holdfastctl` itself finds. Those of the hub come through as they are.

/// No hub is known: nobody logged in, and the environment names none.
pub const NOT_LOGGED_IN: &str = "not-logged-in";
/// There is no context of that name.
pub const CONTEXT_UNKNOWN: &str = "context-unknown";
/// The file of contexts cannot be read or written, or others may read it.
pub const CONTEXT_FILE: &str = "context-file";
/// A file that was named cannot be read.
pub const FILE_UNREADABLE: &str = "file-unreadable";
/// The hub's certificate is signed by a CA that nobody confirmed.
pub const HUB_UNKNOWN: &str = "hub-unknown";
/// The hub does not answer.
pub const HUB_UNREACHABLE: &str = "hub-unreachable";
/// The hub's answer is none that this version understands.
pub const HUB_ANSWER_UNREADABLE: &str = "hub-answer-unreadable";
/// The hub's address cannot be used.
pub const HUB_ADDRESS: &str = "hub-address-invalid";
/// A value on the command line cannot be used.
pub const USAGE: &str = "usage";
/// Nodes did not prove the release in the time that was given.
pub const WAIT_TIMED_OUT: &str = "wait-timed-out";
/// A node reports that the release failed.
pub const WAIT_FAILED: &str = "wait-failed";
/// Something that cannot be undone needs `--yes` where nobody can be asked.
pub const NOT_CONFIRMED: &str = "not-confirmed";
/// The answer could not be written to the standard output.
pub const OUTPUT: &str = "output-failed";
/// A node that a value is to be sealed to has no key for it.
pub const SEALING_KEY_MISSING: &str = "sealing-key-missing";
