//! Whole tables: written, read every way, damaged every way.

mod damage;
mod memory;
mod model;
mod reading;
mod shape;

use super::{
    Compression, FilterKind, ReadMode, Table, TableBuilder, TableIter, TableIterOptions, TableOptions,
    TableSource, TableSummary,
};
use crate::base::checksum::key_hash;
use crate::base::error::Result;
use crate::base::key::{InternalKey, KeyRef, Trailer};
use crate::base::random::{SplitMix64, test_seed};
use crate::base::types::{DbId, EntryKind, SeqNo};
use crate::cache::BlockCache;
use memory::MemoryFile;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) const DB: DbId = 0x1234_5678_9abc_def0_0fed_cba9_8765_4321;
pub(super) const NUMBER: u64 = 7;

/// Entries of a table in order.
pub(super) type Entries = Vec<(InternalKey, Vec<u8>)>;

pub(super) fn path() -> PathBuf {
    PathBuf::from("db/000007.sst")
}

pub(super) fn put(user: impl AsRef<[u8]>, seq: SeqNo, value: impl AsRef<[u8]>) -> (InternalKey, Vec<u8>) {
    (KeyRef::new(user.as_ref(), Trailer::new(seq, EntryKind::Put)).to_owned(), value.as_ref().to_vec())
}

pub(super) fn delete(user: impl AsRef<[u8]>, seq: SeqNo) -> (InternalKey, Vec<u8>) {
    (KeyRef::new(user.as_ref(), Trailer::new(seq, EntryKind::Delete)).to_owned(), Vec::new())
}

pub(super) fn options() -> TableOptions {
    TableOptions {
        block_bytes: 4096,
        restart_interval: 16,
        compression: Compression::Lz4,
        filter: FilterKind::Blocked,
        bits_per_key: 10,
        index_block_bytes: 1 << 20,
    }
}

pub(super) fn build(entries: &Entries, options: TableOptions) -> (Arc<MemoryFile>, TableSummary) {
    let file = MemoryFile::new();
    let mut builder = TableBuilder::new(file.clone(), Path::new("db/000007.sst"), DB, NUMBER, options);
    for (key, value) in entries {
        builder.add(key.as_ref(), value).unwrap();
    }
    let estimate = builder.estimated_bytes();
    let summary = builder.finish().unwrap();
    assert_eq!(summary.bytes, file.bytes().len() as u64);
    let most = 2 * (summary.bytes + summary.raw_bytes) + 4096;
    assert!(estimate * 8 >= summary.bytes && estimate <= most, "{estimate} for {}", summary.bytes);
    (file, summary)
}

pub(super) fn source(file: &Arc<MemoryFile>, mode: ReadMode) -> TableSource {
    TableSource {
        file: file.clone(),
        path: path(),
        db: DB,
        origin: NUMBER,
        bytes: file.bytes().len() as u64,
        mode,
        cache: Arc::new(BlockCache::new(32 << 20)),
    }
}

pub(super) fn open(file: &Arc<MemoryFile>, mode: ReadMode) -> Result<Arc<Table>> {
    Table::open(source(file, mode)).map(Arc::new)
}

pub(super) fn get(table: &Table, user: &[u8], seq: SeqNo) -> Result<Option<(Trailer, Vec<u8>)>> {
    Ok(table.get(user, key_hash(user), seq)?.map(|(trailer, value)| (trailer, value.to_vec())))
}

pub(super) const PLAIN: TableIterOptions = TableIterOptions { fill_cache: true, bypass: false };
pub(super) const UNKEPT: TableIterOptions = TableIterOptions { fill_cache: false, bypass: false };
pub(super) const BYPASS: TableIterOptions = TableIterOptions { fill_cache: false, bypass: true };

/// The seeded generator, in the shapes that these tests want.
pub(super) struct Random(SplitMix64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(SplitMix64::new(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0.below(end as u64) as usize
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.fill(&mut bytes);
        bytes
    }
}

/// The seed of random tests.
pub(super) fn seed() -> u64 {
    test_seed(20_240_607)
}
