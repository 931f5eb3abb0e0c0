//! The story of Holdfast, told by its real parts: a hub, a box with its Kubernetes, and a link that gets cut.
//!
//! Every step is observed, not assumed: a step that is not seen within its time ends the demo with a failure.

mod screen;
mod story;

use anyhow::Result;
use clap::Parser;
use screen::Screen;
use std::{path::PathBuf, process::ExitCode, time::Duration};
use story::Story;

/// Arguments of the demo.
#[derive(Parser)]
#[command(about = "Walks through the story of Holdfast with its real parts", version)]
struct Arguments {
    /// End after the story; the exit code is 0 only if every step was observed.
    #[arg(long)]
    exit: bool,
    /// Directory for everything that the demo writes; emptied first.
    #[arg(long, default_value = "target/demo")]
    directory: PathBuf,
    /// Seconds that the whole story may take.
    #[arg(long, default_value_t = 600)]
    within: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut screen = Screen::new();
    match tell(&arguments, &mut screen).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen.fail(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn tell(arguments: &Arguments, screen: &mut Screen) -> Result<()> {
    let within = Duration::from_secs(arguments.within);
    let told = tokio::time::timeout(within, Story::tell(&arguments.directory, screen));
    let story = tokio::select! {
        told = told => told.map_err(|_| anyhow::anyhow!("the story was not over within {within:?}"))??,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    };
    if !arguments.exit {
        story.invite(screen)?;
        tokio::signal::ctrl_c().await?;
        screen.say("\nStopping.");
    }
    story.end().await
}
