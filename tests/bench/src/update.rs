//! What an update of the operating system costs a box: bytes over the link, and memory.
//!
//! In: two built images, of which the first runs. The node is the real process, in a mount namespace in which the disk of the box is a file with the first
//! image and a second slot, and what tells which image runs is that image's. The hub serves the second. A window that is closed keeps the box from
//! restarting into it. Guarantees: what was staged is held against the image byte by byte before anything is said about it.

use crate::{figures::Figures, image::Built, machine};
use anyhow::{Context as _, Result, anyhow, ensure};
use holdfast_harness::{Node, Process, Site, appliance_root, paths, process::run, site::KUBERNETES, wait};
use holdfast_protocol::{
    document::{App, Artifact, MaintenanceWindow, OsSection, Policy, Weekday},
    event::{EventKind, Severity},
    operator::{CreateToken, ReleaseContent},
};
use serde_json::Map;
use std::{
    cell::Cell,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::process::Command;

/// Most bytes of an update that changes one package, over those of the whole image, packed.
const DELTA: f64 = 0.10;
/// Most resident memory of a node that stages an update, in KiB.
const PEAK: f64 = 32_768.0;
/// Room for the second slot, its hash tree and the second copy of the partition table, in bytes.
const SECOND_SLOT: u64 = (768 + 16 + 4) << 20;
/// How long staging may take on a busy machine.
const STAGING: Duration = Duration::from_secs(600);
const BOX: &str = "box";

/// Updates a box that runs the image in `from` to the one in `to`.
pub async fn measure(from: &Path, to: &Path, figures: &mut Figures) -> Result<()> {
    let (from, to) = (Built::read(from)?, Built::read(to)?);
    let site = Site::start().await?;
    let mut node = Node::prepare(&site.directory().join(BOX), BOX, "")?;
    keep_from_systemd(&node.directory.join("node.toml"))?;
    let board = node.directory.join("board");
    make(&board, &from).await?;

    // Its Kubernetes starts before, and runs on when the daemon is exchanged for the one on the board.
    node.start().await?;
    let token = site.hub.create_token(&CreateToken::default()).await?;
    node.enrol(&token.token).await?;
    site.hub.create_release("empty", "empty", Vec::new()).await?;
    let generation = site.hub.assign("empty", BOX).await?;
    site.hub.wait_for_proven(BOX, generation, KUBERNETES).await?;
    node.stop().await?;

    let section = push(&site, &to).await?;
    let content = ReleaseContent {
        os: Some(section),
        apps: vec![App {
            name: "empty".to_owned(),
            ..App::default()
        }],
        policy: Policy {
            windows: vec![closed()],
            ..Policy::default()
        },
        ..ReleaseContent::default()
    };
    site.hub.create_release_of("next", content).await?;
    let next = site.hub.assign("next", BOX).await?;
    let before = site.hub.api_link.bytes();
    let mut command = appliance_root::enter(&board);
    command
        .arg(paths::binary("holdfast")?)
        .arg("run")
        .arg("--config")
        .arg(node.directory.join("node.toml"));
    let begun = Instant::now();
    let daemon = Process::start("holdfast", command, &node.directory.join("board.log"))?;
    let process = daemon.id().context("the node ended")?;
    let anonymous = Cell::new(0);
    wait::until("the image is staged", STAGING, async || {
        // Its peak is known to the kernel only together with the pages of the program.
        anonymous.set(
            anonymous
                .get()
                .max(machine::anonymous_memory(process).unwrap_or_default()),
        );
        let events = site.hub.events(BOX).await?;
        if events.iter().any(|event| event.kind == EventKind::OsStaged) {
            return Ok(Some(Ok(())));
        }
        let problem = events
            .into_iter()
            // A document is held up where Kubernetes does not answer yet, and goes on by itself; what is for good is an alarm.
            .filter(|event| event.generation == Some(next) && event.severity == Severity::Alarm)
            .find_map(|event| event.problem);
        Ok(problem.map(|problem| Err(anyhow!("the node cannot stage it: {problem}"))))
    })
    .await
    .flatten()
    .with_context(|| daemon.log_tail(20))?;
    let (took, anonymous) = (begun.elapsed(), anonymous.get());
    let peak = machine::peak_memory(process)?;
    let fetched = site.hub.api_link.bytes() - before;
    is_staged(&board, &to).await?;

    let pack = fs::metadata(to.ending(".pack")?)?.len();
    let slot = ["/usr/file", "/verity/file", "/uki/file"]
        .into_iter()
        .map(|part| Ok(fs::metadata(to.file(part)?)?.len()))
        .sum::<Result<u64>>()?;
    figures.add(
        "update.delta_ratio",
        fetched as f64 / pack as f64,
        "",
        Some(DELTA),
        format!(
            "bytes over the link to the hub, both directions, TLS and the signed manifest included ({fetched}), over the whole slot as it would be fetched: the compressed pack of file system, hash tree and kernel image ({pack}); over the slot as it lies on the disk ({slot}) it is {:.4}; {}",
            fetched as f64 / slot as f64,
            difference(&to)
        ),
    );
    figures.add(
        "update.peak_rss_kib",
        peak as f64,
        "KiB",
        Some(PEAK),
        format!("VmHWM of the node that staged it, from its start on, with Kubernetes beside it; of it anonymous at most {anonymous} (RssAnon, looked at every 50 ms)"),
    );
    figures.add(
        "update.stage_s",
        took.as_secs_f64(),
        "s",
        None,
        "from the start of that node until the hub has heard that the image lies whole in the other slot, read back",
    );
    Ok(())
}

/// How the second image differs from the first, as whoever built it left it beside it.
fn difference(to: &Built) -> String {
    fs::read_to_string(to.directory.join("difference")).map_or_else(
        |_| "two images that were given".to_owned(),
        |text| text.trim().to_owned(),
    )
}

/// The machine that measures has a systemd too, and is not to be restarted by anyone's mistake.
fn keep_from_systemd(settings: &Path) -> Result<()> {
    let text = fs::read_to_string(settings)?.replace(
        "[kubernetes]\n",
        "[kubernetes]\nsystemd_bus = \"unix:path=/nonexistent\"\n",
    );
    Ok(File::create(settings)?.write_all(text.as_bytes())?)
}

/// A window that opens three days from now.
fn closed() -> MaintenanceWindow {
    const DAYS: [Weekday; 7] = [
        Weekday::Mon,
        Weekday::Tue,
        Weekday::Wed,
        Weekday::Thu,
        Weekday::Fri,
        Weekday::Sat,
        Weekday::Sun,
    ];
    let today = jiff::Zoned::now()
        .with_time_zone(jiff::tz::TimeZone::UTC)
        .weekday();
    let then = usize::try_from(today.to_monday_zero_offset()).unwrap_or_default() + 3;
    MaintenanceWindow {
        days: vec![DAYS[then % DAYS.len()]],
        start: "10:00".to_owned(),
        end: "11:00".to_owned(),
        time_zone: "UTC".to_owned(),
    }
}

/// Makes what the node finds on a box that runs the image: the disk with both slots, the kernel images, what tells that it runs.
async fn make(board: &Path, image: &Built) -> Result<()> {
    let write = |path: PathBuf, content: &[u8]| -> Result<()> {
        fs::create_dir_all(path.parent().context("a directory")?)?;
        Ok(File::create(path)?.write_all(content)?)
    };
    let (version, hash) = (image.text("/version")?, image.text("/usrHash")?);
    write(
        board.join("root/usr/lib/os-release"),
        format!("ID=holdfast\nIMAGE_ID=holdfast\nIMAGE_VERSION={version}\n").as_bytes(),
    )?;
    write(
        board.join("root/usr/lib/holdfast/os-keys.json"),
        &fs::read(image.directory.join("os-keys.json"))?,
    )?;
    write(
        board.join("root/proc/cmdline"),
        format!("rw usrhash={hash} panic=10\n").as_bytes(),
    )?;
    write(
        board.join(format!("efi/EFI/Linux/holdfast_{version}.efi")),
        &fs::read(image.file("/uki/file")?)?,
    )?;
    appliance_root::describe_disk(board)?;

    let disk = board.join("disk.raw");
    let mut copy = Command::new("cp");
    copy.arg("--sparse=always").arg(image.file("/raw")?).arg(&disk);
    run(copy).await?;
    let file = OpenOptions::new().write(true).open(&disk)?;
    file.set_len(file.metadata()?.len() + SECOND_SLOT)?;
    let (verity, usr) = match image.text("/architecture")? {
        "arm64" => (
            "6e11a4e7-fbca-4ded-b9e9-e1a512bb664e",
            "b0e01050-ee5f-4390-949a-9101b17104e9",
        ),
        _ => (
            "77ff5f63-e7b6-4633-acf4-1565b864c0e6",
            "8484680c-9521-48c6-9c11-b0720656f69e",
        ),
    };
    let mut table = Command::new("sgdisk");
    table
        .args([
            "--move-second-header",
            "--new=4:0:+16M",
            "--change-name=4:_empty",
            "--new=5:0:+768M",
            "--change-name=5:_empty",
        ])
        .arg(format!("--typecode=4:{verity}"))
        .arg(format!("--typecode=5:{usr}"))
        .arg(&disk);
    run(table).await.map(drop)
}

/// Gives the hub what a box fetches for the image.
async fn push(site: &Site, image: &Built) -> Result<OsSection> {
    site.hub.put_blob(fs::read(image.ending(".pack")?)?).await?;
    let manifest = fs::read(image.ending(".manifest.json")?)?;
    let artifact = Artifact {
        size: manifest.len() as u64,
        digest: site.hub.put_blob(manifest).await?,
        name: String::new(),
        sources: Vec::new(),
        extra: Map::new(),
    };
    Ok(OsSection {
        version: image.text("/version")?.to_owned(),
        images: [(image.text("/architecture")?.to_owned(), artifact)].into(),
        max_bytes_per_second: None,
        extra: Map::new(),
    })
}

/// Holds the second slot against the image.
async fn is_staged(board: &Path, image: &Built) -> Result<()> {
    let disk = board.join("disk.raw");
    for (number, file) in [("4", "/verity/file"), ("5", "/usr/file")] {
        let mut table = Command::new("sgdisk");
        table.args(["--info", number]).arg(&disk);
        let told = run(table).await?;
        let first: u64 = told
            .lines()
            .find_map(|line| line.strip_prefix("First sector: "))
            .and_then(|rest| rest.split(' ').next())
            .context("the first sector of a slot")?
            .parse()?;
        let name = format!("'holdfast_{}", image.text("/version")?);
        ensure!(told.contains(&name), "the slot is not named {name}: {told}");
        let file = image.file(file)?;
        let mut compare = Command::new("cmp");
        compare
            .arg(format!("--bytes={}", fs::metadata(&file)?.len()))
            .arg(format!("--ignore-initial=0:{}", first * 512))
            .args([&file, &disk]);
        run(compare).await?;
    }
    Ok(())
}
