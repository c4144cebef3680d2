//! FIFO: nothing is merged for order, the oldest tables are dropped when there are more than `fifo_bytes_max` bytes.
//!
//! For data that loses its worth with age. Tables leave by run, oldest run first, and inside a run by their newest
//! entry. So that reads do not drown in runs and dropping stays fine, small neighbouring runs of level 0 are merged up
//! to the size of one table.

use super::{idle_groups, is_idle, merge_group, runs_of, similar};
use crate::compaction::running::{Busy, Running};
use crate::compaction::task::{Epoch, Kind, Shape, Task, level_number};
use crate::compaction::window::input;
use crate::manifest::{TableMeta, Tree};
use std::sync::Arc;

/// See [`super::pick`].
pub(super) fn pick(tree: &Tree, shape: &Shape, running: &Running) -> Option<Task> {
    expire(tree, shape, running).or_else(|| gather(tree, shape, running))
}

/// Drops tables of the oldest run until the rest fits. One drop at a time, and never while a table of the run is
/// busy: dropping what is newer first would bring back old values.
fn expire(tree: &Tree, shape: &Shape, running: &Running) -> Option<Task> {
    let mut excess = tree.bytes().saturating_sub(shape.fifo_bytes_max);
    let (level, run) = tree.runs().last()?;
    if shape.fifo_bytes_max == 0 || excess == 0 || !is_idle(running, &Busy::of(running), level, run) {
        return None;
    }
    let mut tables: Vec<&Arc<TableMeta>> = run.tables.iter().collect();
    tables.sort_by_key(|table| table.seq_max);
    tables.retain(|table| {
        let goes = excess > 0;
        excess = excess.saturating_sub(table.bytes);
        goes
    });
    tables.sort_by(|a, b| a.smallest.cmp(&b.smallest));
    Some(Task {
        inputs: vec![input(level, run, tables)],
        output_level: level_number(level),
        output_epoch: Epoch::Existing(run.epoch),
        kind: Kind::Drop,
        reason: "the oldest tables are over the size limit",
    })
}

/// Merges small runs of level 0.
fn gather(tree: &Tree, shape: &Shape, running: &Running) -> Option<Task> {
    idle_groups(&runs_of(tree, 0), running).iter().find_map(|group| {
        merge_group(similar(group, shape.trigger(), shape.target_table_bytes)?, "small runs")
    })
}
