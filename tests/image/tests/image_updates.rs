//! Updates of the operating system that end as they must: the good one stays, one that does not come up is gone back from by the box itself.

use anyhow::{Context as _, Result, anyhow, ensure};
use holdfast_image_tests::{
    Architecture, Datastore, Images, Machine, Setup, Site, base,
    base::{BOOT, OFF},
    erofs, scenario,
    site::{BOX, Frozen},
};
use holdfast_protocol::{
    event::{Event, EventKind},
    operator::NodeInfo,
    report::{Health, Phase},
};
use std::{fs, path::Path};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

static UPDATED: OnceCell<Result<Frozen, String>> = OnceCell::const_new();

/// The box after an update to the variant `two`, which is good, switched off; made once.
async fn updated() -> Result<&'static Frozen> {
    let made = async || {
        let first = base::enrolled().await?;
        scenario::keep("good-update", |directory| async move {
            update(first, &directory).await?.put_away().await
        })
        .await
    };
    UPDATED
        .get_or_init(|| async { made().await.map_err(|error| format!("{error:#}")) })
        .await
        .as_ref()
        .map_err(|error| anyhow!("the update to version 2 failed: {error}"))
}

/// Lets the box update itself to version 2, its release named `second`, and switches it off.
async fn update(first: &Frozen, directory: &Path) -> Result<Site> {
    let (site, mut machine) = first.go_on(directory).await?;
    let section = site
        .push_os("2", &Images::given()?.of("two", Architecture::Amd64)?)
        .await?;
    let generation = site.release("second", Some(section)).await?;
    machine
        .meanwhile(site.event("the box staged version 2", BOOT, |event| {
            event.kind == EventKind::OsStaged
        }))
        .await?;
    machine.forget_restarts().await?;
    machine.restarts(BOOT).await?;
    let node = machine
        .meanwhile(
            site.hub
                .wait_for_node(BOX, "version 2 is good", BOOT, base::is_good("2")),
        )
        .await?;
    let os = node
        .status
        .context("no report")?
        .os
        .context("no operating system reported")?;
    ensure!(os.slot == "b", "it runs from slot {}", os.slot);
    ensure!(
        os.other.as_deref() == Some("1"),
        "the other slot holds {:?}",
        os.other
    );
    ensure!(os.bad.is_empty(), "{:?}", os.bad);
    let node = machine
        .meanwhile(site.hub.wait_for_proven(BOX, generation, BOOT))
        .await?;
    ensure!(node.health == Health::Healthy);
    machine
        .meanwhile(site.event("the box tells of the switch", BOOT, |event| {
            event.kind == EventKind::OsSwitched
        }))
        .await?;
    ensure!(!base::went_back(&site).await?);
    machine.shut_down(OFF).await?;
    let (_copy, esp) = site.esp().await?;
    let mut kernels = esp.list("/EFI/Linux").await?;
    kernels.sort();
    ensure!(kernels == ["holdfast_1.efi", "holdfast_2.efi"], "{kernels:?}");
    Ok(site)
}

/// Waits until the box is back on version 1 by itself, and has told what was wrong with `version`. Faults of the guest's kernel do not end it.
async fn went_back_from(site: &Site, machine: &Machine, version: &str) -> Result<Event> {
    let told = site
        .event("the box tells that it went back", 4 * BOOT, |event| {
            event.kind == EventKind::OsRolledBack
        })
        .await
        .with_context(|| machine.console.tail())?;
    let problem = told.problem.as_ref().context("the event names no cause")?;
    println!("cause told to the hub: {} {}", problem.code, problem.message);
    let node = site
        .hub
        .wait_for_node(BOX, "version 1 is good", BOOT, base::is_good("1"))
        .await?;
    let os = node
        .status
        .context("no report")?
        .os
        .context("no operating system reported")?;
    ensure!(os.slot == "a", "it runs from slot {}", os.slot);
    ensure!(os.bad == [version], "remembered as bad: {:?}", os.bad);
    Ok(told)
}

/// Waits until what was proven before is proven and well, and `condition` holds too.
async fn runs_what_was_proven(
    site: &Site,
    before: &NodeInfo,
    condition: impl Fn(&NodeInfo) -> bool,
) -> Result<NodeInfo> {
    site.hub
        .wait_for_node(BOX, "the app of before is well", BOOT, |node| {
            let Some(status) = &node.status else {
                return false;
            };
            node.proven == before.proven
                && status.kubernetes.health == Health::Healthy
                && !status.apps.is_empty()
                && status.apps.iter().all(|app| app.health == Health::Healthy)
                && condition(node)
        })
        .await
}

/// Offers the box a version that does not come up, and sees it back on version 1 with its app, without anyone's help. Gives what it told.
async fn goes_back_from(
    version: &str,
    variant: &str,
    first: &Frozen,
    directory: &Path,
) -> Result<(Site, Machine, Event)> {
    let (site, machine) = first.go_on(directory).await?;
    let before = site.hub.node(BOX).await?;
    let section = site
        .push_os(version, &Images::given()?.of(variant, Architecture::Amd64)?)
        .await?;
    let generation = site.release("bad", Some(section)).await?;
    // Three tries of the new version, then the old one again; a panic of the new one is what may be asked for here.
    let told = went_back_from(&site, &machine, version).await?;
    let node = runs_what_was_proven(&site, &before, |node| {
        // The box as a whole is not healthy: it does not run what is wanted of it.
        node.status
            .as_ref()
            .is_some_and(|status| status.generation.phase == Phase::RolledBack)
    })
    .await?;
    ensure!(node.wanted == Some(generation), "the hub forgot what it wanted");
    Ok((site, machine, told))
}

/// What is left of a box that went back from a version on which its app did not come up.
struct WentBack {
    told: Event,
    /// What the console showed of all starts.
    console: String,
    datastore: Datastore,
}

static WENT_BACK: OnceCell<Result<Mutex<WentBack>, String>> = OnceCell::const_new();

/// A box that went back from the variant `unhealthy`, whose app did not come up; made once.
async fn went_back() -> Result<MutexGuard<'static, WentBack>> {
    let made = async || {
        let first = base::enrolled().await?;
        scenario::keep("unhealthy", |directory| async move {
            let (site, machine, told) = goes_back_from("3", "unhealthy", first, &directory).await?;
            machine.shut_down(OFF).await?;
            Ok(Mutex::new(WentBack {
                told,
                console: fs::read_to_string(directory.join("console.log"))?,
                datastore: site.datastore().await?,
            }))
        })
        .await
    };
    let went_back = WENT_BACK
        .get_or_init(|| async { made().await.map_err(|error| format!("{error:#}")) })
        .await
        .as_ref()
        .map_err(|error| anyhow!("the box did not go back: {error}"))?;
    Ok(went_back.lock().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_staged_switched_to_found_good_and_stays() -> Result<()> {
    updated().await.map(drop)
}

/// Offers version 2 to a box that has no room for it, and sees it refused with this code and nothing written or started anew.
async fn refuses_for_want_of_room(site: Site, code: &str) -> Result<()> {
    let before = site.hub.node(BOX).await?;
    let section = site
        .push_os("2", &Images::given()?.of("two", Architecture::Amd64)?)
        .await?;
    site.release("no-room", Some(section)).await?;
    let mut machine = site.switch_on(&Setup::default()).await?;
    machine.forget_restarts().await?;
    let node = machine
        .meanwhile(
            site.hub
                .wait_for_node(BOX, "the update is refused", BOOT, |node| {
                    node.cause.as_ref().is_some_and(|cause| cause.code == code)
                }),
        )
        .await?;
    println!("{:?}", node.cause);
    machine
        .meanwhile(
            site.hub
                .wait_for_node(BOX, "version 1 is good", BOOT, base::is_good("1")),
        )
        .await?;
    let node = site.hub.node(BOX).await?;
    ensure!(
        node.proven == before.proven,
        "{:?} is proven, not {:?}",
        node.proven,
        before.proven
    );
    ensure!(!machine.restarted().await?, "the box restarted");
    machine.shut_down(OFF).await?;
    let (_copy, esp) = site.esp().await?;
    let kernels = esp.list("/EFI/Linux").await?;
    ensure!(kernels == ["holdfast_1.efi"], "{kernels:?}");
    let empty = site
        .partitions()
        .await?
        .into_iter()
        .filter(|partition| partition.label == "_empty")
        .count();
    ensure!(empty == 2, "the other slot was written to");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_12_an_update_is_refused_before_the_first_write_where_the_esp_is_full() -> Result<()> {
    let first = base::enrolled().await?;
    scenario::run("full-esp", |directory| async move {
        let mut site = first.branch(&directory).await?;
        site.fill_esp(8 << 20).await?;
        refuses_for_want_of_room(site, "os-esp-full").await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_12_an_update_is_refused_before_the_first_write_where_the_state_partition_is_full() -> Result<()>
{
    let first = base::enrolled().await?;
    scenario::run("full-state", |directory| async move {
        let mut site = first.branch(&directory).await?;
        // Less than a kernel image takes; Kubernetes goes on in it.
        site.fill_state(24 << 20).await?;
        refuses_for_want_of_room(site, "disk-full").await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_13_a_version_whose_apps_do_not_come_up_is_gone_back_from_with_its_cause_told() -> Result<()> {
    let went_back = went_back().await?;
    let problem = went_back.told.problem.as_ref().context("a cause")?;
    ensure!(
        problem.message.contains("web"),
        "the cause does not name the app: {problem:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_15_a_box_that_goes_back_has_the_datastore_and_the_apps_of_before_the_update() -> Result<()> {
    let went_back = went_back().await?;
    ensure!(
        went_back.console.contains("configmap/mark created"),
        "the version that was left wrote nothing to the datastore"
    );
    let object = |name: &str| {
        went_back
            .datastore
            .object(&format!("/registry/configmaps/default/{name}"))
    };
    ensure!(
        object("mark")?.is_none(),
        "what the version that was left wrote to the datastore is still there"
    );
    let page = object("page")?.context("the app's object is gone")?;
    ensure!(
        holds(&page, b"first") && !holds(&page, b"bad"),
        "the app's object is not that of the document of before: {}",
        String::from_utf8_lossy(&page)
    );
    Ok(())
}

fn holds(content: &[u8], word: &[u8]) -> bool {
    content.windows(word.len()).any(|window| window == word)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_kernel_panics_is_gone_back_from() -> Result<()> {
    let first = base::enrolled().await?;
    scenario::run("panic", |directory| async move {
        goes_back_from("4", "panic", first, &directory).await.map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_14_power_cycles_after_an_update_cause_no_rollback() -> Result<()> {
    let updated = updated().await?;
    scenario::run("power-cycles-after-update", |directory| async move {
        let site = updated.branch(&directory).await?;
        for sign in [
            base::KERNEL,
            base::INITRD,
            base::KERNEL,
            base::OWN_SYSTEM,
            "Starting holdfast-boots.service",
        ] {
            let mut machine = site.switch_on(&Setup::default()).await?;
            machine.console.wait_for(&[sign], BOOT).await?;
            machine.cut_power().await?;
        }
        let machine = site.switch_on(&Setup::default()).await?;
        machine
            .meanwhile(
                site.hub
                    .wait_for_node(BOX, "version 2 is good", BOOT, base::is_good("2")),
            )
            .await?;
        ensure!(!base::went_back(&site).await?);
        Ok(())
    })
    .await
}

/// Switches on a box on version 2, which was good and of which `damaged` says what is damaged, and sees it leave that by itself for version 1. `sign` is on
/// the console because of the damage.
async fn is_left_for_the_other_slot(site: &Site, damaged: &str, sign: &str) -> Result<()> {
    let before = site.hub.node(BOX).await?;
    let mut machine = site.switch_on(&Setup::default()).await?;
    machine.forget_restarts().await?;
    // The start that is counted from, and the two tries that it leaves.
    for start in 1..=3 {
        machine.restarts(BOOT).await?;
        println!("start {start} of the version with a damaged {damaged} came to nothing");
    }
    ensure!(
        machine.console.contains(sign),
        "the starts failed of something else than the damage: {}",
        machine.console.tail()
    );
    let told = machine.meanwhile(went_back_from(site, &machine, "2")).await?;
    ensure!(
        told.generation.is_none(),
        "a document is blamed for a disk that failed: {told:?}"
    );
    ensure!(
        told.message.contains("the kernel or its disk did not come up"),
        "{told:?}"
    );
    machine
        .meanwhile(runs_what_was_proven(site, &before, |_| true))
        .await?;
    machine.shut_down(OFF).await?;
    let (_copy, esp) = site.esp().await?;
    let mut kernels = esp.list("/EFI/Linux").await?;
    kernels.sort();
    ensure!(kernels == ["holdfast_1.efi", "holdfast_2+0-2.efi"], "{kernels:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_good_long_ago_whose_disk_fails_is_left_for_the_other_slot() -> Result<()> {
    let updated = updated().await?;
    scenario::run("good-version-fails", |directory| async move {
        let site = updated.branch(&directory).await?;
        site.disk.damage("holdfast_2").await?;
        is_left_for_the_other_slot(&site, "file system", "is corrupted").await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_good_long_ago_whose_node_cannot_be_read_is_left_for_the_other_slot() -> Result<()> {
    let updated = updated().await?;
    let image = Images::given()?.of("two", Architecture::Amd64)?.only(".usr")?;
    let place = erofs::place(&image, "/bin/holdfast").await?;
    scenario::run("good-node-fails", |directory| async move {
        let site = updated.branch(&directory).await?;
        site.disk.damage_at("holdfast_2", place, 100).await?;
        is_left_for_the_other_slot(&site, "node", "Failed to start holdfast-health").await
    })
    .await
}
