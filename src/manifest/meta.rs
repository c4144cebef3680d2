//! What the manifest says of tables: plain data, ordered and checked, without any file behind it.
//!
//! A tree has [`LEVELS`] levels, a level has runs, a run has tables. Inside a run tables ascend and share no user
//! key, so a key is in at most one of them. Inside a level runs are ordered by epoch, highest (newest) first; a
//! level above, and within it a run before, shadows what comes after. Level 0 follows the same rule: runs are
//! ordered by when they were created, never by the sequence numbers in them.
//!
//! Must not know how tables are written or read, nor which shapes of a tree a policy wants.

use crate::base::key::InternalKey;
use crate::base::types::{FileNo, KEY_BYTES_MAX, SEQ_MAX, SeqNo};
use std::fmt;
use std::sync::Arc;

/// Levels of a tree.
pub(crate) const LEVELS: usize = 7;

/// A rule of the metadata that does not hold, in words. The caller knows whether that is a wrong argument (an edit
/// about to be written) or a corruption (an edit that was read).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inconsistency(pub(crate) String);

impl fmt::Display for Inconsistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `Err` with this text unless the condition holds.
pub(crate) fn ensure(holds: bool, text: impl FnOnce() -> String) -> Result<(), Inconsistency> {
    if holds { Ok(()) } else { Err(Inconsistency(text())) }
}

/// One table file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableMeta {
    /// Number in its file name.
    pub(crate) number: FileNo,
    /// Number it was born with: seeds its checksums.
    pub(crate) origin: FileNo,
    /// Length of the file.
    pub(crate) bytes: u64,
    /// First internal key.
    pub(crate) smallest: InternalKey,
    /// Last internal key.
    pub(crate) largest: InternalKey,
    /// Entries of every kind.
    pub(crate) entries: u64,
    /// Entries that are deletes.
    pub(crate) deletes: u64,
    /// Bytes of keys and values before compression.
    pub(crate) raw_bytes: u64,
    /// Smallest sequence number of an entry.
    pub(crate) seq_min: SeqNo,
    /// Largest sequence number of an entry.
    pub(crate) seq_max: SeqNo,
    /// Entries of whose key the table has a newer version: they are there for old readers only.
    pub(crate) older_versions: u64,
}

/// What was known of a time: this sequence number was visible then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Microseconds since the Unix epoch.
    pub(crate) at_micros: u64,
    /// The sequence number.
    pub(crate) seq: SeqNo,
}

impl Moment {
    /// Whether a newer moment takes the place of this one: both lie in one span of time, or time did not pass.
    pub(crate) fn is_replaced_by(&self, newer: &Moment, span_micros: u64) -> bool {
        let span = |moment: &Moment| moment.at_micros.checked_div(span_micros).unwrap_or(moment.at_micros);
        span(newer) <= span(self)
    }
}

impl TableMeta {
    /// Whether the table may hold a user key between the bounds, both inclusive; `None` is unbounded.
    pub(crate) fn overlaps(&self, lo: Option<&[u8]>, hi: Option<&[u8]>) -> bool {
        hi.is_none_or(|hi| *self.smallest.user <= *hi) && lo.is_none_or(|lo| *self.largest.user >= *lo)
    }

    /// Rules that a table obeys on its own.
    pub(crate) fn check(&self) -> Result<(), Inconsistency> {
        let rules = [
            (self.number > 0, "its number is 0"),
            (self.bytes > 0, "it has no bytes"),
            (self.entries > 0, "it has no entries"),
            (self.deletes <= self.entries, "more deletes than entries"),
            (self.older_versions < self.entries, "no newest versions among its entries"),
            (self.seq_min <= self.seq_max, "its sequence range is reversed"),
            (self.seq_max <= SEQ_MAX, "its sequence range is out of bounds"),
            (self.smallest <= self.largest, "its bounds are reversed"),
            (self.is_bound(&self.smallest), "its smallest key cannot be one of its entries"),
            (self.is_bound(&self.largest), "its largest key cannot be one of its entries"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(Inconsistency(format!("table {}: {broken}", self.number))),
            None => Ok(()),
        }
    }

    fn is_bound(&self, key: &InternalKey) -> bool {
        let seq = key.trailer.seq();
        let len = key.user.len();
        (1..=KEY_BYTES_MAX).contains(&len)
            && self.seq_min <= seq
            && seq <= self.seq_max
            && key.trailer.kind().is_ok()
    }
}

/// Tables that ascend and share no user key: one sorted sequence of entries cut into files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// When it was created, in the order in which runs shadow each other within a level.
    pub(crate) epoch: u64,
    /// Ascending by key; never empty inside a tree.
    pub(crate) tables: Vec<Arc<TableMeta>>,
}

impl Run {
    /// Bytes of its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.tables.iter().fold(0, |sum, table| sum.saturating_add(table.bytes))
    }

    /// Entries in its files.
    pub(crate) fn entries(&self) -> u64 {
        self.tables.iter().fold(0, |sum, table| sum.saturating_add(table.entries))
    }

    /// The one table that may hold this user key.
    pub(crate) fn find(&self, user_key: &[u8]) -> Option<&Arc<TableMeta>> {
        let index = self.tables.partition_point(|table| *table.largest.user < *user_key);
        self.tables.get(index).filter(|table| *table.smallest.user <= *user_key)
    }

    /// The tables that may hold a user key between the bounds, both inclusive; `None` is unbounded.
    pub(crate) fn overlapping(&self, lo: Option<&[u8]>, hi: Option<&[u8]>) -> &[Arc<TableMeta>] {
        let start = lo.map_or(0, |lo| self.tables.partition_point(|table| *table.largest.user < *lo));
        let end = hi
            .map_or(self.tables.len(), |hi| self.tables.partition_point(|table| *table.smallest.user <= *hi));
        self.tables.get(start..end).unwrap_or_default()
    }

    /// Where a table with this smallest user key stands or would stand.
    pub(crate) fn position(&self, smallest: &[u8]) -> usize {
        self.tables.partition_point(|table| *table.smallest.user < *smallest)
    }

    fn check(&self) -> Result<(), Inconsistency> {
        ensure(!self.tables.is_empty(), || format!("run #{} has no tables", self.epoch))?;
        self.tables.iter().try_for_each(|table| table.check())?;
        self.tables.windows(2).try_for_each(|pair| match pair {
            [left, right] => check_neighbours(self.epoch, left, right),
            _ => Ok(()),
        })
    }
}

/// Tables next to each other in a run ascend and share no user key.
pub(crate) fn check_neighbours(epoch: u64, left: &TableMeta, right: &TableMeta) -> Result<(), Inconsistency> {
    ensure(*left.largest.user < *right.smallest.user, || {
        format!("run #{epoch}: tables {} and {} overlap", left.number, right.number)
    })
}

/// Runs of one level, highest epoch first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Level {
    /// Newest first.
    pub(crate) runs: Vec<Arc<Run>>,
}

impl Level {
    /// Bytes of its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.runs.iter().fold(0, |sum, run| sum.saturating_add(run.bytes()))
    }

    /// The run with this epoch, or where it would be inserted.
    pub(crate) fn position(&self, epoch: u64) -> Result<usize, usize> {
        self.runs.binary_search_by(|run| epoch.cmp(&run.epoch))
    }

    /// The run with this epoch.
    pub(crate) fn run(&self, epoch: u64) -> Option<&Arc<Run>> {
        self.runs.get(self.position(epoch).ok()?)
    }
}

/// All tables of one keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    /// [`LEVELS`] of them, newest data first.
    pub(crate) levels: Vec<Level>,
}

impl Default for Tree {
    fn default() -> Tree {
        Tree { levels: vec![Level::default(); LEVELS] }
    }
}

impl Tree {
    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.levels.iter().fold(0, |sum, level| sum.saturating_add(level.bytes()))
    }

    /// All tables, newest data first.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<TableMeta>> {
        self.runs().flat_map(|(_, run)| run.tables.iter())
    }

    /// All runs with their level, newest data first: the order in which a read asks them.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (usize, &Arc<Run>)> {
        self.levels
            .iter()
            .enumerate()
            .flat_map(|(index, level)| level.runs.iter().map(move |run| (index, run)))
    }

    /// Every rule of a tree: tables in themselves, runs disjoint, epochs unique and descending within a level, no
    /// table twice.
    pub(crate) fn check(&self) -> Result<(), Inconsistency> {
        ensure(self.levels.len() == LEVELS, || format!("{} levels instead of {LEVELS}", self.levels.len()))?;
        for (index, level) in self.levels.iter().enumerate() {
            let within = |inner: Inconsistency| Inconsistency(format!("level {index}: {inner}"));
            level.runs.iter().try_for_each(|run| run.check()).map_err(within)?;
            let descending = level.runs.is_sorted_by(|newer, older| newer.epoch > older.epoch);
            ensure(descending, || format!("level {index}: epochs do not descend"))?;
        }
        check_unique(self.tables().map(|table| table.number).collect())
    }
}

/// No number stands twice.
pub(crate) fn check_unique(mut numbers: Vec<FileNo>) -> Result<(), Inconsistency> {
    numbers.sort_unstable();
    let twice = numbers.windows(2).find_map(|pair| match pair {
        [left, right] if left == right => Some(*left),
        _ => None,
    });
    match twice {
        Some(number) => Err(Inconsistency(format!("table {number} is there twice"))),
        None => Ok(()),
    }
}
