//! `helm.yaml`: a chart becomes a `HelmChart` object, which the controller within k3s installs.
//!
//! In: `helm.yaml` and the chart that it names, a directory or a `.tgz`. Out: one object with the chart in it. Guarantees: the same chart
//! directory gives the same bytes on every machine and at any time, so that nothing is installed again because a file was touched;
//! values that are filled in for each node keep their types and cannot break out of the values they stand in.

use super::{files, invalid, settings::one_document, shape};
use crate::{Result, codes, template::as_json_text};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, GzBuilder, read::GzDecoder};
use holdfast_protocol::Problem;
use serde_json::{Map, Value, json};
use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

/// Name of the file.
pub(super) const FILE: &str = "helm.yaml";
/// The largest packed chart, in bytes. Kubernetes takes requests of 3 MiB and kine rows of 1.5 MiB by default; in base64 this is 1 MiB.
const MAX_CHART_BYTES: usize = 768 * 1024;
/// The most bytes that a packed chart may unfold to when it is looked at.
const MAX_UNPACKED_BYTES: u64 = 64 * 1024 * 1024;
/// How deep a chart directory is looked into.
const MAX_DEPTH: usize = 16;
/// Where k3s's controller looks for charts.
const NAMESPACE: &str = "kube-system";

fn unusable(place: &Path, what: &str, action: &str) -> Problem {
    Problem::new(
        codes::CHART_INVALID,
        format!("{}: {what}", place.display()),
        action,
    )
}

/// The chart that a `helm.yaml` names, where it is below the app: its files are no manifests.
pub(super) fn chart_path(file: &Path) -> Option<PathBuf> {
    let (value, _) = one_document(file).ok()?;
    let chart = value.get("chart")?.as_str()?;
    fs::canonicalize(file.parent()?.join(chart)).ok()
}

/// The file of values that a `helm.yaml` names: it is no manifest.
pub(super) fn values_path(file: &Path) -> Option<PathBuf> {
    let (value, _) = one_document(file).ok()?;
    let values = value.get("valuesFile")?.as_str()?;
    fs::canonicalize(file.parent()?.join(values)).ok()
}

/// The `HelmChart` object of a `helm.yaml`.
pub(super) fn object(file: &Path, app: &str, namespace: Option<&str>) -> Result<Value> {
    let (settings, places) = one_document(file)?;
    shape::check(&shape::HELM, &settings, "").map_err(|misfit| {
        let place = match shape::place_of(&places, &misfit.pointer) {
            Some((line, column)) => format!("{}:{line}:{column}", file.display()),
            None => file.display().to_string(),
        };
        invalid(&place, &misfit.reason, &misfit.action)
    })?;
    let text = |key: &str| settings.get(key).and_then(Value::as_str);
    let directory = file.parent().unwrap_or(Path::new("."));
    let Some(chart) = text("chart") else {
        return Err(unusable(
            file,
            "names no chart",
            "write chart: with the chart's directory or its .tgz beside this file",
        ));
    };
    if chart.contains("://") {
        return Err(unusable(
            file,
            &format!("the chart {chart} is not in the release"),
            "fetch it first, helm pull, so that the release is the same tomorrow and works without a network",
        ));
    }
    let path = directory.join(chart);
    let packed = if path.is_dir() {
        pack(&path)?
    } else {
        read_bytes(&path)?
    };
    if packed.len() > MAX_CHART_BYTES {
        return Err(unusable(
            &path,
            &format!(
                "the chart is {} bytes packed; at most {MAX_CHART_BYTES}",
                packed.len()
            ),
            "name the .tgz of helm package, which leaves out what .helmignore names; or remove unused sub-charts",
        ));
    }
    let version = version_of(&packed).map_err(|what| unusable(&path, &what, "make it with helm package"))?;
    if let Some(wanted) = text("version")
        && wanted != version
    {
        return Err(unusable(
            &path,
            &format!("is version {version}, and {} wants {wanted}", file.display()),
            "get that version of the chart, or correct version",
        ));
    }
    let mut values = Map::new();
    if let Some(name) = text("valuesFile") {
        let (from_file, _) = one_document(&directory.join(name))?;
        match from_file {
            Value::Object(map) => values = map,
            Value::Null => {}
            _ => {
                return Err(unusable(
                    &directory.join(name),
                    "holds no map",
                    "write the chart's values there",
                ));
            }
        }
    }
    if let Some(Value::Object(own)) = settings.get("values") {
        merge(&mut values, own);
    }
    let mut spec = Map::new();
    spec.insert("chartContent".into(), STANDARD.encode(&packed).into());
    let target = text("namespace").or(namespace).unwrap_or("default");
    spec.insert("targetNamespace".into(), target.into());
    let create = settings
        .get("createNamespace")
        .and_then(Value::as_bool)
        .unwrap_or(true);
    spec.insert("createNamespace".into(), create.into());
    if !values.is_empty() {
        // JSON is YAML. Unlike `values`, every k3s of the last years knows this field.
        spec.insert(
            "valuesContent".into(),
            as_json_text(&Value::Object(values)).into(),
        );
    }
    for key in ["timeout", "failurePolicy"] {
        if let Some(value) = text(key) {
            spec.insert(key.into(), value.into());
        }
    }
    Ok(json!({
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChart",
        "metadata": {"name": text("releaseName").unwrap_or(app), "namespace": NAMESPACE},
        "spec": spec,
    }))
}

/// Values over values, key by key, as Helm does it.
fn merge(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Object(below)), Value::Object(value)) => merge(below, value),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    files::require_readable(path)?;
    fs::read(path).map_err(|error| files::unreadable(path, &error))
}

/// Packs a chart directory: sorted, without times, owners and modes of this machine.
fn pack(directory: &Path) -> Result<Vec<u8>> {
    let chart = files::read(&directory.join("Chart.yaml"))
        .map_err(|_| unusable(directory, "holds no Chart.yaml", "name the chart's own directory"))?;
    let name = chart_field(&chart, "name").ok_or_else(|| {
        unusable(
            &directory.join("Chart.yaml"),
            "has no name",
            "write the chart's name there",
        )
    })?;
    if directory.join("Chart.lock").exists() && !directory.join("charts").is_dir() {
        return Err(unusable(
            directory,
            "needs other charts that are not in it",
            "run helm dependency build there first",
        ));
    }
    let mut found = Vec::new();
    collect(directory, &mut Vec::new(), &mut found)?;
    found.sort();
    let broken = |error: std::io::Error| files::unreadable(directory, &error);
    let mut gzip = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(Vec::new(), Compression::best());
    for relative in found {
        let path = directory.join(&relative);
        let content = read_bytes(&path)?;
        let header = tar_header(&format!("{name}/{relative}"), content.len())
            .ok_or_else(|| unusable(&path, "its path is too long for a chart", "shorten it"))?;
        gzip.write_all(&header).map_err(broken)?;
        gzip.write_all(&content).map_err(broken)?;
        gzip.write_all(&vec![0; content.len().next_multiple_of(512) - content.len()])
            .map_err(broken)?;
    }
    gzip.write_all(&[0; 1024]).map_err(broken)?;
    gzip.finish().map_err(broken)
}

/// Files of a chart by their path within it, without hidden ones and without what packing them twice would add.
fn collect(directory: &Path, below: &mut Vec<String>, found: &mut Vec<String>) -> Result<()> {
    if below.len() > MAX_DEPTH {
        return Err(unusable(
            directory,
            &format!("is nested deeper than {MAX_DEPTH} directories"),
            "remove the link that leads in a circle",
        ));
    }
    let (directories, files) = files::list(directory)?;
    let name_of = |path: &Path| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    for file in files {
        let mut parts = below.clone();
        parts.push(name_of(&file));
        found.push(parts.join("/"));
    }
    // Hidden, but part of what Helm packs.
    if below.is_empty() && directory.join(".helmignore").is_file() {
        found.push(".helmignore".into());
    }
    for directory in directories {
        below.push(name_of(&directory));
        collect(&directory, below, found)?;
        below.pop();
    }
    Ok(())
}

/// A header of a tar file in the ustar form (POSIX.1-1988), with nothing of this machine in it.
fn tar_header(path: &str, size: usize) -> Option<[u8; 512]> {
    let mut header = [0; 512];
    let (prefix, name) = if path.len() <= 100 {
        ("", path)
    } else {
        // Split at a slash so that both parts fit.
        path.match_indices('/')
            .map(|(at, _)| (&path[..at], &path[at + 1..]))
            .find(|(prefix, name)| prefix.len() <= 155 && name.len() <= 100)?
    };
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(345, prefix.as_bytes());
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(header)
}

/// Version of a packed chart, out of its `Chart.yaml`.
fn version_of(packed: &[u8]) -> std::result::Result<String, String> {
    let mut unpacked = Vec::new();
    GzDecoder::new(packed)
        .take(MAX_UNPACKED_BYTES)
        .read_to_end(&mut unpacked)
        .map_err(|error| format!("is no packed chart: {error}"))?;
    let mut rest = unpacked.as_slice();
    while let Some((header, body)) = rest.split_at_checked(512) {
        let text = |from: usize, to: usize| {
            let field = &header[from..to];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).into_owned()
        };
        let name = text(0, 100);
        if name.is_empty() {
            break;
        }
        let size = usize::from_str_radix(text(124, 136).trim(), 8)
            .map_err(|_| "is no packed chart: its table of files is damaged".to_owned())?;
        let Some(content) = body.get(..size) else {
            return Err("is no packed chart: it ends early".into());
        };
        if name.split('/').collect::<Vec<_>>()[1..] == ["Chart.yaml"] {
            let chart = String::from_utf8_lossy(content);
            return chart_field(&chart, "version").ok_or_else(|| "its Chart.yaml has no version".into());
        }
        rest = body.get(size.next_multiple_of(512)..).unwrap_or_default();
    }
    Err("is no packed chart: there is no Chart.yaml in it".into())
}

fn chart_field(chart: &str, field: &str) -> Option<String> {
    let documents = super::yaml::parse(chart).ok()?;
    match documents.first()?.value.get(field)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_holds_long_paths_in_two_parts() {
        let long = format!("chart/{}/{}.yaml", "d".repeat(90), "f".repeat(60));
        let header = tar_header(&long, 7).unwrap();
        assert_eq!(&header[..65], format!("{}.yaml", "f".repeat(60)).as_bytes());
        assert!(header[345..].starts_with(b"chart/ddd"));
        assert!(tar_header(&"x".repeat(101), 0).is_none());
    }

    #[test]
    fn values_are_merged_key_by_key() {
        let map = |value: Value| value.as_object().unwrap().clone();
        let mut base = map(json!({"a": {"b": 1, "c": 2}, "list": [1, 2]}));
        merge(&mut base, &map(json!({"a": {"c": 3}, "list": [3]})));
        assert_eq!(Value::Object(base), json!({"a": {"b": 1, "c": 3}, "list": [3]}));
    }
}
