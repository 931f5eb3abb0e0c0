//! How a node is, in one word and an order; the web page decides it in the same way (`control/hub/web/state.js`).

use holdfast_protocol::{
    Problem,
    operator::NodeInfo,
    report::{Health, Phase},
};

/// How a node is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Something is wrong.
    Degraded,
    /// No link: nothing is known of now.
    Offline,
    /// It said nothing yet.
    Unknown,
    /// On its way.
    Progressing,
    /// As it should be.
    Healthy,
}

impl State {
    /// State of a node; without a link nothing is known of now, so that comes first.
    pub fn of(node: &NodeInfo) -> Self {
        if !node.online {
            return Self::Offline;
        }
        if gave_up(node) {
            return Self::Degraded;
        }
        match node.health {
            Health::Healthy if node.wanted.is_some() && node.proven != node.wanted => Self::Progressing,
            Health::Healthy => Self::Healthy,
            Health::Progressing => Self::Progressing,
            Health::Degraded => Self::Degraded,
            Health::Unknown => Self::Unknown,
        }
    }

    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Offline => "offline",
            Self::Unknown => "unknown",
            Self::Progressing => "progressing",
            Self::Healthy => "healthy",
        }
    }
}

/// The word for a health.
pub fn health_word(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Progressing => "progressing",
        Health::Degraded => "degraded",
        Health::Unknown => "unknown",
    }
}

/// What a phase means, in words that follow a generation.
pub fn phase_words(phase: Phase) -> &'static str {
    match phase {
        Phase::Idle => "idle",
        Phase::Fetching => "fetching what it needs",
        Phase::Preflight => "checking that it can work",
        Phase::WaitingForWindow => "waiting for its maintenance window",
        Phase::StagingOs => "writing the new operating system",
        Phase::SwitchingOs => "restarting into the new operating system",
        Phase::SwitchingKubernetes => "switching k3s",
        Phase::WaitingForKubernetes => "waiting for Kubernetes",
        Phase::Applying => "applying",
        Phase::Verifying => "applied, waiting until everything is ready",
        Phase::Committed => "proven",
        Phase::Failed => "failed",
        Phase::RollingBack => "rolling back",
        Phase::RolledBack => "rolled back to the last good generation",
    }
}

/// Whether what the node should run failed, whatever runs in its place.
pub fn gave_up(node: &NodeInfo) -> bool {
    node.status.as_ref().is_some_and(|status| {
        status.generation.accepted == node.wanted
            && matches!(status.generation.phase, Phase::Failed | Phase::RolledBack)
    })
}

/// The first thing that is wrong.
pub fn cause(node: &NodeInfo) -> Option<&Problem> {
    let status = node.status.as_ref();
    node.cause
        .as_ref()
        .or_else(|| status.and_then(|status| status.generation.cause.as_ref()))
        .or_else(|| {
            status
                .and_then(|status| status.conditions.first())
                .map(|condition| &condition.problem)
        })
        // An app that may fail alone is told at itself only.
        .or_else(|| {
            let apps = status.map(|status| status.apps.as_slice()).unwrap_or_default();
            apps.iter()
                .filter(|app| app.health == Health::Degraded)
                .find_map(|app| app.cause.as_ref())
        })
}
