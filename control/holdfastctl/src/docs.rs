//! All commands as Markdown, for `docs/cli.md`.

use crate::failure::EXIT_CODES;
use clap::{Arg, Command};
use std::fmt::Write as _;

/// The text, starting at a heading of the second level.
pub fn markdown(mut command: Command) -> String {
    command.build();
    let mut text = String::new();
    section(&command, command.get_name(), &mut text);
    text.push_str("### Exit codes of `holdfastctl`\n\n| code | meaning |\n|---|---|\n");
    for (code, meaning) in EXIT_CODES {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "| {code} | {meaning} |");
    }
    text
}

fn section(command: &Command, path: &str, text: &mut String) {
    if command.is_hide_set() {
        return;
    }
    let subcommands: Vec<&Command> = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
        .collect();
    let top = !path.contains(' ');
    let _ = writeln!(text, "{} `{path}`\n", if top { "##" } else { "###" });
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        let _ = writeln!(text, "{}\n", escape(&about.to_string()));
    }
    if subcommands.is_empty() {
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").trim();
        let _ = writeln!(text, "```sh\n{usage}\n```\n");
    }
    let arguments: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| {
            !argument.is_hide_set()
                && !matches!(argument.get_id().as_str(), "help" | "version")
                && (top || !argument.is_global_set())
        })
        .collect();
    if !arguments.is_empty() {
        text.push_str("| argument | meaning |\n|---|---|\n");
        for argument in arguments {
            row(argument, text);
        }
        text.push('\n');
    }
    for subcommand in subcommands {
        section(subcommand, &format!("{path} {}", subcommand.get_name()), text);
    }
}

fn row(argument: &Arg, text: &mut String) {
    let value = argument.get_value_names().map_or_else(
        || argument.get_id().to_string().to_uppercase(),
        |names| {
            names
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        },
    );
    let mut name = match (argument.get_short(), argument.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (None, Some(long)) => format!("--{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, None) => String::new(),
    };
    if name.is_empty() {
        name = value;
    } else if argument.get_action().takes_values() {
        let _ = if argument.is_require_equals_set() {
            write!(name, "[={value}]")
        } else {
            write!(name, " {value}")
        };
    }
    let mut meaning = escape(&argument.get_help().map(ToString::to_string).unwrap_or_default());
    let possible: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set() && argument.get_action().takes_values())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !possible.is_empty() {
        let _ = write!(meaning, " ({})", possible.join(", "));
    }
    if let Some(default) = argument.get_default_values().first() {
        let _ = write!(meaning, "; default `{}`", default.to_string_lossy());
    }
    if let Some(variable) = argument.get_env() {
        let _ = write!(meaning, "; environment `{}`", variable.to_string_lossy());
    }
    let _ = writeln!(text, "| `{}` | {meaning} |", name.replace('|', "\\|"));
}

/// Keeps text from being read as markup or as the end of a cell.
fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<").replace('*', "\\*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_visible_command_is_documented() {
        let text = markdown(crate::cli::command());
        for line in [
            "## `holdfastctl`",
            "### `holdfastctl release assign`",
            "| `--wait[=TIMEOUT]` |",
            "| `-o, --output OUTPUT` |",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
        assert!(!text.contains("docs cli"));
    }
}
