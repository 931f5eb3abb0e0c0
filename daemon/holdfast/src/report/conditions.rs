//! What is wrong for some time, beside apps and Kubernetes: a refused document, a full disk.

use holdfast_protocol::{Problem, report::Condition};
use jiff::Timestamp;
use std::collections::BTreeMap;
use tokio::sync::watch;

/// The present conditions, by who found them.
#[derive(Debug)]
pub struct Conditions {
    present: watch::Sender<BTreeMap<&'static str, Condition>>,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            present: watch::Sender::new(BTreeMap::new()),
        }
    }
}

impl Conditions {
    /// Something is wrong from now on; the same problem said again keeps its begin.
    pub fn set(&self, finder: &'static str, problem: Problem, now: Timestamp) {
        self.present.send_if_modified(|present| {
            if present
                .get(finder)
                .is_some_and(|condition| condition.problem == problem)
            {
                return false;
            }
            let since = present
                .get(finder)
                .filter(|condition| condition.problem.code == problem.code)
                .map_or(now, |condition| condition.since);
            present.insert(finder, Condition { problem, since });
            true
        });
    }

    /// What this finder had found is over.
    pub fn clear(&self, finder: &'static str) {
        self.present
            .send_if_modified(|present| present.remove(finder).is_some());
    }

    /// All of them.
    pub fn all(&self) -> Vec<Condition> {
        self.present.borrow().values().cloned().collect()
    }

    /// Rings with every change.
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<&'static str, Condition>> {
        self.present.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_begin_while_it_lasts() {
        let conditions = Conditions::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        conditions.set("store", Problem::new("disk-full", "no space for a", ""), at(1));
        conditions.set("store", Problem::new("disk-full", "no space for b", ""), at(2));
        assert_eq!(conditions.all()[0].since, at(1));
        assert_eq!(conditions.all()[0].problem.message, "no space for b");
        conditions.set("store", Problem::new("disk-read-only", "", ""), at(3));
        assert_eq!(conditions.all()[0].since, at(3));
        conditions.clear("store");
        assert!(conditions.all().is_empty());
    }
}
