//! Rewriting tables for what is in them only because of readers of the past that are gone since.
//!
//! A merge keeps what readers need at that moment. When the last of them goes, nothing is out of shape, and without
//! new writes no policy would ever touch those tables again. Here a table is rewritten in its place when a good part of
//! its entries is **garbage**: versions that have a newer one in the same table, and deletes in the oldest run, below
//! which is nothing to hide. It has to lie wholly at or below the oldest reader, so that all of it goes and the same
//! table is not picked again.

use super::{last_level, rewrite_in_place};
use crate::base::types::SeqNo;
use crate::compaction::running::{Busy, Running};
use crate::compaction::task::{Shape, Style, Task};
use crate::manifest::{TableMeta, Tree};

/// A table is worth rewriting when at least one in so many entries is garbage.
const GARBAGE_SHARE: u64 = 4;

const REASON: &str = "readers of older versions are gone";

/// What can be got back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reclaim {
    /// To be run.
    Step(Task),
    /// There are tables worth rewriting, and readers that still need what is in them.
    HeldBack,
    /// Too little to care.
    Nothing,
}

/// The next tables to rewrite, when all readers stand at `oldest` or above. FIFO merges nothing that is large.
pub(crate) fn reclaim(tree: &Tree, shape: &Shape, running: &Running, oldest: SeqNo) -> Reclaim {
    if shape.style == Style::Fifo {
        return Reclaim::Nothing;
    }
    let last = last_level(tree);
    let bottom = tree.levels.get(last).and_then(|level| level.runs.last()).map(|run| run.epoch);
    let busy = Busy::of(running);
    let mut held_back = false;
    for (level, run) in tree.runs() {
        let is_bottom = level == last && Some(run.epoch) == bottom;
        let is_worth = |table: &TableMeta| is_worth_it(table, is_bottom) && !busy.has(table.number);
        if running.writes_to(level, run.epoch) || !run.tables.iter().any(|table| is_worth(table)) {
            continue;
        }
        let is_free = |table: &TableMeta| is_worth(table) && table.seq_max <= oldest;
        match rewrite_in_place(shape, level, run, &is_free, REASON) {
            Some(task) => return Reclaim::Step(task),
            None => held_back = true,
        }
    }
    if held_back { Reclaim::HeldBack } else { Reclaim::Nothing }
}

fn is_worth_it(table: &TableMeta, is_bottom: bool) -> bool {
    let deletes = if is_bottom { table.deletes } else { 0 };
    // A delete may be an older version as well.
    let garbage = table.older_versions.max(deletes);
    garbage > 0 && garbage.saturating_mul(GARBAGE_SHARE) >= table.entries
}
