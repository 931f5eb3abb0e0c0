//! The console on a real pseudo terminal, whose screen is put together as a terminal does it.

use super::{Daemon, command};
use crate::common::TestBox;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{InputModes, LocalModes, OutputModes, Winsize, tcgetattr, tcsetwinsize},
};
use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    process::{Child, ExitStatus},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);
const COLUMNS: usize = 80;
const ROWS: usize = 25;

struct Console {
    master: File,
    /// The end that the console has, held open.
    slave: Option<File>,
    output: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
    child: Child,
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Console {
    fn start(node: &TestBox) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(
            &master,
            Winsize {
                ws_row: ROWS as u16,
                ws_col: COLUMNS as u16,
                ws_xpixel: 0,
                ws_ypixel: 0,
            },
        )
        .unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let child = command(node, &["console"])
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap())
            .spawn()
            .unwrap();
        let master = File::from(master);
        let mut reader = master.try_clone().unwrap();
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The read fails once the other end is closed.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            master,
            slave: Some(slave),
            output,
            bytes: Vec::new(),
            child,
        }
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn modes(&self) -> (InputModes, OutputModes, LocalModes) {
        let modes = tcgetattr(&self.master).unwrap();
        (modes.input_modes, modes.output_modes, modes.local_modes)
    }

    /// Stops the terminal, as control and S do.
    fn stop(&mut self) {
        self.press("\u{13}");
        let slave = self.slave.take().unwrap();
        self.until("the terminal stops", |_| {
            let mut asked = [PollFd::new(&slave, PollFlags::OUT)];
            (poll(&mut asked, Some(&Timespec::default())) == Ok(0)).then_some(())
        });
        self.slave = Some(slave);
    }

    /// Waits until the console has ended.
    fn end(&mut self) -> ExitStatus {
        self.until("the console ends", |console| console.child.try_wait().unwrap())
    }

    /// All that it wrote, after it has ended.
    fn rest(&mut self) -> &[u8] {
        self.slave = None;
        while let Ok(more) = self.output.recv_timeout(PATIENCE) {
            self.bytes.extend(more);
        }
        &self.bytes
    }

    /// Waits for what brings no output of its own.
    fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
            self.bytes.extend(
                self.output
                    .recv_timeout(Duration::from_millis(10))
                    .unwrap_or_default(),
            );
        }
    }

    /// Waits until the screen has `text`, and gives the screen.
    fn wait(&mut self, text: &str) -> Vec<String> {
        self.wait_for(&[text])
    }

    /// Waits until the screen has all of these, and gives the screen. Lines come one by one from above, in pieces of any length: whoever
    /// looks at a whole screen waits for its last line too.
    fn wait_for(&mut self, texts: &[&str]) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let screen = screen(&self.bytes);
            let missing = texts
                .iter()
                .find(|text| !screen.iter().any(|line| line.contains(**text)));
            let Some(text) = missing else { return screen };
            let left = until.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(more) => self.bytes.extend(more),
                Err(error) => panic!("no {text:?} ({error}) on:\n{}", screen.join("\n")),
            }
        }
    }
}

/// What a terminal of 80 by 25 shows after these bytes; fails on anything that a VT100 would not understand.
fn screen(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let mut cells = vec![vec![' '; COLUMNS]; ROWS];
    let (mut row, mut column) = (0, 0);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\r' => column = 0,
            '\n' => row = (row + 1).min(ROWS - 1),
            '\u{1b}' => {
                let mut order = String::new();
                match characters.next() {
                    Some('[') => {}
                    // The rest has not come yet.
                    None => break,
                    Some(other) => panic!("the console sent ESC {other}"),
                }
                for next in characters.by_ref() {
                    order.push(next);
                    if next.is_ascii_alphabetic() {
                        break;
                    }
                }
                match order.as_str() {
                    cut if !cut.ends_with(|end: char| end.is_ascii_alphabetic()) => break,
                    "H" => (row, column) = (0, 0),
                    "K" => cells[row][column.min(COLUMNS)..].fill(' '),
                    "J" => {
                        cells[row][column.min(COLUMNS)..].fill(' ');
                        cells[row + 1..].fill(vec![' '; COLUMNS]);
                    }
                    "?25l" | "?25h" => {}
                    other => panic!("the console sent ESC [ {other}"),
                }
            }
            character => {
                assert!(column < COLUMNS, "a line is too long");
                cells[row][column] = character;
                column += 1;
            }
        }
    }
    cells
        .into_iter()
        .map(|line| line.into_iter().collect::<String>().trim_end().to_owned())
        .collect()
}

#[test]
fn without_a_daemon_it_says_so_and_what_to_do() {
    let node = TestBox::new("");
    let mut console = Console::start(&node);
    let screen = console.wait_for(&["[daemon-unreachable]", "f factory reset"]);
    assert!(screen[0].starts_with("HOLDFAST "), "{screen:#?}");
    assert!(
        screen.iter().any(|line| line.contains("[daemon-unreachable]")),
        "{screen:#?}"
    );
    assert!(screen.iter().any(|line| line.contains("do: ")), "{screen:#?}");
    console.press("n");
    console.wait("NETWORK");
    console.press("q");
    assert!(console.child.wait().unwrap().success());
}

#[test]
fn a_box_that_is_not_enrolled_shows_a_code_and_how_to_enrol_it() {
    let node = TestBox::new("");
    let _daemon = Daemon::start(&node);
    let mut console = Console::start(&node);
    let screen = console.wait_for(&["NOT ENROLLED", "f factory reset"]);
    let filled = screen.iter().filter(|line| line.contains('\u{2588}')).count();
    assert!(filled >= 12, "{screen:#?}");
    assert!(
        screen
            .iter()
            .any(|line| line.contains("holdfastctl token create")),
        "{screen:#?}"
    );
    console.press("i");
    console.wait("SHA-256 of its public key");
}

#[test]
fn a_factory_reset_needs_the_words_and_can_be_left() {
    let node = TestBox::new("");
    let mut console = Console::start(&node);
    console.wait("f factory reset");
    console.press("f");
    console.wait("FACTORY RESET");
    console.press("yes\r");
    console.wait("These are not the words");
    assert!(!node.path("state/factory-reset.json").exists());
    console.press("\t");
    console.wait("is kept");
    console.press("\u{1b}");
    console.wait("[daemon-unreachable]");
    assert!(!node.path("state/factory-reset.json").exists());
}

#[test]
fn a_factory_reset_that_waits_is_shown_and_can_be_taken_back_at_the_screen() {
    let node = TestBox::new("");
    holdfast::identity::prepare_state_dir(&node.path("state")).unwrap();
    let ordered = super::run(&node, &["factory-reset", "--yes", "--no-restart"]);
    assert!(ordered.status.success(), "{ordered:?}");
    let mut console = Console::start(&node);
    console.wait_for(&["[reset-ordered]", "f factory reset"]);
    console.press("f");
    console.wait("type \"cancel\"");
    console.press("cancel\r");
    console.wait("is taken back");
    assert!(!node.path("state/factory-reset.json").exists());
    console.press("\u{1b}");
    let screen = console.wait_for(&["[daemon-unreachable]", "f factory reset"]);
    assert!(!screen.join("\n").contains("reset-ordered"), "{screen:#?}");
}

#[test]
fn without_a_terminal_it_says_so() {
    let node = TestBox::new("");
    let done = super::run(&node, &["console", "-o", "json"]);
    let problem: serde_json::Value = serde_json::from_slice(&done.stderr).unwrap();
    assert_eq!(problem["code"], "console-no-terminal");
}

#[test]
fn whatever_signal_ends_it_the_terminal_is_as_it_was() {
    let node = TestBox::new("");
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
    ] {
        // Also where somebody stopped the terminal, and a screen waits to be shown.
        for stopped in [false, true] {
            let mut console = Console::start(&node);
            console.wait("f factory reset");
            let taken = console.modes();
            if stopped {
                console.stop();
                console.press("n");
            }
            kill(Pid::from_raw(console.child.id().cast_signed()), signal).unwrap();
            assert!(console.end().success(), "{signal}, stopped: {stopped}");
            let (input, output, local) = console.modes();
            let lines = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
            assert!(!taken.2.intersects(lines), "keys come one by one");
            assert_eq!((input, output, local - lines), taken, "{signal}");
            assert!(local.contains(lines), "{signal}, stopped: {stopped}");
            let shown = console.rest().trim_ascii_end().ends_with(b"\x1b[?25h");
            assert!(shown, "the cursor is hidden: {signal}, stopped: {stopped}");
        }
    }
}
