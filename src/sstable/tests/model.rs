//! Tables of many shapes against a sorted list.

use super::*;
use crate::base::iter::InternalIter;
use std::collections::BTreeMap;

/// Sorts and removes repeated keys.
fn ordered(entries: Entries) -> Entries {
    entries.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect()
}

fn expected(entries: &Entries, user: &[u8], seq: SeqNo) -> Option<(Trailer, Vec<u8>)> {
    let target = KeyRef::new(user, Trailer::search(seq)).to_owned();
    let at = entries.partition_point(|(key, _)| *key < target);
    let (key, value) = entries.get(at)?;
    (*key.user == *user).then(|| (key.trailer, value.clone()))
}

fn check_gets(table: &Table, entries: &Entries) {
    for (key, _) in entries {
        let seq = key.trailer.seq();
        let mut near = key.user.to_vec();
        for seq in [seq, seq + 1, seq.saturating_sub(1), 0, u64::MAX >> 8] {
            assert_eq!(get(table, &near, seq).unwrap(), expected(entries, &near, seq), "{near:?} at {seq}");
        }
        near.push(0);
        assert_eq!(get(table, &near, seq).unwrap(), expected(entries, &near, seq), "{near:?} at {seq}");
        near.truncate(near.len() - 2);
        if !near.is_empty() {
            assert_eq!(get(table, &near, seq).unwrap(), expected(entries, &near, seq), "{near:?} at {seq}");
        }
    }
    for absent in [&b""[..], b"\0", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
        assert_eq!(get(table, absent, 5).unwrap(), expected(entries, absent, 5));
    }
}

fn check_at(iter: &TableIter, entries: &Entries, at: Option<usize>) {
    match at.and_then(|at| entries.get(at)) {
        Some((key, value)) => {
            assert!(iter.valid());
            assert_eq!(iter.key(), key.as_ref());
            assert_eq!(iter.value(), &value[..]);
        }
        None => {
            assert!(!iter.valid(), "stands on {:?}", iter.key());
            assert_eq!(iter.key().user, b"");
            assert_eq!(iter.value(), b"");
        }
    }
}

fn check_scans(table: &Arc<Table>, entries: &Entries, options: TableIterOptions) {
    let mut iter = table.iter(options);
    check_at(&iter, entries, None);
    iter.next().unwrap();
    iter.prev().unwrap();
    check_at(&iter, entries, None);
    iter.seek_to_first().unwrap();
    for (at, (_, value)) in entries.iter().enumerate() {
        check_at(&iter, entries, Some(at));
        assert_eq!(iter.value_slice(), *value);
        iter.next().unwrap();
    }
    check_at(&iter, entries, None);
    iter.seek_to_last().unwrap();
    for at in (0..entries.len()).rev() {
        check_at(&iter, entries, Some(at));
        iter.prev().unwrap();
    }
    check_at(&iter, entries, None);
}

/// A target near an entry: the entry, its key at another version, or a key close by.
fn target(random: &mut Random, entries: &Entries) -> InternalKey {
    let (key, _) = &entries[random.below(entries.len())];
    let mut user = key.user.to_vec();
    let trailer = match random.below(5) {
        0 => Trailer::FIRST,
        1 => Trailer::LAST,
        2 => Trailer(key.trailer.0 ^ (1 << random.below(20))),
        _ => key.trailer,
    };
    match random.below(6) {
        0 => user.push(random.next() as u8),
        1 => user.truncate(random.below(user.len() + 1)),
        2 => {
            let at = random.below(user.len());
            user[at] = user[at].wrapping_add(random.next() as u8);
        }
        _ => {}
    }
    KeyRef::new(&user, trailer).to_owned()
}

fn check_walk(table: &Arc<Table>, entries: &Entries, options: TableIterOptions, random: &mut Random) {
    let mut iter = table.iter(options);
    let mut at: Option<usize> = None;
    for _ in 0..600 {
        match random.below(12) {
            0 => {
                iter.seek_to_first().unwrap();
                at = Some(0);
            }
            1 => {
                iter.seek_to_last().unwrap();
                at = Some(entries.len() - 1);
            }
            2 => {
                let target = target(random, entries);
                iter.seek(target.as_ref()).unwrap();
                at = Some(entries.partition_point(|(key, _)| *key < target));
            }
            3 => {
                let target = target(random, entries);
                iter.seek_for_prev(target.as_ref()).unwrap();
                at = entries.partition_point(|(key, _)| *key <= target).checked_sub(1);
            }
            4..8 => {
                iter.next().unwrap();
                at = at.map(|at| at + 1);
            }
            _ => {
                iter.prev().unwrap();
                at = at.and_then(|at| at.checked_sub(1));
            }
        }
        at = at.filter(|at| *at < entries.len());
        check_at(&iter, entries, at);
    }
}

fn check_summary(table: &Table, summary: &TableSummary, entries: &Entries) {
    let seqs = entries.iter().map(|(key, _)| key.trailer.seq());
    let deletes = entries.iter().filter(|(key, _)| key.trailer.kind() == Ok(EntryKind::Delete)).count();
    let raw = entries.iter().map(|(key, value)| key.user.len() + 8 + value.len()).sum::<usize>();
    assert_eq!(summary.entries, entries.len() as u64);
    assert_eq!(summary.deletes, deletes as u64);
    assert_eq!(summary.raw_bytes, raw as u64);
    assert_eq!((summary.seq_min, summary.seq_max), (seqs.clone().min().unwrap(), seqs.max().unwrap()));
    assert_eq!((&summary.smallest, &summary.largest), (&entries[0].0, &entries[entries.len() - 1].0));
    let properties = table.properties();
    assert_eq!((properties.entries, properties.deletes), (summary.entries, summary.deletes));
    assert_eq!((&properties.smallest, &properties.largest), (&summary.smallest, &summary.largest));
}

fn check_offsets(table: &Table, entries: &Entries) {
    let mut before = 0;
    for (key, _) in entries {
        let offset = table.approximate_offset(&key.user);
        assert!(offset >= before && offset <= table.properties().data_bytes);
        before = offset;
    }
    assert_eq!(table.approximate_offset(&[0xff; 65536]), table.properties().data_bytes);
}

/// Everything that reads can tell about a table of these entries.
fn check(entries: Entries, options: TableOptions, random: &mut Random) {
    let entries = ordered(entries);
    let (file, summary) = build(&entries, options);
    for mode in [ReadMode::Mmap, ReadMode::Pread] {
        let table = open(&file, mode).unwrap();
        assert_eq!(table.verify().unwrap(), entries.len() as u64);
        check_summary(&table, &summary, &entries);
        check_gets(&table, &entries);
        check_offsets(&table, &entries);
        for options in [PLAIN, UNKEPT, BYPASS] {
            check_scans(&table, &entries, options);
            check_walk(&table, &entries, options, random);
        }
    }
}

fn variants() -> Vec<TableOptions> {
    let mut variants = Vec::new();
    for compression in [Compression::None, Compression::Lz4] {
        for filter in [FilterKind::None, FilterKind::Standard, FilterKind::Blocked] {
            for (block_bytes, restart_interval, index_block_bytes) in
                [(4096, 16, 1 << 20), (256, 3, 300), (1, 1, 64)]
            {
                let options = TableOptions {
                    block_bytes,
                    restart_interval,
                    compression,
                    filter,
                    index_block_bytes,
                    ..options()
                };
                variants.push(options);
            }
        }
    }
    variants
}

/// Runs one shape of entries through a few of the variants, different ones for every shape.
fn check_shape(name: &str, make: impl Fn(&mut Random) -> Entries) {
    let seed = seed();
    let salt = name.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut random = Random::new(seed ^ salt);
    let variants = variants();
    for turn in 0..4 {
        let variant = variants[(random.below(variants.len()) + turn * 5) % variants.len()].clone();
        println!("{name}: {variant:?}");
        let entries = make(&mut random);
        check(entries, variant, &mut random);
    }
}

fn value(random: &mut Random) -> Vec<u8> {
    let len = random.below(120);
    if random.below(2) == 0 { vec![random.next() as u8; len] } else { random.bytes(len) }
}

fn entry(random: &mut Random, user: &[u8], seq: SeqNo) -> (InternalKey, Vec<u8>) {
    if random.below(8) == 0 { delete(user, seq) } else { put(user, seq, value(random)) }
}

#[test]
fn one_entry() {
    for options in variants() {
        let mut random = Random::new(1);
        check(vec![put(b"k", 1, b"v")], options.clone(), &mut random);
        check(vec![delete([0u8], 1 << 55)], options.clone(), &mut random);
        check(vec![put(vec![0xffu8; 65535], 9, b"")], options, &mut random);
    }
}

#[test]
fn random_binary_keys() {
    check_shape("binary", |random| {
        (0..400)
            .map(|seq| {
                let len = 1 + random.below(12);
                let user = random.bytes(len);
                entry(random, &user, seq)
            })
            .collect()
    });
}

#[test]
fn keys_of_two_letters_with_zeros_and_prefixes_of_each_other() {
    check_shape("letters", |random| {
        (0..400)
            .map(|seq| {
                let len = 1 + random.below(14);
                let user: Vec<u8> = (0..len).map(|_| [0u8, 1, 0xff][random.below(3)]).collect();
                entry(random, &user, seq)
            })
            .collect()
    });
}

#[test]
fn long_shared_prefixes() {
    check_shape("prefixes", |random| {
        (0..500)
            .map(|seq| {
                let user = format!("user:{:08}:profile:field:{:03}", random.below(40), random.below(100));
                entry(random, user.as_bytes(), seq)
            })
            .collect()
    });
}

#[test]
fn many_versions_of_few_keys_span_blocks() {
    check_shape("versions", |random| {
        (0..500)
            .map(|seq| {
                let user = ["hot", "hot\0", "hotter", "k"][random.below(4)];
                entry(random, user.as_bytes(), seq * 3 + 1)
            })
            .collect()
    });
}

#[test]
fn versions_with_sequences_of_every_width() {
    check_shape("sequences", |random| {
        (0..300)
            .map(|_| {
                let user = format!("{:02}", random.below(30));
                let seq = (random.next() >> 8) >> random.below(56);
                entry(random, user.as_bytes(), seq)
            })
            .collect()
    });
}

#[test]
fn long_keys() {
    check_shape("long", |random| {
        (0..24)
            .map(|seq| {
                let mut user = vec![b'x'; [1, 127, 128, 129, 5000, 65000][random.below(6)]];
                let len = 1 + random.below(4);
                user.extend_from_slice(&random.bytes(len));
                entry(random, &user, seq)
            })
            .collect()
    });
}

#[test]
fn values_from_none_to_many_blocks() {
    check_shape("values", |random| {
        (0..60)
            .map(|seq| {
                let len = [0, 1, 100, 4096, 5000, 70_000, 300_000][random.below(7)];
                let value = if random.below(2) == 0 { vec![7u8; len] } else { random.bytes(len) };
                put(random.next().to_be_bytes(), seq, value)
            })
            .collect()
    });
}

#[test]
fn only_deletes() {
    check_shape("deletes", |random| (0..200).map(|seq| delete(random.next().to_be_bytes(), seq)).collect());
}

/// Enough entries for index partitions of their regular size.
#[test]
fn an_index_of_two_regular_levels() {
    let mut random = Random::new(seed());
    let entries: Entries = (0..20_000u64).map(|n| put(format!("key{n:08}"), n, value(&mut random))).collect();
    let options = TableOptions { block_bytes: 128, index_block_bytes: 40_000, ..options() };
    let (file, _) = build(&entries, options);
    let table = open(&file, ReadMode::Mmap).unwrap();
    assert!(table.two_level() && table.top().entries() > 3, "{}", table.top().entries());
    assert!(table.memory_bytes() < 60_000, "{}", table.memory_bytes());
    assert_eq!(table.verify().unwrap(), 20_000);
    check_scans(&table, &entries, BYPASS);
    check_walk(&table, &entries, PLAIN, &mut random);
    for n in (0..20_000u64).step_by(37) {
        assert!(get(&table, format!("key{n:08}").as_bytes(), n).unwrap().is_some());
    }
}

/// A walk over `entries` never gives a key that the block before also had: the harness itself must notice.
#[test]
fn the_model_notices_a_missing_entry() {
    let entries = ordered((0..50).map(|n| put(format!("{n:03}"), n, b"v")).collect());
    let (file, _) = build(&entries, options());
    let table = open(&file, ReadMode::Pread).unwrap();
    let mut fewer = entries;
    fewer.remove(20);
    let scan = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check_scans(&table, &fewer, PLAIN)));
    assert!(scan.is_err());
}
