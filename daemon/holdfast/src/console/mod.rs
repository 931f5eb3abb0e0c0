//! The screen of the box, for whoever stands before it: who it is, what runs, what is wrong and what to do.
//!
//! In: the daemon's status over the local API, facts of the machine, keys. Out: screens on the terminal of the process; an order of a
//! factory reset, after words were typed, or of one taken back. Guarantees: it works where no daemon does, on any terminal of 80 by 25, without
//! colour; however it is ended but by SIGKILL, the terminal is as it was; it costs nothing while another terminal is shown, and next to nothing while nobody types: a look at the daemon every 15 s, every 2 s for
//! two minutes after a key.

mod facts;
mod qr;
mod screen;
mod terminal;
#[cfg(test)]
mod tests;

use crate::{
    boots::BootLog,
    cli::{
        Common, Exit,
        machine::{self, WORDS},
    },
    codes,
    settings::Settings,
};
use facts::Facts;
use holdfast_protocol::{Problem, codes as shared};
use screen::Page;
use std::{
    future::{Future, poll_fn},
    io,
    task::Poll,
    time::{Duration, Instant},
};
use terminal::Terminal;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

/// Time between two looks while somebody types.
const LIVELY: Duration = Duration::from_secs(2);
/// Time between two looks else.
const QUIET: Duration = Duration::from_secs(15);
/// How long after a key somebody is thought to be there.
const ATTENTION: Duration = Duration::from_mins(2);
/// The most characters that may be typed.
const MAX_TYPED: usize = 40;

const ESCAPE: u8 = 0x1b;
const BACKSPACE: [u8; 2] = [0x08, 0x7f];
const ENTER: [u8; 2] = [b'\r', b'\n'];
/// Control and C, and Control and D.
const QUIT: [u8; 2] = [0x03, 0x04];
/// What must be typed to take a factory reset back.
const CANCEL: &str = "cancel";

/// Runs until somebody quits with `q`, the terminal goes, or a signal ends it.
pub async fn run(common: &Common) -> Result<Exit, Problem> {
    let settings = common.settings()?;
    // Before the terminal is taken: from then on there is something to put back.
    let ended = ended().map_err(|error| failed(&error))?;
    tokio::select! {
        done = show(&settings) => done,
        () = ended => Ok(Exit::Done),
    }
}

/// Waits for a signal that ends the process.
fn ended() -> io::Result<impl Future<Output = ()>> {
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::quit(),
        SignalKind::alarm(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ];
    let mut signals = kinds.into_iter().map(signal).collect::<io::Result<Vec<_>>>()?;
    Ok(poll_fn(move |context| {
        let came = signals
            .iter_mut()
            .any(|signal| signal.poll_recv(context).is_ready());
        if came { Poll::Ready(()) } else { Poll::Pending }
    }))
}

async fn show(settings: &Settings) -> Result<Exit, Problem> {
    let Some(mut terminal) = Terminal::take().map_err(|error| failed(&error))? else {
        return Err(Problem::new(
            codes::CONSOLE_NO_TERMINAL,
            "standard input or output is no terminal",
            "run it on a terminal; holdfast status shows the same to a program",
        ));
    };
    let mut keys = terminal::keys();
    let mut page = Page::Main;
    let mut facts = facts::look(settings).await;
    // Whoever has just switched the box on wants to see it come up.
    let mut last_key = Instant::now();
    loop {
        let size = terminal.size();
        terminal
            .show(screen::draw(&page, &facts, size))
            .map_err(|error| failed(&error))?;
        let lively = last_key.elapsed() < ATTENTION;
        tokio::select! {
            key = keys.recv() => {
                let Some(key) = key else { return Ok(Exit::Done) };
                last_key = Instant::now();
                if QUIT.contains(&key) || (key == b'q' && !matches!(page, Page::Reset { .. })) {
                    return Ok(Exit::Done);
                }
                terminal.forget();
                page = pressed(page, key, settings).await;
                // What is typed is shown at once; everything else may have changed.
                if !matches!(page, Page::Reset { .. }) || ENTER.contains(&key) {
                    facts = facts::look(settings).await;
                }
            }
            () = sleep(if lively { LIVELY } else { QUIET }) => {
                if terminal::is_seen() {
                    look_again(&mut page, &mut facts, settings).await;
                }
            }
        }
    }
}

async fn look_again(page: &mut Page, facts: &mut Facts, settings: &Settings) {
    *facts = facts::look(settings).await;
    if matches!(page, Page::Log(_)) {
        *page = Page::Log(facts::log().await);
    }
}

/// The page after a key.
async fn pressed(page: Page, key: u8, settings: &Settings) -> Page {
    if let Page::Reset {
        keep_identity, typed, ..
    } = page
    {
        return reset_pressed(keep_identity, typed, key, settings);
    }
    match key {
        b'n' => Page::Network,
        b'i' => Page::Identity,
        b'l' => Page::Log(facts::log().await),
        b'f' => Page::Reset {
            keep_identity: false,
            typed: String::new(),
            outcome: None,
        },
        _ => Page::Main,
    }
}

fn reset_pressed(keep_identity: bool, mut typed: String, key: u8, settings: &Settings) -> Page {
    let mut outcome = None;
    let mut keep = keep_identity;
    match key {
        ESCAPE => return Page::Main,
        b'\t' => keep = !keep,
        key if BACKSPACE.contains(&key) => {
            typed.pop();
        }
        key if ENTER.contains(&key) => {
            let state_dir = &settings.state_dir;
            let boots = BootLog::new(state_dir);
            let done = match typed.trim() {
                WORDS => machine::order(state_dir, &boots, keep)
                    .and_then(|()| machine::restart(&boots))
                    .map(|()| "The machine restarts and erases itself."),
                CANCEL => machine::cancel(state_dir, &boots),
                _ => Ok("These are not the words; nothing was done."),
            };
            outcome = Some(done.map_or_else(|problem| problem.to_string(), str::to_owned));
            typed.clear();
        }
        b' '..=b'~' if typed.len() < MAX_TYPED => typed.push(char::from(key)),
        _ => {}
    }
    Page::Reset {
        keep_identity: keep,
        typed,
        outcome,
    }
}

fn failed(error: &io::Error) -> Problem {
    Problem::new(
        shared::INTERNAL,
        format!("the terminal does not work: {error}"),
        "report this with the kind of the terminal",
    )
}
