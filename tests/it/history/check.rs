//! The checker: a history in, what is wrong with it out.

use super::anomaly::Anomaly;
use super::chains::Chains;
use super::model::{History, Level};
use super::reads::Judge;
use super::{cycles, ending};

/// What is wrong with a history, each transaction held to the level that it ran at.
pub fn check(history: &History) -> Vec<Anomaly> {
    run(history, false)
}

/// Every anomaly that a history has, whatever was promised.
pub fn anomalies_found(history: &History) -> Vec<Anomaly> {
    run(history, true)
}

fn run(history: &History, by_every_name: bool) -> Vec<Anomaly> {
    if history.transactions.is_empty() {
        return Vec::new();
    }
    let chains = Chains::new(history);
    let mut judge = Judge::new(&chains, by_every_name);
    for number in 0..history.transactions.len() {
        judge.judge(number as u32);
    }
    let Judge { mut findings, seen, .. } = judge;
    // Without anybody at SERIALIZABLE the judgement of each transaction by itself is exact.
    if by_every_name || history.transactions.iter().any(|one| one.level == Level::Serializable) {
        cycles::note_cycles(&chains, &cycles::graph(&chains, &seen, by_every_name), &mut findings);
    }
    if let Some(end) = &history.end {
        ending::check(&chains, end, &mut findings);
    }
    findings.into_anomalies()
}
