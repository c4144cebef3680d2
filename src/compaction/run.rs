//! Carrying a compaction out: merge the inputs, leave out what nobody can see, write the rest.
//!
//! Inputs are only ever read. Any error stops the compaction and is answered as it is: an error is never an end of
//! input, and what was read must be, to the entry, what the manifest says the inputs hold. Outputs of a failed or
//! cancelled compaction are removed; outputs of a successful one are synced, their names are, and they have been opened
//! again, so that an edit naming them may follow at once.

use super::check::check_task;
use super::cut::Cutter;
use super::drop_rules::{DropRules, OlderTables, Verdict};
use super::running::Running;
use super::source::{Files, RunIter};
use super::task::{Kind, Task};
use super::writer::Writer;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::iter::InternalIter;
use crate::base::types::{DbId, FileNo, SeqNo, UnknownKind};
use crate::env::Env;
use crate::manifest::{TableMeta, Tree};
use crate::merge::Merge;
use crate::sstable::{Table, TableOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Entries between two looks at whether to go on, and between two reports to the throttle.
const PACE_ENTRIES: u64 = 256;

/// The same in bytes of keys and values.
const PACE_BYTES: u64 = 64 << 10;

/// What a compaction needs of the world around it. All of it is fixed when the compaction starts.
pub(crate) struct Context<'a> {
    /// Files are created through it.
    pub(crate) env: &'a Env,
    /// Directory of the tables.
    pub(crate) dir: &'a Path,
    /// The database.
    pub(crate) db: DbId,
    /// How outputs are built.
    pub(crate) table_options: TableOptions,
    /// The tree that holds the inputs, at any moment since the task was picked.
    pub(crate) tree: &'a Tree,
    /// Registered snapshots, ascending, sampled together with `visible`.
    pub(crate) snapshots: &'a [SeqNo],
    /// Largest published sequence number: later snapshots are at or above it.
    pub(crate) visible: SeqNo,
    /// Opens a table, inputs and outputs.
    pub(crate) open: &'a (dyn Fn(&Arc<TableMeta>) -> Result<Arc<Table>> + Sync),
    /// Name of a table's file.
    pub(crate) path_of: &'a (dyn Fn(FileNo) -> PathBuf + Sync),
    /// Draws a number for an output.
    pub(crate) next_file: &'a dyn Fn() -> Result<FileNo>,
    /// Asked every few hundred entries: whether to stop.
    pub(crate) cancelled: &'a dyn Fn() -> bool,
    /// Told every few hundred entries how many bytes of keys and values were read since; may wait.
    pub(crate) throttle: &'a dyn Fn(u64),
    /// Told of an output of a failed compaction that could not be removed.
    pub(crate) leftover: &'a dyn Fn(&Path, Error),
    /// Bytes at which outputs are cut.
    pub(crate) target_table_bytes: u64,
    /// Bytes of the next deeper level that one output may span.
    pub(crate) max_compaction_bytes: u64,
    /// Whether outputs stay out of the page cache.
    pub(crate) uncached: bool,
}

/// What a compaction did. The tables of `added` take the place of the task's inputs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Outcome {
    /// Tables for the output run, ascending.
    pub(crate) added: Vec<TableMeta>,
    /// Bytes of the files that were read.
    pub(crate) bytes_read: u64,
    /// Bytes of the files that were written.
    pub(crate) bytes_written: u64,
    /// Entries that were read.
    pub(crate) entries_in: u64,
    /// Entries that were written.
    pub(crate) entries_out: u64,
    /// Entries that were left out.
    pub(crate) dropped: u64,
}

/// Carries a task out.
///
/// # Errors
/// `InvalidArgument` when the task breaks a rule of [`check_task`]; `Closed` when it was cancelled; `Corruption` when
/// inputs are not what the manifest says; `VersionUnsupported` for entries of a later version; whatever reading,
/// writing or syncing answered. No output is left, inputs are as they were.
pub(crate) fn run(task: &Task, context: &Context<'_>) -> Result<Outcome> {
    check_task(context.tree, &Running::default(), task)?;
    match task.kind {
        Kind::Merge => merge(task, context),
        Kind::Move => {
            let added = task.tables().map(|table| TableMeta::clone(table)).collect();
            Ok(Outcome { added, ..Outcome::default() })
        }
        Kind::Drop => {
            let dropped = entries(task);
            Ok(Outcome { entries_in: dropped, dropped, ..Outcome::default() })
        }
    }
}

fn merge(task: &Task, context: &Context<'_>) -> Result<Outcome> {
    let files = Files { open: context.open, path_of: context.path_of };
    let sources = task.inputs.iter().map(|input| RunIter::new(files, &input.tables)).collect();
    let older = OlderTables::below(context.tree, task);
    let rules = DropRules::new(context.snapshots, context.visible, Some(older));
    let outcome = copy(Merge::new(sources), rules, usize::from(task.output_level), entries(task), context)?;
    Ok(Outcome { bytes_read: task.bytes(), ..outcome })
}

fn entries(task: &Task) -> u64 {
    task.tables().fold(0, |sum, table| sum.saturating_add(table.entries))
}

/// Writes the entries of a memtable, or of several merged, as a run of level 0. `entries` is how many there are.
///
/// Versions that nobody sees are left out as in a compaction. Deletes stay, unless `is_oldest` says that neither a
/// memtable nor a flush under way is older: then those go that hide nothing in the tree.
///
/// # Errors
/// As [`run`].
pub(crate) fn write_run(
    iter: impl InternalIter,
    entries: u64,
    is_oldest: bool,
    context: &Context<'_>,
) -> Result<Outcome> {
    let older = is_oldest.then(|| OlderTables::all(context.tree));
    let rules = DropRules::new(context.snapshots, context.visible, older);
    copy(iter, rules, 0, entries, context)
}

/// Copies what the rules keep into tables of a level.
fn copy(
    mut iter: impl InternalIter,
    mut rules: DropRules<'_>,
    level: usize,
    entries: u64,
    context: &Context<'_>,
) -> Result<Outcome> {
    let cutter = Cutter::new(context.tree, level, context.target_table_bytes, context.max_compaction_bytes);
    let mut writer = Writer::new(context, cutter);
    let mut pace = Pace::default();
    let mut entries_out = 0u64;
    pace.check(context)?;
    iter.seek_to_first()?;
    while iter.valid() {
        let (key, value) = (iter.key(), iter.value());
        pace.entry(key.user.len().saturating_add(value.len()), context)?;
        if let Verdict::Keep { first } = rules.judge(key).map_err(|kind| unknown(kind, context))? {
            writer.add(key, value, first)?;
            entries_out = entries_out.saturating_add(1);
        }
        iter.next()?;
    }
    drop(iter);
    pace.check(context)?;
    if pace.entries != entries {
        let (expected, found) = (format!("{entries} entries to merge"), format!("{}", pace.entries));
        return Err(Error::corrupt(context.dir, None, expected, found));
    }
    let added = writer.finish()?;
    let written = added.iter().fold(0u64, |sum, table| sum.saturating_add(table.entries));
    if written != entries_out {
        let (expected, found) = (format!("{entries_out} entries in the outputs"), format!("{written}"));
        return Err(Error::corrupt(context.dir, None, expected, found));
    }
    Ok(Outcome {
        bytes_read: 0,
        bytes_written: added.iter().fold(0, |sum, table| sum.saturating_add(table.bytes)),
        entries_in: entries,
        entries_out,
        dropped: entries.saturating_sub(entries_out),
        added,
    })
}

/// Counts what is read, and every so often asks whether to go on.
#[derive(Default)]
struct Pace {
    entries: u64,
    since_entries: u64,
    since_bytes: u64,
}

impl Pace {
    #[inline]
    fn entry(&mut self, bytes: usize, context: &Context<'_>) -> Result<()> {
        self.entries = self.entries.wrapping_add(1);
        self.since_entries = self.since_entries.wrapping_add(1);
        self.since_bytes = self.since_bytes.wrapping_add(bytes as u64);
        if self.since_entries >= PACE_ENTRIES || self.since_bytes >= PACE_BYTES {
            return self.check(context);
        }
        Ok(())
    }

    fn check(&mut self, context: &Context<'_>) -> Result<()> {
        if self.since_bytes > 0 {
            (context.throttle)(self.since_bytes);
        }
        self.since_entries = 0;
        self.since_bytes = 0;
        if (context.cancelled)() {
            return Err(Error::new(ErrorKind::Closed, "the compaction was cancelled"));
        }
        Ok(())
    }
}

fn unknown(kind: UnknownKind, context: &Context<'_>) -> Error {
    match kind {
        UnknownKind::Reserved(name) => {
            let message =
                format!("{}: entries of kind \"{name}\" are of a later version", context.dir.display());
            Error::new(ErrorKind::VersionUnsupported, message)
        }
        UnknownKind::Invalid(byte) => {
            Error::corrupt(context.dir, None, "entries of a known kind", format!("kind {byte}"))
        }
    }
}
