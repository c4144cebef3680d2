//! Debt: how much work a tree is behind its shape. Writers are paced by it.

use super::{last_level, level_runs, leveled};
use crate::compaction::task::{Shape, Style};
use crate::compaction::window::depth;
use crate::manifest::Tree;

/// How far a tree is out of shape. Tables being compacted count until they are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Debt {
    /// Bytes to rewrite until the shape is met, estimated; grows smoothly with what is written.
    pub(crate) bytes: u64,
    /// Runs in level 0; 0 where nothing is to be waited for (FIFO).
    pub(crate) l0_runs: u32,
    /// Fullness of the fullest level: above 1 it wants a compaction.
    pub(crate) overfull: f64,
}

/// Estimates the debt.
pub(crate) fn debt(tree: &Tree, shape: &Shape) -> Debt {
    if shape.style == Style::Fifo {
        return Debt::default();
    }
    let l0_runs = u32::try_from(level_runs(tree, 0).len()).unwrap_or(u32::MAX);
    let levels = match shape.style {
        Style::Leveled => leveled_levels(tree, shape),
        _ => tiered_levels(tree, shape),
    };
    let mut carried = 0.0;
    let mut bytes = 0.0;
    let mut overfull = 0.0f64;
    for level in &levels {
        // What comes down from above makes this level fuller, and is pushed on with it.
        let excess = level.excess + carried * level.passes_on;
        bytes += excess * (1.0 + level.rewrites);
        overfull = overfull.max(level.fullness);
        carried = excess;
    }
    Debt { bytes: bytes as u64, l0_runs, overfull }
}

/// One level as the estimate sees it.
struct LevelDebt {
    /// Bytes that have to leave it.
    excess: f64,
    /// Part of what arrives that has to leave again: 0 or 1.
    passes_on: f64,
    /// Bytes of the level below that are rewritten for each byte that leaves.
    rewrites: f64,
    fullness: f64,
}

/// Levels that push whole runs: level 0 beyond its trigger, others beyond the size ratio.
fn tiered_levels(tree: &Tree, shape: &Shape) -> Vec<LevelDebt> {
    let last = match shape.style {
        Style::Tiered => 1,
        _ => last_level(tree),
    };
    let last_bytes = bytes_of(tree, last);
    let level = |level: usize| {
        let (bytes, runs) = (bytes_of(tree, level), runs_over_one_key(tree, level) as f64);
        let trigger = if level == 0 { shape.trigger() as f64 } else { shape.ratio() as f64 };
        let beyond = (runs - trigger + 1.0).max(0.0) / runs.max(1.0);
        let over = if level == 0 { 0.0 } else { (bytes - shape.capacity(level) as f64).max(0.0) };
        let is_full = beyond > 0.0 || over > 0.0;
        let into_last = level.saturating_add(1) == last && shape.style == Style::LazyLeveling;
        LevelDebt {
            excess: (bytes * beyond).max(over),
            passes_on: if is_full { 1.0 } else { 0.0 },
            rewrites: if into_last { (last_bytes / bytes.max(1.0)).min(shape.ratio() as f64) } else { 0.0 },
            fullness: (runs / trigger).max(over / shape.capacity(level) as f64),
        }
    };
    (0..last).map(level).chain(several_runs_in_one(tree, last, shape)).collect()
}

/// A last level of several runs where there should be one is rewritten whole.
fn several_runs_in_one(tree: &Tree, last: usize, shape: &Shape) -> Option<LevelDebt> {
    let several = level_runs(tree, last).len() > 1 && shape.style != Style::Tiered;
    several.then(|| LevelDebt { excess: bytes_of(tree, last), passes_on: 0.0, rewrites: 0.0, fullness: 2.0 })
}

fn leveled_levels(tree: &Tree, shape: &Shape) -> Vec<LevelDebt> {
    let targets = leveled::targets(tree, shape);
    let level = |level: usize| {
        let bytes = bytes_of(tree, level);
        let below = if level == 0 { targets.base } else { level.saturating_add(1) };
        let runs = level_runs(tree, level).len() as f64;
        let trigger = shape.trigger() as f64;
        let target = targets.bytes.get(level).copied().unwrap_or(0).max(1) as f64;
        let (excess, fullness) = match level {
            0 => (bytes * (runs - trigger + 1.0).max(0.0) / runs.max(1.0), runs / trigger),
            _ if runs > 1.0 => (bytes, 2.0),
            _ => ((bytes - target).max(0.0), bytes / target),
        };
        LevelDebt {
            excess,
            passes_on: if excess > 0.0 { 1.0 } else { 0.0 },
            rewrites: (bytes_of(tree, below) / bytes.max(1.0)).min(shape.ratio() as f64),
            fullness,
        }
    };
    (0..tree.levels.len().saturating_sub(1)).map(level).collect()
}

/// In level 0 every run counts.
fn runs_over_one_key(tree: &Tree, level: usize) -> usize {
    let runs = level_runs(tree, level);
    if level == 0 { runs.len() } else { depth(runs.iter().flat_map(|run| &run.tables)) }
}

fn bytes_of(tree: &Tree, level: usize) -> f64 {
    tree.levels.get(level).map_or(0, |level| level.bytes()) as f64
}
