//! Pages that are generated from the code: each binary has a hidden `docs` subcommand that prints its part in Markdown.

use crate::{files, shell};
use anyhow::{Result, bail};
use clap::Args;
use std::{fmt::Write as _, fs};

#[derive(Args)]
pub struct Options {
    /// Change nothing; fail with a diff where a page is not what the code says
    #[arg(long)]
    check: bool,
}

/// A page: file, title, introduction, and the binaries whose `docs PART` makes its body.
struct Page {
    file: &'static str,
    part: &'static str,
    title: &'static str,
    introduction: &'static str,
    binaries: &'static [&'static str],
}

const PAGES: &[Page] = &[
    Page {
        file: "docs/configuration.md",
        part: "configuration",
        title: "Configuration",
        introduction: "Every key of the node's and the hub's configuration, with its default.",
        binaries: &["holdfast", "holdfast-hub"],
    },
    Page {
        file: "docs/cli.md",
        part: "cli",
        title: "Command lines",
        introduction: "Every command and option of the three programs.",
        binaries: &["holdfast", "holdfastctl", "holdfast-hub"],
    },
    Page {
        file: "docs/metrics.md",
        part: "metrics",
        title: "Metrics",
        introduction: "Every metric the node and the hub expose in the Prometheus text format.",
        binaries: &["holdfast", "holdfast-hub"],
    },
];

pub fn run(options: Options) -> Result<()> {
    shell::run(shell::cargo().args(["build", "--locked", "--workspace", "--bins"]))?;
    let mut stale = Vec::new();
    for page in PAGES {
        let text = render(page)?;
        if fs::read_to_string(shell::root().join(page.file)).is_ok_and(|current| current == text) {
            continue;
        }
        if options.check {
            show_difference(page, &text)?;
            stale.push(page.file);
        } else {
            files::replace(page.file, &text)?;
            eprintln!("wrote {}", page.file);
        }
    }
    if !stale.is_empty() {
        bail!(
            "not what the code says: {}; run `cargo xtask docs` and commit the result",
            stale.join(", ")
        );
    }
    Ok(())
}

fn render(page: &Page) -> Result<String> {
    let mut text = format!(
        "# {}\n\n{}\n\n<!-- Generated from the code by `cargo xtask docs`; do not edit. -->\n",
        page.title, page.introduction
    );
    for binary in page.binaries {
        let path = shell::target_directory().join("debug").join(binary);
        // The width of a terminal or a user's environment must not show in a page.
        let body = shell::output(shell::command(path).args(["docs", page.part]).env_clear())?;
        let _ = write!(text, "\n{}\n", body.trim());
    }
    Ok(text)
}

/// Shows the difference with `diff -u`, which every development machine has.
fn show_difference(page: &Page, text: &str) -> Result<()> {
    let directory = shell::target_directory().join("docs-check");
    fs::create_dir_all(&directory)?;
    let expected = directory.join(format!("{}.md", page.part));
    let mut file = fs::File::create(&expected)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    // A missing page shows as one that is empty. The exit code says only that they differ, which is known.
    shell::command("diff")
        .args(["-uN", page.file])
        .arg(&expected)
        .status()?;
    Ok(())
}
