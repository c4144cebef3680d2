//! Block cache: decompressed blocks by table and offset, within a budget of bytes.
//!
//! Built on `quick_cache` (S3-FIFO with a ghost list, sharded). The budget is split evenly over the shards, so an
//! entry heavier than one shard's share is not cached; shards are chosen few enough that this only meets
//! exceptional blocks. The cache knows no files: a table takes a number from [`BlockCache::new_file_id`] when it is
//! opened, and blocks of tables that are gone age out like any others.

use crate::base::metrics::Counter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(test)]
mod tests;

/// Smallest share of the budget that a shard may have, in bytes: below it, larger blocks would find no place.
const SHARD_BYTES_MIN: u64 = 2 << 20;

/// More shards than this bring no more parallelism.
const SHARDS_MAX: u64 = 64;

/// Typical weight of an entry, from which the length of the ghost list follows.
const ENTRY_BYTES_TYPICAL: u64 = 4 << 10;

/// What an entry costs beside its bytes: reference counts, slab slot, hash table slot, allocator.
const ENTRY_OVERHEAD_BYTES: u64 = 128;

/// Name of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockKey {
    /// Number of the open table, from [`BlockCache::new_file_id`].
    pub(crate) file: u64,
    /// Where the block begins in its file.
    pub(crate) offset: u64,
}

impl Hash for BlockKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.file);
        state.write_u64(self.offset);
    }
}

/// Blocks in memory, shared by all tables of a database.
pub(crate) struct BlockCache {
    blocks: Cache<BlockKey, Arc<[u8]>, ByteWeighter, FoldBuilder>,
    capacity_bytes: u64,
    next_file: AtomicU64,
    hits: Counter,
    misses: Counter,
}

impl BlockCache {
    /// A cache that holds up to this many bytes; 0 holds nothing.
    pub(crate) fn new(capacity_bytes: u64) -> BlockCache {
        let entries = (capacity_bytes / ENTRY_BYTES_TYPICAL).max(1);
        let lifecycle = DefaultLifecycle::default();
        let shards = shard_count(capacity_bytes);
        let options = OptionsBuilder::new()
            .shards(usize::try_from(shards).unwrap_or(1))
            .estimated_items_capacity(usize::try_from(entries).unwrap_or(usize::MAX))
            .weight_capacity(capacity_bytes)
            .build();
        let blocks = match options {
            Ok(options) => Cache::with_options(options, ByteWeighter, FoldBuilder, lifecycle),
            Err(_) => Cache::with(1, capacity_bytes, ByteWeighter, FoldBuilder, lifecycle),
        };
        BlockCache {
            blocks,
            capacity_bytes,
            next_file: AtomicU64::new(1),
            hits: Counter::default(),
            misses: Counter::default(),
        }
    }

    /// The block, if it is cached.
    #[inline]
    pub(crate) fn get(&self, key: &BlockKey) -> Option<Arc<[u8]>> {
        let block = self.blocks.get(key);
        if block.is_some() { &self.hits } else { &self.misses }.add(1);
        block
    }

    /// Keeps the block, if it finds a place; others may go for it.
    pub(crate) fn insert(&self, key: BlockKey, block: Arc<[u8]>) {
        self.blocks.insert(key, block);
    }

    /// Weight of all cached blocks, overhead included.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// The budget.
    #[cfg(test)]
    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Lookups that found their block.
    pub(crate) fn hits(&self) -> u64 {
        self.hits.get()
    }

    /// Lookups that did not.
    pub(crate) fn misses(&self) -> u64 {
        self.misses.get()
    }

    /// A number that no other table using this cache has.
    pub(crate) fn new_file_id(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache").field("capacity_bytes", &self.capacity_bytes).finish_non_exhaustive()
    }
}

/// A power of two: as many shards as the budget has minimal shares, within bounds.
fn shard_count(capacity_bytes: u64) -> u64 {
    let shares = (capacity_bytes / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
    1u64 << shares.ilog2()
}

#[derive(Debug, Clone)]
struct ByteWeighter;

impl Weighter<BlockKey, Arc<[u8]>> for ByteWeighter {
    fn weight(&self, _: &BlockKey, block: &Arc<[u8]>) -> u64 {
        (block.len() as u64).saturating_add(ENTRY_OVERHEAD_BYTES)
    }
}

/// Hashes two integers by folded multiplication. Keys come from us, so there is nobody to defend against.
#[derive(Debug, Clone, Default)]
struct FoldHasher {
    state: u64,
}

impl Hasher for FoldHasher {
    #[inline]
    fn write_u64(&mut self, value: u64) {
        let mixed = self.state.rotate_left(5) ^ value ^ 0x9e37_79b9_7f4a_7c15;
        let product = u128::from(mixed).wrapping_mul(0xa076_1d64_78bd_642f);
        self.state = (product as u64) ^ ((product >> 64) as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.state
    }
}

#[derive(Debug, Clone)]
struct FoldBuilder;

impl BuildHasher for FoldBuilder {
    type Hasher = FoldHasher;

    #[inline]
    fn build_hasher(&self) -> FoldHasher {
        FoldHasher::default()
    }
}
