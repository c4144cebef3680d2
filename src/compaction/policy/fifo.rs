//! FIFO: nothing is merged for order, the oldest tables are dropped when there are more than `fifo_bytes_max` bytes.
//!
//! For data that loses its worth with age. Tables leave by run, oldest run first, and inside a run by their newest
//! entry. So that reads do not drown in runs and dropping stays fine, small neighbouring runs of level 0 are merged up
//! to the size of one table.

use super::{idle_groups, merge_group, runs_of, similar};
use crate::compaction::running::{Busy, Running};
use crate::compaction::task::{Epoch, Kind, Shape, Task};
use crate::compaction::window::input;
use crate::manifest::{TableMeta, Tree};
use std::sync::Arc;

/// See [`super::pick`].
pub(super) fn pick(tree: &Tree, shape: &Shape, running: &Running) -> Option<Task> {
    expire(tree, shape, running).or_else(|| gather(tree, shape, running))
}

/// Drops tables of the oldest run until the rest fits. Further runs have their turn at the next pick.
fn expire(tree: &Tree, shape: &Shape, running: &Running) -> Option<Task> {
    if shape.fifo_bytes_max == 0 {
        return None;
    }
    let dropping = running.tasks().iter().filter(|task| task.kind == Kind::Drop);
    let going = dropping.fold(0u64, |sum, task| sum.saturating_add(task.bytes()));
    let mut excess = tree.bytes().saturating_sub(going).saturating_sub(shape.fifo_bytes_max);
    let busy = Busy::of(running);
    let idle = |table: &&Arc<TableMeta>| !busy.has(table.number);
    // Runs that are being dropped whole are passed over; one that is being merged is waited for.
    let dropped = |number| {
        running
            .tasks()
            .iter()
            .any(|task| task.kind == Kind::Drop && task.tables().any(|t| t.number == number))
    };
    let runs: Vec<_> = tree.runs().collect();
    let (level, run) =
        runs.iter().rev().find(|(_, run)| !run.tables.iter().all(|table| dropped(table.number)))?;
    if run.tables.iter().any(|table| busy.has(table.number) && !dropped(table.number)) {
        return None;
    }
    let mut tables: Vec<&Arc<TableMeta>> = run.tables.iter().filter(idle).collect();
    tables.sort_by_key(|table| table.seq_max);
    tables.retain(|table| {
        let goes = excess > 0;
        excess = excess.saturating_sub(table.bytes);
        goes
    });
    tables.sort_by(|a, b| a.smallest.cmp(&b.smallest));
    let task = Task {
        inputs: vec![input(*level, run, tables)],
        output_level: super::level_number(*level),
        output_epoch: Epoch::Existing(run.epoch),
        kind: Kind::Drop,
        reason: "the oldest tables are over the size limit",
    };
    (task.tables().count() > 0).then_some(task)
}

/// Merges small runs of level 0.
fn gather(tree: &Tree, shape: &Shape, running: &Running) -> Option<Task> {
    idle_groups(&runs_of(tree, 0), running).iter().find_map(|group| {
        merge_group(similar(group, shape.trigger(), shape.target_table_bytes)?, "small runs")
    })
}
