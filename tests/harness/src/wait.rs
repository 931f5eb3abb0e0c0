//! Waiting with a deadline. Where a part gives an event, the event is awaited; a condition that no part announces is looked at
//! again and again, with a short pause, until it holds or the deadline passes.

use anyhow::{Result, bail};
use std::{
    future::Future,
    time::{Duration, Instant},
};

/// Pause between two looks at a condition that no part announces.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Looks until `condition` gives a value; the error names what was awaited and what was seen last.
pub async fn until<T, F>(what: &str, within: Duration, mut condition: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let started = Instant::now();
    loop {
        let seen = match condition().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if started.elapsed() >= within {
            match seen {
                Some(error) => bail!("{what}: not within {within:?}; last seen: {error:#}"),
                None => bail!("{what}: not within {within:?}"),
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
