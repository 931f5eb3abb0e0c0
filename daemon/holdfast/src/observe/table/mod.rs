//! What is known of the observed objects, without any IO.
//!
//! In: what watches and looks say. Out: which objects drifted, which need a look, and the readiness of each app and of all.

use crate::kubernetes::metadata::{Metadata, ObjectVersion};
use crate::observe::{
    keys::Keys,
    look::is_ready_by_being_there,
    observer::Target,
    versions::Versions,
    watches::{KindName, Seen},
};
use holdfast_core::{
    object::ObjectKey,
    readiness::{IsolatedApp, Readiness, Summary},
};
use holdfast_protocol::report::{AppStatus, Health};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// One observed object.
#[derive(Debug)]
struct Entry {
    /// Place of its app.
    app: u32,
    /// What the watch said last.
    seen: Option<ObjectVersion>,
    /// Which object of this name is known to be gone; 0 where that is not known.
    gone: Option<u64>,
    /// Whether the list that is under way has named it.
    listed: bool,
    /// Most are healthy, and share the word of it.
    readiness: Option<Arc<Readiness>>,
}

/// All observed objects.
#[derive(Debug)]
pub(super) struct Table {
    keys: Keys,
    /// One for each key, at the same place.
    entries: Vec<Entry>,
    healthy: Arc<Readiness>,
    apps: Vec<String>,
    /// Apps that may fail alone, by place.
    isolated: BTreeSet<usize>,
    /// What apps must answer beside, each with its app's place and what was answered; without a place, nothing is expected any more.
    probes: Vec<(Option<usize>, Readiness)>,
    /// Whether nobody waits for answers any more: an app that gives none now has failed.
    settled: bool,
}

/// What follows from something that was seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Consequences {
    /// Objects that somebody else changed or deleted.
    pub drifted: Vec<ObjectKey>,
    /// Objects whose readiness may be another.
    pub look: Vec<ObjectKey>,
}

impl Consequences {
    /// These and those.
    pub(super) fn add(&mut self, others: Self) {
        self.drifted.extend(others.drifted);
        self.look.extend(others.look);
    }
}

impl Default for Table {
    fn default() -> Self {
        Self {
            keys: Keys::default(),
            entries: Vec::new(),
            healthy: Arc::new(Readiness::healthy()),
            apps: Vec::new(),
            isolated: BTreeSet::new(),
            probes: Vec::new(),
            settled: false,
        }
    }
}

impl Table {
    pub(super) fn new(mut targets: Vec<Target>, apps: Vec<String>) -> Self {
        let position: HashMap<_, _> = apps.iter().cloned().zip(0..).collect();
        targets.retain(|target| position.contains_key(&target.app));
        let entries = targets.iter().map(|target| Entry {
            app: position[&target.app],
            seen: None,
            gone: None,
            listed: false,
            readiness: None,
        });
        let entries = entries.collect();
        let keys = Keys::new(targets.iter().map(|target| &target.key));
        Self {
            keys,
            entries,
            apps,
            ..Self::default()
        }
    }

    /// Lets these apps fail alone.
    pub(super) fn isolate(&mut self, isolated: &BTreeSet<String>) {
        let places = self.apps.iter().enumerate();
        self.isolated = places
            .filter(|(_, app)| isolated.contains(*app))
            .map(|(place, _)| place)
            .collect();
    }

    /// Expects a good answer of this app too, before it counts as ready; gives the place for [`Self::probed`].
    pub(super) fn expect_probe(&mut self, app: &str) -> usize {
        let place = self.apps.iter().position(|known| known == app);
        let unknown = Readiness {
            health: Health::Progressing,
            cause: None,
        };
        self.probes.push((place, unknown));
        self.probes.len() - 1
    }

    /// Takes in what a probe said.
    pub(super) fn probed(&mut self, place: usize, readiness: Readiness) {
        if let Some((_, known)) = self.probes.get_mut(place) {
            *known = readiness;
            if self.settled {
                degrade(known);
            }
        }
    }

    /// Expects no answers any more but of apps that may fail alone and do not answer well: those have failed until they do. Gives the places
    /// of the probes that are still to be asked.
    pub(super) fn settle_probes(&mut self) -> BTreeSet<usize> {
        self.settled = true;
        let mut open = BTreeSet::new();
        for (place, (app, readiness)) in self.probes.iter_mut().enumerate() {
            if readiness.health != Health::Healthy && app.is_some_and(|app| self.isolated.contains(&app)) {
                degrade(readiness);
                open.insert(place);
            } else {
                *app = None;
            }
        }
        open
    }

    /// Expects no answers any more.
    pub(super) fn forget_probes(&mut self) {
        self.probes.clear();
        self.settled = false;
    }

    /// Takes over what the watches told the table before of the same objects. Answers with the kinds of which there are objects that it
    /// passed over: those must be listed anew.
    pub(super) fn inherit(&mut self, former: &mut Self) -> BTreeSet<KindName> {
        let mut passed_over = BTreeSet::new();
        for (place, key) in self.keys.iter().enumerate() {
            let Some((_, entry)) = former.get(&key) else {
                passed_over.insert((key.api_version, key.kind));
                continue;
            };
            let own = &mut self.entries[place];
            own.seen = entry.seen.take();
            own.gone = entry.gone;
            own.listed = entry.listed;
            if is_ready_by_being_there(&key) {
                own.readiness = entry.readiness.take();
            }
        }
        passed_over
    }

    pub(super) fn kinds(&self) -> BTreeSet<KindName> {
        self.keys.kinds().iter().cloned().collect()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = ObjectKey> {
        self.keys.iter()
    }

    pub(super) fn contains(&self, key: &ObjectKey) -> bool {
        self.keys.place(key).is_some()
    }

    fn get(&mut self, key: &ObjectKey) -> Option<(usize, &mut Entry)> {
        let place = self.keys.place(key)?;
        Some((place, &mut self.entries[place]))
    }

    /// Takes in what a watch says.
    pub(super) fn see(&mut self, kind: &KindName, seen: Seen, versions: &Versions) -> Consequences {
        match seen {
            Seen::ListBegins => {
                for (_, entry) in self.of_kind(kind) {
                    entry.listed = false;
                }
                Consequences::default()
            }
            Seen::Listed(metadata) => self.changed(kind, &metadata, versions, true),
            Seen::Changed(metadata) => self.changed(kind, &metadata, versions, false),
            Seen::Gone(metadata) => {
                let key = key_of(kind, &metadata);
                match self.get(&key) {
                    Some((_, entry)) => missing(&key, entry, metadata.version.uid, versions),
                    None => Consequences::default(),
                }
            }
            Seen::ListEnds => {
                let mut all = Consequences::default();
                for (key, entry) in self.of_kind(kind).filter(|(_, entry)| !entry.listed) {
                    let uid = entry.seen.take().map(|seen| seen.uid).unwrap_or_default();
                    all.add(missing(&key(), entry, uid, versions));
                }
                all
            }
            Seen::Broken(_) => Consequences::default(),
        }
    }

    /// Judges objects again whose writes have ended: what was seen during a write was not judged.
    pub(super) fn written(&mut self, ended: &HashSet<ObjectKey>, versions: &Versions) -> Consequences {
        let mut all = Consequences::default();
        for key in ended {
            let Some((_, entry)) = self.get(key) else {
                continue;
            };
            all.look.extend(needs_look(key));
            if is_drifted(key, entry, versions) || is_gone(key, entry, versions) {
                all.drifted.push(key.clone());
            }
        }
        all
    }

    /// Judges objects again of which it was not known before how they should be.
    pub(super) fn recorded(&mut self, keys: &HashSet<ObjectKey>, versions: &Versions) -> Consequences {
        let mut all = Consequences::default();
        for key in keys {
            let Some((_, entry)) = self.get(key) else {
                continue;
            };
            if let Some(seen) = entry.seen {
                versions.met(key, seen);
            }
            if is_drifted(key, entry, versions) || is_gone(key, entry, versions) {
                all.drifted.push(key.clone());
            }
        }
        all
    }

    /// Takes in what a look said.
    pub(super) fn looked(&mut self, key: &ObjectKey, readiness: Readiness) {
        let readiness = if readiness == *self.healthy {
            self.healthy.clone()
        } else {
            Arc::new(readiness)
        };
        if let Some((_, entry)) = self.get(key) {
            entry.readiness = Some(readiness);
        }
    }

    /// Whether an object is known not to be ready, or not known at all.
    pub(super) fn is_unready(&self, key: &ObjectKey) -> bool {
        self.keys.place(key).is_some_and(|place| {
            self.entries[place]
                .readiness
                .as_ref()
                .is_none_or(|readiness| readiness.health != Health::Healthy)
        })
    }

    /// Readiness of all objects and probes together, but for the apps that may fail alone: of those, the ones that are not healthy.
    pub(super) fn summary(&self) -> Summary {
        let mut summary = self.summarise(|app| !self.isolated.contains(&app));
        for place in &self.isolated {
            let one = self.summarise(|app| app == *place);
            if one.health != Health::Healthy {
                summary.isolated.push(IsolatedApp {
                    name: self.apps[*place].clone(),
                    health: one.health,
                    cause: one.cause,
                });
            }
        }
        summary
    }

    /// Readiness of the objects and probes of some apps.
    fn summarise(&self, picks: impl Fn(usize) -> bool) -> Summary {
        let mut summary = summarise(self.entries.iter().filter(|entry| picks(entry.app as usize)));
        for (app, readiness) in &self.probes {
            if app.is_some_and(&picks) && readiness.health > summary.health {
                summary.health = readiness.health;
                summary.cause.clone_from(&readiness.cause);
            }
        }
        summary
    }

    /// State of each app, in the document's order.
    pub(super) fn app_states(&self) -> Vec<AppStatus> {
        self.apps
            .iter()
            .enumerate()
            .map(|(place, name)| {
                let summary = self.summarise(|app| app == place);
                AppStatus {
                    name: name.clone(),
                    health: summary.health,
                    ready: summary.ready,
                    objects: summary.objects,
                    cause: summary.cause,
                }
            })
            .collect()
    }

    fn changed(
        &mut self,
        kind: &KindName,
        metadata: &Metadata,
        versions: &Versions,
        listed: bool,
    ) -> Consequences {
        let key = key_of(kind, metadata);
        let healthy = self.healthy.clone();
        let Some((_, entry)) = self.get(&key) else {
            return Consequences::default();
        };
        entry.listed |= listed;
        let version = metadata.version;
        versions.met(&key, version);
        if entry.seen.as_ref() == Some(&version) && entry.readiness.is_some() {
            return Consequences::default();
        }
        entry.seen = Some(version);
        entry.gone = None;
        let mut consequences = Consequences::default();
        if is_ready_by_being_there(&key) {
            entry.readiness = Some(healthy);
        }
        consequences.look.extend(needs_look(&key));
        if is_drifted(&key, entry, versions) {
            consequences.drifted.push(key);
        }
        consequences
    }

    /// The objects of a kind, each with what makes its key.
    fn of_kind<'a>(
        &'a mut self,
        kind: &'a KindName,
    ) -> impl Iterator<Item = (impl Fn() -> ObjectKey + use<'a>, &'a mut Entry)> {
        let keys = &self.keys;
        self.entries
            .iter_mut()
            .enumerate()
            .filter(move |(place, _)| keys.kind(*place) == kind)
            .map(move |(place, entry)| (move || keys.get(place), entry))
    }
}

/// What was not answered well in its time has failed; of what was not answered at all, nothing is known.
fn degrade(readiness: &mut Readiness) {
    if readiness.health == Health::Progressing && readiness.cause.is_some() {
        readiness.health = Health::Degraded;
    }
}

/// The object is not there, or no longer ours by its labels.
fn missing(key: &ObjectKey, entry: &mut Entry, uid: u64, versions: &Versions) -> Consequences {
    entry.seen = None;
    entry.gone = Some(uid);
    if !is_gone(key, entry, versions) {
        return Consequences::default();
    }
    entry.readiness = Some(Arc::new(Readiness::missing(key)));
    Consequences {
        drifted: vec![key.clone()],
        look: Vec::new(),
    }
}

/// Whether the object that our last write left is gone, and not only an earlier one of the same name.
fn is_gone(key: &ObjectKey, entry: &Entry, versions: &Versions) -> bool {
    match (&entry.gone, versions.settled(key)) {
        (Some(uid), Some(known)) => *uid == 0 || known.uid == 0 || *uid == known.uid,
        _ => false,
    }
}

fn is_drifted(key: &ObjectKey, entry: &Entry, versions: &Versions) -> bool {
    let (Some(seen), Some(known)) = (&entry.seen, versions.settled(key)) else {
        return false;
    };
    // An older state than that of our last write says nothing.
    seen.owned != known.owned && (seen.uid != known.uid || seen.is_after(&known))
}

fn needs_look(key: &ObjectKey) -> Option<ObjectKey> {
    (!is_ready_by_being_there(key)).then(|| key.clone())
}

fn key_of(kind: &KindName, metadata: &Metadata) -> ObjectKey {
    ObjectKey {
        api_version: kind.0.clone(),
        kind: kind.1.clone(),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
    }
}

fn summarise<'a>(entries: impl Iterator<Item = &'a Entry>) -> Summary {
    let unknown = Readiness {
        health: Health::Progressing,
        cause: None,
    };
    let all: Vec<_> = entries
        .map(|entry| entry.readiness.as_deref().unwrap_or(&unknown))
        .collect();
    Summary::of(all)
}

#[cfg(test)]
mod tests;
