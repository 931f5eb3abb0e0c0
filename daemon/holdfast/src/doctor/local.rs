//! Checks of the box itself: state directory, disk, clock, identity, certificate.

use super::{Check, Outcome};
use crate::{
    boots::BootLog,
    codes,
    enrol::renew::validity,
    identity::{self, Identity, IdentityError, clock::TimeFloor},
    reset,
    settings::{Settings, value::format_size},
};
use holdfast_protocol::codes as shared;
use jiff::{SignedDuration, Timestamp};
use nix::{
    sys::statvfs::statvfs,
    unistd::{AccessFlags, access},
};
use std::path::Path;

/// Below this, SQLite and k3s begin to fail.
const DISK_FAIL_BYTES: u64 = 64 << 20;
/// Below this, the next image pull may fail.
const DISK_WARN_BYTES: u64 = 512 << 20;
/// No box that runs this build can be younger: 2026-01-01. A clock before it was never set.
const EARLIEST_SECOND: i64 = 1_767_225_600;

pub(super) fn state_directory(settings: &Settings) -> Check {
    const NAME: &str = "state-directory";
    let path = &settings.state_dir;
    if !path.exists() {
        return Check::warn(
            NAME,
            format!("{} does not exist yet", path.display()),
            "holdfast makes it at its first start",
        );
    }
    if let Err(error) = identity::check_state_dir(path) {
        return Check::problem(NAME, Outcome::Fail, &(&error).into());
    }
    match access(path, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Check::ok(NAME, format!("{} is private and writable", path.display())),
        Err(error) => Check::fail(
            NAME,
            format!("{} cannot be written: {}", path.display(), error.desc()),
            "mount its file system writable, or run as its owner",
        ),
    }
}

/// An order of a factory reset that waits for a restart, which may come when nobody thinks of it any more.
pub(super) fn reset(settings: &Settings) -> Option<Check> {
    let boots = BootLog::new(&settings.state_dir);
    let problem = reset::pending(&settings.state_dir, &boots)?;
    let outcome = if problem.code == codes::RESET_ORDERED {
        Outcome::Warn
    } else {
        Outcome::Fail
    };
    Some(Check::problem("factory-reset", outcome, &problem))
}

/// A record of boots in which something cannot be read.
pub(super) fn boot_record(settings: &Settings) -> Option<Check> {
    let (_, problem) = BootLog::new(&settings.state_dir).examine();
    Some(Check::problem("boot-record", Outcome::Warn, &problem?))
}

pub(super) fn disk(settings: &Settings) -> Check {
    const NAME: &str = "disk";
    // Before the first start, the nearest directory above tells the file system.
    let path = settings
        .state_dir
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    let found = match statvfs(path) {
        Ok(found) => found,
        Err(error) => {
            return Check::fail(
                NAME,
                format!("cannot look at {}: {}", path.display(), error.desc()),
                "check the mount",
            );
        }
    };
    let free = found.blocks_available().saturating_mul(found.fragment_size());
    let inodes = found.files_available();
    let message = format!("{} free for {}", rounded(free), settings.state_dir.display());
    if free < DISK_FAIL_BYTES || (found.files() > 0 && inodes < 1_000) {
        let mut check = Check::fail(
            NAME,
            format!("{message}, {inodes} inodes"),
            "free space: remove unused images and logs; the running state is not touched meanwhile",
        );
        check.code = Some(shared::DISK_FULL.into());
        check
    } else if free < DISK_WARN_BYTES {
        Check::warn(NAME, message, "free space before the next release needs it")
    } else {
        Check::ok(NAME, message)
    }
}

pub(super) fn clock(floor: Option<&TimeFloor>) -> Check {
    const NAME: &str = "clock";
    let now = Timestamp::now();
    let shown = now.strftime("%Y-%m-%d %H:%M:%S UTC");
    let floor = floor.filter(|floor| floor.get().is_some());
    match floor.and_then(TimeFloor::behind) {
        Some(behind) => Check::warn(
            NAME,
            format!(
                "the system clock says {shown}, {} behind the newest signed time of the hub",
                rough(behind)
            ),
            "set the clock or start a time service; holdfast works with the hub's time meanwhile",
        ),
        None if now.as_second() < EARLIEST_SECOND => Check::warn(
            NAME,
            format!("the system clock says {shown}, which cannot be"),
            "set the clock or start a time service; enrolment with a pinned token works nevertheless",
        ),
        None if floor.is_none() => Check::ok(
            NAME,
            format!("{shown}; no signed time of a hub to compare with yet"),
        ),
        None => Check::ok(NAME, format!("{shown}, not behind the hub's signed time")),
    }
}

pub(super) fn identity(identity: &Result<Option<Identity>, IdentityError>) -> Check {
    const NAME: &str = "identity";
    match identity {
        Ok(Some(identity)) => Check::ok(
            NAME,
            format!("enrolled as {} at {}", identity.node, identity.hub_url),
        ),
        Ok(None) => {
            let mut check = Check::warn(
                NAME,
                "not enrolled",
                "make a token (holdfastctl token create) and run: holdfast enrol TOKEN",
            );
            check.code = Some(codes::NOT_ENROLLED.into());
            check
        }
        Err(error) => Check::problem(NAME, Outcome::Fail, &error.into()),
    }
}

pub(super) fn certificate(identity: &Identity, floor: &TimeFloor) -> Check {
    const NAME: &str = "certificate";
    let (begin, end) = match validity(&identity.certificate) {
        Ok(validity) => validity,
        Err(reason) => {
            return Check::fail(
                NAME,
                format!("the certificate cannot be read: {reason}"),
                "holdfast asks for a new one by itself as soon as the hub can be reached",
            );
        }
    };
    let now = floor.now();
    if now > end {
        Check::warn(
            NAME,
            format!("over since {}", end.strftime("%Y-%m-%d")),
            "nothing that runs is touched; holdfast renews it by itself as soon as the hub can be reached",
        )
    } else if now < begin {
        Check::warn(
            NAME,
            "not yet valid by this box's clock",
            "set the clock; nothing that runs is touched",
        )
    } else {
        Check::ok(
            NAME,
            format!(
                "valid until {}, renewed from {} on",
                end.strftime("%Y-%m-%d"),
                crate::enrol::renew::due(begin, end, 0.0).strftime("%Y-%m-%d")
            ),
        )
    }
}

fn rounded(bytes: u64) -> String {
    let unit = [1_u64 << 30, 1 << 20]
        .into_iter()
        .find(|unit| bytes >= *unit)
        .unwrap_or(1 << 10);
    format_size(bytes / unit * unit)
}

fn rough(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
