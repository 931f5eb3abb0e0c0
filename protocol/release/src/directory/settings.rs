//! `release.yaml` of a release directory: what holds for the release as a whole. All of it is optional; `docs/releases.md` shows all of it.
//!
//! In: the file. Out: the content of a release without its manifests, and settings of single apps. Guarantees: a key that is not known,
//! or of another type than it must be, is refused with its line and what to do.

use super::{
    artifacts::{Files, artifact, artifacts},
    culprit::culprit,
    files, invalid,
    shape::{self, place_of},
    yaml::{self, Places},
};
use crate::{Result, template::exactly_one};
use holdfast_protocol::{
    Problem,
    document::{App, K3sSection, OsSection, Policy},
    operator::ReleaseContent,
    trust::TrustPolicy,
    variable::{ValueRule, Variable},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Name of the file.
pub const FILE: &str = "release.yaml";
/// What it was called once.
pub const OLD_FILE: &str = "holdfast.yaml";
/// Seconds that apps must stay ready, where the file does not say.
const STABILITY_SECONDS: u32 = 10;

/// Its content.
#[derive(Debug, Default)]
pub struct Settings {
    /// All but the apps.
    pub content: ReleaseContent,
    /// Namespace for objects that name none.
    pub namespace: Option<String>,
    /// What holds for single apps, without manifests.
    pub apps: BTreeMap<String, App>,
    /// Files that become artifacts.
    pub files: Files,
    /// Where it all stands.
    source: Source,
}

#[derive(Debug, Default)]
struct Source {
    file: PathBuf,
    places: Places,
}

impl Source {
    /// A problem at a JSON pointer of the file.
    fn problem(&self, pointer: &str, reason: &str, action: &str) -> Problem {
        let file = self.file.display();
        let place = match place_of(&self.places, pointer) {
            Some((line, column)) => format!("{file}:{line}:{column}"),
            None => file.to_string(),
        };
        let path = pointer.trim_start_matches('/').replace('/', ".");
        invalid(&place, &format!("{path}: {reason}"), action)
    }

    fn typed<T: DeserializeOwned>(&self, pointer: &str, value: &Value) -> Result<T> {
        T::deserialize(value).map_err(|error| {
            let pointer = format!("{pointer}{}", culprit::<T>(value));
            self.problem(&pointer, &error.to_string(), "mend it there")
        })
    }
}

impl Settings {
    /// What holds where there is no file.
    pub fn none() -> Self {
        let mut settings = Self::default();
        settings.content.policy.stability_seconds = STABILITY_SECONDS;
        settings
    }

    /// Reads the file.
    pub fn read(file: &Path, os_keys: Option<&TrustPolicy>) -> Result<Self> {
        let (value, places) = one_document(file)?;
        let source = Source {
            file: file.to_owned(),
            places,
        };
        shape::check(&shape::RELEASE, &value, "")
            .map_err(|misfit| source.problem(&misfit.pointer, &misfit.reason, &misfit.action))?;
        let mut settings = Self::none();
        settings.source = source;
        let Value::Object(mut map) = value else {
            return Ok(settings);
        };
        let mut take = |key: &str| map.remove(key).filter(|value| !value.is_null());
        if let Some(Value::String(name)) = take("namespace") {
            settings.namespace = Some(name);
        }
        if let Some(value) = take("variables") {
            let each: BTreeMap<String, Option<Value>> = settings.source.typed("/variables", &value)?;
            for (name, value) in each {
                let pointer = format!("/variables/{name}");
                let variable: Variable = settings
                    .source
                    .typed(&pointer, &value.unwrap_or_else(|| json!({})))?;
                settings.content.variables.insert(name, variable);
            }
        }
        if let Some(value) = take("values") {
            let rules: Vec<ValueRule> = settings.source.typed("/values", &value)?;
            settings.content.values = rules;
        }
        if let Some(value) = take("policy") {
            settings.policy(value)?;
        }
        if let Some(value) = take("k3s") {
            settings.k3s(value)?;
        }
        if let Some(value) = take("os") {
            settings.os(value, os_keys)?;
        }
        if let Some(Value::Object(apps)) = take("apps") {
            for (name, value) in apps {
                let app = settings.app(&name, value)?;
                settings.apps.insert(name, app);
            }
        }
        Ok(settings)
    }

    /// Takes out what is filled in for each node and is no text.
    fn fields(&mut self, section: &str, map: &mut Map<String, Value>, texts: &[&str]) {
        let keys: Vec<String> = map
            .iter()
            .filter(|(key, value)| {
                !texts.contains(&key.as_str())
                    && value.as_str().is_some_and(|text| exactly_one(text).is_some())
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            if let Some(Value::String(text)) = map.remove(&key) {
                self.content.fields.insert(format!("/{section}/{key}"), text);
            }
        }
    }

    fn policy(&mut self, value: Value) -> Result<()> {
        let Value::Object(mut map) = value else {
            return Ok(());
        };
        map.retain(|_, value| !value.is_null());
        self.fields("policy", &mut map, &[]);
        let said = map.contains_key("stabilitySeconds");
        let mut policy: Policy = self.source.typed("/policy", &Value::Object(map))?;
        if !said {
            policy.stability_seconds = STABILITY_SECONDS.min(policy.ready_deadline_seconds.saturating_sub(1));
        }
        self.content.policy = policy;
        Ok(())
    }

    fn k3s(&mut self, value: Value) -> Result<()> {
        let Value::Object(mut map) = value else {
            return Ok(());
        };
        map.retain(|_, value| !value.is_null());
        self.fields("k3s", &mut map, &["version"]);
        let directory = self.source.file.parent().unwrap_or(Path::new(".")).to_owned();
        if let Some(Value::String(lock)) = map.remove("lock") {
            super::lock::merge(&directory.join(lock), &mut map)?;
        }
        if let Some(Value::Object(binaries)) = map.get_mut("binaries") {
            for (architecture, value) in binaries {
                artifact(&directory, value, &mut self.files)
                    .map_err(|problem| self.source.at(&format!("/k3s/binaries/{architecture}"), &problem))?;
            }
        }
        if let Some(value) = map.get_mut("images") {
            artifacts(&directory, value, &mut self.files)
                .map_err(|(pointer, problem)| self.source.at(&format!("/k3s/images{pointer}"), &problem))?;
        }
        if let Some(credentials) = map
            .get_mut("registries")
            .and_then(|registries| registries.get_mut("credentials")?.as_object_mut())
        {
            name_sources(credentials);
        }
        let section: K3sSection = self.source.typed("/k3s", &Value::Object(map))?;
        self.content.k3s = Some(section);
        Ok(())
    }

    fn os(&mut self, value: Value, keys: Option<&TrustPolicy>) -> Result<()> {
        let Value::Object(mut map) = value else {
            return Ok(());
        };
        map.retain(|_, value| !value.is_null());
        self.fields("os", &mut map, &["version"]);
        let directory = self.source.file.parent().unwrap_or(Path::new(".")).to_owned();
        super::os::resolve(&directory, &mut map, keys, &mut self.files)
            .map_err(|(pointer, problem)| self.source.at(&format!("/os{pointer}"), &problem))?;
        let section: OsSection = self.source.typed("/os", &Value::Object(map))?;
        self.content.os = Some(section);
        Ok(())
    }

    fn app(&mut self, name: &str, value: Value) -> Result<App> {
        let Value::Object(mut map) = value else {
            return Ok(App::default());
        };
        map.retain(|_, value| !value.is_null());
        let pointer = format!("/apps/{name}");
        if let Some(Value::Array(secrets)) = map.get_mut("secrets") {
            for data in secrets
                .iter_mut()
                .filter_map(|secret| secret.get_mut("data")?.as_object_mut())
            {
                name_sources(data);
            }
        }
        let directory = self.source.file.parent().unwrap_or(Path::new(".")).to_owned();
        if let Some(value) = map.get_mut("images") {
            artifacts(&directory, value, &mut self.files)
                .map_err(|(below, problem)| self.source.at(&format!("{pointer}/images{below}"), &problem))?;
        }
        map.insert("name".into(), name.into());
        map.insert("manifests".into(), json!([]));
        self.source.typed(&pointer, &Value::Object(map))
    }

    /// A problem of the content as a problem of this file, where that says it.
    pub fn at(&self, place: &str, reason: &str, apps: &[App]) -> Option<Problem> {
        let pointer = pointer_of(place, apps, &self.source.places);
        let mut parts = pointer.split('/').skip(1);
        let section = parts.next().unwrap_or_default();
        // Of an app, this file may say nothing at all.
        let above = match (section, parts.next()) {
            ("apps", Some(app)) => format!("/apps/{app}"),
            _ => format!("/{section}"),
        };
        (self.source.places.contains_key(&above))
            .then(|| self.source.problem(&pointer, reason, "mend it there"))
    }

    /// The problem of an app that is not there.
    pub fn unknown_app(&self, name: &str, apps: &[String]) -> Problem {
        let hint = crate::nearest(name, apps.iter().map(String::as_str))
            .map_or_else(String::new, |near| format!("did you mean {near:?}? "));
        self.source.problem(
            &format!("/apps/{name}"),
            "there is no app of that name",
            &format!("{hint}The apps are: {}", apps.join(", ")),
        )
    }
}

impl Source {
    fn at(&self, pointer: &str, problem: &Problem) -> Problem {
        let mut placed = self.problem(pointer, &problem.message, &problem.action);
        placed.code.clone_from(&problem.code);
        placed
    }
}

/// `apps[2].probes[0].name` as a pointer into the file, where apps are known by name.
fn pointer_of(place: &str, apps: &[App], places: &Places) -> String {
    let mut pointer = String::new();
    let mut rest = place;
    while !rest.is_empty() {
        let mut ends = rest.match_indices('.').map(|(end, _)| end).chain([rest.len()]);
        // A key may have dots itself, as the names of registries do.
        let end = ends
            .clone()
            .find(|end| places.contains_key(&format!("{pointer}/{}", escaped(&rest[..*end]))))
            .or_else(|| ends.next())
            .unwrap_or(rest.len());
        let part = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        let (key, index) = part
            .strip_suffix(']')
            .and_then(|part| part.split_once('['))
            .map_or((part, None), |(key, index)| (key, Some(index)));
        pointer.push('/');
        pointer.push_str(&escaped(key));
        if let Some(index) = index {
            pointer.push('/');
            let app = index.parse::<usize>().ok().and_then(|index| apps.get(index));
            match app {
                Some(app) if key == "apps" => pointer.push_str(&app.name),
                _ => pointer.push_str(&index.replace("][", "/")),
            }
        }
    }
    pointer
}

/// A key as a part of a JSON pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The one document of a file; null where it is empty.
pub(super) fn one_document(file: &Path) -> Result<(Value, Places)> {
    let name = file.display().to_string();
    let (mut documents, places) = yaml::parse_with_places(&files::read(file)?).map_err(|error| {
        invalid(
            &format!("{name}:{}:{}", error.line, error.column),
            &error.reason,
            "mend the YAML",
        )
    })?;
    match documents.len() {
        0 => Ok((Value::Null, places)),
        1 => Ok((documents.remove(0).value, places)),
        more => Err(invalid(
            &name,
            &format!("holds {more} documents instead of one"),
            "keep one of them",
        )),
    }
}

/// Values in their short form, the name that they were stored under, become whole.
fn name_sources(values: &mut Map<String, Value>) {
    for value in values.values_mut() {
        if value.is_string() {
            *value = json!({"source": value.take()});
        }
    }
}
