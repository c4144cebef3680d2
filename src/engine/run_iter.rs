//! A cursor over one sorted run: its tables one after the other, opened as they are reached.

use super::tables::Tables;
use crate::base::error::Result;
use crate::base::iter::InternalIter;
use crate::base::key::{KeyRef, Trailer};
use crate::base::slice::Slice;
use crate::manifest::Run;
use crate::sstable::{TableIter, TableIterOptions};
use std::sync::Arc;

/// Position in a run.
pub(crate) struct RunIter {
    run: Arc<Run>,
    tables: Arc<Tables>,
    options: TableIterOptions,
    /// Index of the table that `table` reads.
    index: usize,
    table: Option<TableIter>,
}

impl RunIter {
    /// Stands nowhere yet.
    pub(crate) fn new(run: Arc<Run>, tables: Arc<Tables>, options: TableIterOptions) -> RunIter {
        RunIter { run, tables, options, index: 0, table: None }
    }

    /// Makes the table at this index the current one; past either end there is none.
    fn enter(&mut self, index: usize) -> Result<Option<&mut TableIter>> {
        if self.table.is_none() || self.index != index {
            self.table = None;
            let Some(meta) = self.run.tables.get(index) else { return Ok(None) };
            self.table = Some(self.tables.get(meta)?.iter(self.options));
            self.index = index;
        }
        Ok(self.table.as_mut())
    }

    /// Moves to the start of later tables until there is an entry.
    fn skip_forward(&mut self) -> Result<()> {
        while self.table.as_ref().is_some_and(|table| !table.valid()) {
            let next = self.index.wrapping_add(1);
            if let Some(table) = self.enter(next)? {
                table.seek_to_first()?;
            }
        }
        Ok(())
    }

    /// Moves to the end of earlier tables until there is an entry.
    fn skip_backward(&mut self) -> Result<()> {
        while self.table.as_ref().is_some_and(|table| !table.valid()) {
            let Some(previous) = self.index.checked_sub(1) else {
                self.table = None;
                return Ok(());
            };
            if let Some(table) = self.enter(previous)? {
                table.seek_to_last()?;
            }
        }
        Ok(())
    }

    fn guarded(&mut self, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let result = step(self);
        if result.is_err() {
            self.table = None;
        }
        result
    }
}

impl InternalIter for RunIter {
    #[inline]
    fn valid(&self) -> bool {
        self.table.as_ref().is_some_and(TableIter::valid)
    }

    #[inline]
    fn key(&self) -> KeyRef<'_> {
        self.table.as_ref().map_or(KeyRef::new(b"", Trailer::LAST), TableIter::key)
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.table.as_ref().map_or(b"", TableIter::value)
    }

    fn value_slice(&self) -> Slice {
        self.table.as_ref().map_or_else(|| Slice::copy_from(b""), TableIter::value_slice)
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.guarded(|this| {
            let index = this.run.tables.partition_point(|meta| meta.largest.as_ref() < target);
            if let Some(table) = this.enter(index)? {
                table.seek(target)?;
            }
            this.skip_forward()
        })
    }

    fn seek_for_prev(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.guarded(|this| {
            let after = this.run.tables.partition_point(|meta| meta.smallest.as_ref() <= target);
            let Some(index) = after.checked_sub(1) else {
                this.table = None;
                return Ok(());
            };
            if let Some(table) = this.enter(index)? {
                table.seek_for_prev(target)?;
            }
            this.skip_backward()
        })
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.guarded(|this| {
            if let Some(table) = this.enter(0)? {
                table.seek_to_first()?;
            }
            this.skip_forward()
        })
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.guarded(|this| {
            let Some(last) = this.run.tables.len().checked_sub(1) else { return Ok(()) };
            if let Some(table) = this.enter(last)? {
                table.seek_to_last()?;
            }
            this.skip_backward()
        })
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        let Some(table) = self.table.as_mut() else { return Ok(()) };
        let result = table.next();
        if result.is_ok() && table.valid() {
            return Ok(());
        }
        self.guarded(|this| result.and_then(|()| this.skip_forward()))
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        let Some(table) = self.table.as_mut() else { return Ok(()) };
        let result = table.prev();
        if result.is_ok() && table.valid() {
            return Ok(());
        }
        self.guarded(|this| result.and_then(|()| this.skip_backward()))
    }
}
