//! An open table: point reads. Index top, filter and properties are in memory; blocks go through the cache.

use super::block::{Block, value_slice};
use super::bytes::{Extent, Malformed};
use super::filter::Filter;
use super::footer::Footer;
use super::index::{Index, IndexShape};
use super::iter::{TableIter, TableIterOptions};
use super::meta::{Metaindex, Properties};
use super::source::{Source, TableSource};
use crate::base::error::{Error, Result};
use crate::base::key::{KeyRef, Trailer};
use crate::base::slice::Slice;
use crate::base::types::SeqNo;
use std::fmt;
use std::sync::Arc;

/// Read from the end of the file at open: more than any footer.
const END_BYTES: u64 = 512;

/// An open table.
pub(crate) struct Table {
    pub(super) source: Source,
    /// The only index block, or its top level.
    index: Arc<[u8]>,
    index_shape: IndexShape,
    /// Whether the index's blocks are partitions.
    two_level: bool,
    /// End of what the index may name: data blocks and partitions stand before the index.
    pub(super) index_start: u64,
    pub(super) filter: Filter,
    properties: Properties,
}

impl Table {
    /// Opens a file that should be a certain table. Reads its footer, index, filter and properties.
    pub(crate) fn open(source: TableSource) -> Result<Table> {
        let (db, origin) = (source.db, source.origin);
        let source = Source::open(source)?;
        let end_len = source.bytes().min(END_BYTES);
        let mut end = vec![0u8; usize::try_from(end_len).unwrap_or_default()];
        source.read(source.bytes().saturating_sub(end_len), &mut end)?;
        let footer = Footer::decode(source.path(), &end, source.bytes(), db, origin)?;
        let named = source.load(footer.metaindex)?;
        let named = Metaindex::decode(&named, footer.metaindex.start)
            .map_err(|error| source.frame_error(footer.metaindex.start, error))?;
        let properties = read_properties(&source, &footer, &named)?;
        let filter = read_filter(&source, &footer, &named)?;
        let index = source.load(footer.index)?;
        let index_shape =
            IndexShape::parse(&index).map_err(|error| source.malformed(footer.index.start, error))?;
        Ok(Table {
            source,
            index,
            index_shape,
            two_level: footer.index_levels == 2,
            index_start: footer.index.start,
            filter,
            properties,
        })
    }

    /// Whether a user key of this hash may be here. `false` is certain.
    #[inline]
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        self.filter.may_contain(hash)
    }

    /// The newest entry of a user key that is visible at `seq`; `hash` is the key's
    /// [`key_hash`](crate::base::checksum::key_hash). The kind of what is found is for the caller to judge.
    pub(crate) fn get(&self, key: &[u8], hash: u64, seq: SeqNo) -> Result<Option<(Trailer, Slice)>> {
        if !self.may_contain(hash) {
            return Ok(None);
        }
        let target = KeyRef::new(key, Trailer::search(seq));
        let Some(place) = self.find(target)? else { return Ok(None) };
        let block = self.source.block(place, true)?;
        let found = Block::parse(&block).and_then(|parsed| parsed.get(target));
        let found = found.map_err(|error| self.source.malformed(place.start, error))?;
        Ok(found.map(|(trailer, value)| (trailer, value_slice(&block, value.start, value.end))))
    }

    /// A cursor over the table's entries.
    pub(crate) fn iter(self: &Arc<Self>, options: TableIterOptions) -> TableIter {
        TableIter::new(Arc::clone(self), options)
    }

    /// Memory that the open table holds, without blocks in the cache.
    pub(crate) fn memory_bytes(&self) -> usize {
        let bounds = self.properties.smallest.user.len().saturating_add(self.properties.largest.user.len());
        let parts = self.index.len().saturating_add(self.filter.memory_bytes()).saturating_add(bounds);
        parts.saturating_add(size_of::<Table>())
    }

    /// What the table says about itself.
    pub(crate) fn properties(&self) -> &Properties {
        &self.properties
    }

    /// About how many of the file's bytes belong to keys before this one. Exact to a block; if an index partition
    /// cannot be read, to a partition.
    pub(crate) fn approximate_offset(&self, key: &[u8]) -> u64 {
        let data_bytes = self.properties.data_bytes;
        let target = KeyRef::new(key, Trailer::FIRST);
        match self.find(target) {
            Ok(Some(place)) => place.start.min(data_bytes),
            Ok(None) => data_bytes,
            Err(_) => {
                let parts = self.index_shape.entries().max(1) as u64;
                let part = self.top().search(target).unwrap_or_default() as u64;
                data_bytes.checked_div(parts).unwrap_or_default().saturating_mul(part)
            }
        }
    }

    /// The first data block that may hold the target or something after it.
    #[inline]
    pub(super) fn find(&self, target: KeyRef<'_>) -> Result<Option<Extent>> {
        let Some(place) = self.search(self.top(), target, self.index_start)? else { return Ok(None) };
        if !self.two_level {
            return Ok(Some(place));
        }
        let (block, shape) = self.partition(place, self.source.block(place, true)?)?;
        self.search(shape.of(&block), target, place.start)
    }

    fn search(&self, index: Index<'_>, target: KeyRef<'_>, at: u64) -> Result<Option<Extent>> {
        let found = index.search(target).and_then(|entry| {
            if entry >= index.entries() { Ok(None) } else { index.place(entry, self.index_start).map(Some) }
        });
        found.map_err(|error| self.source.malformed(at, error))
    }

    /// The only index block, or its top level.
    pub(super) fn top(&self) -> Index<'_> {
        self.index_shape.of(&self.index)
    }

    /// Whether the top names partitions.
    pub(super) fn two_level(&self) -> bool {
        self.two_level
    }

    /// The only index block, as a partition.
    pub(super) fn single_partition(&self) -> (Arc<[u8]>, IndexShape) {
        (Arc::clone(&self.index), self.index_shape)
    }

    /// Takes the bytes of an index partition.
    pub(super) fn partition(&self, place: Extent, block: Arc<[u8]>) -> Result<(Arc<[u8]>, IndexShape)> {
        match IndexShape::parse(&block) {
            Ok(shape) => Ok((block, shape)),
            Err(error) => Err(self.source.malformed(place.start, error)),
        }
    }

    /// Makes the properties say something else.
    #[cfg(test)]
    pub(super) fn lie(&mut self, edit: impl FnOnce(&mut Properties)) {
        edit(&mut self.properties);
    }

    /// An error about the index entry for a place that is not known.
    pub(super) fn index_error(&self, error: Malformed) -> Error {
        self.source.malformed(self.index_start, error)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("source", &self.source).finish_non_exhaustive()
    }
}

fn read_properties(source: &Source, footer: &Footer, named: &Metaindex) -> Result<Properties> {
    let Some(place) = named.properties else {
        let missing = Malformed("a table without properties");
        return Err(source.malformed(footer.metaindex.start, missing));
    };
    Properties::decode(&source.load(place)?).map_err(|error| source.frame_error(place.start, error))
}

/// A filter of a kind that this version does not know is done without: it only ever saves reads.
fn read_filter(source: &Source, footer: &Footer, named: &Metaindex) -> Result<Filter> {
    match (footer.filter_kind(), named.filter) {
        (None | Some(super::FilterKind::None), _) => Ok(Filter::None),
        (Some(kind), Some(place)) => {
            let bytes = source.load(place)?;
            Filter::decode(kind, &bytes).map_err(|error| source.malformed(place.start, error))
        }
        (Some(_), None) => {
            let missing = Malformed("a table without the filter that its footer names");
            Err(source.malformed(footer.metaindex.start, missing))
        }
    }
}
