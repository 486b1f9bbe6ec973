//! Showing the figures.

use serde_json::json;

use crate::cases::Case;
use crate::harness::Figures;

/// Prints each case as it is done.
pub(crate) struct Report {
    as_json: bool,
    missed: Vec<String>,
    /// What the kernel's part of an answer with a cookie costs alone.
    cookies: Vec<String>,
}

impl Report {
    /// A report for people, or one object a line.
    pub(crate) fn new(as_json: bool) -> Self {
        if !as_json {
            println!(
                "{:<16} {:>8} {:>8} {:>8} {:>7} {:>6}",
                "case", "ns", "parse", "drop", "ratio", "goal"
            );
        }
        Self {
            as_json,
            missed: Vec::new(),
            cookies: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, case: &Case, figures: &Figures) {
        let ratio = figures.ns / figures.floor_ns;
        if case.goal.is_some_and(|goal| ratio > goal) {
            self.missed.push(case.name.to_owned());
        }
        if self.as_json {
            let line = json!({
                "case": case.name,
                "ns": round(figures.ns),
                "floor_ns": round(figures.floor_ns),
                "drop_ns": round(figures.drop_ns),
                "ratio": round(ratio),
                "goal": case.goal,
                "cookie_ns": figures.cookie_ns.map(round),
            });
            println!("{line}");
            return;
        }
        if let Some(cookie) = figures.cookie_ns {
            self.cookies.push(format!(
                "{}: a program that reads the headers, has the kernel make a cookie and drops: {cookie:.0} ns, ratio {:.2}",
                case.name,
                cookie / figures.floor_ns
            ));
        }
        let goal = case
            .goal
            .map_or_else(|| "-".to_owned(), |goal| format!("{goal:.1}"));
        println!(
            "{:<16} {:>8.0} {:>8.0} {:>8.0} {:>7.2} {:>6}",
            case.name, figures.ns, figures.floor_ns, figures.drop_ns, ratio, goal
        );
    }

    /// The closing lines.
    pub(crate) fn close(&self) {
        if self.as_json {
            return;
        }
        println!(
            "\nns: median of a packet's time, harness included; parse: a program that reads the headers and drops; \
             drop: one that drops at once; ratio: ns / parse; goal: the ratio that is aimed at"
        );
        self.cookies.iter().for_each(|line| println!("{line}"));
        if !self.missed.is_empty() {
            println!("above the goal: {}", self.missed.join(", "));
        }
    }
}

/// To two decimals.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
