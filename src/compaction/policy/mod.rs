//! Policies: which compaction a tree needs next. Pure functions of plain metadata.
//!
//! A policy scores what is out of shape, tries the worst first, and answers the first task that is possible beside the
//! compactions under way. It answers `None` when the tree is in shape or when everything left to do has to wait for
//! one of them. Applied over and over, every policy comes to rest: each task moves entries down, or leaves fewer runs.

mod debt;
mod fifo;
mod lazy;
mod leveled;
mod manual;
mod reclaim;
mod tiered;

pub(crate) use debt::debt;
pub(crate) use manual::{Goal, Manual, manual};
pub(crate) use reclaim::{Reclaim, reclaim};

use super::check::check_task;
use super::running::{Busy, Running};
use super::task::{Age, Epoch, Input, Kind, Shape, Span, Style, Task, level_number};
use super::window::{Push, Window, depth, input};
use crate::manifest::{Run, TableMeta, Tree};
use std::ops::Range;
use std::sync::Arc;

/// The compaction that the tree needs most, among those possible beside the running ones.
pub(crate) fn pick(tree: &Tree, shape: &Shape, running: &Running) -> Option<Task> {
    match shape.style {
        Style::LazyLeveling => lazy::pick(tree, shape, running),
        Style::Leveled => leveled::pick(tree, shape, running),
        Style::Tiered => tiered::pick(tree, shape, running),
        Style::Fifo => fifo::pick(tree, shape, running),
    }
}

/// Windows of many tables that are compared before one is chosen: enough for a choice, few enough that a pick in a tree
/// of a terabyte takes some ten milliseconds.
const WINDOWS_MAX: usize = 16;

/// Runs of a level with their level, newest first.
fn runs_of(tree: &Tree, level: usize) -> Vec<(usize, &Arc<Run>)> {
    level_runs(tree, level).iter().map(|run| (level, run)).collect()
}

/// Runs of a level, newest first.
fn level_runs(tree: &Tree, level: usize) -> &[Arc<Run>] {
    tree.levels.get(level).map_or(&[], |level| &level.runs)
}

/// The deepest level below level 0 that has tables; level 1 when there is none.
fn last_level(tree: &Tree) -> usize {
    tree.levels.iter().rposition(|level| !level.runs.is_empty()).unwrap_or(0).max(1)
}

/// Where a new arrival with this hull goes in a level: into the oldest run that it does not overlap and that no run
/// newer than it overlaps, else into a new run.
fn place(tree: &Tree, level: usize, hull: Span<'_>) -> Epoch {
    place_among(level_runs(tree, level), hull)
}

fn place_among(runs: &[Arc<Run>], hull: Span<'_>) -> Epoch {
    let free = runs.iter().take_while(|run| hull.in_run(run).is_empty());
    free.last().map_or(Epoch::New, |run| Epoch::Existing(run.epoch))
}

/// The first of the windows that cost least per byte.
fn cheapest<'a>(windows: &[Window<'a>]) -> Option<Window<'a>> {
    windows.iter().reduce(|best, next| if next.is_cheaper_than(best) { next } else { best }).cloned()
}

/// The first of the windows where most runs overlap.
fn deepest<'a>(windows: &[Window<'a>]) -> Option<Window<'a>> {
    windows.iter().reduce(|best, next| if next.depth > best.depth { next } else { best }).cloned()
}

/// A merge of the window.
fn merge(window: Window<'_>, level: usize, epoch: Epoch, reason: &'static str) -> Task {
    Task {
        inputs: window.inputs,
        output_level: level_number(level),
        output_epoch: epoch,
        kind: Kind::Merge,
        reason,
    }
}

/// Moves the oldest run of the window as it is, as deep as `levels` reach, if nothing in the window overlaps.
/// What holds deletes is not moved to the last level: writing it again gets rid of them.
fn trivial_move(
    tree: &Tree,
    running: &Running,
    window: &Window<'_>,
    levels: Range<usize>,
    reason: &'static str,
) -> Option<Task> {
    if window.target_bytes > 0 || window.depth > 1 {
        return None;
    }
    let source = window.inputs.last()?;
    let hull = Span::over(&source.tables)?;
    let last = last_level(tree);
    let has_deletes = source.tables.iter().any(|table| table.deletes > 0);
    let moved = |level: usize| {
        let runs = level_runs(tree, level);
        // Of its own level, only what is older.
        let newer = runs.partition_point(|run| Age::new(level, run.epoch) <= source.age());
        let output_epoch = place_among(runs.get(newer..).unwrap_or_default(), hull);
        Task {
            inputs: vec![source.clone()],
            output_level: level_number(level),
            output_epoch,
            kind: Kind::Move,
            reason,
        }
    };
    levels
        .rev()
        .filter(|level| *level < last || !has_deletes)
        .map(moved)
        .find(|task| check_task(tree, running, task).is_ok())
}

/// Merges the runs of a level that should have one.
fn unite(tree: &Tree, shape: &Shape, running: &Running, level: usize) -> Option<Task> {
    let mut sources = runs_of(tree, level);
    let target = sources.pop().filter(|_| !sources.is_empty())?;
    let epoch = Epoch::Existing(target.1.epoch);
    let windows =
        Push::new(sources, Some(target), level, running).windows(shape.max_compaction_bytes, WINDOWS_MAX);
    let window = cheapest(&windows)?;
    let reason = "one run in this level";
    trivial_move(tree, running, &window, level..level.saturating_add(1), reason)
        .or_else(|| Some(merge(window, level, epoch, reason)))
}

/// A run of a level whose tables are all free, and which no compaction writes to.
fn is_idle(running: &Running, busy: &Busy, level: usize, run: &Run) -> bool {
    !running.writes_to(level, run.epoch) && !run.tables.iter().any(|table| busy.has(table.number))
}

/// Neighbours in the order of age, newest first, that no compaction touches: the groups that may be merged whole.
fn idle_groups<'a>(runs: &[(usize, &'a Arc<Run>)], running: &Running) -> Vec<Vec<(usize, &'a Arc<Run>)>> {
    let busy = Busy::of(running);
    runs.chunk_by(|a, b| is_idle(running, &busy, a.0, a.1) && is_idle(running, &busy, b.0, b.1))
        .filter(|group| group.first().is_some_and(|run| is_idle(running, &busy, run.0, run.1)))
        .map(<[_]>::to_vec)
        .collect()
}

/// The first group of at least `width` neighbours in which no run is larger than all newer ones of the group
/// together, of at most `limit` bytes.
fn similar<'a, 'b>(
    runs: &'b [(usize, &'a Arc<Run>)],
    width: usize,
    limit: u64,
) -> Option<&'b [(usize, &'a Arc<Run>)]> {
    let width = width.max(2);
    (0..runs.len()).find_map(|start| {
        let group = runs.get(start..)?;
        let mut total = group.first()?.1.bytes();
        let grows = |(_, run): &&(usize, &'a Arc<Run>)| {
            let bytes = run.bytes();
            let fits = bytes <= total && total.saturating_add(bytes) <= limit;
            total = total.saturating_add(bytes);
            fits
        };
        let count = group.iter().skip(1).take_while(grows).count().saturating_add(1);
        group.get(..count).filter(|group| group.len() >= width)
    })
}

/// Merges whole neighbouring runs into the place of the oldest. If they do not overlap, the oldest but one is moved into
/// the oldest instead.
fn merge_group(group: &[(usize, &Arc<Run>)], reason: &'static str) -> Option<Task> {
    let (level, oldest) = *group.last()?;
    let (next_level, next) = *group.get(group.len().checked_sub(2)?)?;
    let moves = is_flat(group) && Span::over(&next.tables)?.in_run(oldest).is_empty();
    let (kind, inputs) = if moves {
        (Kind::Move, vec![input(next_level, next, &next.tables)])
    } else {
        (Kind::Merge, whole_runs(group))
    };
    let output_epoch = Epoch::Existing(oldest.epoch);
    Some(Task { inputs, output_level: level_number(level), output_epoch, kind, reason })
}

/// Rewrites neighbouring tables of a run in their place: the first that are due, of bounded bytes together.
fn rewrite_in_place(
    shape: &Shape,
    level: usize,
    run: &Run,
    is_due: &dyn Fn(&TableMeta) -> bool,
    reason: &'static str,
) -> Option<Task> {
    let mut bytes = 0u64;
    let fits = |table: &&Arc<TableMeta>| {
        let first = bytes == 0;
        bytes = bytes.saturating_add(table.bytes);
        first || bytes <= shape.max_compaction_bytes
    };
    let due = run.tables.iter().skip_while(|table| !is_due(table)).take_while(|table| is_due(table));
    let input = input(level, run, due.take_while(fits));
    (!input.tables.is_empty()).then(|| Task {
        inputs: vec![input],
        output_level: level_number(level),
        output_epoch: Epoch::Existing(run.epoch),
        kind: Kind::Merge,
        reason,
    })
}

/// Whether no two tables share a key.
fn is_flat(group: &[(usize, &Arc<Run>)]) -> bool {
    depth(group.iter().flat_map(|(_, run)| &run.tables)) <= 1
}

fn whole_runs(group: &[(usize, &Arc<Run>)]) -> Vec<Input> {
    group.iter().map(|(level, run)| input(*level, run, &run.tables)).collect()
}
