//! containerd, by its own tool `ctr`: in a k3s it is `k3s ctr`.
//!
//! In: names of images, archives. Out: what containerd has, pinned or not. It guarantees that only the images of Kubernetes (namespace `k8s.io`) are
//! touched, and that a containerd which does not answer in time costs nothing but that time.

use super::archive;
use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    time::timeout,
};

/// Label that containerd's CRI honours: the kubelet is told that the image is pinned, and never removes it.
pub const PINNED: &str = "io.cri-containerd.pinned";
/// Label of those that Holdfast pinned, so that it unpins no other.
pub const OURS: &str = "io.holdfast.pinned";

/// Longest time of a question or a label.
const ANSWER: Duration = Duration::from_secs(60);
/// Longest time of an import; a slow flash takes minutes for a large archive.
const IMPORT: Duration = Duration::from_mins(30);
/// Most bytes of what the tool says.
const MAX_SAID: u64 = 4 << 20;
/// Names in one call, so that no command line becomes too long.
const BATCH: usize = 64;

/// Why containerd did not do it.
#[derive(Debug, thiserror::Error)]
pub enum CtrError {
    /// There is no containerd.
    #[error("containerd does not listen at {}", .0.display())]
    Absent(PathBuf),
    /// The tool cannot be started.
    #[error("{program} cannot be started: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It failed.
    #[error("{what} failed: {said}")]
    Failed {
        /// What was asked for.
        what: String,
        /// What it says.
        said: String,
    },
    /// The archive is damaged or no archive.
    #[error("the archive cannot be read: {0}")]
    Archive(io::Error),
}

/// The tool.
#[derive(Clone, Debug)]
pub struct Ctr {
    /// Program and its first arguments: `k3s`, `ctr`.
    pub command: Vec<String>,
    /// Socket of containerd.
    pub socket: PathBuf,
}

impl Ctr {
    /// Whether there is a containerd to talk to.
    pub async fn is_there(&self) -> bool {
        tokio::net::UnixStream::connect(&self.socket).await.is_ok()
    }

    /// Names of all images; of those with a label where one is given.
    pub async fn names(&self, label: Option<&str>) -> Result<BTreeSet<String>, CtrError> {
        let mut arguments = vec!["images".to_owned(), "ls".into(), "-q".into()];
        arguments.extend(label.map(|label| format!("labels.\"{label}\"==pinned")));
        let said = self.run(&arguments, "listing the images").await?;
        Ok(said
            .lines()
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// Sets labels of images, or clears them.
    pub async fn label(&self, names: &BTreeSet<String>, pinned: bool) -> Result<(), CtrError> {
        let value = if pinned { "pinned" } else { "" };
        for name in names {
            let arguments = [
                "images".to_owned(),
                "label".into(),
                name.clone(),
                format!("{PINNED}={value}"),
                format!("{OURS}={value}"),
            ];
            self.run(&arguments, &format!("labelling {name}")).await?;
        }
        Ok(())
    }

    /// Removes images, as the kubelet would have done: for tests and for what nothing needs.
    pub async fn remove(&self, names: &BTreeSet<String>) -> Result<(), CtrError> {
        let names: Vec<_> = names.iter().cloned().collect();
        for batch in names.chunks(BATCH) {
            let mut arguments = vec!["images".to_owned(), "rm".into()];
            arguments.extend_from_slice(batch);
            self.run(&arguments, "removing images").await?;
        }
        Ok(())
    }

    /// Imports an archive, and gives the names of its images.
    pub async fn import(&self, file: File) -> Result<BTreeSet<String>, CtrError> {
        // Unpacked when the first container of it is made: that costs nothing for those that never run.
        let arguments = ["images", "import", "--no-unpack", "-"].map(str::to_owned);
        let mut child = self
            .command(&arguments)?
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|source| self.not_started(source))?;
        let input = child
            .stdin
            .take()
            .ok_or_else(|| io::Error::other("it has no input"))
            .and_then(tokio::process::ChildStdin::into_owned_fd)
            .map_err(CtrError::Archive)?;
        let feeding = tokio::task::spawn_blocking(move || archive::unpack(file, File::from(input)));
        let said = timeout(IMPORT, ended(child)).await;
        let names = feeding
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error.to_string())));
        let what = "importing the archive";
        let (status, said) = said
            .map_err(|_| late(what, IMPORT))?
            .map_err(|error| self.not_started(error))?;
        match names {
            // The tool ended before the archive did: what it says is the reason.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(failed(what, &said)),
            Err(error) => Err(CtrError::Archive(error)),
            Ok(_) if !status.success() => Err(failed(what, &said)),
            Ok(names) => Ok(names),
        }
    }

    fn command(&self, arguments: &[String]) -> Result<Command, CtrError> {
        let (program, first) = self
            .command
            .split_first()
            .ok_or_else(|| self.not_started(io::Error::other("the settings name no program")))?;
        let mut command = Command::new(program);
        command
            .args(first)
            .arg("--address")
            .arg(&self.socket)
            .args(["--namespace", "k8s.io"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Ok(command)
    }

    async fn run(&self, arguments: &[String], what: &str) -> Result<String, CtrError> {
        if !self.is_there().await {
            return Err(CtrError::Absent(self.socket.clone()));
        }
        let child = self
            .command(arguments)?
            .spawn()
            .map_err(|source| self.not_started(source))?;
        let (status, said) = timeout(ANSWER, ended(child))
            .await
            .map_err(|_| late(what, ANSWER))?
            .map_err(|source| self.not_started(source))?;
        if status.success() {
            Ok(said.0)
        } else {
            Err(failed(what, &said))
        }
    }

    fn not_started(&self, source: io::Error) -> CtrError {
        CtrError::Start {
            program: self.command.first().cloned().unwrap_or_default(),
            source,
        }
    }
}

fn late(what: &str, limit: Duration) -> CtrError {
    CtrError::Failed {
        what: what.to_owned(),
        said: format!("it did not end within {} s", limit.as_secs()),
    }
}

fn failed(what: &str, said: &(String, String)) -> CtrError {
    // The last line says what it was in the end.
    let said = said
        .1
        .lines()
        .last()
        .unwrap_or("it says nothing")
        .trim()
        .to_owned();
    CtrError::Failed {
        what: what.to_owned(),
        said,
    }
}

/// Waits for the end of a process, and for what it says.
async fn ended(mut child: tokio::process::Child) -> io::Result<(ExitStatus, (String, String))> {
    async fn all(from: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
        let mut text = Vec::new();
        if let Some(mut from) = from {
            (&mut from).take(MAX_SAID).read_to_end(&mut text).await?;
            // What is beyond is not kept, but taken, so that the other side does not wait for ever.
            tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err, status) = tokio::try_join!(all(out), all(err), child.wait())?;
    Ok((status, (out, err)))
}
