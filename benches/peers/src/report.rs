//! The table: medians with the lowest and highest, and how many times as fast esker is.

use crate::engine::Variant;
use crate::measure::Outcome;
use crate::workload::Workload;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The outcomes of all rounds.
#[derive(Default)]
pub struct Report {
    outcomes: BTreeMap<(Workload, usize, Variant), Vec<Outcome>>,
}

impl Report {
    /// Adds a round's.
    pub fn add(&mut self, workload: Workload, threads: usize, variant: Variant, outcome: Outcome) {
        self.outcomes.entry((workload, threads, variant)).or_default().push(outcome);
    }

    /// The table as Markdown.
    pub fn table(&self) -> String {
        let mut out = String::from(
            "| benchmark | threads | engine | transactions/s (low to high) | esker is | CPU us | conflicts per 1000 |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for (&(workload, threads, variant), outcomes) in &self.outcomes {
            let rates = sorted(outcomes, |outcome| outcome.rate);
            let _ = writeln!(
                out,
                "| `{}` | {threads} | {variant} | {:.0} ({:.0} to {:.0}) | {} | {:.2} | {:.2} |",
                workload.name(),
                median(&rates),
                rates[0],
                rates[rates.len() - 1],
                self.ratio(workload, threads, variant, median(&rates)),
                median(&sorted(outcomes, |outcome| outcome.cpu_us)),
                median(&sorted(outcomes, |outcome| outcome.conflicts)),
            );
        }
        out
    }

    /// The rate of esker's transactions of the same kind over this rate.
    fn ratio(&self, workload: Workload, threads: usize, variant: Variant, rate: f64) -> String {
        let counterpart = variant.counterpart();
        match self.outcomes.get(&(workload, threads, counterpart)) {
            Some(outcomes) if counterpart != variant => {
                format!("{:.2} x", median(&sorted(outcomes, |outcome| outcome.rate)) / rate)
            }
            _ => String::new(),
        }
    }
}

fn sorted(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64) -> Vec<f64> {
    let mut list: Vec<f64> = outcomes.iter().map(of).collect();
    list.sort_by(f64::total_cmp);
    list
}

/// Of a sorted list that is not empty.
fn median(list: &[f64]) -> f64 {
    let (left, right) = (list[(list.len() - 1) / 2], list[list.len() / 2]);
    (left + right) / 2.0
}
