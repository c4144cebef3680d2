//! The compactions under way: what a policy must know of them so that several can run at once.
//!
//! Plain data, kept by the engine under its own lock.

use super::task::{Epoch, Span, Task, total_bytes};
use crate::base::types::FileNo;
use crate::manifest::Tree;
use std::collections::HashSet;
use std::sync::Arc;

/// Compactions under way in one tree: what they read is not to be touched, where they write is not to be written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running {
    tasks: Vec<Arc<Task>>,
}

impl Running {
    /// A compaction begins.
    pub(crate) fn add(&mut self, task: Arc<Task>) {
        self.tasks.push(task);
    }

    /// A compaction was installed, or given up.
    pub(crate) fn remove(&mut self, task: &Arc<Task>) {
        self.tasks.retain(|running| !Arc::ptr_eq(running, task));
    }

    /// The compactions under way.
    pub(crate) fn tasks(&self) -> &[Arc<Task>] {
        &self.tasks
    }

    /// Whether a compaction reads this table.
    pub(crate) fn is_busy(&self, number: FileNo) -> bool {
        self.tasks.iter().any(|task| task.tables().any(|table| table.number == number))
    }

    /// Key ranges into which compactions write at this level.
    pub(super) fn outputs(&self, level: usize) -> impl Iterator<Item = Span<'_>> {
        self.tasks
            .iter()
            .filter(move |task| usize::from(task.output_level) == level)
            .filter_map(|task| task.hull())
    }

    /// Whether a compaction writes into this run.
    pub(super) fn writes_to(&self, level: usize, epoch: u64) -> bool {
        self.tasks.iter().any(|task| {
            usize::from(task.output_level) == level && task.output_epoch == Epoch::Existing(epoch)
        })
    }
}

/// Bytes of a level's tables that no compaction reads.
pub(super) fn idle_bytes(tree: &Tree, busy: &Busy, level: usize) -> u64 {
    let runs = tree.levels.get(level).map_or(&[][..], |level| &level.runs);
    let idle = runs.iter().flat_map(|run| &run.tables).filter(|table| !busy.has(table.number));
    total_bytes(idle)
}

/// A set of tables, for looking up many: those that compactions read.
#[derive(Debug, Default)]
pub(super) struct Busy {
    numbers: HashSet<FileNo>,
}

impl Busy {
    pub(super) fn of(running: &Running) -> Busy {
        Busy::numbers(running.tasks.iter().flat_map(|task| task.tables().map(|table| table.number)))
    }

    pub(super) fn numbers(numbers: impl IntoIterator<Item = FileNo>) -> Busy {
        Busy { numbers: numbers.into_iter().collect() }
    }

    pub(super) fn has(&self, number: FileNo) -> bool {
        !self.numbers.is_empty() && self.numbers.contains(&number)
    }
}
