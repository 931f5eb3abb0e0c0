//! Waits for a moment of the wall clock, or for the clock to be set.
//!
//! In: a moment. Out: a ring, then or when somebody set the clock, whichever comes first. Nothing is polled: the kernel rings.

use jiff::Timestamp;
use nix::sys::{
    time::{TimeSpec, TimeValLike as _},
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use std::{io, os::fd::OwnedFd, time::Duration};
use tokio::{io::unix::AsyncFd, time::sleep};

/// Longest wait where the kernel cannot ring.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Seconds to a moment that is not in sight: a year.
const FAR: i64 = 365 * 86_400;

/// Waits until the system's clock shows `moment` (for ever where there is none), or until it is set. Cancel safe.
pub async fn reached_or_set(moment: Option<Timestamp>) {
    if let Err(error) = ring(moment).await {
        tracing::debug!(%error, "the kernel gives no timer");
        sleep(LOOK_AGAIN).await;
    }
}

async fn ring(moment: Option<Timestamp>) -> io::Result<()> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags)?;
    let far = Timestamp::now().as_second().saturating_add(FAR);
    let second = moment.map_or(far, Timestamp::as_second);
    timer.set(
        Expiration::OneShot(TimeSpec::seconds(second.max(1))),
        TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET,
    )?;
    // The one that replaces it is unsafe. What it guards against, a file that changes under it, cannot happen with an owned one.
    #[allow(deprecated)]
    let timer = AsyncFd::new(OwnedFd::from(timer))?;
    // Readable when it rings, and when the clock is set; the second comes as an error of the read, which is not made.
    let _ring = timer.readable().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use tokio::time::timeout;

    /// Long enough for the busiest machine, and far from waiting for good.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn it_rings_at_the_moment() {
        let moment = Timestamp::now() + SignedDuration::from_secs(2);
        timeout(PATIENCE, reached_or_set(Some(moment))).await.unwrap();
        assert!(Timestamp::now() >= Timestamp::from_second(moment.as_second()).unwrap());
    }

    #[tokio::test]
    async fn a_moment_that_has_passed_rings_at_once() {
        let rung = timeout(PATIENCE, reached_or_set(Some(Timestamp::UNIX_EPOCH)));
        rung.await.unwrap();
    }
}
