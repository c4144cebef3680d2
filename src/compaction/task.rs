//! What a compaction is, as plain data: the shape that is wanted, the tables that go in, the place they go to.
//!
//! **Age.** The tables of a tree have an order of age: a lower level is newer than a higher one, and inside a level a
//! higher epoch is newer than a lower one. For every user key, what a newer run says of it is newer than what an older
//! run says. Reads and drop rules rest on this order, and every task must preserve it: see
//! [`check_task`](super::check_task).
//!
//! Must not know files, iterators or the engine.

use crate::manifest::{Run, TableMeta};
use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

/// In which shape a tree is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Upper levels of up to `size_ratio` runs, one run in the last level (Dostoevsky, Dayan and Idreos 2018).
    LazyLeveling,
    /// One run per level (O'Neil et al. 1996; level sizes follow from the last level, as in RocksDB).
    Leveled,
    /// Runs of similar size are merged, wherever they are (RocksDB's universal style).
    Tiered,
    /// Tables are dropped by age.
    Fifo,
}

/// The shape that is wanted and the sizes that go with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The policy.
    pub(crate) style: Style,
    /// Growth from one level to the next; for tiered levels also the runs a level may have. At least 2.
    pub(crate) size_ratio: u32,
    /// Runs in level 0 that start a compaction. At least 1.
    pub(crate) l0_runs: u32,
    /// Bytes that level 0 hands down at once when its runs have their normal size: the size of the first level
    /// (leveled), of one run of it (lazy leveling).
    pub(crate) level_base_bytes: u64,
    /// Bytes at which an output table is cut.
    pub(crate) target_table_bytes: u64,
    /// Bytes that one compaction reads at most, where tables are narrow enough to split the work by key range.
    pub(crate) max_compaction_bytes: u64,
    /// Bytes above which FIFO drops the oldest tables; 0 for never.
    pub(crate) fifo_bytes_max: u64,
}

impl Shape {
    /// Growth per level, at least 2.
    pub(super) fn ratio(&self) -> u64 {
        u64::from(self.size_ratio.max(2))
    }

    /// Runs that start a compaction of level 0, at least 1.
    pub(super) fn trigger(&self) -> usize {
        self.l0_runs.max(1) as usize
    }

    /// Bytes that a level holds when it is full: `level_base_bytes * size_ratio ^ level`.
    pub(super) fn capacity(&self, level: usize) -> u64 {
        let growth = self.ratio().saturating_pow(u32::try_from(level).unwrap_or(u32::MAX));
        self.level_base_bytes.max(1).saturating_mul(growth)
    }
}

/// Place of a run in the order of age; the newer one is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age {
    level: usize,
    epoch: Reverse<u64>,
}

impl Age {
    pub(super) fn new(level: usize, epoch: u64) -> Age {
        Age { level, epoch: Reverse(epoch) }
    }

    /// Newer than every run that this level has.
    pub(super) fn newest_of(level: usize) -> Age {
        Age::new(level, u64::MAX)
    }

    /// Older than every run.
    pub(super) const OLDEST: Age = Age { level: usize::MAX, epoch: Reverse(0) };
}

/// Tables of one run that go into a compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    /// Level of the run.
    pub(crate) level: u8,
    /// Epoch of the run.
    pub(crate) epoch: u64,
    /// Ascending; never empty.
    pub(crate) tables: Vec<Arc<TableMeta>>,
}

impl Input {
    pub(super) fn age(&self) -> Age {
        Age::new(usize::from(self.level), self.epoch)
    }
}

/// Which run of the output level takes the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Epoch {
    /// A new one; its epoch is drawn when the outcome is installed.
    New,
    /// The one with this epoch. Another compaction may have emptied it meanwhile: then it comes into being again.
    Existing(u64),
}

/// What is done with the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They are read, merged and written.
    Merge,
    /// They change their place in the tree as they are.
    Move,
    /// They are dropped with all they hold.
    Drop,
}

/// A compaction to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    /// Newest run first; never empty.
    pub(crate) inputs: Vec<Input>,
    /// Level that takes the outputs.
    pub(crate) output_level: u8,
    /// Run of that level that takes the outputs.
    pub(crate) output_epoch: Epoch,
    /// What is done.
    pub(crate) kind: Kind,
    /// Why, for people.
    pub(crate) reason: &'static str,
}

impl Task {
    /// All tables that go in.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<TableMeta>> {
        self.inputs.iter().flat_map(|input| input.tables.iter())
    }

    /// Bytes of the files that go in.
    pub(crate) fn bytes(&self) -> u64 {
        total_bytes(self.tables())
    }

    /// Smallest and largest user key that go in.
    pub(crate) fn hull(&self) -> Option<Span<'_>> {
        Span::over(self.tables())
    }

    /// Place of the outputs in the order of age.
    pub(super) fn output_age(&self) -> Age {
        let level = usize::from(self.output_level);
        match (self.kind, self.output_epoch) {
            (Kind::Drop, _) => Age::OLDEST,
            (_, Epoch::New) => Age::newest_of(level),
            (_, Epoch::Existing(epoch)) => Age::new(level, epoch),
        }
    }

    /// Place of the newest run that goes in.
    pub(super) fn newest_age(&self) -> Age {
        self.inputs.first().map_or(Age::OLDEST, Input::age)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.kind {
            Kind::Merge => "merge",
            Kind::Move => "move",
            Kind::Drop => "drop",
        };
        f.write_str(verb)?;
        for input in &self.inputs {
            write!(f, " L{}#{}{{", input.level, input.epoch)?;
            for (index, table) in input.tables.iter().enumerate() {
                let gap = if index == 0 { "" } else { " " };
                write!(f, "{gap}{}", table.number)?;
            }
            f.write_str("}")?;
        }
        match (self.kind, self.output_epoch) {
            (Kind::Drop, _) => {}
            (_, Epoch::New) => write!(f, " -> L{} new", self.output_level)?,
            (_, Epoch::Existing(epoch)) => write!(f, " -> L{}#{epoch}", self.output_level)?,
        }
        write!(f, " ({})", self.reason)
    }
}

/// A range of user keys, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span<'a> {
    /// First key.
    pub(crate) lo: &'a [u8],
    /// Last key.
    pub(crate) hi: &'a [u8],
}

impl<'a> Span<'a> {
    /// The user keys that a table may hold.
    pub(super) fn of(table: &'a TableMeta) -> Span<'a> {
        Span { lo: &table.smallest.user, hi: &table.largest.user }
    }

    /// The smallest span around all tables; `None` without tables.
    pub(super) fn over(tables: impl IntoIterator<Item = &'a Arc<TableMeta>>) -> Option<Span<'a>> {
        tables.into_iter().map(|table| Span::of(table)).reduce(Span::join)
    }

    pub(super) fn join(self, other: Span<'a>) -> Span<'a> {
        Span { lo: self.lo.min(other.lo), hi: self.hi.max(other.hi) }
    }

    pub(super) fn overlaps(self, other: Span<'_>) -> bool {
        self.lo <= other.hi && other.lo <= self.hi
    }

    /// The tables of a run that may hold a key of the span.
    pub(super) fn in_run(self, run: &Run) -> &[Arc<TableMeta>] {
        run.overlapping(Some(self.lo), Some(self.hi))
    }
}

/// Bytes of the files of these tables.
pub(super) fn total_bytes<'a>(tables: impl IntoIterator<Item = &'a Arc<TableMeta>>) -> u64 {
    tables.into_iter().fold(0, |sum, table| sum.saturating_add(table.bytes))
}

/// A level as the number that tasks carry.
pub(super) fn level_number(level: usize) -> u8 {
    u8::try_from(level).unwrap_or(u8::MAX)
}
