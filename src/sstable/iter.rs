//! The cursor over a table: a position in the index, a position in the block it names.

use super::block::BlockCursor;
use super::bytes::{Extent, Malformed};
use super::index::IndexShape;
use super::readahead::ReadAhead;
use super::table::Table;
use crate::base::error::Result;
use crate::base::iter::InternalIter;
use crate::base::key::KeyRef;
use crate::base::slice::Slice;
use std::sync::Arc;

/// Adjacent blocks that must have been read from the file in turn before a scan begins to read ahead.
const STREAK_MIN: u32 = 2;

/// How a cursor reads.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TableIterOptions {
    /// Keep the blocks that it reads in the block cache.
    pub(crate) fill_cache: bool,
    /// Read in large pieces past block cache, map and page cache: for compaction and verification.
    pub(crate) bypass: bool,
}

/// Position in an index of one or two levels. The single level counts as one partition.
#[derive(Debug, Default)]
struct IndexPosition {
    part: usize,
    partition: Option<(Arc<[u8]>, IndexShape)>,
    entry: usize,
}

/// A cursor over a table's entries.
#[derive(Debug)]
pub(crate) struct TableIter {
    table: Arc<Table>,
    options: TableIterOptions,
    index: IndexPosition,
    block: BlockCursor,
    /// Place of the block that `block` is in.
    place: Option<Extent>,
    ahead: ReadAhead,
    /// Adjacent blocks read from the file in turn, and where the last one was.
    streak: u32,
    last_read: Option<Extent>,
}

impl TableIter {
    pub(super) fn new(table: Arc<Table>, options: TableIterOptions) -> TableIter {
        TableIter {
            table,
            options,
            index: IndexPosition::default(),
            block: BlockCursor::new(),
            place: None,
            ahead: if options.bypass { ReadAhead::bypass() } else { ReadAhead::scan() },
            streak: 0,
            last_read: None,
        }
    }

    /// Number of index partitions.
    fn parts(&self) -> usize {
        if self.table.two_level() { self.table.top().entries() } else { 1 }
    }

    /// Makes a partition current.
    fn enter_part(&mut self, part: usize) -> Result<IndexShape> {
        if let Some((_, shape)) = &self.index.partition
            && self.index.part == part
        {
            return Ok(*shape);
        }
        self.index.partition = None;
        let (bytes, shape) = if self.table.two_level() {
            let place = self.table.top().place(part, self.table.index_start);
            let place = place.map_err(|error| self.table.index_error(error))?;
            let bytes = if self.options.bypass {
                self.table.source.load_uncached(place)?
            } else {
                self.table.source.block(place, self.options.fill_cache)?
            };
            self.table.partition(place, bytes)?
        } else {
            self.table.single_partition()
        };
        self.index.part = part;
        self.index.partition = Some((bytes, shape));
        Ok(shape)
    }

    /// Place of the block that the index position names.
    fn data_place(&self) -> Result<Extent> {
        let gone = Malformed("an index position without a partition");
        let place = match &self.index.partition {
            Some((bytes, shape)) => shape.of(bytes).place(self.index.entry, self.table.index_start),
            None => Err(gone),
        };
        place.map_err(|error| self.table.index_error(error))
    }

    /// To the first block that may hold the target or something after it; says whether there is one.
    fn index_seek(&mut self, target: KeyRef<'_>) -> Result<bool> {
        let mut part = 0;
        if self.table.two_level() {
            part = self.table.top().search(target).map_err(|error| self.table.index_error(error))?;
        }
        if part >= self.parts() {
            return Ok(false);
        }
        let shape = self.enter_part(part)?;
        let Some((bytes, _)) = &self.index.partition else { return Ok(false) };
        let entry = shape.of(bytes).search(target).map_err(|error| self.table.index_error(error))?;
        self.index.entry = entry;
        if entry < shape.entries() {
            return Ok(true);
        }
        if self.table.two_level() {
            return Err(self.table.index_error(Malformed("a partition that ends before its separator")));
        }
        Ok(false)
    }

    fn index_first(&mut self) -> Result<()> {
        self.enter_part(0)?;
        self.index.entry = 0;
        Ok(())
    }

    fn index_last(&mut self) -> Result<()> {
        let shape = self.enter_part(self.parts().saturating_sub(1))?;
        self.index.entry = shape.entries().saturating_sub(1);
        Ok(())
    }

    /// To the block after; says whether there is one.
    fn index_next(&mut self) -> Result<bool> {
        let entries = self.index.partition.as_ref().map_or(0, |(_, shape)| shape.entries());
        let next = self.index.entry.saturating_add(1);
        if next < entries {
            self.index.entry = next;
            return Ok(true);
        }
        let part = self.index.part.saturating_add(1);
        if part >= self.parts() {
            return Ok(false);
        }
        self.enter_part(part)?;
        self.index.entry = 0;
        Ok(true)
    }

    /// To the block before; says whether there is one.
    fn index_prev(&mut self) -> Result<bool> {
        if let Some(before) = self.index.entry.checked_sub(1) {
            self.index.entry = before;
            return Ok(true);
        }
        let Some(part) = self.index.part.checked_sub(1) else { return Ok(false) };
        let shape = self.enter_part(part)?;
        self.index.entry = shape.entries().saturating_sub(1);
        Ok(true)
    }

    /// Makes the block current that the index position names.
    fn enter_block(&mut self) -> Result<()> {
        let place = self.data_place()?;
        if self.place == Some(place) {
            return Ok(());
        }
        self.place = None;
        let bytes = self.read_block(place)?;
        self.block.enter(bytes).map_err(|error| self.table.source.malformed(place.start, error))?;
        self.place = Some(place);
        Ok(())
    }

    fn read_block(&mut self, place: Extent) -> Result<Arc<[u8]>> {
        let source = &self.table.source;
        if self.options.bypass {
            return self.ahead.block(source, place, self.table.properties().data_bytes);
        }
        if let Some(block) = source.cached(place) {
            return Ok(block);
        }
        let adjacent = self.last_read.is_some_and(|last| last.end == place.start || place.end == last.start);
        self.streak = if adjacent { self.streak.saturating_add(1) } else { 0 };
        self.last_read = Some(place);
        let block = if self.streak >= STREAK_MIN {
            self.ahead.block(source, place, self.table.properties().data_bytes)?
        } else {
            source.load(place)?
        };
        if self.options.fill_cache {
            source.keep(place, &block);
        }
        Ok(block)
    }

    /// Moves within the current block, naming it if it has no valid form.
    fn in_block(&mut self, step: impl FnOnce(&mut BlockCursor) -> Result<(), Malformed>) -> Result<()> {
        step(&mut self.block).map_err(|error| {
            let offset = self.place.map_or(0, |place| place.start);
            self.table.source.malformed(offset, error)
        })
    }

    /// To the first entry of the block after the current one, if there is one.
    fn next_block(&mut self) -> Result<()> {
        if !self.index_next()? {
            return Ok(());
        }
        self.enter_block()?;
        self.in_block(BlockCursor::first)
    }

    /// To the last entry of the block before the current one, if there is one.
    fn prev_block(&mut self) -> Result<()> {
        if !self.index_prev()? {
            return Ok(());
        }
        self.enter_block()?;
        self.in_block(BlockCursor::last)
    }
}

impl InternalIter for TableIter {
    #[inline]
    fn valid(&self) -> bool {
        self.block.valid()
    }

    #[inline]
    fn key(&self) -> KeyRef<'_> {
        self.block.key()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.block.value()
    }

    fn value_slice(&self) -> Slice {
        self.block.value_slice()
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.block.invalidate();
        if !self.index_seek(target)? {
            return Ok(());
        }
        self.enter_block()?;
        self.in_block(|block| block.seek(target))?;
        if self.block.valid() { Ok(()) } else { self.next_block() }
    }

    fn seek_for_prev(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.block.invalidate();
        if !self.index_seek(target)? {
            return self.seek_to_last();
        }
        self.enter_block()?;
        self.in_block(|block| block.seek_for_prev(target))?;
        if self.block.valid() { Ok(()) } else { self.prev_block() }
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.block.invalidate();
        self.index_first()?;
        self.enter_block()?;
        self.in_block(BlockCursor::first)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.block.invalidate();
        self.index_last()?;
        self.enter_block()?;
        self.in_block(BlockCursor::last)
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if !self.block.valid() {
            return Ok(());
        }
        self.in_block(BlockCursor::next)?;
        if self.block.valid() { Ok(()) } else { self.next_block() }
    }

    fn prev(&mut self) -> Result<()> {
        if !self.block.valid() {
            return Ok(());
        }
        self.in_block(BlockCursor::prev)?;
        if self.block.valid() { Ok(()) } else { self.prev_block() }
    }
}
