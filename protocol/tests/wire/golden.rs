//! Golden files: `tests/golden/NAME`. Run with `UPDATE_GOLDEN=1` to write them anew, and look at the difference: what changes there
//! breaks boxes in the field.

use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, io::Write as _, path::PathBuf};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// The content of a golden file.
pub(crate) fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Checks that a value has exactly this form.
#[track_caller]
pub(crate) fn check_text(name: &str, text: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let mut file = std::fs::File::create(path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
    assert_eq!(read(name), text, "{name} is not what this build writes");
}

/// Checks that a value is written in exactly this form; gives what is read from it.
#[track_caller]
pub(crate) fn check_written<T: Serialize + DeserializeOwned>(name: &str, value: &T) -> T {
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    check_text(name, &text);
    serde_json::from_str(&read(name)).unwrap()
}

/// Checks that a value is written in exactly this form and read back as it was.
#[track_caller]
pub(crate) fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    assert_eq!(&check_written(name, value), value);
}
