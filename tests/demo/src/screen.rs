//! Live progress on the terminal: one line a step, with a running clock where the terminal can show one.

use anyhow::{Context as _, Result};
use std::{
    future::Future,
    io::{IsTerminal as _, Write as _, stdout},
    time::{Duration, Instant},
};

/// How often the running clock of a step is drawn.
const TICK: Duration = Duration::from_millis(100);

/// The terminal.
pub struct Screen {
    live: bool,
    steps: u32,
}

impl Screen {
    /// A screen on standard output; without a terminal there is no running clock and no colour.
    pub fn new() -> Self {
        Self {
            live: stdout().is_terminal(),
            steps: 0,
        }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.live {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Prints a line.
    #[allow(
        clippy::unused_self,
        reason = "whoever prints must hold the screen, or a running clock would be torn"
    )]
    pub fn say(&mut self, text: &str) {
        // A closed terminal does not stop the demo.
        let _ = writeln!(stdout(), "{text}");
    }

    /// Prints a heading.
    pub fn heading(&mut self, text: &str) {
        let painted = self.paint("1", text);
        self.say(&format!("\n{painted}"));
    }

    /// Prints that the demo failed and why.
    pub fn fail(&mut self, text: &str) {
        let mark = self.paint("31;1", "✗");
        self.say(&format!("{mark} {text}"));
    }

    /// Runs one step and shows how long it takes; what it returns beside its value is what was observed.
    pub async fn step<T>(
        &mut self,
        what: &str,
        work: impl Future<Output = Result<(T, String)>>,
    ) -> Result<T> {
        self.steps += 1;
        let number = self.steps;
        let started = Instant::now();
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(TICK);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                _ = ticks.tick(), if self.live => {
                    let _ = write!(stdout(), "\r\x1b[2K  {number:>2}  {what} … {:.1} s", started.elapsed().as_secs_f64());
                    let _ = stdout().flush();
                }
            }
        };
        if self.live {
            let _ = write!(stdout(), "\r\x1b[2K");
        }
        let seconds = started.elapsed().as_secs_f64();
        let (value, observed) =
            result.with_context(|| format!("step {number}, {what}, failed after {seconds:.1} s"))?;
        let mark = self.paint("32;1", "✓");
        let detail = self.paint("2", &format!("{observed}  ({seconds:.1} s)"));
        self.say(&format!("{mark} {number:>2}  {what}: {detail}"));
        Ok(value)
    }
}
