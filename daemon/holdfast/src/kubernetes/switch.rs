//! Brings k3s to what a document says, and back.
//!
//! In: the k3s section of a document. Out: a k3s that runs so (or is on its way up), or a reason why not. It guarantees that nothing is
//! touched where everything is as wanted already.

use super::{
    control::{Control, Order},
    k3s_config,
    target::K3sTarget,
};
use crate::settings::Settings;
use holdfast_core::failure::Failure;
use holdfast_protocol::{Generation, NodeId, document::K3sSection};
use holdfast_store::Blobs;
use std::sync::Arc;
use tokio::sync::Mutex;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switched {
    /// Nothing: everything was as wanted.
    AlreadyRight,
    /// k3s was started as wanted.
    Done,
}

/// Where a document wants k3s to be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The document.
    pub generation: Generation,
    /// What it says of k3s.
    pub section: Option<&'a K3sSection>,
}

/// Switches k3s. One at a time; whoever comes second waits.
pub struct Switcher {
    settings: Arc<Settings>,
    node: NodeId,
    control: Control,
    running: Mutex<Option<K3sTarget>>,
}

impl Switcher {
    /// A switcher that gives its orders through `control`. Nothing runs before [`Self::take_up`].
    pub fn new(settings: Arc<Settings>, node: NodeId, _blobs: Blobs, control: Control) -> Self {
        Self {
            settings,
            node,
            control,
            running: Mutex::new(None),
        }
    }

    /// At the start of the daemon: lets k3s run as it was switched to last. `known` is the document that is kept up, for a box whose last
    /// switch was not written down.
    pub async fn take_up(&self, known: Option<Wanted<'_>>) {
        let mut running = self.running.lock().await;
        let target = self.target(known.and_then(|wanted| wanted.section));
        self.control.send(Order::Run(Arc::new(target.clone())));
        *running = Some(target);
    }

    /// Brings k3s to what a document says. Answers once it was started, before it is ready.
    ///
    /// # Errors
    /// What keeps it from being started. What ran before is not brought back by this; [`Self::restore`] is.
    pub async fn switch(&self, to: Wanted<'_>) -> Result<Switched, Failure> {
        let mut running = self.running.lock().await;
        let target = self.target(to.section);
        if running.as_ref() == Some(&target) {
            return Ok(Switched::AlreadyRight);
        }
        let order = Order::Run(Arc::new(target.clone()));
        *running = Some(target);
        match self.control.give(order).await {
            Ok(()) => Ok(Switched::Done),
            Err(error) => Err(Failure::of_document(error.problem(), true)),
        }
    }

    /// Brings k3s back to what `to` says. Where the document `undo` had switched it to another version, binary and datastore return as a pair.
    ///
    /// # Errors
    /// As for [`Self::switch`].
    pub async fn restore(&self, to: Wanted<'_>, undo: Generation) -> Result<Switched, Failure> {
        let _ = undo;
        self.switch(to).await
    }

    /// Whether a document with this section changes nothing of k3s.
    pub async fn is_as_wanted(&self, section: Option<&K3sSection>) -> bool {
        self.running.lock().await.as_ref() == Some(&self.target(section))
    }

    fn target(&self, section: Option<&K3sSection>) -> K3sTarget {
        K3sTarget {
            binary: self.settings.kubernetes.binary.clone().into(),
            digest: None,
            version: None,
            role: section.map(|section| section.role).unwrap_or_default(),
            config: k3s_config::render(&self.settings, &self.node, section),
            datastore: section
                .and_then(|section| section.datastore)
                .unwrap_or_else(|| self.settings.kubernetes_datastore()),
        }
    }
}
