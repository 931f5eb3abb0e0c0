//! The web page in a real browser, on a real hub, with nodes that report what each test wants shown.

use anyhow::Result;
use holdfast_harness::Hub;
use holdfast_protocol::{
    Problem,
    event::{EventKind, Severity},
    report::{Condition, FlashFacts, FlashRate, Health, Phase, PhaseProgress},
};
use holdfast_web_tests::{
    browser::{Browser, Colours, Screen},
    reporter::{Reporter, broken_app, ready_app},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tempfile::TempDir;

async fn hub() -> Result<(Hub, TempDir)> {
    let directory = tempfile::tempdir()?;
    Ok((Hub::start(directory.path()).await?, directory))
}

async fn release(hub: &Hub, name: &str) -> Result<()> {
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
    hub.create_release(name, "hello", vec![object]).await.map(drop)
}

fn image_cause() -> Problem {
    Problem::new(
        "image-unavailable",
        "Deployment till/till: image can't be pulled: till:2.1 not found",
        "Check the image's name and the mirrors in registries.yaml, then assign a release that names an image which exists.",
    )
}

#[tokio::test]
async fn a_wrong_token_is_refused_with_code_message_and_what_to_do() -> Result<()> {
    let (hub, _directory) = hub().await?;
    let browser = Browser::start(Screen::Phone).await?;
    browser.open(hub.plain_url()?).await?;
    browser
        .until("the log-in is shown", "document.querySelector('#token')")
        .await?;
    browser.screenshot("login-phone-light").await?;
    browser.type_into("#token", "hfop_wrong").await?;
    browser.click("form button.primary").await?;
    browser.until_text("[role=alert]", "unauthenticated").await?;
    browser
        .until_text("[role=alert] .message", "the bearer token is unknown")
        .await?;
    browser
        .until(
            "nothing of the fleet is shown",
            "!document.querySelector('.tiles')",
        )
        .await?;
    browser.screenshot("login-refused-phone-light").await?;

    // And the right one is taken, survives a reload, and can be given back.
    browser.log_in(hub.plain_url()?, hub.admin_token()).await?;
    browser.open(hub.plain_url()?).await?;
    browser.until_text(".sign", "Live").await?;
    let cookies = browser.run("return document.cookie").await?;
    assert_eq!(cookies, json!(""), "scripts must not see the session");
    browser.click(".who-menu summary").await?;
    browser.click(".who-menu button").await?;
    browser
        .until("the log-in is shown again", "document.querySelector('#token')")
        .await?;
    assert_eq!(browser.complaints().await?, Vec::<String>::new());
    browser.end().await
}

#[tokio::test]
async fn an_empty_fleet_tells_the_next_command() -> Result<()> {
    let (hub, _directory) = hub().await?;
    let browser = Browser::start(Screen::Phone).await?;
    browser.log_in(hub.plain_url()?, hub.admin_token()).await?;
    browser.until_text(".empty", "holdfastctl token create").await?;
    browser.screenshot("fleet-empty-phone-light").await?;
    browser.open(&format!("{}/#/releases", hub.plain_url()?)).await?;
    browser.until_text(".empty", "holdfastctl release create").await?;
    browser.open(&format!("{}/#/tokens", hub.plain_url()?)).await?;
    browser.until_text(".empty", "No tokens yet").await?;
    browser.end().await
}

#[tokio::test]
async fn a_published_status_shows_without_a_reload() -> Result<()> {
    let (hub, _directory) = hub().await?;
    let browser = Browser::start(Screen::Desktop).await?;
    browser.log_in(hub.plain_url()?, hub.admin_token()).await?;
    browser.until_text(".empty", "No nodes yet").await?;
    // A mark that a reload would wipe away.
    browser.run("window.samePage = true").await?;

    let mut node = Reporter::enrol(&hub, "shop-17", &[("site", "berlin")]).await?;
    browser.until_text(".node", "shop-17").await?;
    let report = node.healthy(None);
    node.report(&report).await?;
    browser.until_text("a.node", "Healthy").await?;
    browser.until_text("a.node", "Nothing assigned yet").await?;

    release(&hub, "hello-1").await?;
    let generation = hub.assign("hello-1", "shop-17").await?;
    browser
        .until_text("a.node", &format!("{generation} sent, not accepted yet"))
        .await?;
    browser.until_text("a.node", "Progressing").await?;

    let mut report = node.healthy(Some(generation));
    report.generation.phase = Phase::Verifying;
    report.generation.proven = None;
    report.health = Health::Degraded;
    report.apps = vec![ready_app("hello", 4), broken_app("till", 7, image_cause())];
    node.report(&report).await?;
    browser.until_text("a.node", "image can't be pulled").await?;
    browser.until_text("a.node", "1 of 2 apps ready").await?;
    browser.until_text(".tile.degraded .number", "1").await?;

    let mut report = node.healthy(Some(generation));
    report.apps = vec![ready_app("hello", 4), ready_app("till", 7)];
    node.report(&report).await?;
    browser
        .until_text("a.node", &format!("{generation} proven"))
        .await?;
    browser.until_text(".tile.healthy .number", "1").await?;
    browser.until_text(".tile.degraded .number", "0").await?;

    // Its own page lives too.
    browser.click("a.node").await?;
    browser.until_text("h1", "shop-17").await?;
    node.tell(
        EventKind::DriftCorrected,
        Severity::Warning,
        "ConfigMap hello/hello-page was deleted and put back",
        None,
    )
    .await?;
    let report = node.healthy(Some(generation));
    node.report(&report).await?;
    browser.until_text(".events", "was deleted and put back").await?;

    // Cut off: what is known, how old it is, and what must hold.
    release(&hub, "hello-2").await?;
    node.vanish();
    browser.until_text(".head", "Offline").await?;
    let newer = hub.assign("hello-2", "shop-17").await?;
    browser
        .until_text(".detail", &format!("Last proven: generation {generation}"))
        .await?;
    browser
        .until_text(".detail", &format!("It must be running generation {generation}"))
        .await?;
    browser
        .until_text(".detail", &format!("Generation {newer} waits for the link."))
        .await?;

    assert_eq!(browser.run("return window.samePage === true").await?, json!(true));
    assert_eq!(browser.complaints().await?, Vec::<String>::new());
    browser.end().await
}

#[tokio::test]
async fn what_a_node_writes_is_text_and_never_markup() -> Result<()> {
    const ATTACK: &str =
        "<img src=x onerror=\"window.owned=1\"><script>window.owned=1</script>'\"--></style>";
    let (hub, _directory) = hub().await?;
    let mut node = Reporter::enrol(&hub, "shop-17", &[]).await?;
    let attack = || Problem::new("image-unavailable", ATTACK, format!("do {ATTACK}"));
    let mut report = node.healthy(None);
    report.health = Health::Degraded;
    report.apps = vec![broken_app("hello", 4, attack())];
    report.conditions = vec![Condition {
        problem: attack(),
        since: Timestamp::now(),
    }];
    report.machine.hostname = ATTACK.to_owned();
    report.kubernetes.version = Some(ATTACK.to_owned());
    report.agent.version = ATTACK.to_owned();
    node.report(&report).await?;
    node.tell(EventKind::Problem, Severity::Alarm, ATTACK, Some(attack()))
        .await?;

    let browser = Browser::start(Screen::Desktop).await?;
    browser.log_in(hub.plain_url()?, hub.admin_token()).await?;
    browser.until_text("a.node", ATTACK).await?;
    browser
        .open(&format!("{}/#/nodes/shop-17", hub.plain_url()?))
        .await?;
    for place in [".problem", ".apps", ".columns", ".events"] {
        browser.until_text(place, ATTACK).await?;
    }
    browser.screenshot("attack-desktop-light").await?;
    let owned = browser
        .run("return [window.owned ?? null, document.querySelectorAll('main img, main script, main style').length]")
        .await?;
    assert_eq!(owned, json!([null, 0]));
    assert_eq!(browser.complaints().await?, Vec::<String>::new());
    browser.end().await
}

#[tokio::test]
async fn a_lost_hub_shows_and_the_page_comes_back_by_itself() -> Result<()> {
    let (hub, _directory) = hub().await?;
    let mut node = Reporter::enrol(&hub, "shop-17", &[]).await?;
    let report = node.healthy(None);
    node.report(&report).await?;
    // The browser reaches the hub through a link that can be cut.
    let link = holdfast_harness::Link::open().await?;
    link.lead_to(holdfast_harness::hub::socket_address(hub.plain_url()?)?);
    let browser = Browser::start(Screen::Phone).await?;
    browser
        .log_in(&format!("http://{}", link.address()), hub.admin_token())
        .await?;
    browser.until_text("a.node", "Healthy").await?;

    link.cut();
    browser.until_text(".sign", "Reconnecting…").await?;
    browser.until_text(".sign", "last update").await?;
    browser.screenshot("reconnecting-phone-light").await?;
    let mut report = node.healthy(None);
    report.health = Health::Degraded;
    report.conditions = vec![Condition {
        problem: Problem::new("disk-full", "the disk is full", "make room"),
        since: Timestamp::now(),
    }];
    node.report(&report).await?;

    link.restore();
    browser.until_text(".sign", "Live").await?;
    browser.until_text("a.node", "the disk is full").await?;
    browser.end().await
}

#[tokio::test]
async fn a_token_is_made_shown_once_and_revoked() -> Result<()> {
    let (hub, _directory) = hub().await?;
    let browser = Browser::start(Screen::Phone).await?;
    browser.log_in(hub.plain_url()?, hub.admin_token()).await?;
    browser.click(".tabs a[href='#/tokens']").await?;
    browser
        .until("the form is shown", "document.querySelector('input[name=name]')")
        .await?;
    browser.type_into("input[name=name]", "shop-21").await?;
    browser.type_into("input[name=labels]", "site=berlin").await?;
    browser.click("form button.primary").await?;
    browser.until_text(".fresh", "holdfast enrol hf1.").await?;
    browser.until_text(".item.token", "Open").await?;
    browser.screenshot("token-new-phone-light").await?;
    let (page, window) = browser.widths().await?;
    assert!(page <= window, "{page} > {window}: a long token scrolls sideways");
    let listed = browser.text(".list").await?;
    assert!(listed.contains("shop-21") && !listed.contains("hf1."), "{listed}");

    browser.click(".item.token button").await?;
    browser.click("dialog button[value=yes]").await?;
    browser.until_text(".item.token", "Revoked").await?;
    browser.open(&format!("{}/#/audit", hub.plain_url()?)).await?;
    browser.until_text(".list", "token.revoke").await?;
    browser.end().await
}

#[tokio::test]
async fn every_page_fits_a_phone_in_both_colours() -> Result<()> {
    let (hub, _directory) = hub().await?;
    release(&hub, "hello-4").await?;
    release(&hub, "hello-5").await?;
    let _nodes = seed(&hub).await?;
    let url = hub.plain_url()?;
    for (screen, width) in [(Screen::Phone, "phone"), (Screen::Desktop, "desktop")] {
        let browser = Browser::start(screen).await?;
        browser.log_in(url, hub.admin_token()).await?;
        for (colours, shade) in [(Colours::Light, "light"), (Colours::Dark, "dark")] {
            browser.prefer(colours).await?;
            for (page, address, sign) in [
                ("fleet", "#/", "pylon-north-3"),
                ("node", "#/nodes/shop-18", "drift-corrected"),
                ("node-offline", "#/nodes/pylon-north-3", "It must be running"),
                ("releases", "#/releases", "hello-5"),
                ("release", "#/releases/hello-4", "ConfigMap hello-4"),
                ("tokens", "#/tokens", "used by"),
                ("audit", "#/audit", "node.enrol"),
            ] {
                browser.open(&format!("{url}/{address}")).await?;
                browser.until_text("main", sign).await?;
                browser.screenshot(&format!("{page}-{width}-{shade}")).await?;
                let shown = browser.text("main").await?;
                let nothing = shown.lines().find(|line| matches!(*line, "null" | "undefined"));
                assert_eq!(nothing, None, "{address}: {shown}");
                let (page_width, window) = browser.widths().await?;
                assert!(
                    page_width <= window,
                    "{address} on {screen:?}: {page_width} > {window}"
                );
            }
        }
        assert_eq!(browser.complaints().await?, Vec::<String>::new());
        browser.end().await?;
    }
    Ok(())
}

/// A fleet with a node of each kind.
async fn seed(hub: &Hub) -> Result<Vec<Reporter>> {
    let mut nodes = Vec::new();
    for (name, labels) in [
        ("shop-17", vec![("site", "berlin"), ("tier", "till")]),
        ("shop-19", vec![("site", "berlin")]),
    ] {
        let mut node = Reporter::enrol(hub, name, &labels).await?;
        let generation = hub.assign("hello-4", name).await?;
        let mut report = node.healthy(Some(generation));
        report.apps = vec![ready_app("hello", 5), ready_app("till", 12)];
        node.report(&report).await?;
        nodes.push(node);
    }

    let mut degraded = Reporter::enrol(hub, "shop-18", &[("site", "berlin")]).await?;
    let proven = hub.assign("hello-4", "shop-18").await?;
    let wanted = hub.assign("hello-5", "shop-18").await?;
    let mut report = degraded.healthy(Some(wanted));
    report.generation.proven = Some(proven);
    report.generation.phase = Phase::Verifying;
    report.health = Health::Degraded;
    report.apps = vec![ready_app("hello", 5), broken_app("till", 12, image_cause())];
    report.conditions = vec![Condition {
        problem: Problem::new(
            "disk-full",
            "3 % of the disk is free (1.9 GiB)",
            "Remove data that no release names, or give the box a larger disk.",
        ),
        since: Timestamp::now(),
    }];
    degraded.report(&report).await?;
    degraded
        .tell(
            EventKind::DocumentAccepted,
            Severity::Info,
            "Document stored",
            None,
        )
        .await?;
    degraded
        .tell(
            EventKind::DriftCorrected,
            Severity::Warning,
            "ConfigMap hello/hello-page was deleted and put back",
            None,
        )
        .await?;
    degraded
        .tell(
            EventKind::Problem,
            Severity::Alarm,
            "The app till is not ready",
            Some(image_cause()),
        )
        .await?;
    nodes.push(degraded);

    let mut offline = Reporter::enrol(hub, "pylon-north-3", &[("site", "hamburg")]).await?;
    let generation = hub.assign("hello-4", "pylon-north-3").await?;
    let mut report = offline.healthy(Some(generation));
    report.apps = vec![ready_app("hello", 5)];
    offline.report(&report).await?;
    offline.vanish();
    hub.assign("hello-5", "pylon-north-3").await?;

    let mut progressing =
        Reporter::enrol(hub, "ship-aurora", &[("fleet", "ships"), ("site", "at-sea")]).await?;
    let generation = hub.assign("hello-4", "ship-aurora").await?;
    let mut report = progressing.healthy(Some(generation));
    report.generation.proven = None;
    report.generation.applied = None;
    report.generation.phase = Phase::Applying;
    report.health = Health::Progressing;
    progressing.report(&report).await?;
    nodes.push(progressing);

    nodes.push(Reporter::enrol(hub, "factory-2-line-4", &[]).await?);
    Ok(nodes)
}

#[tokio::test]
async fn a_rolled_back_node_tells_what_runs_instead_and_why() -> Result<()> {
    let (hub, _directory) = hub().await?;
    let mut node = Reporter::enrol(&hub, "shop-17", &[("site", "berlin")]).await?;
    release(&hub, "hello-1").await?;
    let first = hub.assign("hello-1", "shop-17").await?;
    let proven = node.healthy(Some(first));
    node.report(&proven).await?;
    release(&hub, "hello-2").await?;
    let second = hub.assign("hello-2", "shop-17").await?;

    let mut waiting = node.healthy(Some(first));
    waiting.generation.accepted = Some(second);
    waiting.generation.running = Some(first);
    waiting.generation.phase = Phase::WaitingForWindow;
    waiting.generation.until = Some(Timestamp::now() + SignedDuration::from_hours(2));
    waiting.generation.paused_until = waiting.generation.until;
    node.report(&waiting).await?;
    let browser = Browser::start(Screen::Desktop).await?;
    browser.log_in(hub.plain_url()?, hub.admin_token()).await?;
    browser
        .open(&format!("{}/#/nodes/shop-17", hub.plain_url()?))
        .await?;
    browser
        .until_text("main", "A person at the box paused changes")
        .await?;
    browser.screenshot("node-paused-desktop-light").await?;

    let mut applying = waiting.clone();
    applying.sequence = node.healthy(None).sequence;
    applying.generation.phase = Phase::Applying;
    applying.generation.paused_until = None;
    applying.generation.progress = Some(PhaseProgress {
        done: 30,
        total: 120,
        unit: "objects".into(),
    });
    node.report(&applying).await?;
    browser.until_text("main", "applying (30 of 120 objects)").await?;

    let mut back = node.healthy(Some(first));
    back.generation.accepted = Some(second);
    back.generation.running = Some(first);
    back.generation.phase = Phase::RolledBack;
    back.generation.cause = Some(image_cause());
    back.apps = vec![ready_app("hello", 4), broken_app("lamps", 2, image_cause())];
    back.machine.flash = Some(FlashFacts {
        written: Some(FlashRate {
            bytes: 5 << 30,
            bytes_per_day: Some(300 << 20),
        }),
        life_used_percent: Some(20),
        days_left: Some(1_400),
        ..FlashFacts::default()
    });
    node.report(&back).await?;
    for words in [
        "runs in place of",
        "which failed and was rolled back",
        "image can't be pulled",
        "300 MiB a day",
        "Degraded",
    ] {
        browser.until_text("main", words).await?;
    }
    assert_eq!(browser.complaints().await?, Vec::<String>::new());
    browser.end().await?;
    for (screen, width) in [(Screen::Phone, "phone"), (Screen::Desktop, "desktop")] {
        let browser = Browser::start(screen).await?;
        browser.log_in(hub.plain_url()?, hub.admin_token()).await?;
        for (colours, shade) in [(Colours::Light, "light"), (Colours::Dark, "dark")] {
            browser.prefer(colours).await?;
            for (page, address, sign) in [
                ("fleet", "#/", "image can't be pulled"),
                ("node", "#/nodes/shop-17", "runs in place of"),
            ] {
                browser.open(&format!("{}/{address}", hub.plain_url()?)).await?;
                browser.until_text("main", sign).await?;
                browser
                    .screenshot(&format!("{page}-rolled-back-{width}-{shade}"))
                    .await?;
                let (page_width, window) = browser.widths().await?;
                assert!(
                    page_width <= window,
                    "{address} on {screen:?}: {page_width} > {window}"
                );
            }
        }
        browser.end().await?;
    }
    Ok(())
}
