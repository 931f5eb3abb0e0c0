//! What is done once the node has become quiet: memory goes back to the machine.
//!
//! In: [`stir`], called with every request to Kubernetes and every packet of the hub. Out: [`holdfast_memory::give_back`], once after each time of work. It guarantees
//! that a quiet node does nothing here, however long it is quiet.

use holdfast_store::Store;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::sleep};

/// So long after the last work the node counts as quiet: spare connections to the API server and spare threads have ended by then, and two
/// steps of one piece of work are not so far apart.
const QUIET: Duration = Duration::from_secs(10);

static WORK: AtomicU64 = AtomicU64::new(0);
static STIRRED: Notify = Notify::const_new();

/// Says that something is done.
pub fn stir() {
    WORK.fetch_add(1, Ordering::Relaxed);
    STIRRED.notify_one();
}

/// Gives memory back after each time of work, for ever; the start counts as work.
pub async fn run(store: Arc<Store>) {
    loop {
        let mut seen = WORK.load(Ordering::Relaxed);
        loop {
            sleep(QUIET).await;
            let now = WORK.load(Ordering::Relaxed);
            if now == seen {
                break;
            }
            seen = now;
        }
        // Pages of the database are read again when they are needed.
        if let Err(error) = store.shrink_memory() {
            tracing::debug!(%error, "the store keeps its pages in memory");
        }
        let given = holdfast_memory::give_back();
        tracing::debug!(
            heap_bytes = given.heap,
            program_bytes = given.program,
            "gave memory back"
        );
        while WORK.load(Ordering::Relaxed) == seen {
            STIRRED.notified().await;
        }
    }
}
