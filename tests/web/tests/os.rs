//! What the web page says of operating systems, in a real browser, on a real hub.

use anyhow::Result;
use holdfast_harness::Hub;
use holdfast_protocol::{
    Problem,
    event::{EventKind, Severity},
    report::{OsStatus, Phase},
};
use holdfast_web_tests::{
    browser::{Browser, Colours, Screen},
    reporter::{Reporter, ready_app},
};
use serde_json::json;

fn os(version: &str, other: Option<&str>, bad: &[&str]) -> OsStatus {
    OsStatus {
        version: version.to_owned(),
        slot: "a".to_owned(),
        good: bad.is_empty(),
        other: other.map(str::to_owned),
        bad: bad.iter().map(|version| (*version).to_owned()).collect(),
    }
}

#[tokio::test]
async fn the_operating_system_of_each_node_is_shown_and_nodes_are_found_by_it() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let hub = Hub::start(directory.path()).await?;
    let mut nodes = Vec::new();
    for (name, system) in [
        ("shop-17", Some(os("2026.11.1", Some("2026.10.4"), &[]))),
        ("shop-18", Some(os("2026.11.1", None, &[]))),
        (
            "shop-19",
            Some(os("2026.10.4", Some("2026.10.1"), &["2026.11.1"])),
        ),
        ("ship-aurora", None),
    ] {
        let mut node = Reporter::enrol(&hub, name, &[("site", "berlin")]).await?;
        let mut report = node.healthy(None);
        report.os = system;
        report.apps = vec![ready_app("hello", 5)];
        node.report(&report).await?;
        nodes.push(node);
    }
    let why = "version 2026.11.1 of the operating system did not come up, and 2026.10.4 runs again: the apps of document 1.7 were not ready within 300 s: till: Deployment till/till: 0 of 1 replicas are ready: ImagePullBackOff: registry.example/till@sha256:0f343b0931126a20f133d67c2b018a3b5d8e7d0c9a3c1f6b2e4d5a6978c0b1a2";
    let back = Problem::new(
        "os-fell-back",
        why,
        "build another version of the image; this one is not tried again on this box",
    );
    let [.., fallen, _] = nodes.as_mut_slice() else {
        anyhow::bail!("four nodes");
    };
    fallen
        .tell(EventKind::OsRolledBack, Severity::Alarm, why, Some(back))
        .await?;
    let boot = json!({
        "number": 41, "id": "7d3c1f0a-58a1-4a1b-9b0e-0f6f2f1c7c55", "startedAt": "2026-11-21T03:12:44Z", "clockTrusted": false,
        "system": {"version": "2026.10.4", "usr": "0123456789abcdef", "slot": "vda3", "kernel": "6.12.57+deb13-amd64"},
        "generation": "1.7", "before": {"how": "watchdog"}
    });
    fallen
        .tell_with(
            EventKind::Booted,
            Severity::Warning,
            "the machine was started (boot 41, system 2026.10.4); before that: reset by the watchdog",
            None,
            boot.as_object().cloned().unwrap_or_default(),
        )
        .await?;
    let report = {
        let mut report = fallen.healthy(None);
        report.os = Some(os("2026.10.4", Some("2026.10.1"), &["2026.11.1"]));
        report
    };
    fallen.report(&report).await?;

    let url = hub.plain_url()?;
    for (screen, width) in [(Screen::Phone, "phone"), (Screen::Desktop, "desktop")] {
        let browser = Browser::start(screen).await?;
        browser.log_in(url, hub.admin_token()).await?;
        browser.until_text(".toolbar select", "2026.11.1 (2)").await?;
        browser.until_text(".toolbar select", "2026.10.4 (1)").await?;
        browser.until_text(".nodes", "OS 2026.10.4").await?;
        browser
            .run(
                "const choice = document.querySelector('.toolbar select'); \
                 choice.value = '2026.11.1'; choice.dispatchEvent(new Event('change'));",
            )
            .await?;
        browser.until_text(".count", "2 of 4 nodes").await?;
        let shown = browser.text(".nodes").await?;
        assert!(
            shown.contains("shop-17") && !shown.contains("shop-19") && !shown.contains("ship-aurora"),
            "{shown}"
        );
        for (colours, shade) in [(Colours::Light, "light"), (Colours::Dark, "dark")] {
            browser.prefer(colours).await?;
            for (page, address, sign) in [
                ("fleet-os", "#/", "OS 2026.10.4"),
                ("node-os", "#/nodes/shop-19", "Did not come up"),
            ] {
                browser.open(&format!("{url}/{address}")).await?;
                browser.until_text("main", sign).await?;
                if page == "node-os" {
                    for words in [
                        "Operating system",
                        "2026.10.1",
                        "Not good yet",
                        "Alarm: Version 2026.11.1 of the operating system did not come up",
                        "Warning: The machine was started (boot 41, system 2026.10.4); before that: reset by the watchdog",
                        "vda3",
                        "6.12.57+deb13-amd64",
                        "not trusted",
                    ] {
                        browser.until_text("main", words).await?;
                    }
                    browser
                        .until_text(".card.system", "not ready within 300 s")
                        .await?;
                }
                browser.screenshot(&format!("{page}-{width}-{shade}")).await?;
                let (page_width, window) = browser.widths().await?;
                assert!(
                    page_width <= window,
                    "{address} on {screen:?}: {page_width} > {window}"
                );
            }
        }
        // A box without an image of Holdfast has no such card.
        browser.open(&format!("{url}/#/nodes/ship-aurora")).await?;
        browser.until_text("main", "Machine").await?;
        let cards = browser
            .run("return document.querySelectorAll('.card.system').length")
            .await?;
        assert_eq!(cards, json!(0));
        assert_eq!(browser.complaints().await?, Vec::<String>::new());
        browser.end().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_node_that_changes_its_operating_system_tells_how_far_it_is() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let hub = Hub::start(directory.path()).await?;
    let mut node = Reporter::enrol(&hub, "shop-17", &[]).await?;
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "hello" } });
    hub.create_release("hello-1", "hello", vec![object]).await?;
    let generation = hub.assign("hello-1", "shop-17").await?;
    let browser = Browser::start(Screen::Phone).await?;
    browser.log_in(hub.plain_url()?, hub.admin_token()).await?;
    for (phase, words) in [
        (Phase::StagingOs, "writing the new operating system"),
        (Phase::SwitchingOs, "restarting into the new operating system"),
    ] {
        let mut report = node.healthy(Some(generation));
        report.generation.proven = None;
        report.generation.phase = phase;
        report.os = Some(os("1", None, &[]));
        node.report(&report).await?;
        browser.until_text("a.node", words).await?;
    }
    browser.end().await
}
