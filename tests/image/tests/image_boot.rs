//! What a box does that was flashed and is left alone: the first boot, boots without a link, boots that are cut short.

use anyhow::{Result, ensure};
use holdfast_image_tests::{
    Machine, Setup, Site, base,
    base::{BOOT, OFF},
    scenario,
    site::BOX,
};
use holdfast_protocol::{operator::NodeInfo, report::Health};

#[tokio::test(flavor = "multi_thread")]
async fn a_flashed_box_makes_its_state_enrols_with_the_token_of_its_esp_and_runs_its_app() -> Result<()> {
    let first = base::enrolled().await?;
    let (_copy, esp) = first.esp().await?;
    ensure!(
        !esp.list("/holdfast")
            .await
            .unwrap_or_default()
            .iter()
            .any(|name| name == "token"),
        "the spent token is still on the ESP"
    );
    let kernels = esp.list("/EFI/Linux").await?;
    ensure!(
        kernels == ["holdfast_1.efi"],
        "the first boot was good, yet its counter is not gone: {kernels:?}"
    );
    let labels: Vec<String> = first
        .partitions()
        .await?
        .into_iter()
        .map(|partition| partition.label)
        .collect();
    for label in ["esp", "holdfast_1", "holdfast_1_verity", "_empty", "state"] {
        ensure!(
            labels.iter().any(|is| is == label),
            "no partition {label}: {labels:?}"
        );
    }
    Ok(())
}

/// The box comes back to the hub with the app that it had, and without having gone back.
async fn tells_of_the_app_of(before: &NodeInfo, site: &Site, machine: &mut Machine) -> Result<()> {
    let node = machine
        .meanwhile(
            site.hub
                .wait_for_node(BOX, "the box tells of its app", BOOT, |node| {
                    node.online && node.health == Health::Healthy
                }),
        )
        .await?;
    ensure!(
        node.proven == before.proven,
        "{:?} is proven, not {:?}",
        node.proven,
        before.proven
    );
    ensure!(!base::went_back(site).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_22_a_boot_with_no_network_at_all_is_good_and_its_app_returns() -> Result<()> {
    let first = base::enrolled().await?;
    scenario::run("no-network", |directory| async move {
        let site = first.branch(&directory).await?;
        let before = site.hub.node(BOX).await?;
        let mut machine = site.switch_on(&Setup::default()).await?;
        // Before the firmware is through.
        machine.set_cable(false).await?;
        // The last good apps are ready: that is what makes a boot good.
        base::boot_is_good(&mut machine).await?;
        ensure!(
            !site.hub.node(BOX).await?.online,
            "the box reached the hub over a pulled cable"
        );
        machine.set_cable(true).await?;
        tells_of_the_app_of(&before, &site, &mut machine).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_22_a_boot_with_a_network_but_no_hub_is_good_and_its_app_returns() -> Result<()> {
    let first = base::enrolled().await?;
    scenario::run("no-hub", |directory| async move {
        let site = first.branch(&directory).await?;
        let before = site.hub.node(BOX).await?;
        site.hub.cut();
        let mut machine = site.switch_on(&Setup::default()).await?;
        base::boot_is_good(&mut machine).await?;
        site.hub.restore();
        tells_of_the_app_of(&before, &site, &mut machine).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_reset_at_its_keyboard_forgets_its_identity_and_enrols_anew() -> Result<()> {
    let first = base::enrolled().await?;
    scenario::run("factory-reset", |directory| async move {
        let (mut site, mut machine) = first.go_on(&directory).await?;
        let before = site.hub.node(BOX).await?;
        machine.press(&["f"]).await?;
        let words = [
            "e", "r", "a", "s", "e", "spc", "t", "h", "i", "s", "spc", "b", "o", "x",
        ];
        machine.press(&words).await?;
        machine.forget_restarts().await?;
        machine.press(&["ret"]).await?;
        machine.restarts(BOOT).await?;
        // Switched off while this start is being judged.
        machine
            .console
            .wait_for(&["Starting holdfast-health.service"], BOOT)
            .await?;
        machine.shut_down(OFF).await?;

        let again = "box-again";
        site.write_token(again).await?;
        let machine = site.switch_on(&Setup::default()).await?;
        let node = machine
            .meanwhile(
                site.hub
                    .wait_for_node(again, "the box enrols anew", BOOT, |node| node.online),
            )
            .await?;
        ensure!(
            node.sealing_key != before.sealing_key,
            "it enrolled with the key of before"
        );
        ensure!(
            node.proven.is_none(),
            "{:?} is proven by an erased box",
            node.proven
        );
        ensure!(!site.hub.node(BOX).await?.online);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pain_14_power_cycles_in_quick_succession_cause_no_rollback() -> Result<()> {
    let first = base::enrolled().await?;
    scenario::run("quick-power-cycles", |directory| async move {
        let site = first.branch(&directory).await?;
        // More often than a new version would have tries, each time at another moment of the boot.
        for sign in [
            base::LOADER,
            base::KERNEL,
            base::INITRD,
            base::OWN_SYSTEM,
            "Starting holdfast-boots.service",
        ] {
            let mut machine = site.switch_on(&Setup::default()).await?;
            machine.console.wait_for(&[sign], BOOT).await?;
            machine.cut_power().await?;
        }
        let machine = site.switch_on(&Setup::default()).await?;
        machine
            .meanwhile(site.hub.wait_for_node(BOX, "the box is well", BOOT, |node| {
                node.online && node.health == Health::Healthy
            }))
            .await?;
        ensure!(!base::went_back(&site).await?);
        machine.shut_down(OFF).await?;
        let (_copy, esp) = site.esp().await?;
        let kernels = esp.list("/EFI/Linux").await?;
        ensure!(kernels == ["holdfast_1.efi"], "{kernels:?}");
        Ok(())
    })
    .await
}
