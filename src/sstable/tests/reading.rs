//! How tables are written and read: in which pieces, through which door, kept where.

use super::*;
use crate::base::error::ErrorKind;
use crate::base::iter::InternalIter;
use crate::env::{AppendOptions, Fs};
use std::sync::atomic::Ordering::Relaxed;

fn entries(count: u64) -> Entries {
    (0..count).map(|n| put(format!("key{n:06}"), n + 1, vec![n as u8; 100])).collect()
}

fn raw_options() -> TableOptions {
    TableOptions { compression: Compression::None, ..options() }
}

#[test]
fn a_table_is_written_in_large_pieces_and_synced_once() {
    let (file, summary) = build(&entries(20_000), raw_options());
    let appends = file.appends.load(Relaxed);
    assert!(summary.bytes / appends > 200_000, "{} in {appends}", summary.bytes);
    assert_eq!(file.syncs.load(Relaxed), 1);
}

#[test]
fn entries_that_do_not_ascend_are_refused() {
    let check = |first: (InternalKey, Vec<u8>), second: (InternalKey, Vec<u8>), kind: Option<ErrorKind>| {
        let mut builder = TableBuilder::new(MemoryFile::new(), &path(), DB, NUMBER, options());
        builder.add(first.0.as_ref(), &first.1).unwrap();
        let result = builder.add(second.0.as_ref(), &second.1);
        assert_eq!(result.err().map(|error| error.kind()), kind, "{:?} {:?}", first.0, second.0);
    };
    check(put("b", 5, ""), put("b", 4, ""), None);
    check(put("b", 5, ""), put("b\0", 9, ""), None);
    check(put("b", 5, ""), put("c", 9, ""), None);
    check(put("b", 5, ""), put("b", 5, ""), Some(ErrorKind::InvalidArgument));
    check(put("b", 5, ""), put("b", 6, ""), Some(ErrorKind::InvalidArgument));
    check(put("bb", 5, ""), put("b", 4, ""), Some(ErrorKind::InvalidArgument));
    check(put("b", 5, ""), put("a", 4, ""), Some(ErrorKind::InvalidArgument));
    check(put("b", 5, ""), put("", 4, ""), Some(ErrorKind::LimitExceeded));
    check(put("b", 5, ""), put(vec![b'c'; 65536], 4, ""), Some(ErrorKind::LimitExceeded));
}

#[test]
fn a_table_without_entries_is_refused() {
    let builder = TableBuilder::new(MemoryFile::new(), &path(), DB, NUMBER, options());
    assert_eq!(builder.finish().unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn failed_writes_and_syncs_are_returned_and_nothing_is_appended_after() {
    let file = MemoryFile::new();
    let mut builder = TableBuilder::new(file.clone(), &path(), DB, NUMBER, raw_options());
    file.fail_append.store(true, Relaxed);
    let failed = entries(20_000).iter().find_map(|(key, value)| builder.add(key.as_ref(), value).err());
    assert_eq!(failed.unwrap().kind(), ErrorKind::Io);
    file.fail_append.store(false, Relaxed);
    assert_eq!(builder.finish().unwrap_err().kind(), ErrorKind::Io);
    assert!(file.bytes().is_empty());

    let file = MemoryFile::new();
    let mut builder = TableBuilder::new(file.clone(), &path(), DB, NUMBER, options());
    builder.add(entries(1)[0].0.as_ref(), b"v").unwrap();
    file.fail_sync.store(true, Relaxed);
    assert!(builder.finish().unwrap_err().to_string().contains("000007.sst"));
}

/// A large value does not share its block with the small entries before it.
#[test]
fn small_entries_are_not_read_with_a_large_value() {
    let mut entries = entries(10);
    entries.push(put("key000010", 1, vec![7u8; 1 << 20]));
    entries.push(put("key000011", 1, "small"));
    let (file, _) = build(&entries, raw_options());
    let table = open(&file, ReadMode::Pread).unwrap();
    let lens: Vec<u64> =
        (0..3).map(|entry| table.top().place(entry, table.index_start).unwrap().len()).collect();
    assert!(lens[0] < 4096 && lens[1] > 1 << 20 && lens[2] < 4096, "{lens:?}");
}

/// Above the size from which raw blocks skip the buffer.
#[test]
fn a_huge_value_makes_the_round_trip() {
    for compression in [Compression::None, Compression::Lz4] {
        let mut random = Random::new(3);
        let mut huge = random.bytes(1 << 20);
        huge.resize(17 << 20, 9);
        let entries = vec![put("a", 1, "x"), put("b", 1, &huge), put("c", 1, "y")];
        let (file, summary) = build(&entries, TableOptions { compression, ..options() });
        assert_eq!(compression == Compression::Lz4, summary.bytes < 2 << 20);
        let table = open(&file, ReadMode::Mmap).unwrap();
        assert_eq!(table.verify().unwrap(), 3);
        for (key, value) in &entries {
            assert!(get(&table, &key.user, 1).unwrap().unwrap().1 == *value);
        }
    }
}

#[test]
fn incompressible_blocks_are_stored_as_they_are() {
    let mut random = Random::new(seed());
    let entries: Entries = (0..500u64).map(|n| put(n.to_be_bytes(), n, random.bytes(400))).collect();
    let (_, raw) = build(&entries, raw_options());
    let (_, lz4) = build(&entries, options());
    assert!(lz4.bytes <= raw.bytes && lz4.bytes > raw.bytes / 10 * 9, "{} {}", lz4.bytes, raw.bytes);
}

#[test]
fn a_second_read_comes_from_the_cache() {
    let (file, _) = build(&entries(1000), options());
    let table = open(&file, ReadMode::Pread).unwrap();
    let at_open = file.reads.load(Relaxed);
    for _ in 0..5 {
        get(&table, b"key000500", 9999).unwrap().unwrap();
    }
    assert_eq!(file.reads.load(Relaxed), at_open + 1);
    get(&table, b"nothing", 9999).unwrap();
    get(&table, b"zzz", 9999).unwrap();
    assert!(file.reads.load(Relaxed) <= at_open + 2);
}

#[test]
fn a_mapped_table_reads_blocks_from_its_map_only() {
    let (file, _) = build(&entries(1000), options());
    let table = open(&file, ReadMode::Mmap).unwrap();
    get(&table, b"key000500", 9999).unwrap().unwrap();
    assert_eq!(file.reads.load(Relaxed), 0);
}

#[test]
fn two_tables_in_one_cache_do_not_mix_their_blocks() {
    let cache = Arc::new(BlockCache::new(32 << 20));
    let tables: Vec<Table> = [b"left", b"rite"]
        .iter()
        .map(|value| {
            let (file, _) = build(&vec![put("k", 1, value)], options());
            Table::open(TableSource { cache: Arc::clone(&cache), ..source(&file, ReadMode::Pread) }).unwrap()
        })
        .collect();
    for _ in 0..2 {
        assert_eq!(get(&tables[0], b"k", 1).unwrap().unwrap().1, b"left");
        assert_eq!(get(&tables[1], b"k", 1).unwrap().unwrap().1, b"rite");
    }
}

fn drain(table: &Arc<Table>, options: TableIterOptions, forwards: bool) -> u64 {
    let mut iter = table.iter(options);
    if forwards {
        iter.seek_to_first().unwrap()
    } else {
        iter.seek_to_last().unwrap()
    }
    let mut count = 0;
    while iter.valid() {
        count += 1;
        if forwards { iter.next().unwrap() } else { iter.prev().unwrap() }
    }
    count
}

#[test]
fn a_bypassing_scan_touches_neither_cache_nor_map_and_reads_in_large_pieces() {
    for forwards in [true, false] {
        let (file, summary) =
            build(&entries(40_000), TableOptions { index_block_bytes: 20_000, ..raw_options() });
        let source = source(&file, ReadMode::Mmap);
        let cache = Arc::clone(&source.cache);
        let table = Arc::new(Table::open(source).unwrap());
        assert_eq!(drain(&table, BYPASS, forwards), 40_000);
        assert_eq!((cache.used_bytes(), cache.hits(), cache.misses()), (0, 0, 0));
        assert_eq!(file.reads.load(Relaxed), 0);
        let partitions = table.top().entries() as u64;
        let pieces = file.reads_uncached.load(Relaxed) - partitions;
        assert!(pieces < summary.bytes / 500_000 + 3, "{pieces} for {}", summary.bytes);
    }
}

#[test]
fn a_scan_reads_ahead_and_fills_the_cache_only_if_asked() {
    for forwards in [true, false] {
        for options in [PLAIN, UNKEPT] {
            let (file, _) = build(&entries(10_000), raw_options());
            let source = source(&file, ReadMode::Pread);
            let cache = Arc::clone(&source.cache);
            let table = Arc::new(Table::open(source).unwrap());
            let at_open = file.reads.load(Relaxed);
            assert_eq!(drain(&table, options, forwards), 10_000);
            let reads = file.reads.load(Relaxed) - at_open;
            assert!(reads * 8 < table.properties().data_blocks, "{reads}");
            assert_eq!(cache.used_bytes() > 0, options.fill_cache);
            if options.fill_cache {
                assert_eq!(drain(&table, options, forwards), 10_000);
                assert_eq!(file.reads.load(Relaxed) - at_open, reads);
            }
        }
    }
}

#[test]
fn large_values_share_their_block_and_small_ones_do_not() {
    let entries = vec![put("large", 1, vec![1u8; 3000]), put("small", 1, vec![2u8; 10])];
    let (file, _) = build(&entries, raw_options());
    let source = source(&file, ReadMode::Pread);
    let table = Table::open(source).unwrap();
    let value = |user: &[u8]| table.get(user, key_hash(user), 1).unwrap().unwrap().1;
    assert!(std::ptr::eq(value(b"large").as_ptr(), value(b"large").as_ptr()));
    let (one, other) = (value(b"small"), value(b"small"));
    assert!(!std::ptr::eq(one.as_ptr(), other.as_ptr()));
}

/// A filter that is there saves the block read for nearly all absent keys.
#[test]
fn absent_keys_seldom_read_blocks() {
    for filter in [FilterKind::Standard, FilterKind::Blocked] {
        let (file, _) = build(&entries(5000), TableOptions { filter, ..options() });
        let table = open(&file, ReadMode::Pread).unwrap();
        let at_open = file.reads.load(Relaxed);
        for n in 0..2000 {
            assert_eq!(get(&table, format!("key{n:06}x").as_bytes(), 9999).unwrap(), None);
        }
        assert!(file.reads.load(Relaxed) - at_open < 60);
    }
}

/// The same through the operating system: a real file, really mapped.
#[test]
fn a_table_on_a_disk_makes_the_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("000007.sst");
    let fs = crate::env::OsFs::new();
    let file = fs.create(&path, AppendOptions::default()).unwrap();
    let mut builder = TableBuilder::new(file, &path, DB, NUMBER, options());
    let entries = entries(20_000);
    for (key, value) in &entries {
        builder.add(key.as_ref(), value).unwrap();
    }
    let bytes = builder.finish().unwrap().bytes;
    for mode in [ReadMode::Mmap, ReadMode::Pread] {
        let cache = Arc::new(BlockCache::new(1 << 20));
        let file = fs.open(&path).unwrap();
        let path = path.clone();
        let source = TableSource { file, path, db: DB, origin: NUMBER, bytes, mode, cache };
        let table = Arc::new(Table::open(source).unwrap());
        assert_eq!(table.verify().unwrap(), 20_000);
        for (key, value) in entries.iter().step_by(61) {
            assert_eq!(get(&table, &key.user, u64::MAX >> 8).unwrap().unwrap().1, *value);
        }
        for options in [PLAIN, BYPASS] {
            assert_eq!(drain(&table, options, true), 20_000);
            assert_eq!(drain(&table, options, false), 20_000);
        }
    }
}
