//! When an object does its work, in the way of kstatus
//! (<https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus>), with the first cause in words.
//!
//! In: objects as the API server gives them. Out: [`Readiness`]. Guarantees: a status that the object's controller wrote for an
//! older specification never counts as ready.

#[cfg(test)]
mod tests;

use crate::{codes, object::ObjectKey};
use holdfast_protocol::{Problem, report::Health};

mod pods;
mod rules;

pub use pods::pod_cause;
pub use rules::{chart_job, chart_readiness, readiness};

/// Readiness of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Healthy, progressing, degraded; unknown is never given.
    pub health: Health,
    /// Why it is not healthy.
    pub cause: Option<Problem>,
}

impl Readiness {
    /// It does its work.
    pub const fn healthy() -> Self {
        Self {
            health: Health::Healthy,
            cause: None,
        }
    }

    /// It is on its way.
    pub const fn progressing(cause: Problem) -> Self {
        Self {
            health: Health::Progressing,
            cause: Some(cause),
        }
    }

    /// It is wrong, and will hardly get right by itself.
    pub const fn degraded(cause: Problem) -> Self {
        Self {
            health: Health::Degraded,
            cause: Some(cause),
        }
    }

    /// It is not in the cluster.
    pub fn missing(key: &ObjectKey) -> Self {
        Self::progressing(Problem::new(
            codes::OBJECT_MISSING,
            format!("{key} is not in the cluster"),
            "it is put back by itself",
        ))
    }

    /// The same health with a better cause, where there is one: a workload that is not healthy because of its pods.
    #[must_use]
    pub fn because_of(self, cause: Option<Problem>) -> Self {
        match (self.health, cause) {
            (Health::Healthy, _) | (_, None) => self,
            (_, cause) => Self { cause, ..self },
        }
    }
}

/// Readiness of many objects together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The worst health of all; healthy where there are none.
    pub health: Health,
    /// Objects that are healthy.
    pub ready: u32,
    /// Objects in all.
    pub objects: u32,
    /// The first cause of the worst health.
    pub cause: Option<Problem>,
    /// Apps that may fail alone and are not healthy. They are no part of the rest.
    pub isolated: Vec<IsolatedApp>,
}

/// An app that may fail alone and is not healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsolatedApp {
    /// Its name.
    pub name: String,
    /// Progressing or degraded.
    pub health: Health,
    /// The first cause of that; none where nothing was seen of the app yet.
    pub cause: Option<Problem>,
}

impl Summary {
    /// Takes many readinesses together.
    pub fn of<'a>(all: impl IntoIterator<Item = &'a Readiness>) -> Self {
        let mut summary = Self {
            health: Health::Healthy,
            ..Self::default()
        };
        for readiness in all {
            summary.objects += 1;
            summary.ready += u32::from(readiness.health == Health::Healthy);
            if readiness.health > summary.health {
                summary.health = readiness.health;
                summary.cause.clone_from(&readiness.cause);
            }
        }
        summary
    }
}
