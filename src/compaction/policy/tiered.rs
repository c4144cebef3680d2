//! Tiered: neighbouring runs of similar size are merged whole (RocksDB's universal style).
//!
//! Level 0 holds what was flushed, level 1 the merged runs; runs that another style left deeper count as the oldest.
//! In this order:
//!
//! 1. when everything but the oldest run has grown to twice the oldest run, all is merged into one (space);
//! 2. when level 0 has `l0_runs` runs, the newest group of neighbours in which none is larger than the newer ones
//!    together is merged, or else all of level 0;
//! 3. when there are more than `size_ratio` runs, the newest group of similar runs is merged, or else the cheapest
//!    neighbours that bring the number back.
//!
//! Write amplification is about one per doubling up to a few levels; space amplification is up to 3, and a merge of
//! everything needs as much space again while it runs.

use super::{idle_groups, is_flat, level_runs, merge_group, place, similar, whole_runs};
use crate::compaction::running::Running;
use crate::compaction::task::{Kind, Shape, Span, Task};
use crate::compaction::window::input;
use crate::manifest::{Run, Tree};
use std::sync::Arc;

/// Bytes of all newer runs, in multiples of the oldest one, at which everything is merged.
const GARBAGE_MAX: u64 = 2;

type Runs<'a> = [(usize, &'a Arc<Run>)];

/// See [`super::pick`].
pub(super) fn pick(tree: &Tree, shape: &Shape, running: &Running) -> Option<Task> {
    let runs: Vec<(usize, &Arc<Run>)> = tree.runs().collect();
    let groups = idle_groups(&runs, running);
    let flushed = level_runs(tree, 0).len();
    let full = flushed >= shape.trigger();
    let crowded = runs.len() as u64 > shape.ratio();
    let whole = groups.iter().find(|group| group.len() == runs.len());
    if (full || crowded)
        && let Some(group) = whole.filter(|group| group.len() > 1 && is_mostly_garbage(group))
    {
        return settle(tree, group, "space");
    }
    let newest = groups.first().map(Vec::as_slice).unwrap_or_default();
    if full && let Some(group) = similar(newest, 2, u64::MAX).or_else(|| level0(newest)) {
        return settle(tree, group, "runs in level 0");
    }
    if crowded {
        let width = runs.len().saturating_sub(shape.ratio() as usize).saturating_add(1);
        let alike = groups.iter().find_map(|group| similar(group, 2, u64::MAX));
        let group =
            alike.or_else(|| groups.iter().find_map(|group| lightest(group, width.min(group.len()))))?;
        return settle(tree, group, "number of runs");
    }
    None
}

fn is_mostly_garbage(group: &Runs<'_>) -> bool {
    let Some(((_, oldest), newer)) = group.split_last() else { return false };
    let newer = newer.iter().fold(0u64, |sum, (_, run)| sum.saturating_add(run.bytes()));
    newer >= oldest.bytes().saturating_mul(GARBAGE_MAX)
}

/// The runs of level 0, if they are all in the group.
fn level0<'a, 'b>(group: &'b Runs<'a>) -> Option<&'b Runs<'a>> {
    let count = group.iter().take_while(|(level, _)| *level == 0).count();
    group.get(..count).filter(|group| !group.is_empty())
}

/// The `width` neighbours with the fewest bytes.
fn lightest<'a, 'b>(group: &'b Runs<'a>, width: usize) -> Option<&'b Runs<'a>> {
    if width < 2 {
        return None;
    }
    let bytes = |runs: &&Runs<'_>| runs.iter().fold(0u64, |sum, (_, run)| sum.saturating_add(run.bytes()));
    group.windows(width).min_by_key(bytes)
}

/// Merges a group into its place: what reaches the end of level 0 goes to level 1.
fn settle(tree: &Tree, group: &Runs<'_>, reason: &'static str) -> Option<Task> {
    let (level, oldest) = *group.last()?;
    let ends_level0 = level == 0 && level_runs(tree, 0).last().is_some_and(|run| run.epoch == oldest.epoch);
    if !ends_level0 {
        return merge_group(group, reason);
    }
    let (kind, inputs) = match is_flat(group) {
        true => (Kind::Move, vec![input(level, oldest, &oldest.tables)]),
        false => (Kind::Merge, whole_runs(group)),
    };
    let hull = Span::over(inputs.iter().flat_map(|input| &input.tables))?;
    Some(Task { output_epoch: place(tree, 1, hull), output_level: 1, inputs, kind, reason })
}
