//! The block cache: its budget, and keys that do not collide.

use super::*;

fn block(len: usize) -> Arc<[u8]> {
    Arc::from(vec![7u8; len])
}

fn key(file: u64, offset: u64) -> BlockKey {
    BlockKey { file, offset }
}

#[test]
fn a_block_is_found_under_its_own_name_only() {
    let cache = BlockCache::new(1 << 20);
    cache.insert(key(1, 4096), block(100));
    assert_eq!(cache.get(&key(1, 4096)).unwrap().len(), 100);
    assert!(cache.get(&key(2, 4096)).is_none());
    assert!(cache.get(&key(1, 0)).is_none());
    assert_eq!((cache.hits(), cache.misses()), (1, 2));
    assert_eq!(cache.used_bytes(), 100 + ENTRY_OVERHEAD_BYTES);
}

#[test]
fn the_budget_holds_whatever_is_inserted() {
    for capacity in [0u64, 1, 4 << 10, 100 << 10, 3 << 20, 64 << 20] {
        let cache = BlockCache::new(capacity);
        for n in 0..2000u64 {
            cache.insert(key(n % 7, n * 4096), block((n as usize * 37) % 9000));
            assert!(cache.used_bytes() <= cache.capacity_bytes().next_multiple_of(64), "{capacity}");
        }
        if capacity >= 100 << 10 {
            assert!(cache.used_bytes() >= capacity.min(4 << 20) / 2, "{capacity}: {}", cache.used_bytes());
        }
    }
}

#[test]
fn a_block_too_heavy_for_the_cache_is_not_kept_and_others_stay() {
    let cache = BlockCache::new(64 << 10);
    cache.insert(key(1, 0), block(1000));
    cache.insert(key(1, 1), block(1 << 20));
    assert!(cache.get(&key(1, 1)).is_none());
    assert!(cache.get(&key(1, 0)).is_some());
}

#[test]
fn a_shard_keeps_room_for_large_blocks() {
    for (capacity, shards) in [(0, 1), (1 << 20, 1), (5 << 20, 2), (64 << 20, 32), (1 << 40, 64)] {
        assert_eq!(shard_count(capacity), shards);
    }
    let cache = BlockCache::new(64 << 20);
    cache.insert(key(1, 0), block(1 << 20));
    assert!(cache.get(&key(1, 0)).is_some());
}

#[test]
fn numbers_of_tables_differ() {
    let cache = BlockCache::new(0);
    assert_ne!(cache.new_file_id(), cache.new_file_id());
}

/// Names that differ in few bits must spread over all bits of the hash: it picks shard and slot.
#[test]
fn the_hash_spreads_neighbours() {
    let mut shards = [0u32; 64];
    for file in 0..64u64 {
        for index in 0..64u64 {
            let hash = FoldBuilder.hash_one(key(file, index * 4096));
            shards[(hash >> 58) as usize] += 1;
            shards[(hash & 63) as usize] += 1;
        }
    }
    assert!(shards.iter().all(|count| (64..=192).contains(count)), "{shards:?}");
}
