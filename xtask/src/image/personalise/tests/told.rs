//! What is said where something cannot be done: of which option, and what to do.

use super::{
    super::esp::{advice, temporary},
    *,
};
use std::io::ErrorKind;

#[test]
fn a_bad_value_is_told_by_the_name_of_its_option() {
    let directory = tempfile::tempdir().unwrap();
    let image = image(directory.path());
    let bad = directory.path().join("bad");
    fs::write(&bad, "short\n").unwrap();
    let bad = bad.to_str().unwrap();
    let fixed = ["--static-ip", "192.0.2.17/24"];
    for (arguments, told) in [
        (&["--hostname", "shop_17"][..], "--hostname must be 1 to 63"),
        (&["--static-ip", "192.0.2.17"], "--static-ip has no length"),
        (&["--static-ip", "x/24"], "--static-ip is no IP address"),
        (
            &[&fixed[..], &["--gateway", "198.51.100.1"]].concat(),
            "--gateway is not within the network of --static-ip",
        ),
        (&[&fixed[..], &["--dns", "x"]].concat(), "--dns is no IP address"),
        (
            &[&fixed[..], &["--interface", "a/b"]].concat(),
            "--interface is no name",
        ),
        (&["--wifi", ""], "--wifi must be 1 to 32 bytes"),
        (
            &["--wifi", "till", "--wifi-country", "ZZ"],
            "--wifi-country ZZ is no country",
        ),
        (
            &["--wifi", "till", "--wifi-country", "UK"],
            "that of the United Kingdom is GB",
        ),
        (
            &["--wifi", "till", "--wifi-passphrase-file", bad],
            "--wifi-passphrase-file must be 8 to 63",
        ),
        (
            &["--wifi", "till", "--wifi-passphrase-file", "/nonexistent/a"],
            "--wifi-passphrase-file: cannot read /nonexistent/a",
        ),
        (&["--token-file", bad], "--token-file: "),
        (
            &["--token-file", "/nonexistent/a"],
            "--token-file: cannot read /nonexistent/a",
        ),
    ] {
        let error = format!("{:#}", run_with(&image, arguments).unwrap_err());
        assert!(error.contains(told), "{told} is missing in {error}");
        assert!(!error.contains("personal settings"), "{error}");
    }
    run_with(&image, &["--wifi", "till", "--wifi-country", "de"]).unwrap();
    assert!(text(&image, personal::FILE).contains("country = \"DE\""));
}

#[test]
fn who_is_root_already_is_not_told_to_be_root() {
    let told = |is_device, is_root| advice(ErrorKind::PermissionDenied, is_device, is_root);
    assert!(told(true, false).contains("sudo"));
    assert!(told(false, false).contains("owner of the image"));
    for is_device in [false, true] {
        let told = told(is_device, true);
        assert!(
            told.contains("not even root") && told.contains("container"),
            "{told}"
        );
    }
    assert!(advice(ErrorKind::ResourceBusy, true, true).contains("unmount"));
}

#[test]
fn a_directory_for_temporary_files_that_is_not_there_is_named_with_its_variable() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let error = format!("{:#}", temporary(&missing).unwrap_err());
    for part in [missing.to_str().unwrap(), "TMPDIR"] {
        assert!(error.contains(part), "{part} is missing in {error}");
    }
    temporary(directory.path()).unwrap();
}
