//! Compaction of a key range by hand: everything in it goes down into one run of the last level.
//!
//! Step by step, each of bounded bytes: the caller runs a step, installs it and asks again, until all that was in the
//! tree when the goal was set is in the last level's run. Then the tables of that run that hold deletes or older
//! versions and were not written since are rewritten, so that nothing stays that nobody needs.

use super::{last_level, merge, rewrite_in_place, trivial_move};
use crate::base::types::{FileNo, SeqNo};
use crate::compaction::running::{Busy, Running};
use crate::compaction::task::{Epoch, Shape, Span, Style, Task};
use crate::compaction::window::Push;
use crate::manifest::{Run, TableMeta, Tree};
use std::sync::Arc;

const REASON: &str = "by hand";

/// What a compaction by hand is to reach. Fixed when it begins: later writes do not move the goal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal<'a> {
    /// First user key; `None` is unbounded.
    pub(crate) lo: Option<&'a [u8]>,
    /// Last user key, inclusive; `None` is unbounded.
    pub(crate) hi: Option<&'a [u8]>,
    /// Newest entry that has to go down.
    pub(crate) seq_max: SeqNo,
    /// Tables from this number on were written by this compaction or after it began.
    pub(crate) files_below: FileNo,
}

/// Where a compaction by hand stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Manual {
    /// To be run next.
    Step(Task),
    /// Nothing can be done until a running compaction ends.
    Wait,
    /// The goal is reached.
    Done,
}

/// The next step towards the goal. FIFO keeps tables apart by age, so there is nothing to do for it.
pub(crate) fn manual(tree: &Tree, shape: &Shape, running: &Running, goal: &Goal<'_>) -> Manual {
    if shape.style == Style::Fifo {
        return Manual::Done;
    }
    let last = last_level(tree);
    let mut sources: Vec<(usize, &Arc<Run>)> = tree.runs().collect();
    let bottom = sources.pop_if(|(level, _)| *level == last);
    let above = sources.iter().any(|(_, run)| run.tables.iter().any(|table| goal.is_above(table)));
    let below = bottom.is_some_and(|(_, run)| run.tables.iter().any(|table| goal.is_stale(table)));
    let step = match (above, bottom) {
        (true, _) => push_down(tree, shape, running, goal, sources, bottom),
        (false, Some((level, run))) if below => rewrite(shape, running, goal, level, run),
        _ => return Manual::Done,
    };
    step.map_or(Manual::Wait, Manual::Step)
}

impl Goal<'_> {
    /// A table above the last run that has to go down.
    fn is_above(&self, table: &TableMeta) -> bool {
        table.overlaps(self.lo, self.hi) && table.seq_min <= self.seq_max
    }

    /// A table of the last run with deletes or older versions that may have become droppable.
    fn is_stale(&self, table: &TableMeta) -> bool {
        let has_garbage = table.deletes > 0 || table.older_versions > 0;
        table.overlaps(self.lo, self.hi) && has_garbage && table.number < self.files_below
    }
}

fn push_down(
    tree: &Tree,
    shape: &Shape,
    running: &Running,
    goal: &Goal<'_>,
    sources: Vec<(usize, &Arc<Run>)>,
    bottom: Option<(usize, &Arc<Run>)>,
) -> Option<Task> {
    let last = last_level(tree);
    let span = closure(goal, &sources)?;
    let push = Push::new(sources, bottom, last, running).within(span);
    let window = push.windows(shape.max_compaction_bytes, 1).pop()?;
    let epoch = bottom.map_or(Epoch::New, |(_, run)| Epoch::Existing(run.epoch));
    trivial_move(tree, running, &window, last..last.saturating_add(1), REASON)
        .or_else(|| Some(merge(window, last, epoch, REASON)))
}

/// The key range of all tables that have to go down, and of the older ones that have to go with them.
fn closure<'a>(goal: &Goal<'_>, sources: &[(usize, &'a Arc<Run>)]) -> Option<Span<'a>> {
    let mut span: Option<Span<'a>> = None;
    for (_, run) in sources {
        for table in &run.tables {
            let own = Span::of(table);
            if goal.is_above(table) || span.is_some_and(|span| span.overlaps(own)) {
                span = Some(span.map_or(own, |span| span.join(own)));
            }
        }
    }
    span
}

/// Rewrites neighbouring tables of the last run that may hold garbage.
fn rewrite(shape: &Shape, running: &Running, goal: &Goal<'_>, level: usize, run: &Run) -> Option<Task> {
    let busy = Busy::of(running);
    let is_due = |table: &TableMeta| goal.is_stale(table) && !busy.has(table.number);
    rewrite_in_place(shape, level, run, &is_due, REASON)
}
