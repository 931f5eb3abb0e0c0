//! A box whose image brings all that it needs: nothing but power.

use anyhow::{Context as _, Result, ensure};
use holdfast_image_tests::{
    Architecture, Images, Setup, Site,
    base::{self, BOOT, OFF},
    scenario,
    site::BOX,
};
use holdfast_protocol::report::Health;

/// An address that the network would not give it by itself.
const ADDRESS: &str = "10.0.2.77";

#[tokio::test(flavor = "multi_thread")]
async fn a_first_boot_without_any_network_runs_the_seed_and_later_the_box_enrols_as_it_was_personalised()
-> Result<()> {
    scenario::run("alone", |directory| async move {
        let image = Images::given()?.of("seeded", Architecture::Amd64)?;
        let fixed = format!("{ADDRESS}/24");
        let arguments = [
            "--hostname",
            "shop-17",
            "--static-ip",
            &fixed,
            "--gateway",
            "10.0.2.2",
        ];
        let site = Site::personalise(&directory, &image, &arguments).await?;
        let setup = Setup {
            screen: true,
            ..Setup::default()
        };
        let mut machine = site.switch_on(&setup).await?;
        // Before the firmware is through.
        machine.set_cable(false).await?;
        base::boot_is_good(&mut machine).await?;
        machine.console.wait_for(&["the seed runs"], BOOT).await?;
        machine.photograph(&directory.join("alone.png")).await?;
        ensure!(
            site.hub.node(BOX).await.is_err(),
            "the box enrolled over a pulled cable"
        );
        machine.set_cable(true).await?;
        let node = machine
            .meanwhile(
                site.hub
                    .wait_for_node(BOX, "the box tells of its app", BOOT, |node| {
                        node.online && node.health == Health::Healthy
                    }),
            )
            .await?;
        let status = node.status.context("the hub has no report of the box")?;
        ensure!(
            status
                .apps
                .iter()
                .any(|app| app.name == "web" && app.health == Health::Healthy),
            "{:?}",
            status.apps
        );
        ensure!(
            status.machine.hostname == "shop-17",
            "it is called {}",
            status.machine.hostname
        );
        let from = machine.own_addresses().await?;
        ensure!(
            from.iter().any(|address| address == ADDRESS),
            "it speaks from {from:?}"
        );
        // For people: what its screen shows, and with which keys.
        for (key, page) in [
            ("esc", "enrolled"),
            ("n", "network"),
            ("i", "identity"),
            ("l", "log"),
        ] {
            let file = directory.join(format!("{page}.png"));
            machine.photograph(&file).await?;
            machine.press(&[key]).await?;
            machine.photograph_another(&file, OFF).await?;
        }
        machine.shut_down(OFF).await
    })
    .await
}
