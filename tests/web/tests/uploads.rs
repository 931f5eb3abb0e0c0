//! Files that `holdfastctl` sends over a link that is cut, to hubs that are killed.

use anyhow::{Result, ensure};
use holdfast_harness::{Hub, Link, hub::socket_address, wait::until};
use holdfast_protocol::{
    Digest,
    operator::{BeginUpload, BlobInfo, BlobUpload},
};
use holdfast_web_tests::operator::Operator;
use reqwest::Method;
use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tempfile::TempDir;
use tokio::process::Child;

/// Bytes of the file: two pieces.
const SIZE: u64 = 48 << 20;
/// Where the link is cut: in the first piece, far behind what the buffers of two sockets hold.
const CUT: u64 = 28 << 20;
/// Bytes of requests, headers and answers beside the file's.
const BESIDE: u64 = 64 << 10;

/// How long the hub may take to see that a request broke off: it gives a silent one up after 30 s.
const PATIENCE: Duration = Duration::from_secs(90);

struct Place {
    hub: Hub,
    link: Link,
    operator: Operator,
    file: PathBuf,
    digest: Digest,
    _directory: TempDir,
}

/// A file on a machine whose operator is logged in over a link.
async fn place() -> Result<Place> {
    let directory = tempfile::tempdir()?;
    let hub = Hub::start(&directory.path().join("hub")).await?;
    let link = Link::open().await?;
    link.lead_to(socket_address(hub.plain_url()?)?);
    let operator = Operator::of(&hub, directory.path());
    operator.log_in_at(&format!("http://{}", link.address())).await?;
    let file = directory.path().join("k3s-images.tar");
    let digest = fill(&file)?;
    Ok(Place {
        hub,
        link,
        operator,
        file,
        digest,
        _directory: directory,
    })
}

/// A file that is another one at each place.
fn fill(file: &Path) -> Result<Digest> {
    let content: Vec<u8> = (0..SIZE / 8).flat_map(u64::to_be_bytes).collect();
    File::create(file)?.write_all(&content)?;
    Ok(Digest::of(&content))
}

impl Place {
    fn push(&self) -> Result<Child> {
        let file = self.file.to_string_lossy();
        let mut command = self.operator.command(&["artifact", "push", &file])?;
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// How much the hub has, asked past the link.
    async fn received(&self) -> Result<u64> {
        let path = format!("/api/v1/blobs/{}/upload", self.digest);
        let begin = BeginUpload { size: SIZE };
        let answer = self.hub.request(Method::POST, &path, Some(&begin)).await?;
        Ok(answer.json::<BlobUpload>().await?.received)
    }

    /// Lets the rest through, and holds against it what goes over the link.
    async fn rest(&self, child: Child, received: u64) -> Result<()> {
        ensure!(
            received > CUT / 2 && received <= CUT + BESIDE,
            "{received} bytes are at the hub"
        );
        let before = self.link.bytes();
        self.link.restore();
        let output = child.wait_with_output().await?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{told}");
        // The last tenth that is told of is that of the whole.
        ensure!(told.contains("90 %"), "{told}");
        let sent = self.link.bytes() - before;
        ensure!(
            sent + BESIDE >= SIZE - CUT && sent < SIZE - received + BESIDE,
            "{sent} bytes went over the link for the {} that were missing: {told}",
            SIZE - received
        );
        let blobs: Vec<BlobInfo> = self.hub.get("/api/v1/blobs").await?;
        ensure!(blobs.len() == 1 && blobs[0].digest == self.digest && blobs[0].size == SIZE);
        Ok(())
    }
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_cut_after_the_hub_was_killed() -> Result<()> {
    let mut place = place().await?;
    place.link.cut_after(CUT);
    let child = place.push()?;
    place.link.until_cut().await;
    place.hub.kill_and_restart().await?;
    place.link.lead_to(socket_address(place.hub.plain_url()?)?);
    let received = place.received().await?;
    place.rest(child, received).await
}

#[tokio::test]
async fn an_upload_goes_on_where_another_run_of_the_command_was_killed() -> Result<()> {
    let place = place().await?;
    place.link.cut_after(CUT);
    let mut child = place.push()?;
    place.link.until_cut().await;
    child.kill().await?;
    // The hub may still be reading what is in its socket: until then it says that the blob is being uploaded.
    let free = "the hub gave the first request up";
    let received = until(free, PATIENCE, || async { place.received().await.map(Some) }).await?;
    place.rest(place.push()?, received).await
}
