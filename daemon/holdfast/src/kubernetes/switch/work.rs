//! The two ways themselves: to another k3s, and back.
//!
//! In: the record of what runs, and a document. Out: another record, and an order. It guarantees the order of steps that the module's
//! head shows; each is a failpoint.

use super::{
    Binary, Change, Current, Document, Inner, Kept, Pair, SwitchError, Switched, artifact, pair::Pairs,
    record::Restoring,
};
use crate::{
    failpoint,
    kubernetes::{
        control::Order,
        install::{file_identity, find},
        version::{self, Skew, Version},
    },
    pace::Pace,
};
use holdfast_protocol::{
    Generation,
    document::{Artifact, K3sSection},
};
use std::path::Path;

/// Runs work that blocks. Only a panic in it, or the end of the daemon, is no result.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SwitchError> + Send + 'static,
) -> Result<T, SwitchError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(SwitchError::File {
            path: "the work on k3s's files".into(),
            reason: error.to_string(),
        }),
    }
}

impl Inner {
    /// The program of the settings, as it is now.
    pub(super) fn own_binary(&self) -> Binary {
        let path = find(&self.settings.kubernetes.binary);
        Binary {
            digest: None,
            file: file_identity(&path),
            version: None,
            path,
        }
    }

    /// Whether a section changes nothing, without asking a program.
    pub(super) fn is_same(&self, current: &Current, section: Option<&K3sSection>) -> bool {
        let program = match artifact(section) {
            Some(artifact) => current.binary.digest == Some(artifact.digest),
            None => {
                current.binary.digest.is_none()
                    && current.binary.path == find(&self.settings.kubernetes.binary)
            }
        };
        let version = section.and_then(|section| section.version.as_ref());
        program
            && version.is_none_or(|wanted| current.binary.version.as_ref() == Some(wanted))
            && self.target(section, &current.binary).identity() == self.target_of(current).identity()
    }

    /// The program that a section wants, installed and known by its version where that matters.
    async fn wanted_binary(
        &self,
        current: &mut Current,
        section: Option<&K3sSection>,
    ) -> Result<Binary, SwitchError> {
        let wanted = section.and_then(|section| section.version.as_ref());
        let mut binary = match artifact(section) {
            Some(artifact) if current.binary.digest == Some(artifact.digest) => current.binary.clone(),
            Some(artifact) => self.install(artifact).await?,
            None => {
                let own = self.own_binary();
                let said = current.binary.version.as_ref();
                if current.binary.digest.is_none()
                    && current.binary.path == own.path
                    && (own.file == current.binary.file || wanted.is_none_or(|wanted| said == Some(wanted)))
                {
                    // What runs, even where the file is another one by now: unless that is what is wanted, it is for the next start.
                    current.binary.clone()
                } else {
                    own
                }
            }
        };
        if binary.version.is_none() && (wanted.is_some() || !binary.is(&current.binary)) {
            binary.version = Some(self.ask(&binary.path).await?.to_string());
            let of = &current.binary;
            if (binary.digest, &binary.path, &binary.file) == (of.digest, &of.path, &of.file) {
                current.binary.version.clone_from(&binary.version);
            }
        }
        match (wanted, &binary.version) {
            (Some(wanted), Some(found)) if wanted != found => Err(SwitchError::WrongVersion {
                program: binary.path,
                wanted: wanted.clone(),
                found: found.clone(),
            }),
            _ => Ok(binary),
        }
    }

    pub(super) async fn install(&self, artifact: &Artifact) -> Result<Binary, SwitchError> {
        let (versions, blobs, of) = (self.versions.clone(), self.blobs.clone(), artifact.clone());
        let path = blocking(move || versions.install(&blobs, &of)).await?;
        let version = self.ask(&path).await?;
        Ok(Binary {
            digest: Some(artifact.digest),
            path,
            version: Some(version.to_string()),
            file: None,
        })
    }

    pub(super) async fn ask(&self, program: &Path) -> Result<Version, SwitchError> {
        version::ask(program)
            .await
            .map_err(|reason| SwitchError::VersionUnknown {
                program: program.to_owned(),
                reason,
            })
    }

    /// How the wanted program follows the one that runs. A program that cannot be asked leaves nothing to compare with.
    async fn skew(&self, current: &mut Current, next: &Binary) -> Skew {
        if current.binary.version.is_none() {
            match self.ask(&current.binary.path).await {
                Ok(version) => current.binary.version = Some(version.to_string()),
                Err(error) => tracing::warn!(%error, "the k3s before does not say its version"),
            }
        }
        let parse = |binary: &Binary| {
            binary
                .version
                .as_ref()
                .and_then(|text| text.parse::<Version>().ok())
        };
        match (parse(&current.binary), parse(next)) {
            (Some(from), Some(to)) => from.skew(&to),
            _ => Skew::SameMinor,
        }
    }

    pub(super) async fn check(&self, current: &mut Current, to: &Document) -> Result<Change, SwitchError> {
        let section = to.section.as_ref();
        if !self.settings.kubernetes.supervise || self.is_same(current, section) {
            return Ok(Change::Nothing);
        }
        let binary = self.wanted_binary(current, section).await?;
        if binary.is(&current.binary) {
            return Ok(if self.is_same(current, section) {
                Change::Nothing
            } else {
                Change::Configuration
            });
        }
        match self.skew(current, &binary).await {
            Skew::Skips => return Err(skips(current, &binary)),
            Skew::Older if self.pair_for(&binary, None).is_none() => return Err(downgrade(current, &binary)),
            _ => {}
        }
        let (pairs, database) = (self.pairs.clone(), self.place.database());
        blocking(move || pairs.check_room(&database)).await?;
        Ok(Change::Program {
            from: current.binary.version.clone(),
            to: binary.version,
        })
    }

    pub(super) async fn switch(&self, current: &mut Current, to: Document) -> Result<Switched, SwitchError> {
        let section = to.section.as_ref();
        if !self.settings.kubernetes.supervise || self.is_same(current, section) {
            return Ok(Switched::AlreadyRight);
        }
        let binary = self.wanted_binary(current, section).await?;
        if binary.is(&current.binary) {
            return self.reconfigure(current, to, binary).await;
        }
        match self.skew(current, &binary).await {
            Skew::SameMinor | Skew::NextMinor => self.replace(current, to, binary).await,
            Skew::Skips => Err(skips(current, &binary)),
            Skew::Older => match self.pair_for(&binary, None) {
                Some(pair) => self.go_back(current, to, binary, pair).await,
                None => Err(downgrade(current, &binary)),
            },
        }
    }

    pub(super) async fn restore(
        &self,
        current: &mut Current,
        to: Document,
        undo: Generation,
    ) -> Result<Switched, SwitchError> {
        let section = to.section.as_ref();
        if !self.settings.kubernetes.supervise || self.is_same(current, section) {
            return Ok(Switched::AlreadyRight);
        }
        let binary = self.wanted_binary(current, section).await?;
        if binary.is(&current.binary) {
            return self.reconfigure(current, to, binary).await;
        }
        let older = self.skew(current, &binary).await == Skew::Older;
        let exact = self
            .pairs
            .get(&Pairs::name(undo))
            .filter(|pair| pair.binary.is(&binary) && pair.datastore != Kept::Etcd);
        match exact.or_else(|| if older { self.pair_for(&binary, None) } else { None }) {
            Some(pair) => match self.go_back(current, to.clone(), binary.clone(), pair).await {
                // Within a minor version each patch reads what the other wrote: better that than the one which failed.
                Err(error) if !older && !error.is_retryable() => {
                    tracing::error!(%error, "the snapshot cannot be put back; the datastore stays as it is");
                    self.replace(current, to, binary).await
                }
                other => other,
            },
            None if older => Err(downgrade(current, &binary)),
            None => self.replace(current, to, binary).await,
        }
    }

    /// The newest pair of this program, if its datastore can be put back.
    pub(super) fn pair_for(&self, binary: &Binary, next_version: Option<&String>) -> Option<Pair> {
        self.pairs.list().into_iter().find(|pair| {
            pair.binary.is(binary)
                && pair.datastore != Kept::Etcd
                && next_version.is_none_or(|next| pair.next_version.as_ref() == Some(next))
        })
    }

    /// Another configuration for the same program.
    async fn reconfigure(
        &self,
        current: &mut Current,
        to: Document,
        binary: Binary,
    ) -> Result<Switched, SwitchError> {
        let next = Current {
            generation: Some(to.generation),
            section: to.section,
            binary,
            previous: current.previous.clone(),
        };
        let other = self.target_of(&next).identity() != self.target_of(current).identity();
        self.records.set_current(&next)?;
        *current = next;
        if !other {
            // Only that the version is the wanted one was in doubt.
            return Ok(Switched::AlreadyRight);
        }
        self.run(current).await;
        Ok(Switched::Done)
    }

    /// Another program: there.
    async fn replace(
        &self,
        current: &mut Current,
        to: Document,
        binary: Binary,
    ) -> Result<Switched, SwitchError> {
        let (pairs, database) = (self.pairs.clone(), self.place.database());
        blocking(move || pairs.check_room(&database)).await?;
        tracing::info!(from = ?current.binary.version, to = ?binary.version, "switching k3s");
        failpoint::reach("switch-begun");
        let next = Current {
            generation: Some(to.generation),
            section: to.section,
            previous: Some(current.binary.clone()),
            binary,
        };
        let left = self.leave(current, &next, Pairs::name(to.generation)).await;
        if let Err(error) = left {
            self.run(current).await;
            return Err(error);
        }
        *current = next;
        failpoint::reach("switch-committed");
        self.tidy(current);
        failpoint::reach("switch-pointed");
        self.run(current).await;
        Ok(Switched::Done)
    }

    async fn leave(&self, current: &Current, next: &Current, name: String) -> Result<(), SwitchError> {
        self.control.give(Order::Stop).await?;
        failpoint::reach("switch-stopped");
        self.take_pair(current, &next.binary, name).await?;
        failpoint::reach("switch-snapshot");
        self.records.set_current(next)
    }

    /// Keeps the datastore with the program that wrote it. k3s must not run.
    pub(super) async fn take_pair(
        &self,
        current: &Current,
        next: &Binary,
        name: String,
    ) -> Result<(), SwitchError> {
        let pair = Pair {
            name,
            sequence: 0,
            next_version: next.version.clone(),
            generation: current.generation,
            section: current.section.clone(),
            binary: current.binary.clone(),
            datastore: Kept::Nothing,
        };
        let (pairs, database) = (self.pairs.clone(), self.place.database());
        blocking(move || pairs.take(&database, pair)).await
    }

    /// Another program: back, with the datastore that it left.
    pub(super) async fn go_back(
        &self,
        current: &mut Current,
        to: Document,
        binary: Binary,
        pair: Pair,
    ) -> Result<Switched, SwitchError> {
        let (pairs, of) = (self.pairs.clone(), pair.clone());
        blocking(move || pairs.verify(&of)).await?;
        tracing::warn!(from = ?current.binary.version, to = ?binary.version, "bringing k3s back, with its datastore");
        let restoring = Restoring {
            to: Current {
                generation: Some(to.generation),
                section: to.section,
                binary,
                previous: None,
            },
            snapshot: pair.name,
        };
        self.records.set_restoring(&restoring)?;
        failpoint::reach("restore-begun");
        *current = self.finish_going_back(restoring).await;
        Ok(Switched::Done)
    }

    /// From the moment that a way back is written down there is no other way. It is tried until it works.
    pub(super) async fn finish_going_back(&self, restoring: Restoring) -> Current {
        let kubernetes = &self.settings.kubernetes;
        let mut pace = Pace::new(kubernetes.restart_min, kubernetes.restart_max);
        while let Err(error) = self.step_back(&restoring).await {
            tracing::error!(%error, "k3s cannot be brought back yet; it is tried again");
            tokio::time::sleep(pace.next_wait()).await;
        }
        let current = restoring.to;
        self.tidy(&current);
        failpoint::reach("restore-done");
        self.run(&current).await;
        current
    }

    async fn step_back(&self, restoring: &Restoring) -> Result<(), SwitchError> {
        self.control.give(Order::Stop).await?;
        failpoint::reach("restore-stopped");
        let (place, pairs, name) = (self.place.clone(), self.pairs.clone(), restoring.snapshot.clone());
        blocking(move || {
            match pairs.get(&name).map(|pair| pair.datastore) {
                Some(Kept::Sqlite { digest }) => place.put_back(&pairs.snapshot(&name, digest))?,
                Some(Kept::Nothing) => place.remove()?,
                Some(Kept::Etcd) | None => {
                    tracing::error!(%name, "the snapshot is gone; the datastore stays as it is");
                }
            }
            Ok(())
        })
        .await?;
        failpoint::reach("restore-datastore");
        self.records.set_current(&restoring.to)?;
        failpoint::reach("restore-committed");
        self.records.clear_restoring()
    }

    /// Links for people, and no more programs than needed.
    pub(super) fn tidy(&self, current: &Current) {
        let previous = current.previous.as_ref();
        let pointed = self
            .versions
            .point(&current.binary.path, previous.map(|binary| binary.path.as_path()));
        if let Err(error) = pointed {
            tracing::warn!(%error, "the links to k3s cannot be changed");
        }
        let kept: Vec<_> = [Some(&current.binary), previous]
            .into_iter()
            .flatten()
            .filter_map(|binary| binary.digest)
            .collect();
        self.versions.keep_only(&kept);
    }

    /// Lets k3s run as written down. That it cannot be started is told by its state, and tried again there.
    pub(super) async fn run(&self, current: &Current) {
        if let Err(error) = self.control.give(Order::Run(self.target_of(current))).await {
            tracing::warn!(%error, "k3s cannot be started yet");
        }
    }
}

fn skips(current: &Current, next: &Binary) -> SwitchError {
    SwitchError::Skips {
        from: said(&current.binary),
        to: said(next),
    }
}

fn downgrade(current: &Current, next: &Binary) -> SwitchError {
    SwitchError::Downgrade {
        from: said(&current.binary),
        to: said(next),
    }
}

fn said(binary: &Binary) -> String {
    binary
        .version
        .clone()
        .unwrap_or_else(|| binary.path.display().to_string())
}
