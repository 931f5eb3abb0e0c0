//! The figures, their units and limits, and the two forms in which they are written.

use crate::machine;
use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use std::{fmt::Write as _, fs, io::Write as _, path::Path};

/// One measured figure.
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    limit: Option<f64>,
    how: String,
}

/// All figures of a run.
pub struct Figures(Vec<Figure>);

impl Figures {
    /// No figures yet.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a figure; `limit` is the most that is allowed, `how` says in a few words how it was measured.
    pub fn add(
        &mut self,
        name: &'static str,
        value: f64,
        unit: &'static str,
        limit: Option<f64>,
        how: impl Into<String>,
    ) {
        let figure = Figure {
            name,
            value,
            unit,
            limit,
            how: how.into(),
        };
        println!("{name} = {} {unit}{}", number(value), figure.verdict());
        self.0.push(figure);
    }

    /// Writes the report and the table. A run of a part keeps the other figures of an earlier report.
    pub fn write(&self, report: &Path, table: &Path) -> Result<()> {
        let mut figures: Map<String, Value> = fs::read(report)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
            .and_then(|report| report["figures"].as_object().cloned())
            .unwrap_or_default();
        for figure in &self.0 {
            let entry =
                json!({"value": figure.value, "unit": figure.unit, "limit": figure.limit, "how": figure.how});
            figures.insert(figure.name.to_owned(), entry);
        }
        let whole = json!({"machine": machine::describe(), "at": jiff::Timestamp::now().to_string(), "figures": figures});
        write(report, &serde_json::to_string_pretty(&whole)?)?;
        write(table, &markdown(&whole)?)
    }
}

impl Figure {
    fn verdict(&self) -> String {
        self.limit.map_or_else(String::new, |limit| {
            let kept = if self.value <= limit { "kept" } else { "MISSED" };
            format!(" (limit {}: {kept})", number(limit))
        })
    }
}

fn markdown(report: &Value) -> Result<String> {
    let mut text = format!(
        "# Benchmarks\n\nMade by `cargo xtask bench`; the same figures are in `target/bench/report.json`. Measured on: {}.\n\n\
         A ratio of value over limit below 1 is within the limit.\n\n\
         | figure | value | limit | value / limit | how it was measured |\n|---|---:|---:|---:|---|\n",
        report["machine"].as_str().unwrap_or_default()
    );
    for (name, figure) in report["figures"].as_object().context("figures")? {
        let value = figure["value"].as_f64().unwrap_or_default();
        let limit = figure["limit"].as_f64();
        let ratio = match limit {
            Some(limit) if limit > 0.0 => format!("{:.2}", value / limit),
            Some(_) => {
                if value <= 0.0 {
                    "0".to_owned()
                } else {
                    "above".to_owned()
                }
            }
            None => String::new(),
        };
        writeln!(
            text,
            "| `{name}` | {} {} | {} | {ratio} | {} |",
            number(value),
            figure["unit"].as_str().unwrap_or_default(),
            limit.map(number).unwrap_or_default(),
            figure["how"].as_str().unwrap_or_default(),
        )?;
    }
    text.push_str(
        "\nPeers, as measured for this project's goals on another machine, for the order of magnitude of an idle agent (PSS and anonymous memory in KiB): \
         thin-edge.io agent and mapper 20,221 and 3,304; flightctl agent 28,981 and 8,140; KubeEdge edgecore 79,477 and 20,364.\n",
    );
    Ok(text)
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::File::create(path)?
        .write_all(text.as_bytes())
        .with_context(|| format!("write {}", path.display()))
}

/// The value in the middle, or the mean of the two in the middle; zero of nothing.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or_default();
    f64::midpoint(at(values.len().saturating_sub(1) / 2), at(values.len() / 2))
}

/// The middle one of the ratios of pairs that were measured in turn.
pub fn median_of_pairs(values: &[f64], over: &[f64]) -> f64 {
    let mut ratios: Vec<_> = values.iter().zip(over).map(|(one, other)| one / other).collect();
    median(&mut ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_values_is_the_mean_of_the_two_in_the_middle() {
        for (mut values, middle) in [
            (vec![], 0.0),
            (vec![7.0], 7.0),
            (vec![9.0, 1.0, 4.0], 4.0),
            (vec![9.0, 1.0], 5.0),
            (vec![8.0, 100.0, 1.0, 3.0], 5.5),
        ] {
            assert!((median(&mut values) - middle).abs() < f64::EPSILON, "{values:?}");
        }
        // Pairs are compared one by one before the middle is taken.
        let middle = median_of_pairs(&[2.0, 9.0, 4.0, 40.0], &[1.0, 3.0, 4.0, 10.0]);
        assert!((middle - 2.5).abs() < f64::EPSILON, "{middle}");
    }
}
