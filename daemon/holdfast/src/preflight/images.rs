//! Whether images that are not on the box can be had.
//!
//! Only an answer that is certain refuses a document: a registry that says that it has no such image. Offline, with credentials that only
//! containerd has, or behind a mirror nothing is known, and everything passes.

use super::{
    Look,
    memory::{Present, list, template},
    refused,
};
use crate::{apply::bounded, artifacts::Fetcher, codes};
use holdfast_core::failure::Failure;
use holdfast_protocol::document::DesiredState;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;

/// Registries asked at the same time.
const AT_ONCE: usize = 4;
/// How long the registries are waited for, all together: an answer is welcome, not needed.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn check(
    fetcher: &Fetcher,
    look: &Look<'_>,
    state: &DesiredState,
    present: &Present,
) -> Result<(), Failure> {
    let asked: Vec<_> = wanted(look, state)
        .into_iter()
        .filter(|(image, _)| !is_present(image, present))
        .collect();
    let answers = bounded(
        || AT_ONCE,
        fetcher,
        &asked,
        |fetcher, (image, object)| {
            Box::pin(async move {
                let is_missing = fetcher
                    .lacks_image(&image.registry, &image.repository, &image.reference)
                    .await;
                is_missing.then_some((image, object))
            })
        },
    );
    match timeout(PATIENCE, answers)
        .await
        .map(|answers| answers.into_iter().flatten().next())
    {
        Ok(Some((image, object))) => Err(refused(
            codes::IMAGE_NOT_FOUND,
            format!("{object}: {} has no image {}", image.registry, image.text),
            "correct the image's name, or push it; then publish the release again",
        )),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// An image by its parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Image {
    /// As the manifest has it.
    text: String,
    registry: String,
    repository: String,
    /// Tag or digest.
    reference: String,
}

impl Image {
    /// Takes an image's name apart, by the rules of the reference implementation (<https://github.com/distribution/reference>).
    fn parse(text: &str) -> Option<Self> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first.to_owned(), rest.to_owned())
            }
            Some(_) => ("docker.io".to_owned(), name.to_owned()),
            None => ("docker.io".to_owned(), format!("library/{name}")),
        };
        let reference = digest.or(tag).unwrap_or("latest").to_owned();
        (!repository.is_empty()).then_some(Self {
            text: text.to_owned(),
            registry,
            repository,
            reference,
        })
    }
}

/// Images of the pods that would be changed, with the first object that names each; without those that an archive may bring or a mirror serves.
fn wanted(look: &Look<'_>, state: &DesiredState) -> BTreeMap<Image, String> {
    let with_archive = |app: &str| {
        state
            .apps
            .iter()
            .any(|known| known.name == app && !known.images.is_empty())
    };
    let k3s = state.k3s.as_ref();
    if k3s.is_some_and(|k3s| k3s.registries.is_some() || !k3s.images.is_empty()) {
        return BTreeMap::new();
    }
    let mut wanted = BTreeMap::new();
    for object in look.changed().filter(|object| !with_archive(&object.app)) {
        let Some(path) = template(&object.key.kind) else {
            continue;
        };
        let body: Value = serde_json::from_str(&object.json).unwrap_or_default();
        let Some(spec) = body.pointer(path) else { continue };
        let containers = list(spec, "/containers").chain(list(spec, "/initContainers"));
        for image in containers.filter_map(|container| Image::parse(container["image"].as_str()?)) {
            wanted.entry(image).or_insert_with(|| object.key.to_string());
        }
    }
    wanted
}

fn is_present(image: &Image, present: &Present) -> bool {
    let full = |separator: &str| {
        format!(
            "{}/{}{separator}{}",
            image.registry, image.repository, image.reference
        )
    };
    present.images.contains(&image.text)
        || present.images.contains(&full(":"))
        || present.images.contains(&full("@"))
}

#[cfg(test)]
mod tests {
    use super::Image;

    #[test]
    fn names_of_images_are_taken_apart_as_containerd_does() {
        let parts =
            |text| Image::parse(text).map(|image| (image.registry, image.repository, image.reference));
        let of = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(parts("nginx"), of("docker.io", "library/nginx", "latest"));
        assert_eq!(parts("rancher/k3s:v1"), of("docker.io", "rancher/k3s", "v1"));
        assert_eq!(
            parts("harbor.example:5000/edge/web:1.2"),
            of("harbor.example:5000", "edge/web", "1.2")
        );
        assert_eq!(parts("localhost/web"), of("localhost", "web", "latest"));
        assert_eq!(
            parts("harbor.example/web:1@sha256:aa"),
            of("harbor.example", "web", "sha256:aa")
        );
    }
}
