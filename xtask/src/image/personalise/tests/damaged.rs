//! On images of which something is damaged or missing.

use super::*;

/// Refused with these words, and left byte for byte as it was.
fn refused(image: &Path, told: &[&str]) {
    let before = fs::read(image).unwrap();
    let error = run_with(image, &["--hostname", "shop-17"]).unwrap_err();
    let error = format!("{error:#}");
    for part in [told, &["was left as it was", "SHA256SUMS"]].concat() {
        assert!(error.contains(part), "{part} is missing in {error}");
    }
    assert!(fs::read(image).unwrap() == before, "the image was touched");
}

/// Exchanges a byte.
fn flip(image: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(image).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn an_image_whose_table_of_partitions_is_damaged_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let image = image(directory.path());
    for (at, told) in [
        (SECTOR + 12, "checksum of the header at byte 512"),
        (SECTOR + 16, "checksum of the header at byte 512"),
        (SECTOR + 40, "checksum of the header at byte 512"),
        (2 * SECTOR + 16, "checksum of the list at byte 1024"),
        (33 * SECTOR, "checksum of the list at byte 1024"),
    ] {
        flip(&image, at);
        refused(&image, &[told]);
        flip(&image, at);
    }
    run_with(&image, &["--hostname", "shop-17"]).unwrap();
}

#[test]
fn an_image_that_is_cut_off_anywhere_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let image = image(directory.path());
    let file = OpenOptions::new().write(true).open(&image).unwrap();
    let whole = file.metadata().unwrap().len();
    for length in [whole - 1, START * SECTOR + FAT_BYTES] {
        file.set_len(length).unwrap();
        let told = [format!("it has {length} bytes"), format!("partitions {whole};")];
        refused(&image, &[&told[0], &told[1]]);
    }
    // One on a larger disk is whole.
    file.set_len(whole + (1 << 20)).unwrap();
    run_with(&image, &["--hostname", "shop-17"]).unwrap();
}

#[test]
fn a_file_system_with_a_file_that_has_no_end_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let image = image(directory.path());
    run_with(&image, &["--hostname", "shop-17"]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&image).unwrap();
    let mut boot = [0; 64];
    file.read_exact_at(&mut boot, START * SECTOR).unwrap();
    let reserved = u64::from(u16::from_le_bytes([boot[14], boot[15]]));
    let table = (START + reserved) * SECTOR;
    // The root directory has cluster 2, and what was written the next two.
    let entry = |cluster: u64| table + 4 * cluster;
    let mut ends = [0; 12];
    file.read_exact_at(&mut ends, entry(2)).unwrap();
    for (links, told) in [
        (&[(2, 2)][..], "from cluster 2 of its table"),
        (&[(3, 4), (4, 3)], "from cluster 3 of its table"),
        (&[(2, 3), (3, 4), (4, 3)], "both lead to cluster 3"),
        (&[(4, 5)], "leads to cluster 5, where no file is"),
        (&[(4, 99_999_999)], "leads to cluster 99999999, where no file is"),
    ] {
        for (cluster, next) in links {
            let next: u32 = *next;
            file.write_all_at(&next.to_le_bytes(), entry(*cluster)).unwrap();
        }
        refused(&image, &["EFI system partition is damaged", told]);
        file.write_all_at(&ends, entry(2)).unwrap();
    }
    run_with(&image, &["--hostname", "shop-18"]).unwrap();
    assert_eq!(text(&image, personal::FILE), "hostname = \"shop-18\"\n");
}
