//! File descriptors: the number of sessions wanted goes in, the number that fits comes out.
//!
//! Guarantee: however many nodes come, the hub keeps descriptors for its database, its blobs and its own clients: a broker that
//! is full says so, instead of everything failing at once.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Of one session: to the client, and both ends of the way to rmqtt.
const PER_SESSION: u64 = 3;

/// Kept for everything else, unproven connections included.
const KEPT: u64 = 512;

/// Raises this process's soft limit of open files to the hard one where more is needed, and says how many sessions fit.
pub(super) fn sessions_that_fit(wanted: usize, handshakes: usize) -> usize {
    let kept = KEPT + handshakes as u64;
    let needed = (wanted as u64).saturating_mul(PER_SESSION).saturating_add(kept);
    let limit = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if soft >= needed => return wanted,
        Ok((soft, hard)) => {
            let raised = needed.min(hard);
            match setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
                Ok(()) => raised,
                Err(_) => soft,
            }
        }
        Err(_) => return wanted,
    };
    let fit = fitting(limit, kept).min(wanted);
    if fit < wanted {
        tracing::warn!(
            sessions = fit,
            wanted,
            open_files = limit,
            "not all sessions fit below the limit of open files: raise LimitNOFILE of the hub's service"
        );
    }
    fit
}

/// Sessions below a limit of open files; at least a few, so that a hub with a tiny limit is of some use.
fn fitting(limit: u64, kept: u64) -> usize {
    let sessions = limit.saturating_sub(kept) / PER_SESSION;
    usize::try_from(sessions).unwrap_or(usize::MAX).max(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_leave_descriptors_for_everything_else() {
        assert_eq!(fitting(1 << 20, 1536), 349_013);
        assert_eq!(fitting(4096, 1536), 853);
        assert_eq!(fitting(1024, 1536), 16);
    }

    #[test]
    fn what_fits_is_not_reduced() {
        assert_eq!(sessions_that_fit(1, 1), 1);
    }
}
