//! What watches and looks say, taken in by a table, and what follows.

use super::*;

fn target(kind: &str, name: &str) -> Target {
    Target {
        key: ObjectKey {
            api_version: "v1".into(),
            kind: kind.into(),
            namespace: Some("default".into()),
            name: name.into(),
        },
        app: "hello".into(),
    }
}

fn metadata(name: &str, resource_version: &str, fields: &str) -> Metadata {
    let value = serde_json::json!({
        "name": name, "namespace": "default", "uid": "u", "resourceVersion": resource_version,
        "managedFields": [{"manager": "holdfast", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {fields: {}}}]
    });
    serde_json::from_value(value).unwrap()
}

fn setup() -> (Table, Versions, KindName, ObjectKey) {
    let target = target("ConfigMap", "greeting");
    let key = target.key.clone();
    let table = Table::new(vec![target], vec!["hello".into()]);
    let versions = Versions::default();
    versions
        .begin(&key)
        .done(metadata("greeting", "10", "f:data").version);
    (table, versions, ("v1".into(), "ConfigMap".into()), key)
}

#[test]
fn the_echo_of_our_own_write_is_no_drift_and_a_taken_field_is() {
    let (mut table, versions, kind, key) = setup();
    let echo = table.see(
        &kind,
        Seen::Changed(metadata("greeting", "10", "f:data")),
        &versions,
    );
    assert!(echo.drifted.is_empty());
    let neighbour = table.see(
        &kind,
        Seen::Changed(metadata("greeting", "11", "f:data")),
        &versions,
    );
    assert!(neighbour.drifted.is_empty());
    let taken = table.see(
        &kind,
        Seen::Changed(metadata("greeting", "12", "f:less")),
        &versions,
    );
    assert_eq!(taken.drifted, [key]);
}

#[test]
fn a_state_from_before_our_write_is_no_drift() {
    let (mut table, versions, kind, _) = setup();
    let old = table.see(
        &kind,
        Seen::Changed(metadata("greeting", "9", "f:other")),
        &versions,
    );
    assert!(old.drifted.is_empty());
}

#[test]
fn what_is_seen_during_a_write_is_judged_after_it() {
    let (mut table, versions, kind, key) = setup();
    let writing = versions.begin(&key);
    let during = table.see(
        &kind,
        Seen::Changed(metadata("greeting", "12", "f:new")),
        &versions,
    );
    assert!(during.drifted.is_empty());
    writing.done(metadata("greeting", "12", "f:new").version);
    assert!(
        table
            .written(&versions.take_ended(), &versions)
            .drifted
            .is_empty()
    );

    let writing = versions.begin(&key);
    table.see(
        &kind,
        Seen::Changed(metadata("greeting", "14", "f:hostile")),
        &versions,
    );
    writing.done(metadata("greeting", "13", "f:new").version);
    assert_eq!(table.written(&versions.take_ended(), &versions).drifted, [key]);
}

#[test]
fn an_object_that_went_before_we_wrote_it_again_is_not_missing() {
    let (mut table, versions, kind, key) = setup();
    let writing = versions.begin(&key);
    table.see(&kind, Seen::Gone(metadata("greeting", "12", "f:data")), &versions);
    let mut again = metadata("greeting", "13", "f:data").version;
    again.uid += 1;
    writing.done(again);
    assert!(
        table
            .written(&versions.take_ended(), &versions)
            .drifted
            .is_empty()
    );
}

#[test]
fn our_own_delete_is_no_drift_whenever_the_watch_tells_of_it() {
    for told_during_the_delete in [true, false] {
        let (mut table, versions, kind, key) = setup();
        let gone = || Seen::Gone(metadata("greeting", "12", "f:data"));
        let writing = versions.begin(&key);
        if told_during_the_delete {
            assert!(table.see(&kind, gone(), &versions).drifted.is_empty());
        }
        writing.deleted();
        let end = table.written(&versions.take_ended(), &versions);
        assert!(end.drifted.is_empty());
        assert!(table.see(&kind, gone(), &versions).drifted.is_empty());
    }
}

/// A table after a start: what an earlier run wrote is known from its record alone.
fn restarted(record_first: bool, live: &Metadata) -> (Consequences, Table, Versions, KindName, ObjectKey) {
    let (_, _, kind, key) = setup();
    let mut table = Table::new(vec![target("ConfigMap", "greeting")], vec!["hello".into()]);
    let versions = Versions::default();
    let record = [(key.clone(), metadata("greeting", "10", "f:data").version.owned)];
    let mut all = Vec::new();
    if record_first {
        versions.recorded(record.clone());
    }
    table.see(&kind, Seen::ListBegins, &versions);
    all.extend(table.see(&kind, Seen::Listed(live.clone()), &versions).drifted);
    table.see(&kind, Seen::ListEnds, &versions);
    if !record_first {
        versions.recorded(record);
    }
    all.extend(table.recorded(&versions.take_recorded(), &versions).drifted);
    all.dedup();
    let consequences = Consequences {
        drifted: all,
        look: Vec::new(),
    };
    (consequences, table, versions, kind, key)
}

#[test]
fn after_a_start_the_record_tells_what_changed_meanwhile() {
    for record_first in [true, false] {
        let (same, mut table, versions, kind, key) =
            restarted(record_first, &metadata("greeting", "20", "f:data"));
        assert!(same.drifted.is_empty());
        // From then on it is this object that is meant.
        let gone = table.see(&kind, Seen::Gone(metadata("greeting", "21", "f:data")), &versions);
        assert_eq!(gone.drifted, [key]);

        // Also where the datastore was set back: an older state is not as it was applied.
        for (version, fields) in [("20", "f:taken"), ("3", "f:earlier")] {
            let (other, .., key) = restarted(record_first, &metadata("greeting", version, fields));
            assert_eq!(other.drifted, [key]);
        }
        let (missing, .., key) = restarted(record_first, &metadata("neighbour", "20", "f:data"));
        assert_eq!(missing.drifted, [key]);
    }
}

#[test]
fn an_object_that_a_list_does_not_name_is_missing() {
    let (mut table, versions, kind, key) = setup();
    table.see(&kind, Seen::ListBegins, &versions);
    let end = table.see(&kind, Seen::ListEnds, &versions);
    assert_eq!(end.drifted, [key]);
    assert_eq!(table.summary().ready, 0);
    assert_ne!(table.summary().health, Health::Healthy);
}

#[test]
fn an_app_without_objects_is_healthy_and_an_unknown_object_is_on_its_way() {
    let table = Table::new(vec![target("Pod", "web")], vec!["hello".into(), "empty".into()]);
    let states = table.app_states();
    assert_eq!((states[0].health, states[0].objects), (Health::Progressing, 1));
    assert_eq!((states[1].health, states[1].objects), (Health::Healthy, 0));
}

#[test]
fn a_table_that_takes_another_ones_place_knows_what_was_seen_and_names_the_kinds_that_must_be_listed_anew() {
    let (mut former, versions, kind, key) = setup();
    former.see(&kind, Seen::ListBegins, &versions);
    former.see(
        &kind,
        Seen::Listed(metadata("greeting", "10", "f:data")),
        &versions,
    );
    let mut next = Table::new(vec![target("ConfigMap", "greeting")], vec!["hello".into()]);
    assert_eq!(next.inherit(&mut former), BTreeSet::new());
    assert_eq!(next.summary().health, Health::Healthy, "it was seen to be there");
    // The list that was under way ends in the new table, and had named the object.
    let end = next.see(&kind, Seen::ListEnds, &versions);
    assert_eq!(end, Consequences::default());
    let gone = next.see(&kind, Seen::Gone(metadata("greeting", "11", "f:data")), &versions);
    assert_eq!(gone.drifted, [key], "what happens to it later is seen");

    let targets = vec![
        target("ConfigMap", "greeting"),
        target("ConfigMap", "second"),
        target("Secret", "third"),
    ];
    let mut wider = Table::new(targets, vec!["hello".into()]);
    let anew = wider.inherit(&mut next);
    assert_eq!(
        anew,
        ["ConfigMap", "Secret"]
            .map(|kind| ("v1".to_owned(), kind.to_owned()))
            .into(),
        "the table before passed over what was said of the second and the third"
    );
}
