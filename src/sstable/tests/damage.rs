//! Damaged tables: every answer is right or names the damage; nothing panics, nothing is absent that was there.

use super::*;
use crate::base::checksum::{self, FileTag, Origin};
use crate::base::error::{Error, ErrorKind};
use crate::base::iter::InternalIter;
use crate::sstable::frame::{self, FrameError, Framer, RAW_BYTES_MAX};
use std::sync::atomic::Ordering::Relaxed;

fn entries(count: u64) -> Entries {
    (0..count)
        .map(|n| match n % 5 {
            4 => delete(format!("key{n:03}"), n + 1),
            _ => put(format!("key{n:03}"), n + 1, format!("value {}", n * n)),
        })
        .collect()
}

fn small(index_block_bytes: usize) -> TableOptions {
    TableOptions { block_bytes: 150, restart_interval: 4, index_block_bytes, ..options() }
}

/// The error is of this kind and names the table.
fn names_the_file(error: &Error, kind: ErrorKind) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains("000007.sst"), "{error}");
    if let Some(damage) = error.corruption() {
        assert_eq!(damage.file, path());
    }
}

/// Reads a table that may be damaged in every way; answers how many of the ways failed.
fn read_all(table: &Arc<Table>, entries: &Entries) -> usize {
    let mut failed = 0;
    let mut note = |error: &Error| {
        names_the_file(error, ErrorKind::Corruption);
        failed += 1;
    };
    for (key, value) in entries {
        match get(table, &key.user, key.trailer.seq()) {
            Ok(found) => assert_eq!(found, Some((key.trailer, value.clone()))),
            Err(error) => note(&error),
        }
    }
    for options in [PLAIN, BYPASS] {
        match scan(table, options) {
            Ok(found) => assert_eq!(found, *entries),
            Err(error) => note(&error),
        }
    }
    match table.verify() {
        Ok(count) => assert_eq!(count, entries.len() as u64),
        Err(error) => note(&error),
    }
    failed
}

fn scan(table: &Arc<Table>, options: TableIterOptions) -> Result<Entries> {
    let mut found = Vec::new();
    let mut iter = table.iter(options);
    iter.seek_to_first()?;
    while iter.valid() {
        found.push((iter.key().to_owned(), iter.value().to_vec()));
        let step = iter.next();
        assert!(step.is_ok() || !iter.valid(), "valid after an error");
        step?;
    }
    Ok(found)
}

/// Every byte of a table carries something: whichever is flipped, something fails, and nothing answers wrongly.
fn check_flips(options: TableOptions) {
    let entries = entries(40);
    let (file, _) = build(&entries, options);
    for at in 0..file.bytes().len() {
        for mask in [1, 0x80] {
            file.flip(at, mask);
            match open(&file, if at % 2 == 0 { ReadMode::Mmap } else { ReadMode::Pread }) {
                Ok(table) => assert!(read_all(&table, &entries) > 0, "byte {at} was not missed"),
                Err(error) => names_the_file(&error, ErrorKind::Corruption),
            }
            file.flip(at, mask);
        }
    }
    assert_eq!(read_all(&open(&file, ReadMode::Mmap).unwrap(), &entries), 0);
}

#[test]
fn every_flipped_byte_is_noticed() {
    check_flips(small(1 << 20));
    check_flips(TableOptions {
        compression: Compression::None,
        filter: FilterKind::Standard,
        ..small(1 << 20)
    });
}

#[test]
fn every_flipped_byte_is_noticed_with_two_levels() {
    check_flips(TableOptions { filter: FilterKind::None, ..small(100) });
}

#[test]
fn a_table_cut_at_any_length_is_not_opened() {
    let entries = entries(40);
    let (file, summary) = build(&entries, small(1 << 20));
    let whole = file.bytes();
    for len in 0..whole.len() {
        let cut = MemoryFile::of(whole[..len].to_vec());
        for (bytes, what) in [(summary.bytes, "as the manifest says"), (len as u64, "as it is")] {
            let source = TableSource { bytes, ..source(&cut, ReadMode::Mmap) };
            names_the_file(&Table::open(source).expect_err(what), ErrorKind::Corruption);
        }
    }
    let mut longer = whole.clone();
    longer.extend_from_slice(&whole);
    names_the_file(&open(&MemoryFile::of(longer), ReadMode::Pread).unwrap_err(), ErrorKind::Corruption);
}

#[test]
fn a_table_cut_while_open_fails_where_it_was_cut() {
    let entries = entries(200);
    let (file, _) = build(&entries, TableOptions { compression: Compression::None, ..small(1 << 20) });
    let table = open(&file, ReadMode::Pread).unwrap();
    file.cut(file.bytes().len() / 2);
    let failed = read_all(&table, &entries);
    assert!(failed > 50 && failed < 150, "{failed}");
}

#[test]
fn another_tables_file_is_refused() {
    let (file, _) = build(&entries(10), options());
    let other_number = TableSource { origin: NUMBER + 1, ..source(&file, ReadMode::Mmap) };
    let other_db = TableSource { db: DB ^ 1, ..source(&file, ReadMode::Mmap) };
    for source in [other_number, other_db] {
        names_the_file(&Table::open(source).unwrap_err(), ErrorKind::Corruption);
    }
}

/// A whole valid frame in the wrong place is damage: two blocks of equal length are exchanged.
#[test]
fn blocks_that_changed_places_are_noticed() {
    let entries: Entries = (0..40u64).map(|n| put(format!("key{n:03}"), 9, [n as u8; 20])).collect();
    let (file, _) = build(&entries, TableOptions { compression: Compression::None, ..small(1 << 20) });
    let table = open(&file, ReadMode::Pread).unwrap();
    let place = |entry| table.top().place(entry, table.index_start).unwrap();
    let pairs = (1..table.top().entries()).map(|entry| (place(entry - 1), place(entry)));
    let (first, second) = pairs.into_iter().find(|(first, second)| first.len() == second.len()).unwrap();
    let mut bytes = file.bytes();
    let (a, b) = (first.start as usize, second.start as usize);
    let moved = bytes[a..b].to_vec();
    bytes.copy_within(b..second.end as usize, a);
    bytes[b..second.end as usize].copy_from_slice(&moved);
    let table = open(&MemoryFile::of(bytes), ReadMode::Pread).unwrap();
    let failed = read_all(&table, &entries);
    assert!(failed > 3 && failed < 20, "{failed}");
}

#[test]
fn a_read_error_is_neither_absence_nor_corruption() {
    let entries = entries(40);
    let (file, _) = build(&entries, small(100));
    let table = open(&file, ReadMode::Pread).unwrap();
    let mut iter = table.iter(UNKEPT);
    iter.seek_to_first().unwrap();
    file.fail_read.store(true, Relaxed);
    names_the_file(&get(&table, b"key001", 99).unwrap_err(), ErrorKind::Io);
    names_the_file(&table.verify().unwrap_err(), ErrorKind::Io);
    while iter.valid() {
        if let Err(error) = iter.next() {
            names_the_file(&error, ErrorKind::Io);
            assert!(!iter.valid());
        }
    }
    names_the_file(&iter.seek_to_last().unwrap_err(), ErrorKind::Io);
    file.fail_read.store(false, Relaxed);
    iter.seek_to_last().unwrap();
    assert_eq!(iter.key(), entries[39].0.as_ref());
    assert_eq!(read_all(&table, &entries), 0);
}

/// After a failed read nothing of it is served: the same cursor reads again, and right.
#[test]
fn a_cursor_goes_on_after_a_failed_read() {
    let entries = entries(40);
    let (file, _) = build(&entries, small(1 << 20));
    let table = open(&file, ReadMode::Pread).unwrap();
    for options in [UNKEPT, BYPASS] {
        let mut iter = table.iter(options);
        for _ in 0..3 {
            file.fail_read.store(true, Relaxed);
            names_the_file(&iter.seek_to_first().unwrap_err(), ErrorKind::Io);
            assert!(!iter.valid());
            file.fail_read.store(false, Relaxed);
            iter.seek_to_first().unwrap();
            assert_eq!(iter.key(), entries[0].0.as_ref());
            iter.seek_to_last().unwrap();
            assert_eq!(iter.key(), entries[39].0.as_ref());
            iter = table.iter(options);
        }
    }
}

#[test]
fn a_map_that_fails_is_replaced_by_reads() {
    let entries = entries(40);
    let (file, _) = build(&entries, small(100));
    file.fail_map.store(true, Relaxed);
    assert_eq!(read_all(&open(&file, ReadMode::Mmap).unwrap(), &entries), 0);
    file.fail_map.store(false, Relaxed);
    file.fail_copy.store(true, Relaxed);
    assert_eq!(read_all(&open(&file, ReadMode::Mmap).unwrap(), &entries), 0);
}

/// Puts another footer body on a table, with its checksum right.
fn with_footer(edit: impl Fn(&mut [u8])) -> Error {
    let (file, _) = build(&entries(10), options());
    let mut bytes = file.bytes();
    let len = bytes.len();
    let start = len - super::super::footer::FOOTER_BYTES;
    edit(&mut bytes[start..]);
    let sum = checksum::plain(&bytes[start..len - 16]);
    bytes[len - 16..len - 8].copy_from_slice(&sum.to_le_bytes());
    open(&MemoryFile::of(bytes), ReadMode::Pread).unwrap_err()
}

#[test]
fn footers_of_later_versions_and_hostile_ones_are_refused() {
    names_the_file(&with_footer(|footer| footer[68] = 2), ErrorKind::VersionUnsupported);
    names_the_file(&with_footer(|footer| footer[64] = 1), ErrorKind::VersionUnsupported);
    names_the_file(&with_footer(|footer| footer[65] = 9), ErrorKind::VersionUnsupported);
    names_the_file(&with_footer(|footer| footer[67] = 3), ErrorKind::VersionUnsupported);
    names_the_file(&with_footer(|footer| footer[68] = 0), ErrorKind::Corruption);
    names_the_file(&with_footer(|footer| footer[24] ^= 1), ErrorKind::Corruption);
    for field in [32, 40, 48, 56] {
        for value in [0u64, u64::MAX, 1 << 40] {
            let error = with_footer(|footer| footer[field..field + 8].copy_from_slice(&value.to_le_bytes()));
            if (field, value) != (32, 0) {
                names_the_file(&error, ErrorKind::Corruption);
            }
        }
    }
}

#[test]
fn a_filter_of_a_later_kind_is_done_without() {
    let entries = entries(10);
    let (file, _) = build(&entries, options());
    let mut bytes = file.bytes();
    let len = bytes.len();
    let start = len - super::super::footer::FOOTER_BYTES;
    bytes[start + 66] = 200;
    let sum = checksum::plain(&bytes[start..len - 16]);
    bytes[len - 16..len - 8].copy_from_slice(&sum.to_le_bytes());
    let table = open(&MemoryFile::of(bytes), ReadMode::Pread).unwrap();
    assert!(table.may_contain(0));
    assert_eq!(read_all(&table, &entries), 0);
}

fn reframe(frame: &mut [u8], origin: Origin) {
    let covered = frame.len() - 8;
    let sum = origin.checksum(0, &frame[..covered]);
    frame[covered..].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn frames_with_hostile_lengths_allocate_nothing_and_are_refused() {
    let origin = Origin::new(DB, FileTag::Table, NUMBER);
    let mut frame = Vec::new();
    Framer::new(origin).push(&[7u8; 1000], 0, Compression::Lz4, &mut frame);
    assert_eq!(frame::open(&frame, 0, origin).unwrap().len(), 1000);
    let lengths = frame.len() - 12;
    for raw in [0, 1, 999, 1001, 70_000, RAW_BYTES_MAX as u32, RAW_BYTES_MAX as u32 + 1, u32::MAX] {
        let mut hostile = frame.clone();
        hostile[lengths..lengths + 4].copy_from_slice(&raw.to_le_bytes());
        assert!(matches!(frame::open(&hostile, 0, origin), Err(FrameError::Corrupt { .. })));
        reframe(&mut hostile, origin);
        assert!(matches!(frame::open(&hostile, 0, origin), Err(FrameError::Corrupt { .. })), "{raw}");
    }
    let mut later = frame.clone();
    later[lengths - 1] = 2;
    reframe(&mut later, origin);
    assert!(matches!(frame::open(&later, 0, origin), Err(FrameError::Unsupported(_))));
    let mut raw = frame.clone();
    raw[lengths - 1] = 0;
    reframe(&mut raw, origin);
    assert!(matches!(frame::open(&raw, 0, origin), Err(FrameError::Corrupt { .. })));
    for len in 0..frame.len() {
        assert!(frame::open(&frame[..len], 0, origin).is_err());
    }
}

/// Stored bytes of LZ4 that are damaged under a valid checksum: an error or other bytes of the right length, never
/// a panic.
#[test]
fn lz4_survives_hostile_input() {
    let origin = Origin::new(DB, FileTag::Table, NUMBER);
    let mut random = Random::new(seed());
    let raw: Vec<u8> = (0..3000).map(|n: u32| (n % 50) as u8 ^ random.below(3) as u8).collect();
    let mut frame = Vec::new();
    Framer::new(origin).push(&raw, 0, Compression::Lz4, &mut frame);
    for _ in 0..3000 {
        let mut hostile = frame.clone();
        let stored = hostile.len() - 13;
        for _ in 0..=random.below(4) {
            hostile[random.below(stored)] = random.next() as u8;
        }
        reframe(&mut hostile, origin);
        if let Ok(block) = frame::open(&hostile, 0, origin) {
            assert_eq!(block.len(), 3000);
        }
    }
}
