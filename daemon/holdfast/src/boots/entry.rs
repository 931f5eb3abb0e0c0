//! What is known of one start of the machine: the entry that people see, and the records that it is made of.

use holdfast_protocol::{Generation, Problem};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The most bytes of one text in a record; what is longer is cut.
const MAX_TEXT_BYTES: usize = 480;
/// The most kernel lines in a record.
pub const MAX_KERNEL_LINES: usize = 16;
/// The most bytes of one kernel line.
const MAX_LINE_BYTES: usize = 200;

/// Random id of one start of the machine, as the kernel gives it: `/proc/sys/kernel/random/boot_id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub String);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One start of the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Boot {
    /// Rises by one with each start of the machine, over the whole life of the state partition.
    pub number: u64,
    /// The kernel's id of it.
    pub id: BootId,
    /// When the machine started, by its clock of that moment.
    pub started_at: Timestamp,
    /// Whether that clock was not behind the hub's signed time; absent where no daemon came up to compare them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_trusted: Option<bool>,
    /// What was started.
    pub system: System,
    /// The newest document that the node had accepted when it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// How the boot before this one ended; absent where none before it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Ending>,
    /// What was decided and done in it, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Noted>,
}

impl Boot {
    /// Whether it was found good, or the problem why not; `None` where neither was decided.
    pub fn verdict(&self) -> Option<Result<(), &Problem>> {
        self.notes.iter().rev().find_map(|noted| match &noted.note {
            Note::Good => Some(Ok(())),
            Note::Bad { problem, .. } => Some(Err(problem)),
            _ => None,
        })
    }

    /// Why a restart was asked for in it, where it was.
    pub fn asked(&self) -> Option<&RebootReason> {
        self.notes.iter().rev().find_map(|noted| match &noted.note {
            Note::RebootAsked { reason } => Some(reason),
            _ => None,
        })
    }

    /// Whether it was ended in good order.
    pub fn shut_down(&self) -> bool {
        self.notes.iter().any(|noted| noted.note == Note::ShutDown)
    }
}

/// The operating system of a boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct System {
    /// `IMAGE_VERSION` of its `os-release`; absent on a machine that does not run the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// First 16 hexadecimal digits of the digest of its `/usr` (`usrhash=` of the kernel command line): what makes one image of a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usr: Option<String>,
    /// The partition it runs from, as the kernel names it: `vda3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Release of its kernel.
    pub kernel: String,
}

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Ending {
    /// Shut down in good order by a person or the system, with no reason of Holdfast's.
    Clean,
    /// Holdfast asked for the restart.
    Asked {
        /// Why.
        reason: RebootReason,
        /// Whether the machine got as far as to shut down in good order.
        clean: bool,
    },
    /// It was found bad, and was restarted for that.
    HealthFailed {
        /// What was wrong.
        problem: Problem,
    },
    /// The hardware watchdog reset the machine.
    Watchdog,
    /// The kernel panicked.
    Panic {
        /// The last lines of the kernel, the one that says why first.
        lines: Vec<String>,
    },
    /// Nothing was left behind: power was lost, or the machine was reset or hung.
    PowerLost,
}

/// Why Holdfast restarts a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum RebootReason {
    /// To come up with another operating system.
    OsSwitch {
        /// Its version.
        version: String,
    },
    /// To go back to the operating system of an earlier document.
    OsRestore {
        /// Its version.
        version: String,
    },
    /// The boot was not good in time.
    HealthFailed,
    /// To set the box back to how it left the factory.
    FactoryReset,
    /// A person asked for it at the box.
    Person,
}

/// What was noted down, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Noted {
    /// By the machine's clock of that moment.
    pub at: Timestamp,
    /// Seconds since the machine started, which no clock can falsify.
    pub up: u64,
    /// What.
    pub note: Note,
}

/// Something that was decided or done in a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "kind")]
pub enum Note {
    /// The daemon came up for the first time in this boot.
    Daemon {
        /// The newest document that it has.
        generation: Option<Generation>,
        /// Whether the clock is not behind the hub's signed time.
        clock_trusted: bool,
    },
    /// The boot was found good.
    Good,
    /// The boot was found bad.
    Bad {
        /// Which check failed: `state-partition`, `store`, `kubernetes`, `apps`.
        check: String,
        /// The cause.
        problem: Problem,
        /// The last lines of the kernel.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kernel: Vec<String>,
    },
    /// A step of an exchange of the operating system.
    Os {
        /// Which step.
        step: OsStep,
        /// The version it is about.
        version: String,
        /// More about it in one line; may be empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        detail: String,
    },
    /// Holdfast asked for a restart.
    RebootAsked {
        /// Why.
        reason: RebootReason,
    },
    /// The box was set back to how it left the factory.
    FactoryReset {
        /// Whether it stayed who it was.
        kept_identity: bool,
    },
    /// The machine is shutting down in good order.
    ShutDown,
    /// The end of the record, or lines in it, were damaged and left out.
    Damaged {
        /// How many bytes.
        bytes: u64,
    },
    /// The hub will hear of this boot: its event is in the outbox.
    Told,
    /// A note of a newer version.
    #[serde(other)]
    Unknown,
}

/// A step of an exchange of the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OsStep {
    /// The image is whole in the other slot.
    Staged,
    /// Its boot entry was installed; the next start tries it.
    Installed,
    /// It runs and is good; the exchange is done.
    Switched,
    /// It did not come up; the earlier one runs again, and this version is not tried any more.
    FellBack,
    /// The slot of an earlier document was chosen again.
    Restored,
}

/// A record of the file: one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Record {
    /// A boot began.
    Began(Began),
    /// Something was noted in a boot.
    Noted {
        /// Which.
        boot: BootId,
        /// What.
        #[serde(flatten)]
        noted: Noted,
    },
}

/// The first record of a boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Began {
    pub(super) number: u64,
    pub(super) id: BootId,
    pub(super) started_at: Timestamp,
    pub(super) system: System,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<Ending>,
    /// Names of the crash dumps that were there, so that the next boot knows which are new.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) dumps: Vec<String>,
}

/// `text` without control characters, at most `bytes` long.
fn cut(text: &str, bytes: usize) -> String {
    let mut kept = String::new();
    for character in text.chars() {
        let character = if character.is_control() { ' ' } else { character };
        if kept.len() + character.len_utf8() > bytes {
            break;
        }
        kept.push(character);
    }
    kept
}

/// Kernel lines as a record may hold them.
pub(super) fn bounded_lines(lines: &[String]) -> Vec<String> {
    lines
        .iter()
        .take(MAX_KERNEL_LINES)
        .map(|line| cut(line, MAX_LINE_BYTES))
        .collect()
}

fn bounded_problem(problem: &Problem) -> Problem {
    Problem::new(
        cut(&problem.code, 64),
        cut(&problem.message, MAX_TEXT_BYTES),
        cut(&problem.action, MAX_TEXT_BYTES),
    )
}

impl Note {
    /// The same with bounded texts: no caller can make the file large.
    pub(super) fn bounded(self) -> Self {
        match self {
            Self::Bad {
                check,
                problem,
                kernel,
            } => Self::Bad {
                check: cut(&check, 64),
                problem: bounded_problem(&problem),
                kernel: bounded_lines(&kernel),
            },
            Self::Os {
                step,
                version,
                detail,
            } => Self::Os {
                step,
                version: cut(&version, 64),
                detail: cut(&detail, MAX_TEXT_BYTES),
            },
            other => other,
        }
    }
}

impl Ending {
    /// In a few words, for people.
    pub fn words(&self) -> String {
        match self {
            Self::Clean => "shut down in good order".into(),
            Self::Asked { reason, clean } => {
                let unclean = if *clean { "" } else { ", not in good order" };
                format!("{}{unclean}", reason.words())
            }
            Self::HealthFailed { problem } => format!("found bad: {} [{}]", problem.message, problem.code),
            Self::Watchdog => "reset by the watchdog".into(),
            Self::Panic { lines } => match lines.first() {
                Some(line) => format!("kernel panic: {line}"),
                None => "kernel panic".into(),
            },
            Self::PowerLost => "power lost, or reset".into(),
        }
    }

    /// Whether nobody asked for it.
    pub fn is_unexpected(&self) -> bool {
        !matches!(self, Self::Clean | Self::Asked { .. })
    }
}

impl RebootReason {
    /// In a few words, for people.
    pub fn words(&self) -> String {
        match self {
            Self::OsSwitch { version } => format!("restarted into system {version}"),
            Self::OsRestore { version } => format!("restarted back into system {version}"),
            Self::HealthFailed => "restarted because it was not good in time".into(),
            Self::FactoryReset => "restarted for a factory reset".into(),
            Self::Person => "restarted by a person".into(),
        }
    }
}
