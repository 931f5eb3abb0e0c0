//! Power cuts in the middle of an update, as `cargo xtask test --image=full` tried them: how many a box survived.
//!
//! In: what the scenarios of `tests/image/tests/image_cuts.rs` left. Guarantees: without a record of all of them there is no figure.

use crate::figures::Figures;
use anyhow::{Context as _, Result, ensure};
use holdfast_image_tests::record::PowerCuts;
use std::{fs, path::Path};

/// Scenarios that cut the power.
const SCENARIOS: [&str; 2] = ["cuts-at-steps", "cuts-at-random"];

/// Reads what the scenarios left in `directory`.
pub fn measure(directory: &Path, figures: &mut Figures) -> Result<()> {
    let cuts = SCENARIOS
        .iter()
        .map(|scenario| {
            let file = directory.join(scenario).with_extension("json");
            let text = fs::read(&file).with_context(|| {
                format!(
                    "{}: run `cargo xtask test --image=full -- power_cut`",
                    file.display()
                )
            })?;
            Ok(serde_json::from_slice(&text)?)
        })
        .collect::<Result<Vec<PowerCuts>>>()?;
    ensure!(
        cuts.iter().all(|one| one.images == cuts[0].images),
        "the scenarios were run with different images: run `cargo xtask test --image=full -- power_cut`"
    );
    let tried: u32 = cuts.iter().map(|one| one.tried).sum();
    let survived: u32 = cuts.iter().map(|one| one.survived).sum();
    ensure!(tried > 0, "no power was cut");
    figures.add(
        "update.power_cuts_survived",
        f64::from(survived),
        "",
        None,
        format!(
            "of {tried} power cuts in the middle of updates of a box in QEMU, {} at its steps and {} at random moments, those after which the box booted and the update came to its good end",
            cuts[0].tried, cuts[1].tried
        ),
    );
    figures.add(
        "update.power_cuts_lost",
        f64::from(tried - survived),
        "",
        Some(0.0),
        "those after which it did not",
    );
    Ok(())
}
