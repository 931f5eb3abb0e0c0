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

pub fn run(options: &Options) -> Result<()> {
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
        let _ = write!(text, "\n{}", as_chapter(binary, &body));
    }
    Ok(text)
}

/// A program's own page as a chapter of ours: under the program's name, with its own title and remark on being generated left
/// out, and its headings below ours whatever level they have.
fn as_chapter(binary: &str, page: &str) -> String {
    let mut in_code = false;
    let name = format!("`{binary}`");
    let lines: Vec<(&str, usize)> = page
        .trim()
        .lines()
        .map(|line| {
            in_code ^= line.starts_with("```");
            let level = line.chars().take_while(|c| *c == '#').count();
            (line.trim_end(), if in_code { 0 } else { level })
        })
        .filter(|(line, level)| {
            let is_title = *level == 1 || (*level > 0 && line.trim_start_matches('#').trim() == name);
            !is_title && !line.starts_with("<!-- Generated")
        })
        .collect();
    let top = lines
        .iter()
        .map(|(_, level)| *level)
        .filter(|level| *level > 0)
        .min();
    let mut chapter = format!("## {name}\n\n");
    let mut after_empty = true;
    for (line, level) in lines {
        // Leaving a line out can leave two empty ones.
        if line.is_empty() && after_empty {
            continue;
        }
        after_empty = line.is_empty();
        if let (true, Some(top)) = (level > 0, top) {
            chapter.push_str(&"#".repeat(3 + level - top));
            chapter.push_str(&line[level..]);
        } else {
            chapter.push_str(line);
        }
        chapter.push('\n');
    }
    chapter
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_a_chapter_without_touching_its_code() {
        let page =
            "# Node\n\n<!-- Generated by x -->\n\ntext  \n```\n# a comment\n```\n## `[log]`\n#### deep\n";
        assert_eq!(
            as_chapter("holdfast", page),
            "## `holdfast`\n\ntext\n```\n# a comment\n```\n### `[log]`\n##### deep\n"
        );
    }

    #[test]
    fn a_page_without_a_title_keeps_all_its_headings() {
        assert_eq!(
            as_chapter("hub", "### run\n\ntext"),
            "## `hub`\n\n### run\n\ntext\n"
        );
    }
}
