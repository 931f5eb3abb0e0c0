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
    let back = Problem::new(
        "os-fell-back",
        "2026.11.1 did not come up: k3s was not ready within 300 s",
        "mend the image, and publish it under another version",
    );
    let [.., fallen, _] = nodes.as_mut_slice() else {
        anyhow::bail!("four nodes");
    };
    fallen
        .tell(
            EventKind::OsRolledBack,
            Severity::Alarm,
            "2026.10.4 runs again",
            Some(back),
        )
        .await?;
    fallen
        .tell(EventKind::Booted, Severity::Info, "after the watchdog", None)
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
                        "Operating system gone back: 2026.10.4 runs again",
                        "Machine started: after the watchdog",
                    ] {
                        browser.until_text("main", words).await?;
                    }
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
