//! Power cuts in the middle of an update: whenever they come, the box boots, and the update ends or is taken up again.

use anyhow::{Result, ensure};
use holdfast_image_tests::{
    Architecture, Images, Machine, Setup, Site, base,
    base::BOOT,
    record::PowerCuts,
    scenario,
    site::{BOX, Frozen},
};
use holdfast_protocol::{Generation, report::Phase};
use std::{path::Path, time::Duration};

/// Cuts at moments that nothing in the box marks.
const RANDOM_CUTS: u32 = 20;
/// Where the sequence of such moments starts; any number will do, but always the same, so that a failure can be repeated.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// The latest of such moments after the box was switched on: by then an update that was cut off before has come as far as a start of the new
/// version, or through it, where nothing else takes this machine's processors.
const LATEST: Duration = Duration::from_secs(150);
/// The kernel image of version 2 when the boot loader has one try of it left.
const LAST_TRY: &str = "holdfast_2+1-2.efi";

/// A moment to cut the power at.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The box reports this step of its journal.
    Step(Phase),
    /// The console shows this.
    Console(&'static str),
    /// The box reports that version 2 runs and was found good.
    Good,
    /// This long after the box was switched on, or went on.
    After(Duration),
}

/// A running box whose hub wants version 2 of it.
async fn wanted(first: &Frozen, directory: &Path) -> Result<(Site, Machine, Generation)> {
    std::fs::create_dir_all(directory)?;
    let (site, machine) = first.go_on(directory).await?;
    let section = site
        .push_os("2", &Images::given()?.of("two", Architecture::Amd64)?)
        .await?;
    let generation = site.release("second", Some(section)).await?;
    Ok((site, machine, generation))
}

/// Waits until the update has come to its good end.
async fn ends_well(site: &Site, machine: &Machine, generation: Generation) -> Result<()> {
    machine
        .meanwhile(site.hub.wait_for_proven(BOX, generation, 2 * BOOT))
        .await?;
    machine
        .meanwhile(
            site.hub
                .wait_for_node(BOX, "version 2 is good", BOOT, base::is_good("2")),
        )
        .await?;
    ensure!(
        !base::went_back(site).await?,
        "a power cut was taken for a version that does not come up"
    );
    Ok(())
}

/// The kernel images on the ESP of a box that is off.
async fn kernels(site: &Site) -> Result<Vec<String>> {
    let (_copy, esp) = site.esp().await?;
    let mut kernels = esp.list("/EFI/Linux").await?;
    kernels.sort();
    Ok(kernels)
}

/// Cuts the power of the box at `moment`; false where the update had ended before that moment came.
async fn cut_at(site: &Site, mut machine: Machine, moment: Moment, generation: Generation) -> Result<bool> {
    let proven = site.hub.wait_for_node(BOX, "the update ends", 2 * BOOT, |node| {
        node.proven == Some(generation)
    });
    let came = match moment {
        Moment::Step(phase) => {
            let step = site
                .hub
                .wait_for_node(BOX, "the step is reported", 2 * BOOT, |node| {
                    node.status
                        .as_ref()
                        .is_some_and(|status| status.generation.phase == phase)
                });
            tokio::select! {
                biased;
                node = machine.meanwhile(step) => node.map(|_| true)?,
                node = proven => node.map(|_| false)?,
            }
        }
        Moment::Good => {
            let good = site
                .hub
                .wait_for_node(BOX, "version 2 is good", 2 * BOOT, base::is_good("2"));
            machine.meanwhile(good).await.map(|_| true)?
        }
        Moment::Console(sign) => {
            let signs = [sign];
            tokio::select! {
                line = machine.console.wait_for(&signs, 2 * BOOT) => line.map(|_| true)?,
                node = proven => node.map(|_| false)?,
            }
        }
        Moment::After(after) => {
            let trouble = machine.console.trouble();
            tokio::select! {
                trouble = trouble => anyhow::bail!(trouble),
                node = proven => node.map(|_| false)?,
                () = tokio::time::sleep(after) => true,
            }
        }
    };
    machine.cut_power().await?;
    Ok(came)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_at_each_step_of_an_update_does_not_keep_it_from_its_end() -> Result<()> {
    let first = base::enrolled().await?;
    scenario::run("cuts-at-steps", |directory| async move {
        let (site, mut machine, generation) = wanted(first, &directory).await?;
        let mut record = PowerCuts::begin("cuts-at-steps")?;
        for moment in [
            Moment::Step(Phase::StagingOs),
            Moment::Step(Phase::SwitchingOs),
            // The boot loader has been told, and the box is on its way down.
            Moment::Console("Stopping holdfast.service"),
            // The first try of the new version.
            Moment::Console(base::KERNEL),
            // The second, between its initrd and its own system. The third has to be good: the boot loader has no more.
            Moment::Console("Welcome to Holdfast 2"),
            // The new system is found good, the rest of the document is still to be done.
            Moment::Good,
        ] {
            ensure!(
                cut_at(&site, machine, moment, generation).await?,
                "the update ended before {moment:?} came"
            );
            record.cut()?;
            println!("cut at {moment:?}; kernels: {:?}", kernels(&site).await?);
            machine = site.switch_on(&Setup::default()).await?;
        }
        ends_well(&site, &machine, generation).await?;
        record.ended_well()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_at_random_moments_of_an_update_do_not_keep_it_from_its_end() -> Result<()> {
    let first = base::enrolled().await?;
    scenario::run("cuts-at-random", |directory| async move {
        let (mut cuts, mut round, mut random) = (0, 0, SEED);
        let mut record = PowerCuts::begin("cuts-at-random")?;
        while cuts < RANDOM_CUTS {
            round += 1;
            let (site, mut machine, generation) =
                wanted(first, &directory.join(format!("round-{round}"))).await?;
            while cuts < RANDOM_CUTS {
                // Xorshift (Marsaglia 2003, "Xorshift RNGs", the triple 13, 7, 17): moments need no better randomness.
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let moment = LATEST.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64);
                let came = cut_at(&site, machine, Moment::After(moment), generation).await?;
                let kernels = kernels(&site).await?;
                machine = site.switch_on(&Setup::default()).await?;
                if !came {
                    break;
                }
                cuts += 1;
                record.cut()?;
                println!("cut {cuts} after {} s; kernels: {kernels:?}", moment.as_secs());
                // A third start that is cut off would be gone back from, as it must be.
                if kernels.iter().any(|kernel| kernel == LAST_TRY) {
                    break;
                }
            }
            ends_well(&site, &machine, generation).await?;
            record.ended_well()?;
            machine.cut_power().await?;
            println!("round {round} ended well");
        }
        println!("update.power_cuts_survived: {cuts} of {RANDOM_CUTS}");
        Ok(())
    })
    .await
}
