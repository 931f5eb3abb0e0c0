//! Power cuts in the middle of an update: whenever they come, the box boots, and the update ends or is taken up again.

use anyhow::{Result, ensure};
use holdfast_image_tests::{
    Architecture, Images, Machine, Setup, Site, base,
    base::BOOT,
    scenario,
    site::{BOX, Frozen},
};
use holdfast_protocol::{Generation, report::Phase};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Cuts at moments that nothing in the box marks.
const RANDOM_CUTS: u32 = 20;
/// Where the sequence of such moments starts; any number will do, but always the same, so that a failure can be repeated.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// A moment to cut the power at.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The box reports this step of its journal.
    Step(Phase),
    /// The console shows this.
    Console(&'static str),
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
        for moment in [
            Moment::Step(Phase::StagingOs),
            Moment::Step(Phase::SwitchingOs),
            // The new version's first start, before and after its state is there.
            Moment::Console("Linux version"),
            Moment::Console("Switching root"),
        ] {
            ensure!(
                cut_at(&site, machine, moment, generation).await?,
                "the update ended before {moment:?} came"
            );
            println!("cut at {moment:?}");
            machine = site.switch_on(&Setup::default()).await?;
        }
        ends_well(&site, &machine, generation).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_at_random_moments_of_an_update_do_not_keep_it_from_its_end() -> Result<()> {
    let first = base::enrolled().await?;
    scenario::run("cuts-at-random", |directory| async move {
        // How long an update takes that nothing disturbs: the moments are chosen from that time.
        let (site, machine, generation) = wanted(first, &directory.join("undisturbed")).await?;
        let started = Instant::now();
        ends_well(&site, &machine, generation).await?;
        let undisturbed = started.elapsed();
        machine.cut_power().await?;
        drop(site);

        let (mut cuts, mut round, mut random) = (0, 0, SEED);
        while cuts < RANDOM_CUTS {
            round += 1;
            let (site, mut machine, generation) =
                wanted(first, &directory.join(format!("round-{round}"))).await?;
            while cuts < RANDOM_CUTS {
                // Xorshift (Marsaglia 2003, "Xorshift RNGs", the triple 13, 7, 17): moments need no better randomness.
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let moment = undisturbed.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64);
                let came = cut_at(&site, machine, Moment::After(moment), generation).await?;
                machine = site.switch_on(&Setup::default()).await?;
                if !came {
                    break;
                }
                cuts += 1;
                println!("cut {cuts} after {} s", moment.as_secs());
            }
            ends_well(&site, &machine, generation).await?;
            machine.cut_power().await?;
        }
        println!("update.power_cuts_survived: {cuts} of {RANDOM_CUTS}");
        Ok(())
    })
    .await
}
