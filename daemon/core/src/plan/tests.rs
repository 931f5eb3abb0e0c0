//! Documents against inventories.

use super::*;
use crate::object::{Scopes, prepare};
use proptest::prelude::*;
use serde_json::{Value, json};

const GENERATION: Generation = Generation { epoch: 1, counter: 1 };

fn object(api_version: &str, kind: &str, name: &str, extra: &Value) -> PreparedObject {
    let mut value = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}});
    value["spec"] = extra.clone();
    prepare(value, "web", Some("shop"), &Scopes::default()).expect("a good object")
}

fn config(name: &str, content: u8) -> PreparedObject {
    object("v1", "ConfigMap", name, &json!(content))
}

fn names(objects: &[PlannedObject]) -> Vec<String> {
    objects.iter().map(|object| object.key.to_string()).collect()
}

fn inventory(objects: &[PreparedObject]) -> Vec<InventoryEntry> {
    objects
        .iter()
        .map(|object| InventoryEntry::applied(object, None))
        .collect()
}

#[test]
fn each_object_is_in_the_list_that_its_history_says() {
    let before = inventory(&[config("same", 1), config("changed", 1), config("gone", 1)]);
    let desired = [config("same", 1), config("changed", 2), config("new", 1)];
    let plan = plan(GENERATION, &desired, &before, true);
    assert_eq!(plan.steps.len(), 1);
    let step = &plan.steps[0];
    assert_eq!(step.wave, Wave::Configuration);
    assert_eq!(names(&step.create), ["ConfigMap shop/new"]);
    assert_eq!(names(&step.update), ["ConfigMap shop/changed"]);
    assert_eq!(names(&step.unchanged), ["ConfigMap shop/same"]);
    assert_eq!(names(&plan.prune), ["ConfigMap shop/gone"]);
    assert_eq!(plan.changes(), 3);
}

#[test]
fn pain_21_nothing_is_touched_when_digests_match() {
    let desired = [config("a", 1), object("apps/v1", "Deployment", "web", &json!({}))];
    assert_eq!(
        plan(GENERATION, &desired, &inventory(&desired), true).changes(),
        0
    );
}

#[test]
fn the_namespaces_of_kubernetes_itself_are_never_deleted() {
    let namespace = |name| object("v1", "Namespace", name, &json!({}));
    let before = inventory(&[namespace("default"), namespace("kube-system"), namespace("shop")]);
    let plan = plan(GENERATION, &[], &before, true);
    assert_eq!(names(&plan.prune), ["Namespace shop"]);
    assert_eq!(
        plan.kept.len(),
        2,
        "the API server refuses to delete them, for ever"
    );
}

#[test]
fn an_apply_that_was_cut_off_is_written_again() {
    let desired = [config("a", 1)];
    let before = [InventoryEntry::intent(&desired[0])];
    let plan = plan(GENERATION, &desired, &before, true);
    assert_eq!(names(&plan.steps[0].update), ["ConfigMap shop/a"]);
}

#[test]
fn deleting_goes_backwards() {
    let before = inventory(&[
        object("v1", "Namespace", "shop", &json!({})),
        config("a", 1),
        object("apps/v1", "Deployment", "web", &json!({})),
        object("v1", "Service", "web", &json!({})),
    ]);
    let plan = plan(GENERATION, &[], &before, true);
    assert_eq!(
        names(&plan.prune),
        [
            "Deployment shop/web",
            "Service shop/web",
            "ConfigMap shop/a",
            "Namespace shop"
        ]
    );
}

#[test]
fn another_version_of_the_same_object_is_an_update_and_no_prune() {
    let before = inventory(&[object(
        "autoscaling/v1",
        "HorizontalPodAutoscaler",
        "web",
        &json!({}),
    )]);
    let desired = [object(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "web",
        &json!({}),
    )];
    let plan = plan(GENERATION, &desired, &before, true);
    assert_eq!(names(&plan.steps[0].update).len(), 1);
    assert_eq!(plan.prune, []);
}

#[test]
fn an_object_whose_scope_was_unknown_is_not_pruned_as_another() {
    // Applied as namespaced while its kind was unknown; discovery says now that it belongs to the whole cluster.
    let unknown = object("grid.example/v1", "Pylon", "p1", &json!({}));
    let mut known = unknown.clone();
    known.key.namespace = None;
    let plan = plan(GENERATION, &[known], &inventory(&[unknown]), true);
    assert_eq!(plan.prune, []);
}

#[test]
fn what_desired_objects_need_is_kept() {
    let before = inventory(&[
        object("v1", "Namespace", "shop", &json!({})),
        object("v1", "Namespace", "old", &json!({})),
        object(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "pylons.grid.example",
            &json!({}),
        ),
    ]);
    let desired = [
        config("a", 1),
        object("grid.example/v1", "Pylon", "p1", &json!({})),
    ];
    let plan = plan(GENERATION, &desired, &before, true);
    assert_eq!(names(&plan.prune), ["Namespace old"]);
    assert_eq!(plan.kept.len(), 2);
}

#[test]
fn annotation_and_policy_keep_what_left() {
    let mut kept = config("kept", 1);
    kept.keep = true;
    let before = inventory(&[kept, config("gone", 1)]);
    let pruning = plan(GENERATION, &[], &before, true);
    assert_eq!(names(&pruning.prune), ["ConfigMap shop/gone"]);
    assert_eq!(pruning.kept[0].object.key.name, "kept");
    let keeping = plan(GENERATION, &[], &before, false);
    assert_eq!((keeping.prune.len(), keeping.kept.len()), (0, 2));
}

#[test]
fn a_plan_survives_its_json_form() {
    let before = inventory(&[config("gone", 1)]);
    let plan = plan(GENERATION, &[config("a", 1)], &before, true);
    let text = serde_json::to_string(&plan).expect("JSON");
    assert_eq!(serde_json::from_str::<Plan>(&text).expect("a plan"), plan);
}

proptest! {
    #[test]
    fn carrying_a_plan_out_leaves_nothing_to_do(
        before in prop::collection::btree_map("[a-e]", 0_u8..3, 0..6),
        after in prop::collection::btree_map("[a-e]", 0_u8..3, 0..6),
    ) {
        let make = |map: &BTreeMap<String, u8>| map.iter().map(|(name, content)| config(name, *content)).collect::<Vec<_>>();
        let (before, desired) = (inventory(&make(&before)), make(&after));
        let first = plan(GENERATION, &desired, &before, true);
        for object in &first.prune {
            prop_assert!(!desired.iter().any(|desired| desired.key == object.key), "a desired object is pruned");
        }
        let planned: usize = first.steps.iter().map(|step| step.create.len() + step.update.len() + step.unchanged.len()).sum();
        prop_assert_eq!(planned, desired.len());
        prop_assert_eq!(plan(GENERATION, &desired, &inventory(&desired), true).changes(), 0);
    }
}
