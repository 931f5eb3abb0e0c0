//! The serial console of a box, read line by line as it comes.
//!
//! In: the bytes that the box writes. Out: lines without terminal control sequences, kept whole and written to a log file.
//! Waiting is for a line that has not been waited for yet: each wait goes on where the one before ended, so that "boot twice" means two lines.

use anyhow::{Result, bail};
use std::{
    fs::File,
    future::Future,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::watch,
};

/// How much of the console's end an error shows, in lines.
const TAIL: usize = 40;

#[derive(Default)]
struct Text {
    lines: Vec<String>,
    /// What came after the last line's end: prompts and menus end without one.
    partial: String,
    ended: bool,
}

/// A console that is being read.
pub struct Console {
    text: watch::Receiver<Text>,
    /// The first line that no wait has looked at.
    next: usize,
}

impl Console {
    /// Reads `source` to its end in the background and copies it to `log` as it comes.
    pub fn read(source: impl AsyncRead + Send + Unpin + 'static, log: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let (sender, text) = watch::channel(Text::default());
        tokio::spawn(pump(source, log, sender));
        Ok(Self { text, next: 0 })
    }

    /// Waits for the next line that contains one of `patterns`; gives that line. A guest's fault ends the wait early, as does the end of the box.
    pub async fn wait_for(&mut self, patterns: &[&str], within: Duration) -> Result<String> {
        self.wait(patterns, within, true).await
    }

    /// As [`Console::wait_for`], but where a fault of the guest's kernel is what is waited for or does not matter.
    pub async fn wait_through_faults(&mut self, patterns: &[&str], within: Duration) -> Result<String> {
        self.wait(patterns, within, false).await
    }

    async fn wait(&mut self, patterns: &[&str], within: Duration, faults_end: bool) -> Result<String> {
        let deadline = Instant::now() + within;
        loop {
            let why = {
                let text = self.text.borrow_and_update();
                let from = self.next.min(text.lines.len());
                for (place, line) in text.lines.iter().enumerate().skip(from) {
                    self.next = place + 1;
                    if patterns.iter().any(|pattern| line.contains(pattern)) {
                        return Ok(line.clone());
                    }
                    if faults_end && is_fault(line) {
                        bail!(
                            "{patterns:?}: the guest's kernel faulted: {line}\n{}",
                            tail(&text)
                        )
                    }
                }
                if patterns.iter().any(|pattern| text.partial.contains(pattern)) {
                    return Ok(text.partial.clone());
                }
                text.ended.then(|| tail(&text))
            };
            if let Some(tail) = why {
                bail!("{patterns:?} did not appear on the console before the machine ended:\n{tail}")
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, self.text.changed()).await.is_err() {
                bail!(
                    "{patterns:?} did not appear on the console within {within:?}:\n{}",
                    self.tail()
                )
            }
        }
    }

    /// Ends when the guest's kernel faults or the box is gone; says why. Nothing that waits is moved on.
    pub fn trouble(&self) -> impl Future<Output = String> + use<> {
        let mut text = self.text.clone();
        let mut seen = 0;
        async move {
            loop {
                {
                    let text = text.borrow_and_update();
                    if let Some(line) = text.lines.iter().skip(seen).find(|line| is_fault(line)) {
                        return format!("the guest's kernel faulted: {line}\n{}", tail(&text));
                    }
                    if text.ended {
                        return format!("the machine ended:\n{}", tail(&text));
                    }
                    seen = text.lines.len();
                }
                if text.changed().await.is_err() {
                    return format!("the machine ended:\n{}", tail(&text.borrow()));
                }
            }
        }
    }

    /// Looks at everything that came so far, without moving on.
    pub fn contains(&self, pattern: &str) -> bool {
        self.text.borrow().lines.iter().any(|line| line.contains(pattern))
    }

    /// The first line that shows a fault of the guest's kernel.
    pub fn guest_fault(&self) -> Option<String> {
        self.text
            .borrow()
            .lines
            .iter()
            .find(|line| is_fault(line))
            .cloned()
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        tail(&self.text.borrow())
    }
}

fn tail(text: &Text) -> String {
    let from = text.lines.len().saturating_sub(TAIL);
    let mut tail = text.lines[from..].join("\n");
    tail.push('\n');
    tail.push_str(&text.partial);
    tail
}

/// Whether a line tells of a fault inside the guest's kernel, which a program of the guest cannot cause by itself.
///
/// A plain panic is not one of them: "no init found" is a product failure. An oops is followed by one of these lines.
fn is_fault(line: &str) -> bool {
    [
        "Oops: ",
        "BUG: unable to handle",
        "BUG: kernel NULL pointer",
        "general protection fault",
        "kernel BUG at",
        "invalid opcode: ",
        "double fault: ",
        "traps: PANIC",
        "unhandled page fault in kernel",
    ]
    .iter()
    .any(|sign| line.contains(sign))
        // Programs' own faults are told in similar words, and name the program.
        && (!line.contains("traps: ") || line.contains("traps: PANIC"))
        && !line.contains("segfault at")
        || locked_up(line)
}

/// Whether the kernel says that a processor has not moved for so long that it will not any more. A busy machine alone, on which the guest is
/// not let run, gives shorter ones.
fn locked_up(line: &str) -> bool {
    line.split_once("soft lockup - CPU#")
        .and_then(|(_, rest)| rest.split_once(" stuck for "))
        .and_then(|(_, rest)| rest.split_once('s'))
        .and_then(|(seconds, _)| seconds.parse::<u32>().ok())
        .is_some_and(|seconds| seconds >= 75)
}

/// The first sign of a fault of the guest's kernel in a console's log.
pub fn guest_fault(log: &Path) -> Option<String> {
    let text = std::fs::read(log).ok()?;
    String::from_utf8_lossy(&text)
        .lines()
        .find(|line| is_fault(line))
        .map(|line| without_controls(line).trim().to_owned())
}

async fn pump(mut source: impl AsyncRead + Unpin, mut log: File, text: watch::Sender<Text>) {
    let mut buffer = vec![0; 4096];
    let mut pending = Vec::new();
    while let Ok(read) = source.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        // The log is a help for people; the scenario goes on without it.
        drop(log.write_all(&buffer[..read]));
        pending.extend_from_slice(&buffer[..read]);
        let mut lines = Vec::new();
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            lines.push(
                without_controls(&String::from_utf8_lossy(&line))
                    .trim_end()
                    .to_owned(),
            );
        }
        let partial = without_controls(&String::from_utf8_lossy(&pending));
        text.send_modify(|text| {
            text.lines.extend(lines);
            text.partial = partial;
        });
    }
    text.send_modify(|text| text.ended = true);
}

/// The text without escape sequences and control characters.
fn without_controls(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => {
                // A control sequence starts with `[` and ends with a letter or one of `@~`; others are one character long.
                if characters.next() == Some('[') {
                    characters.find(|end| ('\u{40}'..='\u{7e}').contains(end));
                }
            }
            character if character.is_control() => {}
            character => clean.push(character),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_is_waited_for_once_and_without_its_colours() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut console = Console::read(reader, &directory.path().join("log"))?;
        tokio::io::AsyncWriteExt::write_all(
            &mut writer,
            b"[\x1b[0;32m  OK  \x1b[0m] Reached target\r\nlogin:",
        )
        .await?;
        let within = Duration::from_secs(5);
        ensure_eq(
            &console.wait_for(&["Reached"], within).await?,
            "[  OK  ] Reached target",
        )?;
        ensure_eq(&console.wait_for(&["login"], within).await?, "login:")?;
        drop(writer);
        let error = console.wait_for(&["Reached"], within).await;
        anyhow::ensure!(error.is_err_and(|error| error.to_string().contains("before the machine ended")));
        Ok(())
    }

    #[test]
    fn a_fault_of_the_kernel_is_told_from_one_of_a_program_and_from_a_panic() {
        assert!(is_fault("[   12.3] Oops: 0002 [#1] PREEMPT SMP"));
        assert!(is_fault(
            "[    1.0] BUG: unable to handle page fault for address: 00000"
        ));
        assert!(is_fault(
            "[  217.2] watchdog: BUG: soft lockup - CPU#0 stuck for 78s! [systemd:1]"
        ));
        assert!(!is_fault(
            "[  161.2] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [systemd:1]"
        ));
        assert!(!is_fault("[   12.3] k3s[12]: segfault at 0 ip 00 error 4 in k3s"));
        assert!(!is_fault(
            "[   12.3] traps: k3s[12] general protection fault ip:0 sp:0 error:0"
        ));
        assert!(!is_fault(
            "[    2.0] Kernel panic - not syncing: No working init found."
        ));
    }

    fn ensure_eq(seen: &str, wanted: &str) -> Result<()> {
        anyhow::ensure!(seen == wanted, "{seen:?} is not {wanted:?}");
        Ok(())
    }
}
