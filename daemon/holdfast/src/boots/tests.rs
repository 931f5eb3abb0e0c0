#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use super::*;
use holdfast_protocol::Problem;
use std::{
    fs::{self, OpenOptions},
    io::Write as _,
};

/// A machine whose facts are files.
struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            root: tempfile::tempdir().unwrap(),
        };
        machine.put("proc/sys/kernel/osrelease", "6.12.0-test\n");
        machine.put("proc/uptime", "12.34 20.00\n");
        machine.put("usr/lib/os-release", "ID=holdfast\nIMAGE_VERSION=\"7\"\n");
        machine
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .unwrap();
    }

    fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    fn file(&self) -> PathBuf {
        self.state().join("boots/log")
    }

    /// The machine is started once more.
    fn boot(&self, id: &str) -> BootLog {
        self.put("proc/sys/kernel/random/boot_id", &format!("{id}\n"));
        let log = BootLog::with(&self.state(), Evidence::below(self.root.path()));
        log.begin().unwrap();
        log
    }

    fn before(&self, id: &str) -> Ending {
        self.boot(id).read().unwrap().pop().unwrap().before.unwrap()
    }
}

fn problem() -> Problem {
    Problem::new("kubernetes-node-not-ready", "the node is not ready", "look at it")
}

fn bad() -> Note {
    Note::Bad {
        check: "kubernetes".into(),
        problem: problem(),
        kernel: vec!["EXT4-fs error".into()],
    }
}

#[test]
fn a_boot_that_is_begun_twice_is_one_entry() {
    let machine = Machine::new();
    let log = machine.boot("one");
    log.begin().unwrap();
    machine.boot("one");
    let boots = log.read().unwrap();
    assert_eq!(boots.len(), 1);
    let boot = boots.first().unwrap();
    assert_eq!((boot.number, boot.before.as_ref()), (1, None));
    assert_eq!(boot.system.version.as_deref(), Some("7"));
    assert_eq!(boot.system.kernel, "6.12.0-test");
}

#[test]
fn the_slot_is_the_partition_that_the_digest_of_usr_names() {
    let machine = Machine::new();
    let hash = "0123456789abcdef0123456789abcdef".repeat(2);
    machine.put("proc/cmdline", &format!("quiet usrhash={hash} rw\n"));
    let by_id = machine.root.path().join("dev/disk/by-partuuid");
    fs::create_dir_all(&by_id).unwrap();
    std::os::unix::fs::symlink("../../vda3", by_id.join("01234567-89ab-cdef-0123-456789abcdef")).unwrap();
    let boot = machine.boot("one").read().unwrap().pop().unwrap();
    assert_eq!(boot.system.slot.as_deref(), Some("vda3"));
    assert_eq!(boot.system.usr.as_deref(), Some("0123456789abcdef"));
}

#[test]
fn how_a_boot_ended_is_told_by_the_next() {
    let machine = Machine::new();
    machine.boot("1");
    assert_eq!(machine.before("2"), Ending::PowerLost);

    machine.boot("2").note(Note::ShutDown).unwrap();
    assert_eq!(machine.before("3"), Ending::Clean);

    let reason = RebootReason::OsSwitch { version: "8".into() };
    let log = machine.boot("3");
    log.note(Note::RebootAsked {
        reason: reason.clone(),
    })
    .unwrap();
    log.note(Note::ShutDown).unwrap();
    assert_eq!(machine.before("4"), Ending::Asked { reason, clean: true });

    let log = machine.boot("4");
    log.note(bad()).unwrap();
    log.note(Note::RebootAsked {
        reason: RebootReason::HealthFailed,
    })
    .unwrap();
    assert_eq!(machine.before("5"), Ending::HealthFailed { problem: problem() });

    machine.put("sys/class/watchdog/watchdog0/bootstatus", "32\n");
    assert_eq!(machine.before("6"), Ending::Watchdog);
    // A reset by power that the watchdog's hardware did not do.
    machine.put("sys/class/watchdog/watchdog0/bootstatus", "0\n");
    assert_eq!(machine.before("7"), Ending::PowerLost);
}

#[test]
fn a_panic_is_told_once_with_its_last_lines_and_moved_dumps_are_not_new() {
    let machine = Machine::new();
    machine.boot("1");
    let dump = "Panic#1 Part1\n<6>[    9.1] usb 1-1: new device\n<0>[   10.5] Kernel panic - not syncing: sysrq triggered crash\n";
    machine.put("sys/fs/pstore/dmesg-efi-1700000001", dump);
    let Ending::Panic { lines } = machine.before("2") else {
        panic!("no panic");
    };
    assert_eq!(
        lines.first().map(String::as_str),
        Some("Kernel panic - not syncing: sysrq triggered crash")
    );
    assert!(lines.iter().any(|line| line.contains("usb 1-1")), "{lines:?}");

    // What the record has, the firmware need not keep; systemd-pstore would have moved it to the disk.
    assert!(
        !machine
            .root
            .path()
            .join("sys/fs/pstore/dmesg-efi-1700000001")
            .exists()
    );
    machine.put("var/lib/systemd/pstore/1700000/001/dmesg-efi-1700000001", dump);
    assert_eq!(machine.before("3"), Ending::PowerLost);
    // An oops that the machine survived ended no boot.
    machine.put(
        "sys/fs/pstore/dmesg-efi-1700000009",
        "Oops#1 Part1\n<1>[ 3.0] BUG: bad\n",
    );
    assert_eq!(machine.before("4"), Ending::PowerLost);
}

#[test]
fn a_write_that_power_cut_short_at_any_byte_costs_only_itself() {
    let machine = Machine::new();
    machine.boot("one");
    let log = machine.boot("two");
    let before = fs::read(machine.file()).unwrap();
    log.note(bad()).unwrap();
    let after = fs::read(machine.file()).unwrap();
    assert_eq!(&after[..before.len()], &before[..]);
    for end in before.len()..=after.len() {
        fs::remove_dir_all(machine.state()).unwrap();
        machine.put("state/boots/log", "");
        OpenOptions::new()
            .append(true)
            .open(machine.file())
            .and_then(|mut file| file.write_all(&after[..end]))
            .unwrap();
        let boots = log.read().unwrap();
        assert_eq!(boots.len(), 2, "cut at {end}");
        let whole = end == after.len();
        assert_eq!(boots[1].notes.len(), usize::from(whole), "cut at {end}");
        let third = machine.boot("three");
        third.note(Note::Good).unwrap();
        let boots = third.read().unwrap();
        assert_eq!(
            boots.iter().map(|boot| boot.number).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        assert_eq!(boots[2].verdict(), Some(Ok(())));
        let torn = end > before.len() && !whole;
        let told = boots[2]
            .notes
            .iter()
            .any(|noted| matches!(noted.note, Note::Damaged { bytes } if bytes > 0));
        assert_eq!(told, torn, "cut at {end}");
    }
}

#[test]
fn a_damaged_line_costs_itself_alone_and_is_told() {
    let machine = Machine::new();
    machine.boot("one");
    let whole = fs::read(machine.file()).unwrap();
    machine.boot("two");
    for index in (0..whole.len() - 1).step_by(7) {
        let mut damaged = fs::read(machine.file()).unwrap();
        damaged[index] ^= 0x55;
        let text = String::from_utf8_lossy(&damaged).into_owned();
        let kept = log::parse(text.as_bytes());
        assert!(kept.damaged > 0, "flipped at {index}");
        let boots = assemble(&kept.records);
        assert_eq!(boots.len(), 1, "flipped at {index}");
        assert_eq!(boots[0].id.0, "two");
    }
    machine.put("state/boots/log", &"nonsense \u{0}\n".repeat(1_000));
    let boots = machine.boot("three").read().unwrap();
    assert_eq!(boots.len(), 1);
    assert!(matches!(boots[0].notes[0].note, Note::Damaged { bytes: 11_000 }));
}

#[test]
fn ten_thousand_boots_stay_bounded_and_keep_their_numbers() {
    let machine = Machine::new();
    machine.boot("first");
    let template = machine.boot("second");
    let system = template.evidence().system();
    let Record::Noted { noted, .. } = template.record(bad()) else {
        panic!("no note");
    };
    let mut log = Log::open(&machine.state().join("boots")).unwrap();
    for ten in 0..1_000 {
        // Ten at once: what is looked at is the size, not how often the disk is asked.
        let records = (ten * 10 + 3..ten * 10 + 13).flat_map(|number| {
            let id = BootId(format!("boot-{number}"));
            let began = Record::Began(Began {
                number,
                id: id.clone(),
                started_at: Timestamp::UNIX_EPOCH,
                system: system.clone(),
                before: Some(Ending::PowerLost),
                dumps: Vec::new(),
            });
            let noted = Record::Noted {
                boot: id,
                noted: noted.clone(),
            };
            [Some(began), (number % 10 == 0).then_some(noted)]
                .into_iter()
                .flatten()
        });
        log.append(records.collect()).unwrap();
        let size = fs::metadata(machine.file()).unwrap().len();
        assert!(size <= MAX_BYTES, "{size} bytes");
    }
    drop(log);
    let boots = machine.boot("last").read().unwrap();
    assert_eq!(boots.last().map(|boot| boot.number), Some(10_003));
    assert!(
        (MAX_BOOTS..=MAX_BOOTS + 32).contains(&boots.len()),
        "{}",
        boots.len()
    );
    let numbers: Vec<_> = boots.iter().map(|boot| boot.number).collect();
    assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1));
    assert_eq!(
        boots.iter().filter(|boot| boot.verdict().is_some()).count(),
        numbers.iter().filter(|number| *number % 10 == 0).count()
    );
}

#[test]
fn large_notes_and_many_of_them_cannot_drive_out_the_record() {
    let machine = Machine::new();
    for number in 0..9 {
        let log = machine.boot(&format!("boot-{number}"));
        for count in 0..MAX_NOTES + 2 {
            log.note(Note::Os {
                step: OsStep::Staged,
                version: format!("{count}"),
                detail: "x".repeat(10_000),
            })
            .unwrap();
        }
        assert_eq!(log.read().unwrap().last().unwrap().notes.len(), MAX_NOTES);
        log.note(Note::ShutDown).unwrap();
        let boots = log.read().unwrap();
        assert!(boots.last().unwrap().shut_down(), "the end is always noted");
        let size = fs::metadata(machine.file()).unwrap().len();
        assert!(size <= MAX_BYTES, "{size} bytes");
    }
    assert!(machine.boot("last").read().unwrap().len() > 3);
}

#[test]
fn a_note_is_written_once_but_a_verdict_may_change() {
    let machine = Machine::new();
    let log = machine.boot("one");
    for note in [
        Note::Good,
        Note::Good,
        bad(),
        bad(),
        Note::Good,
        Note::Told,
        Note::Told,
    ] {
        log.note(note).unwrap();
    }
    let boot = log.read().unwrap().pop().unwrap();
    let kinds: Vec<_> = boot.notes.into_iter().map(|noted| noted.note).collect();
    assert_eq!(kinds, [Note::Good, bad(), Note::Good, Note::Told]);
}

#[test]
fn a_note_of_a_newer_version_is_kept_as_unknown() {
    let json = r#"{"at":"2026-01-01T00:00:00Z","up":1,"note":{"kind":"of-a-newer-version","more":1}}"#;
    let noted: Noted = serde_json::from_str(json).unwrap();
    assert_eq!(noted.note, Note::Unknown);
}

#[test]
fn a_disk_that_takes_no_write_is_named() {
    let machine = Machine::new();
    machine.put("state", "a file where the directory should be");
    machine.put("proc/sys/kernel/random/boot_id", "one");
    let log = BootLog::with(&machine.state(), Evidence::below(machine.root.path()));
    let error = log.begin().unwrap_err();
    assert!(error.to_string().contains("state"), "{error}");
    log.note_or_log(Note::Good);
}

#[test]
fn facts_of_this_machine_can_be_read() {
    let evidence = Evidence::below("/");
    assert_eq!(evidence.boot().0.len(), 36);
    assert!(!evidence.system().kernel.is_empty());
    assert!(evidence.kernel_lines().len() <= MAX_KERNEL_LINES);
    assert!(evidence.started_at() < Timestamp::now());
}
