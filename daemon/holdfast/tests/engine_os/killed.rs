//! The daemon ends as if the power went at each step of the exchange, there and back; what comes after it ends where it should, once.

use crate::{
    board::{Board, End},
    engine_support::{
        broker::Hub,
        config_map, deployment,
        k3s::{Server, program},
        namespace,
    },
};
use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, stream};
use holdfast::failpoint;
use holdfast_protocol::event::EventKind;
use std::collections::BTreeMap;

/// Boxes that live at the same time; each has a systemd, some a Kubernetes of their own.
const AT_ONCE: usize = 2;

/// What becomes of version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It is good, and so is its document.
    There,
    /// It does not come up.
    Fails,
    /// It is good; its document is not.
    Back,
}

/// Places of the way there that need a Kubernetes of the box's own.
const OWN_KUBERNETES: [&str; 2] = ["os-stopped", "os-kept"];
/// Places of the slot that this exchange passes. The others need a slot that was in use, and more than 16 MiB: see the tests of slots.
const SLOT: [&str; 4] = [
    "os-old-uki-gone",
    "os-slot-verified",
    "os-slot-given",
    "os-uki-written",
];

fn way(place: &str) -> Way {
    match place {
        "os-fell-back" => Way::Fails,
        "before-restore-os" | "os-returning" | "os-returned" | "os-other-armed" | "after-restore-os" => {
            Way::Back
        }
        _ => Way::There,
    }
}

/// A cut at `place`, of the whole box where `power` says so, and what comes after it.
async fn comes_through(hub: &Hub, place: &str, power: bool) -> Result<()> {
    let way = way(place);
    let name = format!("{place}{}", if power { "-power" } else { "" });
    let programs = if OWN_KUBERNETES.contains(&place) {
        let text = program("v1.36.3+k3s1", Server::Runs("own"))?;
        ["1", "2"]
            .map(|version| (version.to_owned(), text.clone()))
            .into()
    } else {
        BTreeMap::new()
    };
    let mut board = Board::new(hub, &name, programs).await?;
    let mut objects = vec![namespace(&name), config_map("settings", "1")];
    board.leave(hub, 1, "1", &objects, 3600)?;
    board.power_on().await?;
    board.until("1.1", "committed", "1").await?;
    board.stop_daemon().await?;

    if way == Way::Back {
        objects.push(deployment("web", "registry.invalid/web:1"));
    }
    board.leave(hub, 2, "2", &objects, if way == Way::Back { 5 } else { 3600 })?;
    if way == Way::Fails {
        board.has_gate = false;
        board
            .live("version 2 is tried", None, |report| {
                report["os"]["version"] == "2"
            })
            .await?;
        for expected in ["2", "2", "1"] {
            board.power_off().await?;
            ensure!(board.power_on().await? == expected, "not {expected}");
        }
        board.has_gate = true;
    }
    let (running, phase, version) = match way {
        Way::There => ("1.2", "committed", "2"),
        Way::Fails | Way::Back => ("1.1", "rolled-back", "1"),
    };
    let end = board
        .live(place, Some(place), |report| {
            report["generation"]["phase"] == phase && report["generation"]["accepted"] == "1.2"
        })
        .await?;
    ensure!(end == End::Cut, "it was not reached");
    if power {
        board.power_off().await?;
        board.power_on().await?;
    }
    board.until(running, phase, version).await?;
    board.power_off().await?;

    let record = board.record();
    ensure!(record.trial.is_none() && record.returning.is_none(), "{record:?}");
    let (kernels, switches, bad) = match way {
        Way::There => (["holdfast_1.efi", "holdfast_2.efi"], 1, 0),
        Way::Fails => (["holdfast_1.efi", "holdfast_2+0-3.efi"], 0, 1),
        Way::Back => (["holdfast_1.efi", "holdfast_2+0.efi"], 0, 0),
    };
    ensure!(
        board.appliance.kernels()? == kernels,
        "{:?}",
        board.appliance.kernels()?
    );
    ensure!(
        record.switches.len() == switches && record.bad.len() == bad,
        "{record:?}"
    );
    board.appliance.table_is_sound()?;
    let events = board.events()?;
    for (kind, expected) in [
        (EventKind::OsSwitched, usize::from(way != Way::Fails)),
        (EventKind::OsRolledBack, usize::from(way == Way::Fails)),
        (EventKind::DocumentRolledBack, usize::from(way != Way::There)),
        (EventKind::DocumentProven, 1 + usize::from(way == Way::There)),
    ] {
        let told = events.iter().filter(|event| event.kind == kind).count();
        ensure!(told == expected, "{kind:?} was told {told} times");
    }
    Ok(())
}

#[tokio::test]
async fn a_kill_at_each_step_of_the_exchange_ends_where_it_should() -> Result<()> {
    let hub = Hub::start().await?;
    let hub = &hub;
    let all = failpoint::OS
        .iter()
        .copied()
        .chain(SLOT)
        .chain(["os-other-armed"])
        .zip([false, true].into_iter().cycle());
    let results: Vec<_> = stream::iter(all)
        .map(|(place, power)| async move {
            let done = comes_through(hub, place, power).await;
            done.with_context(|| format!("{place}, power {power}"))
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let failed: Vec<_> = results
        .into_iter()
        .filter_map(|result| Some(format!("{:#}", result.err()?)))
        .collect();
    if !failed.is_empty() {
        bail!("{failed:#?}");
    }
    Ok(())
}
