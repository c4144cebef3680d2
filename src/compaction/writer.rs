//! The output side of compaction and flush: entries in order in, finished tables out, nothing left behind on failure.

use super::cut::Cutter;
use super::run::Context;
use super::source::Files;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::key::KeyRef;
use crate::base::types::FileNo;
use crate::env::AppendOptions;
use crate::manifest::TableMeta;
use crate::sstable::{TableBuilder, TableSummary};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Writes tables. Dropped unfinished, it removes what it created.
pub(super) struct Writer<'a> {
    context: &'a Context<'a>,
    cutter: Cutter<'a>,
    current: Option<(FileNo, TableBuilder)>,
    /// Entries of the current table of whose key it has a newer version.
    older_versions: u64,
    done: Vec<Arc<TableMeta>>,
    /// Files that exist because of it, until they are handed over.
    created: Vec<PathBuf>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(context: &'a Context<'a>, cutter: Cutter<'a>) -> Writer<'a> {
        Writer { context, cutter, current: None, older_versions: 0, done: Vec::new(), created: Vec::new() }
    }

    /// Adds an entry; `first`: it is the first of its user key, so that a table may end before it.
    #[inline]
    pub(super) fn add(&mut self, key: KeyRef<'_>, value: &[u8], first: bool) -> Result<()> {
        if first {
            let bytes = self.current.as_ref().map_or(0, |(_, table)| table.estimated_bytes());
            if self.cutter.cuts_before(key.user, bytes) {
                self.end_table()?;
            }
        } else {
            self.older_versions = self.older_versions.saturating_add(1);
        }
        match &mut self.current {
            Some((_, table)) => table.add(key, value),
            None => self.begin_table()?.add(key, value),
        }
    }

    fn begin_table(&mut self) -> Result<&mut TableBuilder> {
        let context = self.context;
        let number = (context.next_file)()?;
        let path = (context.path_of)(number);
        let options = AppendOptions { uncached: context.uncached, ..AppendOptions::default() };
        let file =
            context.env.fs.create(&path, options).map_err(|error| Error::io("create", &path, error))?;
        let table = TableBuilder::new(file, &path, context.db, number, context.table_options.clone());
        self.created.push(path);
        Ok(&mut self.current.insert((number, table)).1)
    }

    fn end_table(&mut self) -> Result<()> {
        if let Some((number, table)) = self.current.take() {
            let older_versions = std::mem::take(&mut self.older_versions);
            self.done.push(Arc::new(TableMeta { older_versions, ..meta(number, table.finish()?) }));
        }
        Ok(())
    }

    /// Finishes the last table, makes the names of all durable, and opens each one to see that it is there as written.
    pub(super) fn finish(mut self) -> Result<Vec<TableMeta>> {
        self.end_table()?;
        let context = self.context;
        if !self.done.is_empty() {
            context.env.fs.sync_dir(context.dir).map_err(|error| unsynced(context.dir, error))?;
        }
        let files = Files { open: context.open, path_of: context.path_of };
        self.done.iter().try_for_each(|meta| files.open_checked(meta).map(drop))?;
        self.created.clear();
        Ok(std::mem::take(&mut self.done).into_iter().map(Arc::unwrap_or_clone).collect())
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.current = None;
        for path in self.created.drain(..) {
            if let Err(error) = self.context.env.fs.remove(&path) {
                (self.context.leftover)(&path, Error::io("remove", &path, error));
            }
        }
    }
}

/// A failed sync of the directory may have lost entries of any file, so that trying again would prove nothing.
fn unsynced(dir: &Path, error: io::Error) -> Error {
    let cause = Error::io("sync", dir, error);
    Error::caused(ErrorKind::Poisoned, "the directory cannot be trusted to be durable", cause)
}

fn meta(number: FileNo, summary: TableSummary) -> TableMeta {
    TableMeta {
        number,
        origin: number,
        bytes: summary.bytes,
        smallest: summary.smallest,
        largest: summary.largest,
        entries: summary.entries,
        deletes: summary.deletes,
        raw_bytes: summary.raw_bytes,
        seq_min: summary.seq_min,
        seq_max: summary.seq_max,
        older_versions: 0,
    }
}
