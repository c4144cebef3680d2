//! Lazy leveling: tiered levels above, one run in the last level (Dayan and Idreos, "Dostoevsky", SIGMOD 2018).
//!
//! The last level is the deepest one that holds data. Level 0 starts a compaction at `l0_runs` runs, a level above the
//! last at `size_ratio` runs **over one key** (runs side by side cost a reader little), or when it holds more bytes
//! than its capacity. It is pushed down window by window: into the next level as one more run, or, above the last
//! level, merged with the tables of its run. When the last level outgrows its capacity, its run moves one level
//! deeper as it is, and what was the last level fills up with runs.
//!
//! Many small runs (a keyspace flushed by hand, a tiny write buffer) would be merged into a large last level at a
//! price of hundreds of bytes per byte: while the level is below its capacity and the price is above what the size
//! ratio allows, runs of similar size are merged inside the level instead.
//!
//! Write amplification is about 1 per tiered level and 0.6 times the size ratio in the last; space amplification about
//! 1 + 1/ratio.

use super::{
    WINDOWS_MAX, cheapest, deepest, idle_groups, last_level, level_runs, merge, merge_group, place, runs_of,
    similar, trivial_move, unite,
};
use crate::compaction::check::check_task;
use crate::compaction::running::{Busy, Running, idle_bytes};
use crate::compaction::task::{Epoch, Kind, Shape, Task, level_number, total_bytes};
use crate::compaction::window::{Push, Window, depth, input};
use crate::manifest::{Run, Tree};
use std::sync::Arc;

/// Runs of a tiered level, in multiples of the size ratio, that start a compaction though few of them overlap:
/// each of them costs a reader a comparison.
const RUNS_PER_DEPTH: usize = 3;

/// A push into a tiered level rewrites nothing there and may read so many times `max_compaction_bytes`: cut into
/// fewer pieces, runs stay whole.
const STACKED_LIMIT: u64 = 2;

/// A window continues a run of a tiered level if it rewrites at most this part of its own bytes for it: one in.
const EDGE_SHARE: u64 = 4;

/// See [`super::pick`].
pub(super) fn pick(tree: &Tree, shape: &Shape, running: &Running) -> Option<Task> {
    let last = last_level(tree);
    let outgrown = is_outgrown(tree, shape, last);
    if outgrown && let Some(task) = deepen(tree, running, last) {
        return Some(task);
    }
    let busy = Busy::of(running);
    let mut levels: Vec<(f64, usize)> =
        (0..last).map(|level| (score(tree, shape, &busy, level), level)).collect();
    levels.retain(|(score, _)| *score >= 1.0);
    // A last level of several runs is left by another style: pushing into it waits.
    if level_runs(tree, last).len() > 1 {
        levels.push((f64::INFINITY, last));
    }
    levels.sort_by(|a, b| b.0.total_cmp(&a.0));
    levels.iter().find_map(|(_, level)| match *level {
        level if level == last => unite(tree, shape, running, last),
        level => push(tree, shape, running, level, outgrown).or_else(|| relieve(tree, shape, running, level)),
    })
}

/// How full a level above the last is; from 1.0 on it is pushed down. Tables being compacted do not count.
fn score(tree: &Tree, shape: &Shape, busy: &Busy, level: usize) -> f64 {
    let idle = |run: &&Arc<Run>| run.tables.iter().any(|table| !busy.has(table.number));
    let runs = level_runs(tree, level).iter().filter(idle).count();
    if level == 0 {
        return runs as f64 / shape.trigger() as f64;
    }
    let ratio = shape.ratio() as f64;
    let tables = level_runs(tree, level).iter().flat_map(|run| &run.tables);
    let deep = match runs {
        0 | 1 => runs,
        _ => depth(tables.filter(|table| !busy.has(table.number))),
    };
    let by_bytes = idle_bytes(tree, busy, level) as f64 / shape.capacity(level) as f64;
    let by_runs = runs as f64 / (ratio * RUNS_PER_DEPTH as f64);
    by_bytes.max(by_runs).max(deep as f64 / ratio)
}

fn is_outgrown(tree: &Tree, shape: &Shape, last: usize) -> bool {
    let runs = level_runs(tree, last);
    let bytes = runs.first().map_or(0, |run| run.bytes());
    last.saturating_add(1) < tree.levels.len() && runs.len() == 1 && bytes > shape.capacity(last)
}

/// Moves the run of the last level one level down, unless a compaction reads it or writes to it.
fn deepen(tree: &Tree, running: &Running, last: usize) -> Option<Task> {
    let [run] = level_runs(tree, last) else { return None };
    if running.outputs(last).next().is_some() || run.tables.iter().any(|table| running.is_busy(table.number))
    {
        return None;
    }
    Some(Task {
        inputs: vec![input(last, run, &run.tables)],
        output_level: level_number(last.saturating_add(1)),
        output_epoch: Epoch::New,
        kind: Kind::Move,
        reason: "the last level has outgrown its capacity",
    })
}

/// The level that a level is pushed into: the next one, leaving out empty levels that the last level is too small to
/// need.
fn below(tree: &Tree, shape: &Shape, level: usize, last: usize) -> usize {
    let bytes = tree.levels.get(last).map_or(0, |level| level.bytes());
    let needed = (1..last).find(|level| shape.capacity(*level) >= bytes).unwrap_or(last);
    let mut between = level.saturating_add(1)..last;
    between.find(|level| *level < needed || !level_runs(tree, *level).is_empty()).unwrap_or(last)
}

fn push(tree: &Tree, shape: &Shape, running: &Running, level: usize, outgrown: bool) -> Option<Task> {
    let last = last_level(tree);
    let to = below(tree, shape, level, last);
    let target = match level_runs(tree, to) {
        _ if to < last => None,
        [] => None,
        [run] if !outgrown => Some((last, run)),
        // It gets deeper, or united, first.
        _ => return None,
    };
    let window = best_window(tree, shape, running, (level, to), target)?;
    let reason = if level == 0 { "runs in level 0" } else { "the level is full" };
    let levels = to..last.saturating_add(1);
    if let Some(task) = trivial_move(tree, running, &window, levels, reason) {
        return Some(task);
    }
    let Some((_, run)) = target else { return Some(stack(tree, running, window, to, reason)) };
    let dear = is_too_dear(tree, shape, level, &window);
    let inside = if dear { merge_inside(tree, shape, running, level, 2) } else { None };
    inside.or_else(|| Some(merge(window, to, Epoch::Existing(run.epoch), reason)))
}

/// Part of a level to push, where as many runs overlap as the level may have, if possible.
fn best_window<'a>(
    tree: &'a Tree,
    shape: &Shape,
    running: &'a Running,
    (level, to): (usize, usize),
    target: Option<(usize, &'a Arc<Run>)>,
) -> Option<Window<'a>> {
    let limit = match target {
        Some(_) => shape.max_compaction_bytes,
        None => shape.max_compaction_bytes.saturating_mul(STACKED_LIMIT),
    };
    let windows = |depth_min: usize| {
        Push::new(runs_of(tree, level), target, to, running).where_deep(depth_min).windows(limit, WINDOWS_MAX)
    };
    let choose =
        |windows: Vec<Window<'a>>| if target.is_some() { cheapest(&windows) } else { deepest(&windows) };
    let all = windows(1);
    if level == 0 || all.len() == 1 {
        return choose(all);
    }
    let busy = Busy::of(running);
    let tables = level_runs(tree, level).iter().flat_map(|run| &run.tables);
    let most = depth(tables.filter(|table| !busy.has(table.number)));
    choose(windows(most.min(shape.ratio() as usize).div_ceil(2))).or_else(|| choose(all))
}

/// Merges a window into a tiered level: as one more run, or, if it only touches the newest run there at its edge, as
/// the continuation of that run.
fn stack(tree: &Tree, running: &Running, window: Window<'_>, to: usize, reason: &'static str) -> Task {
    if let Some(newest) = level_runs(tree, to).first() {
        let edge = window.hull.in_run(newest);
        let is_small = total_bytes(edge).saturating_mul(EDGE_SHARE) <= window.source_bytes;
        let mut longer = merge(window.clone(), to, Epoch::Existing(newest.epoch), reason);
        if !edge.is_empty() && is_small {
            longer.inputs.push(input(to, newest, edge));
        }
        if is_small && check_task(tree, running, &longer).is_ok() {
            return longer;
        }
    }
    let epoch = place(tree, to, window.hull);
    merge(window, to, epoch, reason)
}

/// Whether the window rewrites more of the last level than a full level would, while the level is not full.
fn is_too_dear(tree: &Tree, shape: &Shape, level: usize, window: &Window<'_>) -> bool {
    let bytes = tree.levels.get(level).map_or(0, |level| level.bytes());
    let fair = window.source_bytes.saturating_mul(shape.ratio()).saturating_mul(3) / 2;
    bytes < shape.capacity(level) && window.target_bytes > fair
}

/// Level 0 is piling up and cannot be pushed down now: merging its newest runs keeps reads cheap meanwhile.
fn relieve(tree: &Tree, shape: &Shape, running: &Running, level: usize) -> Option<Task> {
    if level > 0 || running.tasks().is_empty() {
        return None;
    }
    merge_inside(tree, shape, running, 0, shape.trigger())
}

/// Merges at least `width` neighbouring runs of a level into one of the same level.
fn merge_inside(tree: &Tree, shape: &Shape, running: &Running, level: usize, width: usize) -> Option<Task> {
    idle_groups(&runs_of(tree, level), running).iter().find_map(|group| {
        let group = similar(group, width, shape.max_compaction_bytes)?;
        merge_group(group, "small runs of one level")
    })
}
