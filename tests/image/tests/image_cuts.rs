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

/// The kernel image of version 2 when the boot loader has one try of it left.
const LAST_TRY: &str = "holdfast_2+1-2.efi";

/// What a moment is counted from.
#[derive(Clone, Copy, Debug)]
enum Sign {
    /// The present: the box was switched on, or goes on, just now.
    Now,
    /// The box reports this step of its journal.
    Step(Phase),
    /// The console shows this.
    Console(&'static str),
    /// The box reports that version 2 runs and was found good.
    Good,
}

/// A moment to cut the power at: a sign, and a time after it.
#[derive(Clone, Copy, Debug)]
struct Moment {
    sign: Sign,
    after: Duration,
}

/// What the box says when systemd of version 2 begins.
const VERSION_2: &str = "Welcome to Holdfast 2";
/// What the box says first on its way down.
const STOPPING: &str = "Stopping holdfast.service";

/// Where random moments lie, each part with its length in seconds, so that no part of an update is left out, however fast the machine is that this runs on.
type Parts = &'static [(Sign, u64)];
/// From a running box on version 1 that was just told to go to version 2.
const TOLD: Parts = &[
    (Sign::Now, 20),
    (Sign::Step(Phase::SwitchingOs), 10),
    (Sign::Console(STOPPING), 15),
    (Sign::Console(VERSION_2), 60),
];
/// From a start of version 1 in the middle of the update.
const TAKEN_UP: Parts = &[
    (Sign::Now, 60),
    (Sign::Console(base::GOOD), 30),
    (Sign::Console(STOPPING), 15),
    (Sign::Console(VERSION_2), 60),
];
/// From a start of version 2, whose kernel image has its place.
const SWITCHED: Parts = &[(Sign::Now, 30), (Sign::Console(VERSION_2), 60)];

/// Random moments; the same ones in each run.
struct Random(u64);

impl Random {
    /// A number from 0 to below 1.
    fn number(&mut self) -> f64 {
        // Xorshift (Marsaglia 2003, "Xorshift RNGs", the triple 13, 7, 17): moments need no better randomness.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn moment(&mut self, parts: Parts) -> Moment {
        let (sign, seconds) = parts[(self.number() * parts.len() as f64) as usize];
        Moment {
            sign,
            after: Duration::from_secs(seconds).mul_f64(self.number()),
        }
    }
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

/// Waits until the box shows the sign.
async fn shown(site: &Site, machine: &mut Machine, sign: Sign) -> Result<()> {
    match sign {
        Sign::Now => Ok(()),
        Sign::Step(phase) => {
            let step = site
                .hub
                .wait_for_node(BOX, "the step is reported", 2 * BOOT, |node| {
                    node.status
                        .as_ref()
                        .is_some_and(|status| status.generation.phase == phase)
                });
            machine.meanwhile(step).await.map(drop)
        }
        Sign::Good => {
            let good = site
                .hub
                .wait_for_node(BOX, "version 2 is good", 2 * BOOT, base::is_good("2"));
            machine.meanwhile(good).await.map(drop)
        }
        Sign::Console(line) => machine.console.wait_for(&[line], 2 * BOOT).await.map(drop),
    }
}

/// Cuts the power of the box at `moment`; false where the update had ended before that moment came.
async fn cut_at(site: &Site, mut machine: Machine, moment: Moment, generation: Generation) -> Result<bool> {
    let came = {
        let comes = async {
            shown(site, &mut machine, moment.sign).await?;
            if moment.after.is_zero() {
                return Ok(true);
            }
            tokio::select! {
                trouble = machine.console.trouble() => Err(anyhow::anyhow!(trouble)),
                () = tokio::time::sleep(moment.after) => Ok(true),
            }
        };
        let proven = site.hub.wait_for_node(BOX, "the update ends", 2 * BOOT, |node| {
            node.proven == Some(generation)
        });
        tokio::select! {
            biased;
            came = comes => came?,
            node = proven => node.map(|_| false)?,
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
        for sign in [
            Sign::Step(Phase::StagingOs),
            Sign::Step(Phase::SwitchingOs),
            // The boot loader has been told, and the box is on its way down.
            Sign::Console(STOPPING),
            // The first try of the new version.
            Sign::Console(base::KERNEL),
            // The second, between its initrd and its own system. The third has to be good: the boot loader has no more.
            Sign::Console(VERSION_2),
            // The new system is found good, the rest of the document is still to be done.
            Sign::Good,
        ] {
            let moment = Moment {
                sign,
                after: Duration::ZERO,
            };
            ensure!(
                cut_at(&site, machine, moment, generation).await?,
                "the update ended before {sign:?} came"
            );
            record.cut()?;
            println!("cut at {sign:?}; kernels: {:?}", kernels(&site).await?);
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
        let (mut cuts, mut round, mut random) = (0, 0, Random(SEED));
        let mut record = PowerCuts::begin("cuts-at-random")?;
        while cuts < RANDOM_CUTS {
            round += 1;
            let (site, mut machine, generation) =
                wanted(first, &directory.join(format!("round-{round}"))).await?;
            let mut parts = TOLD;
            while cuts < RANDOM_CUTS {
                let moment = random.moment(parts);
                let came = cut_at(&site, machine, moment, generation).await?;
                let kernels = kernels(&site).await?;
                machine = site.switch_on(&Setup::default()).await?;
                if !came {
                    break;
                }
                cuts += 1;
                record.cut()?;
                println!("cut {cuts}: {moment:?}; kernels: {kernels:?}");
                let switched = kernels.iter().any(|kernel| kernel.starts_with("holdfast_2"));
                parts = if switched { SWITCHED } else { TAKEN_UP };
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
