//! The terminal under the console: keys one by one, whole screens, and everything as it was afterwards.
//!
//! In: screens as lines. Out: keys. Guarantees: nothing is written where nothing changed; only what every terminal since the VT100
//! understands is used, no colour; a terminal that was stopped (Scroll Lock, control and S) is not waited for, so that whoever ends the console
//! finds it; the terminal's modes and its cursor are put back when this is dropped.

use super::screen::Size;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    termios::{self, InputModes, LocalModes, OptionalActions, Termios},
};
use std::{
    fs,
    io::{self, IsTerminal as _, Read as _, Write as _},
    path::PathBuf,
    thread,
};
use tokio::sync::mpsc;

/// What is assumed where a terminal does not know its size, as on a serial line.
const USUAL: Size = Size {
    columns: 80,
    rows: 25,
};

/// A terminal that gives keys one by one.
pub(super) struct Terminal {
    modes: Termios,
    shown: Vec<String>,
    size: Size,
}

impl Terminal {
    /// Takes over the terminal of standard input and output; `None` where there is none.
    pub(super) fn take() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(None);
        }
        let modes = termios::tcgetattr(io::stdin())?;
        let mut single = modes.clone();
        single
            .local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &single)?;
        Ok(Some(Self {
            modes,
            shown: Vec::new(),
            size: USUAL,
        }))
    }

    /// How large it is now.
    pub(super) fn size(&mut self) -> Size {
        let told = termios::tcgetwinsize(io::stdout()).ok();
        let size = told
            .filter(|size| size.ws_col >= 20 && size.ws_row >= 5)
            .map_or(USUAL, |size| Size {
                columns: usize::from(size.ws_col),
                rows: usize::from(size.ws_row),
            });
        if size != self.size {
            self.size = size;
            self.shown.clear();
        }
        size
    }

    /// Shows a screen, if it is another than the one that is shown, and the terminal takes one now.
    pub(super) fn show(&mut self, lines: Vec<String>) -> io::Result<()> {
        if lines == self.shown || !takes_output() {
            return Ok(());
        }
        let text = frame(&lines);
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        self.shown = lines;
        Ok(())
    }

    /// Forgets what is shown, so that the next screen is written in whole: messages of the kernel may have written over it.
    pub(super) fn forget(&mut self) {
        self.shown.clear();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that cannot be stopped goes on, where it was.
        let mut going = self.modes.clone();
        going.input_modes.remove(InputModes::IXON);
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &going);
        if takes_output() {
            let mut out = io::stdout().lock();
            let _ = out.write_all(b"\x1b[?25h\r\n").and_then(|()| out.flush());
        }
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.modes);
    }
}

/// Whether a write would come back at once; also where it would fail.
fn takes_output() -> bool {
    let out = io::stdout();
    let mut asked = [PollFd::new(&out, PollFlags::OUT)];
    poll(&mut asked, Some(&Timespec::default())) != Ok(0)
}

/// What makes a terminal show these lines: home, cursor hidden, each line erased before it is written. Not after: behind its last column the
/// cursor stays on it, and would erase the character there. The last line is erased with all below.
pub(super) fn frame(lines: &[String]) -> String {
    let mut text = String::from("\x1b[?25l\x1b[H");
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            text.push_str("\r\n");
        }
        let is_last = index + 1 == lines.len();
        text.push_str(if is_last { "\x1b[J" } else { "\x1b[K" });
        text.push_str(line);
    }
    text
}

/// Keys as they are typed. The channel closes when the terminal does.
pub(super) fn keys() -> mpsc::UnboundedReceiver<u8> {
    let (sender, keys) = mpsc::unbounded_channel();
    // A thread of its own, which ends with the process: a read from a terminal cannot be cut off.
    thread::spawn(move || {
        let mut buffer = [0; 64];
        let mut stdin = io::stdin().lock();
        while let Ok(length @ 1..) = stdin.read(&mut buffer) {
            for key in buffer.iter().take(length) {
                if sender.send(*key).is_err() {
                    return;
                }
            }
        }
    });
    keys
}

/// Whether anybody could see this terminal: of the screen's terminals, only the one that is switched to.
pub(super) fn is_seen() -> bool {
    let Ok(own) = fs::read_link("/proc/self/fd/0") else {
        return true;
    };
    let number = own
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix("tty"))
        .filter(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    if number.is_none() {
        return true;
    }
    fs::read_to_string("/sys/class/tty/tty0/active")
        .map_or(true, |active| PathBuf::from("/dev").join(active.trim()) == own)
}
