//! Leveled: one run per level, each level `size_ratio` times the one above.
//!
//! Level sizes follow from the largest level, as RocksDB's `level_compaction_dynamic_level_bytes` does: the last level
//! is always level 6, each level above is to be smaller by the ratio, and the first level that would be no larger than
//! `level_base_bytes` is the *base* that level 0 is merged into. So at least nine tenths (at ratio 10) of the data are
//! in the last level whatever the size of the tree.
//!
//! From a level that is over its size goes the table that overlaps the next level least for its size, deletes counted
//! double, together with its neighbours that fit under the same tables of the next level.

use super::{
    WINDOWS_MAX, cheapest, idle_groups, level_runs, merge, merge_group, runs_of, similar, trivial_move, unite,
};
use crate::compaction::running::{Busy, Running, idle_bytes};
use crate::compaction::task::{Epoch, Shape, Task};
use crate::compaction::window::Push;
use crate::manifest::Tree;

/// Tables of a level that are compared before one is chosen.
const TABLES_MAX: usize = 1024;

/// Sizes that levels should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Targets {
    /// The level that level 0 is merged into.
    pub(super) base: usize,
    /// Bytes per level; 0 above the base.
    pub(super) bytes: Vec<u64>,
}

/// Sizes of levels for this tree.
pub(super) fn targets(tree: &Tree, shape: &Shape) -> Targets {
    let last = tree.levels.len().saturating_sub(1);
    let bytes_of = |level: usize| tree.levels.get(level).map_or(0, |level| level.bytes());
    let first_used = (1..last).find(|level| bytes_of(*level) > 0).unwrap_or(last);
    let most = (1..=last).map(bytes_of).max().unwrap_or(0);
    let share = |level: usize| {
        let steps = u32::try_from(last.saturating_sub(level)).unwrap_or(u32::MAX);
        most.checked_div(shape.ratio().saturating_pow(steps)).unwrap_or(0)
    };
    let base_max = shape.level_base_bytes.max(1);
    let base_min = base_max.checked_div(shape.ratio()).unwrap_or(0).max(1);
    let base = (1..=first_used).rev().find(|level| *level == 1 || share(*level) <= base_max).unwrap_or(1);
    let base_bytes = share(base).clamp(base_min, base_max);
    let target = |level: usize| match level.checked_sub(base) {
        None => 0,
        Some(steps) => {
            let growth = shape.ratio().saturating_pow(u32::try_from(steps).unwrap_or(u32::MAX));
            base_bytes.saturating_mul(growth)
        }
    };
    Targets { base, bytes: (0..=last).map(target).collect() }
}

/// See [`super::pick`].
pub(super) fn pick(tree: &Tree, shape: &Shape, running: &Running) -> Option<Task> {
    let targets = targets(tree, shape);
    let busy = Busy::of(running);
    let last = tree.levels.len().saturating_sub(1);
    let mut levels: Vec<(f64, usize)> =
        (0..=last).map(|level| (score(tree, shape, &targets, &busy, level), level)).collect();
    levels.retain(|(score, _)| *score >= 1.0);
    levels.sort_by(|a, b| b.0.total_cmp(&a.0));
    levels.iter().find_map(|(_, level)| match *level {
        0 => push_level0(tree, shape, running, targets.base).or_else(|| relieve(tree, shape, running)),
        level if level_runs(tree, level).len() > 1 => unite(tree, shape, running, level),
        level => push_table(tree, running, level),
    })
}

/// How far a level is over its size; from 1.0 on something goes down.
fn score(tree: &Tree, shape: &Shape, targets: &Targets, busy: &Busy, level: usize) -> f64 {
    let runs = level_runs(tree, level);
    if level == 0 {
        let idle = runs.iter().filter(|run| run.tables.iter().any(|table| !busy.has(table.number)));
        return idle.count() as f64 / shape.trigger() as f64;
    }
    if runs.len() > 1 {
        return f64::INFINITY;
    }
    if level.saturating_add(1) >= tree.levels.len() {
        return 0.0;
    }
    let target = targets.bytes.get(level).copied().unwrap_or(0).max(1);
    let bytes = idle_bytes(tree, busy, level);
    // Exactly the wanted size is in shape.
    if bytes > target { bytes as f64 / target as f64 } else { 0.0 }
}

fn push_level0(tree: &Tree, shape: &Shape, running: &Running, base: usize) -> Option<Task> {
    let target = match level_runs(tree, base) {
        [] => None,
        [run] => Some((base, run)),
        _ => return None,
    };
    let windows =
        Push::new(runs_of(tree, 0), target, base, running).windows(shape.max_compaction_bytes, WINDOWS_MAX);
    let window = cheapest(&windows)?;
    let reason = "runs in level 0";
    trivial_move(tree, running, &window, base..tree.levels.len(), reason).or_else(|| {
        let epoch = target.map_or(Epoch::New, |(_, run)| Epoch::Existing(run.epoch));
        Some(merge(window, base, epoch, reason))
    })
}

fn push_table(tree: &Tree, running: &Running, level: usize) -> Option<Task> {
    let to = level.saturating_add(1);
    let target = match level_runs(tree, to) {
        [] => None,
        [run] => Some((to, run)),
        _ => return None,
    };
    let window = cheapest(&Push::new(runs_of(tree, level), target, to, running).windows(0, TABLES_MAX))?;
    let reason = "the level is over its size";
    trivial_move(tree, running, &window, to..tree.levels.len(), reason).or_else(|| {
        let epoch = target.map_or(Epoch::New, |(_, run)| Epoch::Existing(run.epoch));
        Some(merge(window, to, epoch, reason))
    })
}

/// Level 0 is piling up and the base is busy: merging its newest runs keeps reads cheap meanwhile.
fn relieve(tree: &Tree, shape: &Shape, running: &Running) -> Option<Task> {
    if running.tasks().is_empty() {
        return None;
    }
    idle_groups(&runs_of(tree, 0), running).iter().find_map(|group| {
        merge_group(similar(group, shape.trigger(), shape.max_compaction_bytes)?, "small runs of level 0")
    })
}
