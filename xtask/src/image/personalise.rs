//! `cargo xtask image personalise`: makes a finished image that of one box.
//!
//! In: an image (raw), host name, network, wireless network, enrolment token. Out: the same image with `holdfast/personal.toml` and
//! `holdfast/token` on its EFI system partition. Guarantees: nothing is written unless every value is one that the box takes; what is not
//! named stays as it was.

use crate::{prerequisites, shell};
use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use holdfast_protocol::{Problem, personal, token::EnrolmentToken};
use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

/// Type of an EFI system partition (UEFI specification, 5.3.3), as its bytes stand in the table.
const ESP: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];
/// Sector size of an image.
const SECTOR: u64 = 512;

#[derive(Args)]
pub struct Options {
    /// The image: a raw file, not a compressed one
    image: PathBuf,
    /// File with the enrolment token of this box
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Host name, and name of the Kubernetes node
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Fixed address with the length of its network, such as 192.0.2.17/24
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    static_ip: Option<String>,
    /// Router, where the address is fixed
    #[arg(long, value_name = "ADDRESS", requires = "static_ip")]
    gateway: Option<String>,
    /// Name server, where the address is fixed; may be given more than once
    #[arg(long, value_name = "ADDRESS", requires = "static_ip")]
    dns: Vec<String>,
    /// Interface that has the fixed address [default: every wired one]
    #[arg(long, value_name = "NAME", requires = "static_ip")]
    interface: Option<String>,
    /// Name of a wireless network
    #[arg(long, value_name = "NAME")]
    wifi: Option<String>,
    /// File with the passphrase of the wireless network
    #[arg(long, value_name = "FILE", requires = "wifi")]
    wifi_passphrase_file: Option<PathBuf>,
    /// Country whose radio rules hold, such as DE
    #[arg(long, value_name = "COUNTRY", requires = "wifi")]
    wifi_country: Option<String>,
}

pub fn run(options: &Options) -> Result<()> {
    prerequisites::install(&[prerequisites::Purpose::Personalise], false)?;
    personalise(options)
}

fn personalise(options: &Options) -> Result<()> {
    let settings = settings(options)?;
    let token = options.token_file.as_deref().map(token).transpose()?;
    if settings == personal::Personal::default() && token.is_none() {
        bail!("nothing to write: name --hostname, --static-ip, --wifi or --token-file");
    }
    let esp = Esp::of(&shell::given(&options.image))?;
    let named = settings != personal::Personal::default();
    esp.make_directory("holdfast")?;
    if named {
        let there = esp.settings()?;
        let settings = personal::Personal {
            hostname: settings.hostname.or(there.hostname),
            network: settings.network.or(there.network),
            wifi: settings.wifi.or(there.wifi),
        };
        esp.write(personal::FILE, settings.to_toml().as_bytes())?;
    }
    if let Some(token) = token {
        esp.write(personal::TOKEN_FILE, token.as_bytes())?;
    }
    Ok(())
}

fn refused(problem: &Problem) -> anyhow::Error {
    anyhow!("{}; {}", problem.message, problem.action)
}

/// What the options say, checked as the box checks it.
fn settings(options: &Options) -> Result<personal::Personal> {
    let mut settings = personal::Personal::default();
    if let Some(name) = &options.hostname {
        settings.hostname = Some(personal::hostname(name).map_err(|problem| refused(&problem))?);
    }
    if let Some(address) = &options.static_ip {
        let dns: Vec<&str> = options.dns.iter().map(String::as_str).collect();
        settings.network = Some(
            personal::network(
                options.interface.as_deref(),
                address,
                options.gateway.as_deref(),
                &dns,
            )
            .map_err(|problem| refused(&problem))?,
        );
    }
    if let Some(ssid) = &options.wifi {
        let passphrase = options.wifi_passphrase_file.as_deref().map(line).transpose()?;
        settings.wifi = Some(
            personal::wifi(ssid, passphrase.as_deref(), options.wifi_country.as_deref())
                .map_err(|problem| refused(&problem))?,
        );
    }
    Ok(settings)
}

/// Refuses a named pipe, whose reader would wait for ever, and a directory.
fn require_file(path: &Path) -> Result<()> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_fifo() || kind.is_dir() {
        bail!("it is no regular file");
    }
    Ok(())
}

/// A file's only line.
fn line(path: &Path) -> Result<String> {
    require_file(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The token, if it is one.
fn token(path: &Path) -> Result<String> {
    let text = line(path)?;
    text.parse::<EnrolmentToken>()
        .map_err(|error| anyhow!("{} holds no enrolment token: {error}", path.display()))?;
    Ok(text)
}

/// The EFI system partition inside an image.
struct Esp {
    /// As mtools names it: file and offset.
    drive: String,
}

impl Esp {
    fn of(image: &Path) -> Result<Self> {
        let offset =
            esp_offset(image).with_context(|| format!("{} is no image of a box", image.display()))?;
        Ok(Self {
            drive: format!("{}@@{offset}", image.display()),
        })
    }

    fn make_directory(&self, path: &str) -> Result<()> {
        let there = shell::command("mdir")
            .args(["-i", &self.drive, "-b"])
            .arg(format!("::/{path}"))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()?;
        if there.success() {
            return Ok(());
        }
        shell::run(
            shell::command("mmd")
                .args(["-i", &self.drive])
                .arg(format!("::/{path}")),
        )
    }

    /// The settings that the image has. Values that a box could not use are told and left out.
    fn settings(&self) -> Result<personal::Personal> {
        let path = format!("::/{}", personal::FILE);
        let there = shell::command("mdir")
            .args(["-i", &self.drive, "-b", &path])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()?;
        if !there.success() {
            return Ok(personal::Personal::default());
        }
        // An editor may have written it in another encoding: no box could use it either.
        let text = match shell::output(shell::command("mtype").args(["-i", &self.drive, &path])) {
            Ok(text) => text,
            Err(error) => {
                eprintln!("left out, for no box could use it: {error:#}");
                return Ok(personal::Personal::default());
            }
        };
        let (settings, problems) = personal::Personal::read(&text);
        for problem in problems {
            eprintln!("left out, for no box could use it: {}", problem.message);
        }
        Ok(settings)
    }

    fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        // By a file of its own, for mtools reads no pipes; it holds secrets.
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(content)?;
        file.flush()?;
        shell::run(
            shell::command("mcopy")
                .args(["-o", "-i", &self.drive])
                .arg(file.path())
                .arg(format!("::/{path}")),
        )
    }
}

/// Where the EFI system partition begins in an image, in bytes, by the image's GPT (UEFI specification, 5.3).
fn esp_offset(image: &Path) -> Result<u64> {
    require_file(image)?;
    let mut file = File::open(image)?;
    let length = file.metadata()?.len();
    let mut header = [0; 92];
    file.seek(SeekFrom::Start(SECTOR))?;
    file.read_exact(&mut header)
        .context("it is too short for a partition table")?;
    if &header[..8] != b"EFI PART" {
        bail!("it has no partition table (is it still compressed?)");
    }
    // What lies beyond the end is no place, however large the number.
    let within = |sector: u64, what: &str| {
        sector
            .checked_mul(SECTOR)
            .filter(|offset| *offset < length)
            .with_context(|| format!("its {what} begins beyond its end (was it copied whole?)"))
    };
    let table = within(u64_at(&header, 72)?, "table of partitions")?;
    let (count, size) = (u32_at(&header, 80)?, u32_at(&header, 84)?);
    if !(128..=4096).contains(&size) {
        bail!("its partition table has entries of {size} bytes");
    }
    for entry in 0..count.min(256) {
        let mut bytes = [0; 128];
        file.seek(SeekFrom::Start(table + u64::from(entry) * u64::from(size)))?;
        file.read_exact(&mut bytes)
            .context("its table of partitions is cut off")?;
        if bytes[..16] == ESP {
            return within(u64_at(&bytes, 32)?, "EFI system partition");
        }
    }
    bail!("it has no EFI system partition")
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    let field = bytes.get(at..at + 8).context("a field beyond the end")?;
    Ok(u64::from_le_bytes(field.try_into()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let field = bytes.get(at..at + 4).context("a field beyond the end")?;
    Ok(u32::from_le_bytes(field.try_into()?))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests write plain files")]
mod tests {
    use super::*;
    use clap::Parser;
    use std::fs::OpenOptions;

    const START: u64 = 2048;
    const FAT_BYTES: u64 = 40 << 20;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    /// An image with a partition table, a partition of another kind and an EFI system partition.
    fn image(directory: &Path) -> PathBuf {
        let fat = directory.join("fat");
        File::create(&fat).unwrap().set_len(FAT_BYTES).unwrap();
        shell::run(shell::command("mkfs.vfat").args(["-F", "32"]).arg(&fat)).unwrap();
        let path = directory.join("image.raw");
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&path)
            .unwrap();
        let mut header = [0_u8; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        file.seek(SeekFrom::Start(SECTOR)).unwrap();
        file.write_all(&header).unwrap();
        let mut entries = [0_u8; 256];
        entries[..16].fill(7);
        entries[128..144].copy_from_slice(&ESP);
        entries[160..168].copy_from_slice(&START.to_le_bytes());
        file.seek(SeekFrom::Start(2 * SECTOR)).unwrap();
        file.write_all(&entries).unwrap();
        file.seek(SeekFrom::Start(START * SECTOR)).unwrap();
        file.write_all(&fs::read(&fat).unwrap()).unwrap();
        path
    }

    fn run_with(image: &Path, arguments: &[&str]) -> Result<()> {
        let mut line = vec!["personalise", image.to_str().unwrap()];
        line.extend(arguments);
        personalise(&Line::try_parse_from(line)?.options)
    }

    fn text(image: &Path, path: &str) -> String {
        let drive = format!("{}@@{}", image.display(), START * SECTOR);
        shell::output(
            shell::command("mtype")
                .args(["-i", &drive])
                .arg(format!("::/{path}")),
        )
        .unwrap()
    }

    #[test]
    fn an_image_takes_the_settings_of_its_box_and_new_ones_after_them() {
        let directory = tempfile::tempdir().unwrap();
        let image = image(directory.path());
        let secret = directory.path().join("passphrase");
        fs::write(&secret, "correct horse\n").unwrap();
        let secret = secret.to_str().unwrap();
        run_with(
            &image,
            &[
                "--hostname",
                "Shop-17",
                "--static-ip",
                "192.0.2.17/24",
                "--gateway",
                "192.0.2.1",
                "--dns",
                "192.0.2.53",
                "--wifi",
                "till",
                "--wifi-passphrase-file",
                secret,
                "--wifi-country",
                "DE",
            ],
        )
        .unwrap();
        let written = text(&image, personal::FILE);
        for part in [
            "shop-17",
            "192.0.2.17/24",
            "192.0.2.1",
            "192.0.2.53",
            "till",
            "correct horse",
            "DE",
        ] {
            assert!(written.contains(part), "{part} is missing in {written}");
        }
        run_with(&image, &["--hostname", "shop-18"]).unwrap();
        let written = text(&image, personal::FILE);
        assert!(
            written.contains("shop-18") && !written.contains("shop-17"),
            "{written}"
        );
        for kept in ["192.0.2.17/24", "192.0.2.53", "correct horse"] {
            assert!(
                written.contains(kept),
                "{kept} was not named, and is gone in {written}"
            );
        }
        let esp = Esp::of(&image).unwrap();
        esp.write(personal::FILE, b"\xff\xfeh\0o\0").unwrap();
        run_with(&image, &["--hostname", "shop-19"]).unwrap();
        assert_eq!(text(&image, personal::FILE), "hostname = \"shop-19\"\n");
    }

    #[test]
    fn a_bad_value_is_refused_before_anything_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let image = image(directory.path());
        let before = fs::read(&image).unwrap();
        let bad = directory.path().join("bad");
        fs::write(&bad, "short\n").unwrap();
        let bad = bad.to_str().unwrap();
        for arguments in [
            &["--hostname", "shop_17"][..],
            &["--hostname", ""],
            &["--hostname", "shop-17", "--static-ip", "192.0.2.17"],
            &["--hostname", "shop-17", "--static-ip", "192.0.2.300/24"],
            &["--static-ip", "192.0.2.17/33"],
            &["--static-ip", "192.0.2.17/24", "--gateway", "router"],
            &["--static-ip", "192.0.2.17/24", "--dns", "x"],
            &["--static-ip", "192.0.2.17/24", "--interface", "eth0/../x"],
            &["--gateway", "192.0.2.1"],
            &["--wifi", "a network whose name is longer than 32 bytes"],
            &["--wifi", "till", "--wifi-passphrase-file", bad],
            &["--wifi", "till", "--wifi-country", "Germany"],
            &["--hostname", "shop-17", "--token-file", bad],
            &[],
        ] {
            assert!(run_with(&image, arguments).is_err(), "{arguments:?} was taken");
        }
        assert!(fs::read(&image).unwrap() == before, "the image was touched");
    }

    #[test]
    fn a_file_that_is_no_image_is_told_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("holdfast.raw.zst");
        fs::write(&path, vec![1; 4096]).unwrap();
        let error = run_with(&path, &["--hostname", "shop-17"]).unwrap_err();
        assert!(format!("{error:#}").contains("still compressed"), "{error:#}");
    }

    #[test]
    fn tables_that_point_beyond_the_end_and_pipes_are_told_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.raw");
        let esp = 2 * SECTOR as usize;
        for (place, number, told) in [
            (
                SECTOR as usize + 72,
                u64::MAX / 2,
                "table of partitions begins beyond",
            ),
            (SECTOR as usize + 72, 1 << 40, "table of partitions begins beyond"),
            (esp + 32, u64::MAX, "EFI system partition begins beyond"),
            (esp + 32, 4096, "EFI system partition begins beyond"),
        ] {
            let mut image = vec![0_u8; 1 << 20];
            let header = &mut image[SECTOR as usize..];
            header[..8].copy_from_slice(b"EFI PART");
            header[72..80].copy_from_slice(&2_u64.to_le_bytes());
            header[80..84].copy_from_slice(&4_u32.to_le_bytes());
            header[84..88].copy_from_slice(&128_u32.to_le_bytes());
            image[esp..esp + 16].copy_from_slice(&ESP);
            image[place..place + 8].copy_from_slice(&number.to_le_bytes());
            fs::write(&path, image).unwrap();
            let error = run_with(&path, &["--hostname", "shop-17"]).unwrap_err();
            assert!(format!("{error:#}").contains(told), "{error:#}");
        }
        let pipe = directory.path().join("pipe");
        assert!(shell::command("mkfifo").arg(&pipe).status().unwrap().success());
        let pipe = pipe.to_str().unwrap();
        for (image, arguments) in [
            (pipe, &["--hostname", "shop-17"][..]),
            (path.to_str().unwrap(), &["--token-file", pipe]),
            (
                path.to_str().unwrap(),
                &["--wifi", "till", "--wifi-passphrase-file", pipe],
            ),
        ] {
            let error = run_with(Path::new(image), arguments).unwrap_err();
            assert!(format!("{error:#}").contains("no regular file"), "{error:#}");
        }
    }
}
