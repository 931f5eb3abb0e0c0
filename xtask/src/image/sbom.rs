//! The list of parts of an image, in SPDX 2.3.
//!
//! In: the packages of the image and the crates of the node. Out: a JSON document. Guarantees: the same image gives the same document.

use super::{Architecture, lock::Packages, mirror};
use crate::shell;
use anyhow::Result;
use serde_json::{Value, json};

/// The document; `epoch` is its date, in seconds since 1970.
pub fn spdx(
    architecture: Architecture,
    version: &str,
    packages: &Packages,
    usr_hash: &str,
    epoch: u64,
) -> Result<Vec<u8>> {
    let created = shell::output(
        shell::command("date")
            .args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d"])
            .arg(format!("@{epoch}")),
    )?;
    let mut parts = vec![json!({
        "SPDXID": "SPDXRef-image",
        "name": "holdfast-image",
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "comment": format!("dm-verity root hash of /usr: {usr_hash}"),
    })];
    for (index, (name, package)) in packages.iter().enumerate() {
        parts.push(json!({
            "SPDXID": format!("SPDXRef-deb-{index}"),
            "name": name,
            "versionInfo": package.version,
            "supplier": "Organization: Debian",
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "checksums": [{"algorithm": "SHA256", "checksumValue": package.sha256}],
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": format!(
                    "pkg:deb/debian/{name}@{}?arch={}&distro={}",
                    escaped(&package.version), package.architecture, mirror::RELEASE
                ),
            }],
        }));
    }
    for (index, (name, version, licence)) in crates(architecture)?.into_iter().enumerate() {
        parts.push(json!({
            "SPDXID": format!("SPDXRef-crate-{index}"),
            "name": name,
            "versionInfo": version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": if licence.is_empty() { "NOASSERTION".to_owned() } else { licence.replace('/', " OR ") },
            "copyrightText": "NOASSERTION",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": format!("pkg:cargo/{name}@{}", escaped(&version)),
            }],
        }));
    }
    let contained: Vec<Value> = parts[1..]
        .iter()
        .map(|part| {
            json!({
                "spdxElementId": "SPDXRef-image",
                "relationshipType": "CONTAINS",
                "relatedSpdxElement": part["SPDXID"],
            })
        })
        .collect();
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-image",
    })];
    relationships.extend(contained);
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("holdfast_{version}_{}", architecture.name()),
        "documentNamespace": format!("urn:holdfast:image:{usr_hash}"),
        "creationInfo": {"created": created.trim(), "creators": ["Tool: cargo xtask image"]},
        "packages": parts,
        "relationships": relationships,
    });
    let mut text = serde_json::to_vec_pretty(&document)?;
    text.push(b'\n');
    Ok(text)
}

/// The crates that the node is made of: name, version, licence.
fn crates(architecture: Architecture) -> Result<Vec<(String, String, String)>> {
    let tree = shell::output(
        shell::cargo()
            .args(["tree", "--locked", "--package", "holdfast", "--edges", "normal"])
            .args([
                "--prefix",
                "none",
                "--format",
                "{p}|{l}",
                "--target",
                architecture.target(),
            ]),
    )?;
    let mut crates: Vec<_> = tree.lines().filter_map(of_tree).collect();
    crates.sort();
    crates.dedup();
    Ok(crates)
}

/// `serde v1.0.1 (*)|MIT OR Apache-2.0`
fn of_tree(line: &str) -> Option<(String, String, String)> {
    let (package, licence) = line.split_once('|')?;
    let mut words = package.split(' ');
    let (name, version) = (words.next()?, words.next()?);
    let licence = licence.trim_end_matches("(*)").trim();
    Some((
        name.to_owned(),
        version.strip_prefix('v')?.to_owned(),
        licence.to_owned(),
    ))
}

/// A version in a package URL.
fn escaped(version: &str) -> String {
    version
        .replace('%', "%25")
        .replace('+', "%2B")
        .replace(':', "%3A")
        .replace('~', "%7E")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_read_from_cargos_tree() {
        assert_eq!(
            of_tree("serde v1.0.1|MIT OR Apache-2.0 (*)"),
            Some((
                "serde".to_owned(),
                "1.0.1".to_owned(),
                "MIT OR Apache-2.0".to_owned()
            ))
        );
        assert_eq!(of_tree(""), None);
    }
}
