//! The input side of a compaction: the tables of one run, read one after the other, once, forwards.
//!
//! Tables are opened when the one before is read to its end, so that a wide compaction holds one open table and one
//! read-ahead buffer per run. Every table must be what the manifest says it is. That all of its entries came out is
//! for the caller to count.

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::iter::InternalIter;
use crate::base::key::{KeyRef, Trailer};
use crate::base::types::FileNo;
use crate::manifest::TableMeta;
use crate::sstable::{Table, TableIter, TableIterOptions};
use std::path::PathBuf;
use std::sync::Arc;

/// How tables are opened and named.
#[derive(Clone, Copy)]
pub(super) struct Files<'a> {
    pub(super) open: &'a (dyn Fn(&Arc<TableMeta>) -> Result<Arc<Table>> + Sync),
    pub(super) path_of: &'a (dyn Fn(FileNo) -> PathBuf + Sync),
}

impl Files<'_> {
    /// Opens a table and holds what it says of itself against its metadata.
    pub(super) fn open_checked(&self, meta: &Arc<TableMeta>) -> Result<Arc<Table>> {
        let table = (self.open)(meta)?;
        let own = table.properties();
        let same = own.entries == meta.entries
            && own.deletes == meta.deletes
            && own.raw_bytes == meta.raw_bytes
            && (own.seq_min, own.seq_max) == (meta.seq_min, meta.seq_max)
            && own.smallest == meta.smallest
            && own.largest == meta.largest;
        if same {
            return Ok(table);
        }
        let expected = format!("the table that the manifest describes, of {} entries", meta.entries);
        let found = format!("another one, of {} entries", own.entries);
        Err(Error::corrupt(&(self.path_of)(meta.number), None, expected, found))
    }
}

/// A cursor over tables that ascend. Forwards only.
pub(super) struct RunIter<'a> {
    files: Files<'a>,
    tables: &'a [Arc<TableMeta>],
    /// Index of the table being read.
    index: usize,
    current: Option<TableIter>,
}

impl<'a> RunIter<'a> {
    pub(super) fn new(files: Files<'a>, tables: &'a [Arc<TableMeta>]) -> RunIter<'a> {
        RunIter { files, tables, index: 0, current: None }
    }

    /// Opens tables from `index` on until one has an entry.
    fn enter(&mut self, index: usize) -> Result<()> {
        self.index = index;
        self.current = None;
        let Some(meta) = self.tables.get(index) else { return Ok(()) };
        let table = self.files.open_checked(meta)?;
        let mut iter = table.iter(TableIterOptions { fill_cache: false, bypass: true });
        iter.seek_to_first()?;
        self.current = Some(iter);
        self.settle()
    }

    /// After a step: at the end of a table, goes on to the next.
    fn settle(&mut self) -> Result<()> {
        if self.current.as_ref().is_some_and(TableIter::valid) {
            return Ok(());
        }
        self.current = None;
        if self.index >= self.tables.len() { Ok(()) } else { self.enter(self.index.saturating_add(1)) }
    }

    fn forwards_only(&mut self) -> Result<()> {
        self.current = None;
        Err(Error::new(ErrorKind::InvalidArgument, "the inputs of a compaction are read forwards"))
    }
}

impl InternalIter for RunIter<'_> {
    #[inline]
    fn valid(&self) -> bool {
        self.current.is_some()
    }

    #[inline]
    fn key(&self) -> KeyRef<'_> {
        self.current.as_ref().map_or(KeyRef::new(&[], Trailer::LAST), InternalIter::key)
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.current.as_ref().map_or(&[], InternalIter::value)
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.enter(0)
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        let Some(iter) = &mut self.current else { return Ok(()) };
        if let Err(error) = iter.next() {
            self.current = None;
            return Err(error);
        }
        self.settle()
    }

    fn seek(&mut self, _: KeyRef<'_>) -> Result<()> {
        self.forwards_only()
    }

    fn seek_for_prev(&mut self, _: KeyRef<'_>) -> Result<()> {
        self.forwards_only()
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.forwards_only()
    }

    fn prev(&mut self) -> Result<()> {
        self.forwards_only()
    }
}
