//! QEMU's own control connection: what a hand at the box does. Pull the cable, press the power button, pull the plug.
//!
//! QEMU connects to a socket that is listened on before it starts, so there is nothing to wait for or to miss.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::{collections::VecDeque, path::Path, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

/// How long QEMU may take to answer a command: it does so without the guest.
const ANSWER: Duration = Duration::from_secs(30);

/// A control connection.
pub struct Qmp {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    events: VecDeque<Value>,
}

/// A socket that QEMU will connect to.
pub struct Listener(UnixListener);

impl Listener {
    /// Listens at `path`.
    pub fn at(path: &Path) -> Result<Self> {
        Ok(Self(
            UnixListener::bind(path).with_context(|| format!("listen at {}", path.display()))?,
        ))
    }

    /// Takes QEMU's connection.
    pub async fn accept(self) -> Result<Qmp> {
        let (stream, _) = timeout(ANSWER, self.0.accept())
            .await
            .context("QEMU did not open its control connection")??;
        let (reader, writer) = stream.into_split();
        let mut qmp = Qmp {
            reader: BufReader::new(reader),
            writer,
            events: VecDeque::new(),
        };
        let greeting = qmp.message().await?;
        if greeting.get("QMP").is_none() {
            bail!("QEMU greets with {greeting}")
        }
        qmp.command("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }
}

impl Qmp {
    /// Carries out a command and gives its answer.
    pub async fn command(&mut self, name: &str, arguments: Value) -> Result<Value> {
        let line = format!("{}\n", json!({"execute": name, "arguments": arguments}));
        self.writer
            .write_all(line.as_bytes())
            .await
            .with_context(|| format!("QMP {name}"))?;
        loop {
            let mut message = timeout(ANSWER, self.message())
                .await
                .with_context(|| format!("QMP {name}: no answer within {ANSWER:?}"))??;
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(error) = message.get("error") {
                bail!("QMP {name}: {error}")
            }
            self.events.push_back(message);
        }
    }

    /// Waits for an event of this name; earlier ones of other names are forgotten.
    pub async fn event(&mut self, name: &str, within: Duration) -> Result<Value> {
        let wait = async {
            loop {
                let message = match self.events.pop_front() {
                    Some(message) => message,
                    None => self.message().await?,
                };
                if message.get("event").and_then(Value::as_str) == Some(name) {
                    return Ok(message);
                }
            }
        };
        timeout(within, wait)
            .await
            .with_context(|| format!("QEMU told of no {name} within {within:?}"))?
    }

    /// Whether an event of this name came and was not waited for.
    pub async fn seen(&mut self, name: &str) -> Result<bool> {
        // The answer comes after every event before it.
        self.command("query-status", json!({})).await?;
        Ok(self
            .events
            .iter()
            .any(|event| event.get("event").and_then(Value::as_str) == Some(name)))
    }

    /// Forgets the events that came so far.
    pub async fn forget_events(&mut self) -> Result<()> {
        // The answer comes after every event before it.
        self.command("query-status", json!({})).await?;
        self.events.clear();
        Ok(())
    }

    async fn message(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).await? == 0 {
            bail!("QEMU ended its control connection")
        }
        Ok(serde_json::from_str(&line)?)
    }
}
