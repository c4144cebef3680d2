//! Writers and readers of one list at once.

use super::*;
use std::sync::atomic::{AtomicU64, Ordering};

const WRITERS: u64 = 3;
const ENTRIES_PER_WRITER: u64 = 4_000;

/// Keys of different writers interleave, and every third is too long for a node.
fn key_of(writer: u64, number: u64) -> Vec<u8> {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    match number % 3 {
        0 => format!("a key that does not fit into a node:{scattered:08}:{writer}").into_bytes(),
        _ => format!("{scattered:08}:{writer}").into_bytes(),
    }
}

fn seq_of(writer: u64, number: u64) -> SeqNo {
    1 + number * WRITERS + writer
}

/// Reads keys that their writers have published, until all are done.
fn read_published(table: &Memtable, published: &[AtomicU64]) {
    let mut round = 0u64;
    loop {
        let counts: Vec<u64> = published.iter().map(|count| count.load(Ordering::Acquire)).collect();
        for (writer, count) in (0u64..).zip(&counts).filter(|(_, count)| **count > 0) {
            for number in [count - 1, round % count] {
                let key = key_of(writer, number);
                let (trailer, value) = get(table, &key, SEQ_MAX).expect("a published key is found");
                assert_eq!((trailer.seq(), value), (seq_of(writer, number), key));
            }
        }
        if counts.iter().all(|count| *count == ENTRIES_PER_WRITER) {
            return;
        }
        round += 1;
    }
}

/// Walks the list both ways until all writers are done; the order must hold whatever appears meanwhile.
fn walk(table: &Memtable, published: &[AtomicU64]) {
    let mut iter = table.iter();
    loop {
        let done = published.iter().all(|count| count.load(Ordering::Acquire) == ENTRIES_PER_WRITER);
        let least = published.iter().map(|count| count.load(Ordering::Acquire)).sum::<u64>();
        let mut seen = 0;
        let mut last: Option<(Vec<u8>, Trailer)> = None;
        iter.seek_to_first().unwrap();
        while iter.valid() {
            let key = iter.key();
            if let Some((user, trailer)) = &last {
                assert!(KeyRef::new(user, *trailer) < key);
            }
            assert_eq!(iter.value(), key.user);
            last = Some((key.user.to_vec(), key.trailer));
            seen += 1;
            iter.next().unwrap();
        }
        assert!(seen >= least, "{seen} of {least} published entries seen");
        let mut from: Option<Vec<u8>> = None;
        iter.seek_to_last().unwrap();
        for _ in 0..200 {
            if !iter.valid() {
                break;
            }
            assert!(from.is_none_or(|from| iter.key().user < &from[..]));
            from = Some(iter.key().user.to_vec());
            iter.prev().unwrap();
        }
        if done {
            return;
        }
    }
}

#[test]
fn published_keys_are_found_and_walks_stay_sorted_while_writers_insert() {
    let list = Arc::new(ActiveMemtable::new(1 << 20));
    let published: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
    let table = Memtable::List(list.clone());
    std::thread::scope(|scope| {
        for (writer, done) in (0u64..).zip(&published) {
            let list = &list;
            scope.spawn(move || {
                for number in 0..ENTRIES_PER_WRITER {
                    let key = key_of(writer, number);
                    insert(list, &key, Trailer::new(seq_of(writer, number), EntryKind::Put), &key);
                    done.store(number + 1, Ordering::Release);
                }
            });
        }
        scope.spawn(|| read_published(&table, &published));
        scope.spawn(|| walk(&table, &published));
    });
    assert_eq!(list.len() as u64, WRITERS * ENTRIES_PER_WRITER);
    assert_eq!(list.seq_range(), Some((1, WRITERS * ENTRIES_PER_WRITER)));
}

#[test]
fn a_cursor_moves_between_threads() {
    let list = Arc::new(ActiveMemtable::new(1000));
    for (seq, key) in (1..).zip([b"a", b"b", b"c"]) {
        insert(&list, key, Trailer::new(seq, EntryKind::Put), b"");
    }
    let mut iter = Memtable::List(list).iter();
    iter.seek_to_first().unwrap();
    let iter = std::thread::spawn(move || {
        iter.next().unwrap();
        iter
    })
    .join()
    .unwrap();
    assert_eq!(iter.key().user, b"b");
}
