//! On images with a real partition table's entries and a real FAT file system.

mod damaged;
mod told;

use super::{
    esp::{SECTOR, TYPE},
    *,
};
use crate::shell;
use clap::Parser;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const START: u64 = 2048;
const FAT_BYTES: u64 = 40 << 20;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

/// Writes the checksums of a partition table.
fn seal(image: &File) {
    let mut header = [0_u8; 92];
    image.read_exact_at(&mut header, SECTOR).unwrap();
    let field = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let table = u64::from_le_bytes(header[72..80].try_into().unwrap());
    let mut list = vec![0; (field(80) * field(84)) as usize];
    // One that lies beyond the end has none.
    let _ = table
        .checked_mul(SECTOR)
        .map(|at| image.read_exact_at(&mut list, at));
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    header[88..].copy_from_slice(&crc32fast::hash(&list).to_le_bytes());
    header[16..20].fill(0);
    let sum = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    image.write_all_at(&header, SECTOR).unwrap();
}

/// An image with a partition table, a partition of a box's system and an EFI system partition. Nothing is written where all is zero.
fn image(directory: &Path) -> PathBuf {
    let path = directory.join("image.raw");
    let image = File::create_new(&path).unwrap();
    let sectors = START + FAT_BYTES / SECTOR + 33;
    image.set_len(sectors * SECTOR).unwrap();
    let mut header = [0_u8; 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[32..40].copy_from_slice(&(sectors - 1).to_le_bytes());
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    header[80..84].copy_from_slice(&128_u32.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    image.write_all_at(&header, SECTOR).unwrap();
    let mut entries = [0_u8; 256];
    entries[..16].fill(7);
    for (place, letter) in entries[56..].chunks_mut(2).zip(b"holdfast_1.4.0") {
        place[0] = *letter;
    }
    entries[128..144].copy_from_slice(&TYPE);
    entries[160..168].copy_from_slice(&START.to_le_bytes());
    let last = START + FAT_BYTES / SECTOR - 1;
    entries[168..176].copy_from_slice(&last.to_le_bytes());
    image.write_all_at(&entries, 2 * SECTOR).unwrap();
    seal(&image);
    let mut mkfs = shell::command("mkfs.vfat");
    mkfs.args(["-F", "32", "--offset"]).arg(START.to_string());
    mkfs.arg(&path).arg((FAT_BYTES / 1024).to_string());
    shell::run(&mut mkfs).unwrap();
    path
}

fn run_with(image: &Path, arguments: &[&str]) -> Result<()> {
    let mut line = vec!["personalise", image.to_str().unwrap()];
    line.extend(arguments);
    personalise(&Line::try_parse_from(line)?.options)
}

/// mtools on the EFI system partition of an image.
fn mtools(program: &str, image: &Path, arguments: &[&str]) -> Command {
    let mut command = shell::command(program);
    command
        .arg("-i")
        .arg(format!("{}@@{}", image.display(), START * SECTOR))
        .args(arguments);
    command
}

fn text(image: &Path, path: &str) -> String {
    shell::output(&mut mtools("mtype", image, &[&format!("::/{path}")])).unwrap()
}

/// A file with a token that is one, and as long as one can be: on the partition it reaches into another page than all else.
fn token_file(directory: &Path) -> String {
    let token = EnrolmentToken {
        hub_url: format!("https://hub.example/{}", "a".repeat(2900)),
        ca_pin: None,
        id: "one".into(),
        secret: [7; 32],
    };
    let path = directory.join("token-of-box");
    fs::write(&path, token.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
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
    esp.put_back().unwrap();
    drop(esp);
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
        &["--wifi", "till", "--wifi-country", "ZZ"],
        &["--wifi", "till", "--wifi-country", "D E"],
        &["--wifi", "till", "--wifi-country", ""],
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
        image[esp..esp + 16].copy_from_slice(&TYPE);
        image[place..place + 8].copy_from_slice(&number.to_le_bytes());
        fs::write(&path, image).unwrap();
        seal(&OpenOptions::new().read(true).write(true).open(&path).unwrap());
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

/// Leaves no room on the EFI system partition.
fn fill(image: &Path, directory: &Path) {
    let filler = directory.join("filler");
    let content = File::create(&filler).unwrap();
    let mut size = FAT_BYTES;
    while size >= SECTOR {
        content.set_len(size).unwrap();
        let name = format!("::/{size}");
        // One that has no room is none the less: half of it may have.
        let mut copy = mtools("mcopy", image, &[filler.to_str().unwrap(), &name]);
        copy.stderr(Stdio::null()).status().unwrap();
        size /= 2;
    }
}

#[test]
fn an_image_without_room_for_all_is_left_byte_for_byte_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let image = image(directory.path());
    let token = token_file(directory.path());
    // Settings as long as these have room where those are; a token has none.
    run_with(&image, &["--hostname", "shop-17"]).unwrap();
    fill(&image, directory.path());
    run_with(&image, &["--hostname", "shop-18"]).unwrap();
    let before = fs::read(&image).unwrap();
    let error = run_with(&image, &["--hostname", "shop-19", "--token-file", &token]).unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("was left as it was") && error.contains("no room for holdfast/token"),
        "{error}"
    );
    assert!(fs::read(&image).unwrap() == before, "the image was touched");
    assert_eq!(text(&image, personal::FILE), "hostname = \"shop-18\"\n");
}

#[test]
fn an_image_on_a_full_disk_is_left_byte_for_byte_as_it_was() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("needs root to mount a small file system");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let token = token_file(directory.path());
    let small = directory.path().join("small");
    fs::create_dir(&small).unwrap();
    let mount = |arguments: &[&str]| {
        let done = Command::new(arguments[0])
            .args(&arguments[1..])
            .arg(&small)
            .status();
        assert!(done.unwrap().success());
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs"]);
    let tried = std::panic::catch_unwind(|| {
        let image = image(&small);
        let mut filler = File::create(small.join("filler")).unwrap();
        while std::io::Write::write_all(&mut filler, &[1; 4096]).is_ok() {}
        let before = fs::read(&image).unwrap();
        let arguments = ["--hostname", "shop-17", "--token-file", &token];
        let error = run_with(&image, &arguments).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("was left as it was: No space left"), "{error}");
        assert!(fs::read(&image).unwrap() == before, "the image was touched");
    });
    mount(&["umount", "-l"]);
    tried.unwrap();
}

#[test]
fn a_directory_in_the_place_of_a_file_is_told_so_and_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let image = image(directory.path());
    for name in ["::/holdfast", "::/holdfast/personal.toml"] {
        assert!(mtools("mmd", &image, &[name]).status().unwrap().success());
    }
    let before = fs::read(&image).unwrap();
    let error = run_with(&image, &["--hostname", "shop-17"]).unwrap_err();
    assert!(
        format!("{error:#}").contains("a directory has that name"),
        "{error:#}"
    );
    assert!(fs::read(&image).unwrap() == before);
}

#[test]
fn the_name_of_an_image_may_have_anything_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let odd = directory.path().join("a@@b");
    fs::create_dir(&odd).unwrap();
    let made = image(&odd);
    for name in ["box@@512", "-i box", "::image"] {
        let named = odd.join(name);
        fs::copy(&made, &named).unwrap();
        run_with(&named, &["--hostname", "shop-17"]).unwrap();
        let plain = directory.path().join("plain");
        fs::rename(&named, &plain).unwrap();
        assert_eq!(text(&plain, personal::FILE), "hostname = \"shop-17\"\n");
    }
}

#[test]
fn files_without_an_end_and_of_any_length_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let image = image(directory.path());
    let before = fs::read(&image).unwrap();
    let long = directory.path().join("long");
    File::create(&long).unwrap().set_len(5 << 30).unwrap();
    for (file, told) in [
        ("/dev/zero", "no regular file"),
        (long.to_str().unwrap(), "more than 8192 bytes"),
    ] {
        for option in [
            &["--token-file"][..],
            &["--wifi", "till", "--wifi-passphrase-file"],
        ] {
            let error = run_with(&image, &[option, &[file]].concat()).unwrap_err();
            assert!(format!("{error:#}").contains(told), "{error:#}");
        }
    }
    let error = run_with(Path::new("/dev/zero"), &["--hostname", "shop-17"]).unwrap_err();
    assert!(format!("{error:#}").contains("no disk"), "{error:#}");
    assert!(fs::read(&image).unwrap() == before, "the image was touched");
}

#[test]
fn an_image_that_something_else_works_on_and_one_of_something_else_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let image = image(directory.path());
    let other = File::open(&image).unwrap();
    other.lock().unwrap();
    let error = run_with(&image, &["--hostname", "shop-17"]).unwrap_err();
    assert!(format!("{error:#}").contains("another program"), "{error:#}");
    other.unlock().unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&image).unwrap();
    file.write_all_at(b"O", 2 * SECTOR + 56).unwrap();
    seal(&file);
    let error = run_with(&image, &["--hostname", "shop-17"]).unwrap_err();
    assert!(
        format!("{error:#}").contains("belongs to something else"),
        "{error:#}"
    );
}

/// A disk of this machine whose content is a file.
struct Disk(String);

impl Disk {
    /// `None` where this machine has no such disks.
    fn of(image: &Path, options: &[&str]) -> Option<Self> {
        let mut losetup = shell::command("losetup");
        losetup.args(["--find", "--show"]).args(options).arg(image);
        match shell::output(&mut losetup) {
            Ok(name) => Some(Self(name.trim().to_owned())),
            Err(error) => {
                eprintln!("needs root and loop devices: {error:#}");
                None
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = shell::command("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn a_card_that_an_image_was_written_to_is_personalised_unless_it_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let image = image(directory.path());
    let before = fs::read(&image).unwrap();
    let Some(disk) = Disk::of(&image, &[]) else {
        return;
    };
    let path = Path::new(&disk.0);
    // As a mounted partition holds its disk.
    let mounted = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_EXCL.bits())
        .open(path)
        .unwrap();
    let error = run_with(path, &["--hostname", "shop-17"]).unwrap_err();
    assert!(format!("{error:#}").contains("unmount"), "{error:#}");
    assert!(fs::read(&image).unwrap() == before, "the disk was touched");
    drop(mounted);
    // A program that another test is just starting may have it for a moment yet.
    let until = Instant::now() + Duration::from_secs(60);
    while let Err(error) = run_with(path, &["--hostname", "shop-17"]) {
        assert!(format!("{error:#}").contains("unmount"), "{error:#}");
        assert!(Instant::now() < until, "the disk stays in use");
    }
    drop(disk);
    assert_eq!(text(&image, personal::FILE), "hostname = \"shop-17\"\n");

    let offset = (START * SECTOR).to_string();
    let Some(partition) = Disk::of(&image, &["--offset", &offset]) else {
        return;
    };
    let error = run_with(Path::new(&partition.0), &["--hostname", "shop-18"]).unwrap_err();
    assert!(format!("{error:#}").contains("the whole disk"), "{error:#}");
}
