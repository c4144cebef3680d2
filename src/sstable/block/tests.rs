//! Data blocks against a list, and blocks that break the rules.

use super::super::bytes::common_prefix_len;
use super::*;
use crate::base::key::InternalKey;
use crate::base::types::EntryKind;
use std::sync::Arc;

type Pair = (InternalKey, Vec<u8>);

fn pair(user: &[u8], seq: u64, value: &[u8]) -> Pair {
    (KeyRef::new(user, Trailer::new(seq, EntryKind::Put)).to_owned(), value.to_vec())
}

fn block(pairs: &[Pair], interval: usize) -> Vec<u8> {
    let mut builder = BlockBuilder::new(interval);
    let mut last: &[u8] = b"";
    for (key, value) in pairs {
        builder.add(common_prefix_len(last, &key.user), key.as_ref(), value);
        last = &key.user;
    }
    let estimate = builder.estimated_bytes();
    let bytes = builder.finish(last).clone();
    assert!(
        estimate.abs_diff(bytes.len()) <= bytes.len() / 2 + 10 * pairs.len(),
        "{estimate} {}",
        bytes.len()
    );
    bytes
}

fn pairs() -> Vec<Pair> {
    let users =
        ["a", "ab", "ab\0", "abc", "abcdefghi", "abcdefghij", "b", "ba", "user:1", "user:2", "user:22"];
    let versions =
        |user: &&str| [9u64, 5, 2].map(|seq| pair(user.as_bytes(), seq, format!("{user}{seq}").as_bytes()));
    users.iter().flat_map(versions).collect()
}

/// Every search in every block of these entries, against the list.
#[test]
fn searches_agree_with_a_list() {
    let pairs = pairs();
    for interval in [1, 2, 3, 4, 16, 100] {
        for start in 0..pairs.len() {
            let pairs = &pairs[start..];
            let bytes = block(pairs, interval);
            let parsed = Block::parse(&bytes).unwrap();
            let mut cursor = BlockCursor::new();
            cursor.enter(Arc::from(&bytes[..])).unwrap();
            for target in targets() {
                let target = target.as_ref();
                let at = pairs.partition_point(|(key, _)| key.as_ref() < target);
                let expected = pairs.get(at).filter(|(key, _)| *key.user == *target.user);
                let found = parsed.get(target).unwrap();
                let found = found.map(|(trailer, value)| (trailer, bytes[value].to_vec()));
                assert_eq!(found, expected.map(|(key, value)| (key.trailer, value.clone())), "{target:?}");

                cursor.seek(target).unwrap();
                check_cursor(&cursor, pairs.get(at));
                cursor.seek_for_prev(target).unwrap();
                let at = pairs.partition_point(|(key, _)| key.as_ref() <= target);
                check_cursor(&cursor, at.checked_sub(1).map(|at| &pairs[at]));
            }
        }
    }
}

fn check_cursor(cursor: &BlockCursor, expected: Option<&Pair>) {
    assert_eq!(cursor.valid(), expected.is_some());
    if let Some((key, value)) = expected {
        assert_eq!((cursor.key(), cursor.value()), (key.as_ref(), &value[..]));
    }
}

fn targets() -> Vec<InternalKey> {
    let mut users: Vec<Vec<u8>> = vec![b"".to_vec(), b"zz".to_vec(), b"abb".to_vec()];
    for (key, _) in pairs() {
        users.push(key.user.to_vec());
        users.push([&key.user, &b"\0"[..]].concat());
        users.push(key.user[..key.user.len() - 1].to_vec());
    }
    let trailers =
        [Trailer::FIRST, Trailer::LAST, Trailer::search(9), Trailer::search(5), Trailer::search(3)];
    let each = |user: &Vec<u8>| trailers.map(|trailer| KeyRef::new(user, trailer).to_owned());
    users.iter().flat_map(each).collect()
}

#[test]
fn a_block_of_one_key_with_an_empty_value_can_be_read() {
    let pairs = [pair(b"k", 0, b"")];
    let bytes = block(&pairs, 16);
    let (totals, last) = check::<Malformed>(&bytes, None, |_, _| Ok(())).unwrap();
    assert_eq!((totals.entries, totals.raw_bytes), (1, 9));
    assert_eq!(last, pairs[0].0);
}

/// A builder that is reused makes the same block again.
#[test]
fn a_reused_builder_starts_afresh() {
    let mut builder = BlockBuilder::new(4);
    let mut made = Vec::new();
    for _ in 0..2 {
        let mut last: &[u8] = b"";
        let pairs = pairs();
        for (key, value) in &pairs {
            builder.add(common_prefix_len(last, &key.user), key.as_ref(), value);
            last = &key.user;
        }
        made.push(builder.finish(last).clone());
        builder.reset();
        assert!(builder.is_empty());
    }
    assert_eq!(made[0], made[1]);
}

/// Whatever the bytes, every read answers or says that they are malformed; nothing panics or runs away.
fn read_everything(bytes: &[u8]) {
    let _ = check::<Malformed>(bytes, None, |_, _| Ok(()));
    let Ok(parsed) = Block::parse(bytes) else { return };
    let mut cursor = BlockCursor::new();
    cursor.enter(Arc::from(bytes)).unwrap();
    for target in targets().iter().step_by(7) {
        let _ = parsed.get(target.as_ref());
        let _ = cursor.seek(target.as_ref());
        let _ = cursor.next();
        let _ = cursor.seek_for_prev(target.as_ref());
        let _ = cursor.prev();
        let _ = (cursor.key(), cursor.value(), cursor.value_slice());
    }
    let _ = cursor.first();
    for _ in 0..100 {
        let _ = cursor.next();
    }
    let _ = cursor.last();
    for _ in 0..100 {
        let _ = cursor.prev();
    }
}

#[test]
fn hostile_bytes_never_panic() {
    let bytes = block(&pairs(), 3);
    for at in 0..bytes.len() {
        for value in [0, 1, 2, 0x7f, 0x80, 0xff] {
            let mut hostile = bytes.clone();
            hostile[at] = value;
            read_everything(&hostile);
        }
    }
    for len in 0..bytes.len() {
        read_everything(&bytes[..len]);
        read_everything(&bytes[len..]);
    }
}

/// `check` finds what breaks the rules that searches rely on.
#[test]
fn a_block_that_breaks_a_rule_fails_its_check() {
    let broken = |pairs: &[Pair]| check::<Malformed>(&block(pairs, 4), None, |_, _| Ok(())).is_err();
    assert!(!broken(&pairs()));
    assert!(broken(&[pair(b"b", 1, b""), pair(b"a", 1, b"")]), "descending");
    assert!(broken(&[pair(b"b", 1, b""), pair(b"b", 2, b"")]), "older version first");
    let bytes = block(&pairs(), 4);
    let before = pair(b"ab", 9, b"").0;
    assert!(check::<Malformed>(&bytes, Some(&before), |_, _| Ok(())).is_err(), "not after the block before");
    let mut shares_less = BlockBuilder::new(4);
    let (first, second) = (pair(b"aab", 1, b""), pair(b"aac", 1, b""));
    shares_less.add(0, first.0.as_ref(), b"");
    shares_less.add(1, second.0.as_ref(), b"");
    let bytes = shares_less.finish(&second.0.user).clone();
    assert!(check::<Malformed>(&bytes, None, |_, _| Ok(())).is_err(), "shares less than it could");
}
