//! Every problem code of the code is a heading in the troubleshooting page, and every heading is a code.

use crate::files;
use anyhow::{Result, bail};
use std::{collections::BTreeSet, fs};

const PAGE: &str = "docs/troubleshooting.md";
const SOURCES: &[&str] = &["protocol", "daemon", "control"];

/// What is wrong, one line each.
pub fn faults() -> Result<Vec<String>> {
    let mut declared = BTreeSet::new();
    for directory in SOURCES {
        for file in files::named(directory, "codes.rs")? {
            declared.extend(codes_in(&fs::read_to_string(&file)?));
        }
    }
    if declared.is_empty() {
        bail!(
            "no problem codes found in the codes.rs files below {}",
            SOURCES.join(", ")
        );
    }
    Ok(differences(&declared, &headings_in(&files::read(PAGE)?)))
}

fn differences(declared: &BTreeSet<String>, documented: &BTreeSet<String>) -> Vec<String> {
    let missing = declared
        .difference(documented)
        .map(|code| format!("{PAGE} has no heading `{code}`"));
    let stale = documented
        .difference(declared)
        .map(|code| format!("{PAGE} explains `{code}`, which no codes.rs declares"));
    missing.chain(stale).collect()
}

/// Codes are declared as `NAME = "kebab-case";`, in a macro or as `pub const NAME: &str = "kebab-case";`.
fn codes_in(source: &str) -> impl Iterator<Item = String> {
    source.lines().filter_map(|line| {
        let (name, value) = line.trim().split_once(" = \"")?;
        let code = value.strip_suffix("\";")?;
        let name = name.trim_start_matches("pub const ").split(':').next()?;
        let is_constant = name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        let is_code = code
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        (is_constant && is_code).then(|| code.to_owned())
    })
}

/// Headings of the form ``### `code` ``.
fn headings_in(page: &str) -> BTreeSet<String> {
    page.lines()
        .filter_map(|line| {
            line.trim_start_matches('#')
                .trim()
                .strip_prefix('`')?
                .strip_suffix('`')
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_declaring_a_code_are_found() {
        let source =
            "codes! {\n    /// Doc.\n    A_B = \"a-b\";\n}\npub const C: &str = \"c-2\";\nlet x = \"no\";\n";
        assert_eq!(codes_in(source).collect::<Vec<_>>(), ["a-b", "c-2"]);
    }

    #[test]
    fn a_code_without_heading_and_a_heading_without_code_are_both_faults() {
        let declared = BTreeSet::from(["known".to_owned(), "missing".to_owned()]);
        let documented = headings_in("# Title\n### `known`\n### `stale`\ntext `not-a-heading`\n");
        let faults = differences(&declared, &documented);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("`missing`") && faults[1].contains("`stale`"));
    }

    #[test]
    fn every_problem_code_is_documented() {
        assert_eq!(faults().unwrap(), Vec::<String>::new());
    }
}
