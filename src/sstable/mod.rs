//! Sorted tables: immutable files of internal keys and values, written once, read at any position.
//!
//! A file is, from front to back: data blocks; index partitions, if the index has two levels; the index (its top
//! level then); the filter; properties; the metaindex, which names the two before it; the footer. All but the footer
//! stand in frames with checksums. The layouts are described where they are read: `footer`, `meta`, `index`, `block`,
//! `filter`, `frame`.
//!
//! The module knows no levels, versions or manifests. It reads and writes one file at a time, given open.

mod block;
mod builder;
mod bytes;
mod filter;
mod footer;
mod frame;
mod index;
mod iter;
mod meta;
mod readahead;
mod source;
mod table;
mod verify;

#[cfg(test)]
mod tests;

use crate::base::key::InternalKey;
use crate::base::types::SeqNo;

pub(crate) use builder::TableBuilder;
pub(crate) use iter::{TableIter, TableIterOptions};
pub(crate) use source::{ReadMode, TableSource};
pub(crate) use table::Table;

/// How blocks are compressed. The numbers are on disk: never change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Compression {
    /// Stored as they are.
    None = 0,
    /// LZ4 block format, where it saves an eighth.
    Lz4 = 1,
}

/// Kind of filter. The numbers are on disk: never change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FilterKind {
    /// No filter.
    None = 0,
    /// Bloom filter over the whole table: fewest false positives for its size.
    Standard = 1,
    /// Bloom filter of cache lines: one cache miss a check, slightly more false positives.
    Blocked = 2,
}

impl FilterKind {
    /// The kind that a byte stands for, if this version knows it.
    pub(crate) fn from_byte(byte: u8) -> Option<FilterKind> {
        [FilterKind::None, FilterKind::Standard, FilterKind::Blocked]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// How a table is built.
#[derive(Debug, Clone)]
pub(crate) struct TableOptions {
    /// Bytes of a data block, before compression, to aim at.
    pub(crate) block_bytes: usize,
    /// Entries from one whole key to the next within a block.
    pub(crate) restart_interval: usize,
    /// Compression of data and index blocks.
    pub(crate) compression: Compression,
    /// Kind of filter.
    pub(crate) filter: FilterKind,
    /// Filter bits per user key; 0 for no filter. More than 40 bring nothing and count as 40.
    pub(crate) bits_per_key: u32,
    /// An index longer than this, in bytes, gets a second level: only the top stays in memory.
    pub(crate) index_block_bytes: usize,
}

/// What a finished table holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableSummary {
    /// Length of the file.
    pub(crate) bytes: u64,
    /// First key.
    pub(crate) smallest: InternalKey,
    /// Last key.
    pub(crate) largest: InternalKey,
    /// Number of entries.
    pub(crate) entries: u64,
    /// Entries that are deletes.
    pub(crate) deletes: u64,
    /// Bytes of user keys, trailers and values.
    pub(crate) raw_bytes: u64,
    /// Smallest sequence number.
    pub(crate) seq_min: SeqNo,
    /// Largest sequence number.
    pub(crate) seq_max: SeqNo,
}
