//! Names of images, as pods write them and as containerd keeps them.

use serde_json::Value;
use std::collections::BTreeSet;

/// The full name of an image: `nginx` becomes `docker.io/library/nginx:latest`, as the kubelet asks for it.
pub fn normalise(name: &str) -> String {
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("docker.io", name),
    };
    let registry = if registry == "index.docker.io" {
        "docker.io"
    } else {
        registry
    };
    let library = if registry == "docker.io" && !path.contains('/') {
        "library/"
    } else {
        ""
    };
    let tag = if path.contains('@') || path.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        ""
    } else {
        ":latest"
    };
    format!("{registry}/{library}{path}{tag}")
}

/// Adds the images of all containers within an object, whatever its kind is: pods, everything with a template of pods.
pub fn of_object(object: &Value, found: &mut BTreeSet<String>) {
    match object {
        Value::Object(fields) => {
            for (key, value) in fields {
                if matches!(
                    key.as_str(),
                    "containers" | "initContainers" | "ephemeralContainers"
                ) && let Value::Array(containers) = value
                {
                    let images = containers
                        .iter()
                        .filter_map(|container| container["image"].as_str());
                    found.extend(images.filter(|image| !image.is_empty()).map(normalise));
                } else {
                    of_object(value, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| of_object(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_completed_as_the_kubelet_does() {
        for (short, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.25", "docker.io/library/nginx:1.25"),
            ("rancher/pause:3.6", "docker.io/rancher/pause:3.6"),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("localhost/a", "localhost/a:latest"),
            (
                "harbor.example.com:8443/edge/a:1",
                "harbor.example.com:8443/edge/a:1",
            ),
            (
                "harbor.example.com:8443/edge/a",
                "harbor.example.com:8443/edge/a:latest",
            ),
            ("a@sha256:00", "docker.io/library/a@sha256:00"),
        ] {
            assert_eq!(normalise(short), full);
        }
    }

    #[test]
    fn images_are_found_wherever_there_are_containers() {
        let mut found = BTreeSet::new();
        let template = json!({"spec": {"initContainers": [{"image": "a:1"}], "containers": [{"image": "b:2"}, {"name": "none"}]}});
        of_object(
            &json!({"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": template}}}}),
            &mut found,
        );
        of_object(
            &json!({"kind": "ConfigMap", "data": {"image": "c:3"}}),
            &mut found,
        );
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            ["docker.io/library/a:1", "docker.io/library/b:2"]
        );
    }
}
