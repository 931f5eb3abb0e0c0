//! How answers look: a table for people, JSON or YAML for programs. Answers go to the standard output, everything else to the
//! standard error, so that a pipe gets the answer alone.

use crate::{
    codes,
    failure::{Failure, Result},
};
use jiff::Timestamp;
use serde::Serialize;
use std::io::Write as _;

/// Form of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table for people
    #[default]
    Table,
    /// A table with all columns
    Wide,
    /// What the hub answered, as JSON
    Json,
    /// What the hub answered, as YAML
    Yaml,
}

/// Writes to the standard output; a reader that went away (`| head`) is no failure.
pub fn print(text: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            codes::OUTPUT,
            format!("the answer cannot be written: {error}"),
            "look at where the standard output goes",
        )),
        _ => Ok(()),
    }
}

/// Writes one line to the standard output.
pub fn line(text: &str) -> Result<()> {
    print(&format!("{text}\n"))
}

/// Says something to a person, beside the answer.
pub fn note(text: &str) {
    // Nothing can be done where even the standard error is gone.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

impl Format {
    /// Writes `value` as JSON or YAML, or else what `people` makes of it; `people` is told whether all columns are wanted.
    pub fn show<T: Serialize>(self, value: &T, people: impl FnOnce(bool) -> String) -> Result<()> {
        let unwritable = |error: String| {
            Failure::new(
                codes::OUTPUT,
                format!("the answer cannot be written: {error}"),
                "try -o json",
            )
        };
        match self {
            Self::Table => print(&people(false)),
            Self::Wide => print(&people(true)),
            Self::Json => {
                let text =
                    serde_json::to_string_pretty(value).map_err(|error| unwritable(error.to_string()))?;
                line(&text)
            }
            Self::Yaml => print(&yaml(value).map_err(unwritable)?),
        }
    }
}

/// YAML of anything that has a JSON form.
pub fn yaml<T: Serialize>(value: &T) -> std::result::Result<String, String> {
    // By way of JSON, so that both forms have the same names and the same shape of enums.
    let value = serde_json::to_value(value).map_err(|error| error.to_string())?;
    let mut text = serde_saphyr::to_string(&value).map_err(|error| error.to_string())?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Lines in columns, two spaces apart, like `kubectl` prints them.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self {
            rows: vec![headings.map(str::to_owned).to_vec()],
        }
    }

    /// Adds a line.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        // What others wrote must not move the cursor of a terminal or break the line.
        self.rows.push(cells.map(|cell| printable(&cell)).to_vec());
    }

    /// The text; `empty` where there is no line.
    pub fn render(&self, empty: &str) -> String {
        if self.rows.len() == 1 {
            return format!("{empty}\n");
        }
        let columns = self.rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        self.rows.iter().fold(String::new(), |mut text, row| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(
                    ' ',
                    width.saturating_sub(cell.chars().count()) + 2,
                ));
            }
            text.push_str(line.trim_end());
            text.push('\n');
            text
        })
    }
}

/// The text without control characters.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// `12s`, `4m`, `3h`, `5d`: how long ago, for a table.
pub fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(at.as_second()).max(0);
    span(seconds)
}

/// A number of seconds in the largest unit that fits.
pub fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A value, or a dash.
#[allow(
    clippy::needless_pass_by_value,
    reason = "callers make the option on the spot"
)]
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// `a=b,c=d`, or a dash.
pub fn labels(labels: &holdfast_protocol::operator::Labels) -> String {
    if labels.is_empty() {
        return "-".to_owned();
    }
    labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_no_line_ends_in_spaces() {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row(["shop-17".into(), "healthy".into()]);
        table.row(["x".into(), String::new()]);
        assert_eq!(table.render("none"), "NAME     STATE\nshop-17  healthy\nx\n");
    }

    #[test]
    fn what_a_node_writes_cannot_move_the_cursor() {
        let mut table = Table::new(["CAUSE"]);
        table.row(["\u{1b}[2Jgone\nnext".into()]);
        assert_eq!(table.render(""), "CAUSE\n [2Jgone next\n");
    }

    #[test]
    fn yaml_and_json_have_the_same_names() {
        let problem = holdfast_protocol::Problem::new("disk-full", "x: y", "");
        let text = yaml(&problem).unwrap();
        assert!(text.contains("code: disk-full"), "{text}");
        assert!(text.contains("\"x: y\"") || text.contains("'x: y'"), "{text}");
    }
}
