//! Showing the figures.

use serde_json::json;

/// Prints each case as it is done.
pub(crate) struct Report {
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
    pub(crate) fn new(as_json: bool) -> Self {
        if !as_json {
            println!("{:<28} {:>12} {:<6} {:>10}", "case", "value", "unit", "goal");
        }
        Self {
            as_json,
            missed: vec![],
        }
    }

    pub(crate) fn add(&mut self, figure: &Figure) {
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
            println!(
                "{}",
                json!({"case": case, "value": value, "unit": unit, "goal": goal})
            );
        } else {
            let goal = goal.map_or_else(|| "-".to_owned(), |goal| goal.to_string());
            println!("{case:<28} {value:>12} {unit:<6} {goal:>10}");
        }
    }

    /// The closing lines.
    pub(crate) fn close(&self) {
        if self.as_json {
            return;
        }
        println!(
            "\nMedians. *_linear walks the list, which is what the index must agree with. regex_1000_varied is what a \
             thousand regular expressions add to a request. The goal of routes_1000 is routes_10 and a quarter."
        );
        if !self.missed.is_empty() {
            println!("above the goal: {}", self.missed.join(", "));
        }
    }
}

/// To three digits behind the point.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The middle one of several values.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
