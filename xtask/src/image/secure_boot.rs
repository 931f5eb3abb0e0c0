//! What a firmware in setup mode takes the builder's key from: `PK.auth`, `KEK.auth` and `db.auth`, which systemd-boot enrols.
//!
//! In: the builder's Secure Boot key and certificate. Out: the three files. Guarantees: the same keys give the same bytes; the signature is one
//! that firmware accepts. Debian's `sbvarsign` (sbsigntool 0.9.4), which mkosi uses, signs other bytes than it writes: firmware takes its `db` and
//! `KEK` unchecked, refuses its `PK`, and Secure Boot stays off.

use super::keys::Keys;
use crate::{files, shell};
use anyhow::{Context as _, Result, ensure};
use std::{fs, path::Path};

/// `EFI_GLOBAL_VARIABLE` as it is on the disk (UEFI 2.10, 3.3).
const GLOBAL: [u8; 16] = guid(0x8be4_df61, 0x93ca, 0x11d2, 0xaa0d_00e0_9803_2b8c);
/// `EFI_IMAGE_SECURITY_DATABASE_GUID` (UEFI 2.10, 32.6.1).
const DATABASE: [u8; 16] = guid(0xd719_b2cb, 0x3d3a, 0x4596, 0xa3bc_dad0_0e67_656f);
/// `EFI_CERT_X509_GUID` (UEFI 2.10, 32.4.1).
const X509: [u8; 16] = guid(0xa5c0_59a1, 0x94e4, 0x4aa7, 0x87b5_ab15_5c2b_f072);
/// `EFI_CERT_TYPE_PKCS7_GUID` (UEFI 2.10, 32.2.4).
const PKCS7: [u8; 16] = guid(0x4aaf_d29d, 0x68df, 0x49ee, 0x8aa9_347d_3756_65a7);
/// Who put the certificate there: our own, chosen at random.
const OWNER: [u8; 16] = guid(0x7d2a_1c7e, 0x0f7b, 0x4a55, 0x9f0b_6b1d_7d1b_6f0e);
/// Kept over a restart, for boot services and at run time, written with a signature over a time (UEFI 2.10, 8.2).
const ATTRIBUTES: u32 = 0x27;
/// `EFI_TIME` of 2020-01-01: a fixed one, so that files are the same each time. Firmware wants later ones only over earlier keys.
const TIME: [u8; 16] = [0xe4, 0x07, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Writes the three files to `directory`.
pub fn enrolment(keys: &Keys, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let certificate = shell::bytes(
        shell::command("openssl")
            .args(["x509", "-outform", "DER", "-in"])
            .arg(keys.secure_boot_certificate()),
    )?;
    let list = list(&certificate)?;
    for (name, vendor) in [("PK", GLOBAL), ("KEK", GLOBAL), ("db", DATABASE)] {
        let signed = [
            name.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            vendor.to_vec(),
            ATTRIBUTES.to_le_bytes().to_vec(),
            TIME.to_vec(),
            list.clone(),
        ]
        .concat();
        let path = directory.join(name).with_extension("auth");
        let message = path.with_extension("signed");
        files::replace(&message, &signed)?;
        let signature = shell::bytes(
            shell::command("openssl")
                .args([
                    "smime", "-sign", "-binary", "-noattr", "-md", "sha256", "-outform", "DER", "-in",
                ])
                .arg(&message)
                .arg("-signer")
                .arg(keys.secure_boot_certificate())
                .arg("-inkey")
                .arg(keys.secure_boot_key()),
        )?;
        fs::remove_file(&message)?;
        let signature = signed_data(&signature).context("openssl wrote no PKCS #7 signature")?;
        // WIN_CERTIFICATE_UEFI_GUID: length, revision 2.0, WIN_CERT_TYPE_EFI_GUID.
        let length = u32::try_from(24 + signature.len())?;
        let file = [
            &TIME[..],
            &length.to_le_bytes(),
            &[0x00, 0x02, 0xf1, 0x0e],
            &PKCS7,
            signature,
            &list,
        ]
        .concat();
        files::replace(&path, file)?;
    }
    Ok(())
}

/// `EFI_SIGNATURE_LIST` with one certificate.
fn list(certificate: &[u8]) -> Result<Vec<u8>> {
    ensure!(!certificate.is_empty(), "the Secure Boot certificate is empty");
    let entry = u32::try_from(OWNER.len() + certificate.len())?;
    Ok([
        &X509[..],
        &(entry + 28).to_le_bytes(),
        &0_u32.to_le_bytes(),
        &entry.to_le_bytes(),
        &OWNER,
        certificate,
    ]
    .concat())
}

/// The `SignedData` of a `ContentInfo` in DER: firmware of before 2024 wants it without what is around it.
fn signed_data(info: &[u8]) -> Option<&[u8]> {
    let inside = content(info, 0x30)?;
    let (kind, rest) = inside.split_at_checked(2 + usize::from(*inside.get(1)?))?;
    (kind.first() == Some(&0x06)).then_some(())?;
    content(rest, 0xa0)
}

/// What is in a DER element of this tag that fills `bytes`.
fn content(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let [first, length, ..] = bytes else { return None };
    (*first == tag).then_some(())?;
    let head = if *length < 0x80 {
        2
    } else {
        2 + usize::from(length & 0x7f)
    };
    bytes.get(head..)
}

/// A GUID as it is on the disk: the first three numbers with the lowest byte first.
const fn guid(first: u32, second: u16, third: u16, rest: u64) -> [u8; 16] {
    let (a, b, c, d) = (
        first.to_le_bytes(),
        second.to_le_bytes(),
        third.to_le_bytes(),
        rest.to_be_bytes(),
    );
    [
        a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_of_an_enrolment_is_over_what_is_enrolled_and_the_same_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::in_directory(Some(directory.path()));
        keys.make_missing().unwrap();
        let out = directory.path().join("auto");
        enrolment(&keys, &out).unwrap();
        let pk = fs::read(out.join("PK.auth")).unwrap();
        enrolment(&keys, &out).unwrap();
        assert_eq!(pk, fs::read(out.join("PK.auth")).unwrap());

        let length = u32::from_le_bytes(pk[16..20].try_into().unwrap()) as usize;
        let (signature, list) = (&pk[40..16 + length], &pk[16 + length..]);
        // SHA-256 as the digest, where firmware looks for it.
        assert_eq!(
            &signature[13..22],
            [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01]
        );
        let (wrapped, message) = (out.join("wrapped"), out.join("message"));
        let element = |tag: u8, content: &[u8]| {
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[tag, 0x82][..], &length, content].concat()
        };
        let oid = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
        let info = element(0x30, &[&oid[..], &element(0xa0, signature)].concat());
        fs::File::create(&wrapped)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &info))
            .unwrap();
        let signed = [b"P\0K\0", &GLOBAL[..], &ATTRIBUTES.to_le_bytes(), &TIME, list].concat();
        let verify = |content: &[u8]| {
            files::replace(&message, content).unwrap();
            shell::bytes(
                shell::command("openssl")
                    .args([
                        "smime",
                        "-verify",
                        "-noverify",
                        "-binary",
                        "-inform",
                        "DER",
                        "-in",
                    ])
                    .arg(&wrapped)
                    .arg("-content")
                    .arg(&message),
            )
        };
        verify(&signed).unwrap();
        verify(&signed[1..]).unwrap_err();
    }
}
