//! Showing the figures.

use std::io::Write;

use anyhow::Result;
use serde_json::json;

/// Prints each case as it is done.
pub(crate) struct Report {
    output: Box<dyn Write>,
    as_json: bool,
    missed: Vec<&'static str>,
}

/// What was measured.
pub(crate) struct Figure {
    pub(crate) case: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// The highest value that is aimed at.
    pub(crate) goal: Option<f64>,
}

impl Report {
    /// A report for people, or one object a line.
    pub(crate) fn new(mut output: Box<dyn Write>, as_json: bool) -> Result<Self> {
        if !as_json {
            writeln!(
                output,
                "{:<28} {:>12} {:<6} {:>10}",
                "case", "value", "unit", "goal"
            )?;
        }
        Ok(Self {
            output,
            as_json,
            missed: vec![],
        })
    }

    pub(crate) fn add(&mut self, figure: &Figure) -> Result<()> {
        let Figure {
            case,
            value,
            unit,
            goal,
        } = figure;
        if goal.is_some_and(|goal| *value > goal) {
            self.missed.push(case);
        }
        let value = rounded(*value);
        let goal = goal.map(rounded);
        if self.as_json {
            let line = json!({"case": case, "value": value, "unit": unit, "goal": goal});
            writeln!(self.output, "{line}")?;
        } else {
            let goal = goal.map_or_else(|| "-".to_owned(), |goal| goal.to_string());
            writeln!(self.output, "{case:<28} {value:>12} {unit:<6} {goal:>10}")?;
        }
        Ok(self.output.flush()?)
    }

    /// The closing lines.
    pub(crate) fn close(mut self) -> Result<()> {
        if self.as_json {
            return Ok(());
        }
        writeln!(
            self.output,
            "\nMedians of processor time. *_linear walks the list, which is what the index must agree with. regex_* is \
             what a thousand regular expressions add to a request. The goal of routes_1000 is routes_10 and a quarter."
        )?;
        if !self.missed.is_empty() {
            writeln!(self.output, "above the goal: {}", self.missed.join(", "))?;
        }
        Ok(())
    }
}

/// To three digits behind the point.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
