//! Secrets: sealed here, to each node's own key; the hub gets only what the nodes alone can open.

use crate::{
    cli::SecretCommand,
    client::{Client, encoded},
    codes,
    failure::{Failure, Result},
    output::{self, Format, Table, age},
};
use holdfast_protocol::{
    NodeId,
    document::Sealed,
    operator::{NodeInfo, PutSecret, SecretInfo, StoredSecret},
    seal::{MAX_VALUE_BYTES, Zeroizing, seal},
    sealing::secret_name,
};
use jiff::Timestamp;
use reqwest::Method;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// Runs a command about secrets.
pub async fn run(client: &Client, command: SecretCommand, format: Format) -> Result<()> {
    match command {
        SecretCommand::Set {
            name,
            nodes,
            selector,
            all,
            from_file,
        } => {
            // Read first: a file that is not there is a mistake that needs no hub.
            let value = read(&from_file)?;
            let selector = if all { Some(String::new()) } else { selector };
            let chosen = choose(client, &nodes, selector.as_deref()).await?;
            let values = seal_to(&chosen, name.as_str(), &value)?;
            let path = format!("api/v1/secrets/{name}");
            let stored: StoredSecret = client
                .call(
                    Method::PUT,
                    &path,
                    &PutSecret {
                        values: values.clone(),
                    },
                )
                .await?;
            format.show(&stored, |_| sealed_to(&stored, &values))
        }
        SecretCommand::List => {
            let secrets: Vec<SecretInfo> = client.get("api/v1/secrets").await?;
            format.show(&secrets, |wide| list(&secrets, wide))
        }
        SecretCommand::Delete { name, yes } => {
            let shown = output::printable(&name);
            super::confirm(&format!("Delete the secret {shown} with all its values?"), yes)?;
            client
                .delete(&format!("api/v1/secrets/{}", encoded(&name)))
                .await?;
            output::note(&format!("Secret {shown} is deleted."));
            Ok(())
        }
    }
}

/// The value, exactly as the file or the standard input has it.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let unreadable = |error: io::Error| {
        Failure::new(
            codes::FILE_UNREADABLE,
            format!("{}: {error}", path.display()),
            "name a file with the value, or - for the standard input",
        )
    };
    let mut value = Zeroizing::new(Vec::new());
    let limit = MAX_VALUE_BYTES as u64 + 1;
    if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut value)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut value))
    }
    .map_err(unreadable)?;
    if value.is_empty() || value.len() > MAX_VALUE_BYTES {
        return Err(Failure::new(
            codes::USAGE,
            if value.is_empty() {
                format!("{}: it is empty", path.display())
            } else {
                format!("{}: it has more than {MAX_VALUE_BYTES} bytes", path.display())
            },
            "a secret has 1 to 65,536 bytes",
        ));
    }
    Ok(value)
}

async fn choose(client: &Client, names: &[NodeId], selector: Option<&str>) -> Result<Vec<NodeInfo>> {
    let mut chosen = BTreeMap::new();
    for name in names {
        let node: NodeInfo = client.get(&format!("api/v1/nodes/{name}")).await?;
        chosen.insert(node.id.clone(), node);
    }
    if let Some(selector) = selector {
        let query = if selector.is_empty() {
            String::new()
        } else {
            format!("?selector={}", encoded(selector))
        };
        let found: Vec<NodeInfo> = client.get(&format!("api/v1/nodes{query}")).await?;
        chosen.extend(found.into_iter().map(|node| (node.id.clone(), node)));
    }
    if chosen.is_empty() {
        return Err(Failure::new(
            codes::USAGE,
            "no node has these labels, so there is nobody to seal to",
            "`holdfastctl node list` shows the labels",
        ));
    }
    Ok(chosen.into_values().collect())
}

fn seal_to(nodes: &[NodeInfo], name: &str, value: &[u8]) -> Result<BTreeMap<NodeId, Sealed>> {
    let without: Vec<_> = nodes
        .iter()
        .filter(|node| node.sealing_key.is_none())
        .map(|node| node.id.as_str())
        .collect();
    if !without.is_empty() {
        return Err(Failure::new(
            codes::SEALING_KEY_MISSING,
            format!("these nodes have no sealing key yet: {}", without.join(", ")),
            "update holdfast on them: they tell their keys as soon as they reach the hub; nothing was sealed",
        ));
    }
    let mut values = BTreeMap::new();
    for node in nodes {
        let Some(key) = &node.sealing_key else { continue };
        let sealed = seal(key, &secret_name(name), value).map_err(|error| {
            Failure::new(
                codes::SEALING_KEY_MISSING,
                format!("node {}: {error}", node.id),
                "the box must make a new key: move identity/sealing.key away on it and restart holdfast",
            )
        })?;
        values.insert(node.id.clone(), sealed);
    }
    Ok(values)
}

fn sealed_to(stored: &StoredSecret, values: &BTreeMap<NodeId, Sealed>) -> String {
    let mut text = format!("Sealed {} to {} nodes:\n", stored.name, values.len());
    for (node, sealed) in values {
        let generation = stored
            .generations
            .get(node)
            .map_or_else(String::new, |generation| {
                format!(", sent as generation {generation}")
            });
        let _ = writeln!(text, "  {node} (key {}){generation}", sealed.key);
    }
    text
}

fn list(secrets: &[SecretInfo], wide: bool) -> String {
    let now = Timestamp::now();
    let mut table = Table::new(["NAME", "NODES", "TO SEAL AGAIN", "CHANGED"]);
    for secret in secrets {
        let old: Vec<_> = secret
            .nodes
            .iter()
            .filter(|(_, to)| !to.current)
            .map(|(node, _)| node.as_str())
            .collect();
        let newest = secret.nodes.values().map(|to| to.updated_at).max();
        table.row([
            output::printable(&secret.name),
            secret.nodes.len().to_string(),
            if old.is_empty() {
                "-".to_owned()
            } else if wide || old.len() <= 3 {
                old.join(",")
            } else {
                format!("{},… ({})", old[..3].join(","), old.len())
            },
            age(newest.unwrap_or(secret.created_at), now),
        ]);
    }
    table.render("There are no secrets. Make one: holdfastctl secret set NAME --node NODE --from-file FILE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_protocol::seal::SealingKey;
    use serde_json::json;
    use std::io::Write as _;

    fn node(name: &str, key: Option<&SealingKey>) -> NodeInfo {
        let mut value = json!({
            "id": name, "labels": {}, "hardware": {}, "enrolledAt": "2026-01-01T00:00:00Z",
            "certificateExpiresAt": "2026-01-01T00:00:00Z", "online": true, "health": "unknown"
        });
        if let Some(key) = key {
            value["sealingKey"] = key.public().to_string().into();
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn each_node_gets_what_it_alone_can_open() {
        let (one, two) = (SealingKey::generate(), SealingKey::generate());
        let nodes = [node("a", Some(&one)), node("b", Some(&two))];
        let values = seal_to(&nodes, "till", b"hunter2").unwrap();
        let of = |name: &str| &values[&name.parse::<NodeId>().unwrap()];
        assert_eq!(one.open("secret/till", of("a")).unwrap().as_slice(), b"hunter2");
        assert_eq!(two.open("secret/till", of("b")).unwrap().as_slice(), b"hunter2");
        assert!(one.open("secret/till", of("b")).is_err());
        assert!(!serde_json::to_string(&values).unwrap().contains("hunter2"));
    }

    #[test]
    fn nothing_is_sealed_where_one_node_has_no_key() {
        let key = SealingKey::generate();
        let error = seal_to(&[node("a", Some(&key)), node("b", None)], "till", b"x").unwrap_err();
        assert!(
            error.to_string().contains("have no sealing key yet: b"),
            "{error}"
        );
    }

    #[test]
    fn a_value_is_read_exactly_and_never_empty() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("value");
        let write = |content: &[u8]| File::create(&file).unwrap().write_all(content).unwrap();
        write(b"hunter2\n");
        assert_eq!(read(&file).unwrap().as_slice(), b"hunter2\n");
        write(b"");
        assert!(read(&file).is_err());
        write(&vec![0; MAX_VALUE_BYTES + 1]);
        assert!(read(&file).is_err());
        assert!(read(&directory.path().join("missing")).is_err());
    }
}
