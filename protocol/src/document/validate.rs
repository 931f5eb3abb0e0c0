//! The rules of a document that types alone cannot hold: limits, unique names, the shape of what is in it.
//!
//! In: a document as it was read. Out: nothing, or the first rule that it breaks with its place. Names of time zones are not looked up
//! here: what knows them differs between machines, and a release is checked for them when it is made.

mod app;
mod k3s;
mod policy;

use super::{
    App, Artifact, ArtifactSource, DesiredState, MAX_APPS, MAX_ARTIFACT_BYTES, MAX_OBJECTS,
    MAX_OS_VERSION_BYTES, OsSection, is_os_version,
};
use std::collections::{BTreeMap, BTreeSet};

/// The most archives of images for one architecture.
const MAX_ARTIFACTS: usize = 64;
/// The most sources of one artifact.
const MAX_SOURCES: usize = 16;

/// A rule of the schema that a document breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct InvalidDocument {
    /// Where, as a path into the document: `apps[2].name`.
    pub place: String,
    /// What is wrong with it.
    pub reason: String,
}

type Checked = Result<(), InvalidDocument>;

fn fail(place: impl Into<String>, reason: impl Into<String>) -> Checked {
    Err(InvalidDocument {
        place: place.into(),
        reason: reason.into(),
    })
}

fn require(holds: bool, place: impl Into<String>, reason: impl Into<String>) -> Checked {
    if holds { Ok(()) } else { fail(place, reason) }
}

impl DesiredState {
    /// Checks the rules that types alone cannot hold: limits, unique names, the shape of inline objects.
    pub fn validate(&self) -> Checked {
        require(
            self.generation.epoch > 0 && self.generation.counter > 0,
            "generation",
            format!("{} is below the first one, 1.1", self.generation),
        )?;
        require(
            self.apps.len() <= MAX_APPS,
            "apps",
            format!("{} apps; at most {MAX_APPS}", self.apps.len()),
        )?;
        policy::check(&self.policy)?;
        if let Some(section) = &self.k3s {
            k3s::check(section, !self.apps.is_empty())?;
        }
        if let Some(section) = &self.os {
            os(section)?;
        }
        let mut names = BTreeSet::new();
        let mut objects = 0;
        for (index, app) in self.apps.iter().enumerate() {
            let place = format!("apps[{index}]");
            require(
                names.insert(&app.name),
                format!("{place}.name"),
                format!("{:?} is the name of an earlier app too", app.name),
            )?;
            objects += app::check(&place, app)?;
        }
        require(
            objects <= MAX_OBJECTS,
            "apps",
            format!("{objects} objects; at most {MAX_OBJECTS}"),
        )
    }

    /// Every artifact that the document names itself: k3s's binaries, archives of images and manifests of the operating system, of all
    /// architectures. What the operating system's manifest names in turn is not among them.
    pub fn artifacts(&self) -> impl Iterator<Item = &Artifact> {
        let k3s = self.k3s.iter().flat_map(|k3s| {
            let images = k3s.images.values().flatten();
            k3s.binaries.values().chain(images)
        });
        let os = self.os.iter().flat_map(|os| os.images.values());
        k3s.chain(os).chain(self.apps.iter().flat_map(App::artifacts))
    }
}

impl App {
    /// Every artifact that the app names, of all architectures.
    pub fn artifacts(&self) -> impl Iterator<Item = &Artifact> {
        self.images.values().flatten()
    }
}

/// A DNS label, as Kubernetes demands it of namespaces.
pub(super) fn is_label(name: &str) -> bool {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=63).contains(&name.len()) && !name.starts_with('-') && !name.ends_with('-') && name.bytes().all(fits)
}

/// A DNS subdomain, as Kubernetes demands it of most names.
fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

fn label(place: String, name: &str) -> Checked {
    require(
        is_label(name),
        place,
        format!(
            "{name:?}: use 1 to 63 lower-case letters, digits and '-', starting and ending with a letter or digit"
        ),
    )
}

/// A line of text without control characters that a person can read at one glance.
fn line(place: &str, text: &str, most: usize) -> Checked {
    require(
        !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control),
        place,
        format!("{text:?}: use 1 to {most} characters on one line"),
    )
}

fn within(place: String, value: u32, least: u32, most: u32) -> Checked {
    require(
        (least..=most).contains(&value),
        place,
        format!("{value} is not within {least} and {most}"),
    )
}

fn os(section: &OsSection) -> Checked {
    require(
        is_os_version(&section.version),
        "os.version",
        format!(
            "{:?} is no version of an image: use 1 to {MAX_OS_VERSION_BYTES} letters, digits, '.', '-', '~' and '^', the first a letter or digit",
            section.version
        ),
    )?;
    require(
        !section.images.is_empty(),
        "os.images",
        "names no image; give the manifest of one for each architecture",
    )?;
    require(
        section.max_bytes_per_second != Some(0),
        "os.maxBytesPerSecond",
        "0 would never end; leave it out for no limit",
    )?;
    for (architecture, manifest) in &section.images {
        let place = format!("os.images.{architecture}");
        self::architecture(&place, architecture)?;
        artifact(&place, manifest)?;
    }
    Ok(())
}

fn images(place: &str, by_architecture: &BTreeMap<String, Vec<Artifact>>) -> Checked {
    for (architecture, artifacts) in by_architecture {
        let place = format!("{place}.{architecture}");
        self::architecture(&place, architecture)?;
        require(
            artifacts.len() <= MAX_ARTIFACTS,
            &place,
            format!("{} archives; at most {MAX_ARTIFACTS}", artifacts.len()),
        )?;
        for (index, artifact) in artifacts.iter().enumerate() {
            self::artifact(&format!("{place}[{index}]"), artifact)?;
        }
    }
    Ok(())
}

fn architecture(place: &str, name: &str) -> Checked {
    require(
        (1..=16).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()),
        place,
        format!("{name:?} is no architecture as k3s names them: amd64, arm64"),
    )
}

fn artifact(place: &str, artifact: &Artifact) -> Checked {
    require(
        (1..=MAX_ARTIFACT_BYTES).contains(&artifact.size),
        format!("{place}.size"),
        format!("{} bytes; 1 to {MAX_ARTIFACT_BYTES}", artifact.size),
    )?;
    require(
        artifact.name.len() <= 255
            && !artifact.name.contains(['/', '\0'])
            && !matches!(artifact.name.as_str(), "." | ".."),
        format!("{place}.name"),
        format!("{:?} is no file name", artifact.name),
    )?;
    require(
        artifact.sources.len() <= MAX_SOURCES,
        format!("{place}.sources"),
        format!("{} sources; at most {MAX_SOURCES}", artifact.sources.len()),
    )?;
    for (index, source) in artifact.sources.iter().enumerate() {
        let place = format!("{place}.sources[{index}]");
        let plain = |text: &str| !text.contains(|c: char| c.is_whitespace() || c.is_control());
        match source {
            ArtifactSource::Url(url) => require(
                url.len() <= 2_048
                    && plain(url)
                    && url.strip_prefix("https://").is_some_and(|rest| {
                        let host = rest.split('/').next().unwrap_or_default();
                        !host.is_empty() && !host.contains('@')
                    }),
                format!("{place}.url"),
                format!("{url:?}: use an address that starts with https:// and holds no password"),
            )?,
            ArtifactSource::Oci(repository) => require(
                repository.len() <= 512
                    && plain(repository)
                    && !repository.contains("://")
                    && repository
                        .split_once('/')
                        .is_some_and(|(host, path)| !host.is_empty() && !path.is_empty()),
                format!("{place}.oci"),
                format!("{repository:?}: use HOST/REPOSITORY, such as harbor.example.com/edge/k3s"),
            )?,
        }
    }
    Ok(())
}
