//! Showing the figures.

use serde_json::json;

use crate::case::Case;
use crate::peer::Kind;

/// Prints each case as it is done.
pub(crate) struct Report {
    as_json: bool,
    missed: Vec<&'static str>,
}

/// What was measured of a case.
pub(crate) struct Figures {
    case: &'static str,
    unit: &'static str,
    /// In the order of [`Kind::ALL`]; `None` where a proxy lacks it.
    values: [Option<f64>; Kind::ALL.len()],
    /// The most that edge may take.
    goal: Option<f64>,
}

impl Figures {
    pub(crate) fn new(case: &Case, values: [Option<f64>; Kind::ALL.len()], goal: Option<f64>) -> Self {
        Self {
            case: case.name,
            unit: case.unit,
            values: values.map(|value| value.map(rounded)),
            goal: goal.map(rounded),
        }
    }

    /// Whether edge takes no more than the goal; `None` when either is missing.
    fn is_met(&self) -> Option<bool> {
        let [edge, ..] = self.values;
        Some(edge? <= self.goal?)
    }
}

impl Report {
    /// A report for people, or one object a line.
    pub(crate) fn new(as_json: bool) -> Self {
        if !as_json {
            print!("{:<18}{:<22}", "case", "unit");
            Kind::ALL.iter().for_each(|kind| print!("{:>10}", kind.name()));
            println!("{:>10}", "goal");
        }
        Self {
            as_json,
            missed: vec![],
        }
    }

    pub(crate) fn add(&mut self, figures: &Figures) {
        let met = figures.is_met();
        if met == Some(false) {
            self.missed.push(figures.case);
        }
        if self.as_json {
            let values = Kind::ALL.iter().zip(figures.values);
            let values: String = values
                .map(|(kind, value)| format!("\"{}\":{},", kind.name(), json!(value)))
                .collect();
            println!(
                "{{\"case\":{},\"unit\":{},{values}\"goal\":{},\"met\":{}}}",
                json!(figures.case),
                json!(figures.unit),
                json!(figures.goal),
                json!(met)
            );
            return;
        }
        let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        print!("{:<18}{:<22}", figures.case, figures.unit);
        figures
            .values
            .iter()
            .for_each(|value| print!("{:>10}", show(*value)));
        let mark = match met {
            Some(true) => "",
            Some(false) => "  missed",
            None => "  nothing to compare with",
        };
        println!("{:>10}{mark}", show(figures.goal));
    }

    /// Says what was missed.
    pub(crate) fn close(self) {
        if !self.as_json && !self.missed.is_empty() {
            println!("missed: {}", self.missed.join(", "));
        }
    }
}

/// To four digits: the noise is in the third.
fn rounded(value: f64) -> f64 {
    let scale = match value.abs() {
        large if large >= 1000.0 => 1.0,
        large if large >= 100.0 => 10.0,
        middle if middle >= 10.0 => 100.0,
        _ => 1000.0,
    };
    (value * scale).round() / scale
}
