//! Both kinds of memtable against a `BTreeMap`, and the list under threads.

mod accounting;
mod concurrency;

use super::filter::Filter;
use super::*;
use crate::base::checksum::key_hash;
use crate::base::types::{EntryKind, KEY_BYTES_MAX, SEQ_MAX};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// What a memtable should hold, in its order.
type Model = BTreeMap<(Vec<u8>, Reverse<u64>), Vec<u8>>;

/// A seeded generator; the seed is printed and taken from `ESKER_SEED`.
fn rng() -> StdRng {
    let seed = std::env::var("ESKER_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("ESKER_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// A buffer with the key and the value somewhere in it, and where they are.
fn buffer(key: &[u8], value: &[u8]) -> (Arc<[u8]>, Place) {
    let bytes = [b"<<<", key, b"=", value, b">"].concat();
    let place =
        Place { key_start: 3, key_len: key.len(), value_start: 4 + key.len(), value_len: value.len() };
    (Arc::from(bytes), place)
}

fn insert(table: &ActiveMemtable, key: &[u8], trailer: Trailer, value: &[u8]) {
    let (owner, place) = buffer(key, value);
    table.insert(&owner, place, trailer).unwrap();
}

fn get(table: &Memtable, key: &[u8], seq: SeqNo) -> Option<(Trailer, Vec<u8>)> {
    table.get(key, key_hash(key), seq).map(|(trailer, value)| (trailer, value.to_vec()))
}

/// Keys that are close to each other in every way that matters to the comparison: zeros at the end, prefixes of
/// each other, lengths around the words of a node and around what fits into it.
fn random_key(rng: &mut StdRng) -> Vec<u8> {
    const LENGTHS: [usize; 16] = [1, 2, 3, 7, 8, 9, 16, 17, 23, 24, 25, 30, 31, 32, 33, 60];
    let len = LENGTHS[rng.random_range(0..LENGTHS.len())];
    let mut key = vec![0u8; len];
    for _ in 0..rng.random_range(0..3) {
        let at = rng.random_range(0..len);
        key[at] = [1, 0x7f, 0x80, 0xff][rng.random_range(0..4)];
    }
    let last = key.last_mut().unwrap();
    *last = last.wrapping_add(rng.random_range(0..3));
    key
}

fn random_trailer(rng: &mut StdRng, seq: SeqNo) -> Trailer {
    Trailer::new(seq, if rng.random_bool(0.2) { EntryKind::Delete } else { EntryKind::Put })
}

/// The same random entries as a model, a list and a run.
fn random_tables(rng: &mut StdRng, entries: u64) -> (Model, Memtable, Memtable) {
    let mut model = Model::new();
    let list = Arc::new(ActiveMemtable::new(1 << 16));
    for seq in 1..=entries {
        let (key, trailer) = (random_key(rng), random_trailer(rng, seq));
        let value = vec![seq as u8; rng.random_range(0..40)];
        insert(&list, &key, trailer, &value);
        model.insert((key, Reverse(trailer.0)), value);
    }
    // Spread over several lists, in an order that is not the model's.
    let mut lists: Vec<RunList> = (0..3).map(|_| RunList::default()).collect();
    for ((key, Reverse(trailer)), value) in model.iter().rev() {
        push(&mut lists[rng.random_range(0..3)], key, Trailer(*trailer), value);
    }
    (model, Memtable::List(list), Memtable::from_lists(lists, None))
}

fn push(list: &mut RunList, key: &[u8], trailer: Trailer, value: &[u8]) {
    let (owner, place) = buffer(key, value);
    let buffer = list.add_buffer(&owner);
    list.push(buffer, key, place, trailer).unwrap();
}

fn model_get(model: &Model, key: &[u8], seq: SeqNo) -> Option<(Trailer, Vec<u8>)> {
    let from = (key.to_vec(), Reverse(Trailer::search(seq).0));
    let ((found, Reverse(trailer)), value) = model.range(from..).next()?;
    (found == key).then(|| (Trailer(*trailer), value.clone()))
}

#[test]
fn reads_at_any_sequence_number_match_the_model() {
    let mut rng = rng();
    for entries in [0, 1, 2, 50, 2000] {
        let (model, list, run) = random_tables(&mut rng, entries);
        for table in [&list, &run] {
            assert_eq!(table.len(), model.len());
            assert_eq!(table.len() == 0, model.is_empty());
            assert_eq!(table.seq_range(), (entries > 0).then_some((1, entries)));
        }
        for _ in 0..2000 {
            let key = random_key(&mut rng);
            let seq = if rng.random_bool(0.5) { SEQ_MAX } else { rng.random_range(0..=entries + 1) };
            let expected = model_get(&model, &key, seq);
            assert_eq!(get(&list, &key, seq), expected, "{key:?} at {seq}");
            assert_eq!(get(&run, &key, seq), expected, "{key:?} at {seq}");
        }
    }
}

/// The entry a cursor stands on.
fn here(iter: &impl InternalIter) -> Option<(Vec<u8>, u64, Vec<u8>)> {
    assert_eq!(iter.value_slice(), iter.value());
    iter.valid().then(|| (iter.key().user.to_vec(), iter.key().trailer.0, iter.value().to_vec()))
}

/// Walks a cursor at random and compares each position with an index into the sorted entries.
fn check_walk(rng: &mut StdRng, model: &Model, iter: &mut impl InternalIter) {
    let entries: Vec<_> =
        model.iter().map(|((key, Reverse(trailer)), value)| (key.clone(), *trailer, value.clone())).collect();
    let mut at: Option<usize> = None;
    assert_eq!(here(iter), None);
    for _ in 0..2000 {
        let (random, seq) = (random_key(rng), rng.random_range(0..3000));
        let random = (random, random_trailer(rng, seq).0, Vec::new());
        // Half of the targets are entries.
        let chosen = entries.get(rng.random_range(0..entries.len() * 2 + 1)).unwrap_or(&random);
        let target = KeyRef::new(&chosen.0, Trailer(chosen.1));
        let below = |allowed: std::cmp::Ordering| {
            entries.partition_point(|(key, trailer, _)| {
                let order = KeyRef::new(key, Trailer(*trailer)).cmp(&target);
                order.is_lt() || order == allowed
            })
        };
        match rng.random_range(0..20) {
            0 => {
                iter.seek_to_first().unwrap();
                at = Some(0);
            }
            1 => {
                iter.seek_to_last().unwrap();
                at = entries.len().checked_sub(1);
            }
            2 => {
                iter.seek(target).unwrap();
                at = Some(below(std::cmp::Ordering::Less));
            }
            3 => {
                iter.seek_for_prev(target).unwrap();
                at = below(std::cmp::Ordering::Equal).checked_sub(1);
            }
            4..12 => {
                iter.next().unwrap();
                at = at.map(|at| at + 1);
            }
            _ => {
                iter.prev().unwrap();
                at = at.and_then(|at| at.checked_sub(1));
            }
        }
        at = at.filter(|at| *at < entries.len());
        assert_eq!(here(iter), at.map(|at| entries[at].clone()));
    }
}

#[test]
fn cursors_walk_both_ways_as_the_model_does() {
    let mut rng = rng();
    for entries in [0, 1, 3, 100, 1500] {
        let (model, list, run) = random_tables(&mut rng, entries);
        check_walk(&mut rng, &model, &mut list.iter());
        check_walk(&mut rng, &model, &mut run.iter());
    }
}

#[test]
fn keys_as_long_as_allowed_are_kept_and_searches_for_longer_ones_end_behind_them() {
    let longest = vec![7u8; KEY_BYTES_MAX];
    let sibling = [&longest[..KEY_BYTES_MAX - 1], &[8]].concat();
    let beyond = vec![7u8; KEY_BYTES_MAX + 100_000];
    let list = Arc::new(ActiveMemtable::new(1 << 20));
    insert(&list, &longest, Trailer::new(1, EntryKind::Put), b"longest");
    insert(&list, &sibling, Trailer::new(2, EntryKind::Put), b"");
    let table = Memtable::List(list.clone());
    assert_eq!(get(&table, &longest, 9).unwrap().1, b"longest");
    assert_eq!(get(&table, &sibling, 9).unwrap().1, b"");
    assert_eq!(get(&table, &beyond, 9), None);
    let mut iter = table.iter();
    iter.seek(KeyRef::new(&beyond, Trailer::FIRST)).unwrap();
    assert_eq!(iter.key().user, sibling);
    iter.seek_for_prev(KeyRef::new(&beyond, Trailer::LAST)).unwrap();
    assert_eq!(iter.key().user, longest);

    let (owner, place) = buffer(&vec![7u8; KEY_BYTES_MAX + 1], b"");
    assert!(list.insert(&owner, place, Trailer::new(3, EntryKind::Put)).is_err());
    assert_eq!(list.len(), 2);
}

#[test]
fn a_place_outside_its_buffer_is_refused() {
    let list = ActiveMemtable::new(1000);
    let owner: Arc<[u8]> = Arc::from(&b"0123456789"[..]);
    let trailer = Trailer::new(1, EntryKind::Put);
    for (key_start, key_len, value_start, value_len) in [
        (5, 6, 0, 0),
        (11, 0, 0, 0),
        (0, 1, 5, 6),
        (0, 1, 11, 0),
        (usize::MAX, 2, 0, 0),
        (0, 1, 2, usize::MAX),
    ] {
        let place = Place { key_start, key_len, value_start, value_len };
        assert!(list.insert(&owner, place, trailer).is_err(), "{place:?}");
    }
    assert_eq!((list.len(), list.seq_range(), Arc::strong_count(&owner)), (0, None, 1));
    list.insert(&owner, Place { key_start: 0, key_len: 10, value_start: 10, value_len: 0 }, trailer).unwrap();
    assert_eq!(list.len(), 1);
}

#[test]
fn of_two_entries_with_one_internal_key_the_first_stays() {
    let trailer = Trailer::new(5, EntryKind::Put);
    let list = Arc::new(ActiveMemtable::new(1000));
    insert(&list, b"k", trailer, b"first");
    insert(&list, b"k", trailer, b"second");
    let mut one = RunList::default();
    push(&mut one, b"k", trailer, b"first");
    push(&mut one, b"k", trailer, b"second");
    let mut two = [RunList::default(), RunList::default()];
    push(&mut two[0], b"k", trailer, b"first");
    push(&mut two[1], b"k", trailer, b"second");
    let runs = [vec![one], two.into()].map(|lists| Memtable::from_lists(lists, None));
    for table in [Memtable::List(list)].into_iter().chain(runs) {
        assert_eq!((table.len(), get(&table, b"k", 5).unwrap().1), (1, b"first".to_vec()));
    }
}

#[test]
fn a_run_of_unsorted_entries_is_sorted() {
    let mut list = RunList::default();
    for (key, seq) in [("b", 1), ("a", 2), ("b", 3)] {
        push(&mut list, key.as_bytes(), Trailer::new(seq, EntryKind::Put), b"value");
    }
    let run = Memtable::from_lists(vec![list], None);
    let mut iter = run.iter();
    let mut seen = Vec::new();
    iter.seek_to_first().unwrap();
    while iter.valid() {
        seen.push((iter.key().user.to_vec(), iter.key().trailer.seq()));
        iter.next().unwrap();
    }
    assert_eq!(seen, [(b"a".to_vec(), 2), (b"b".to_vec(), 3), (b"b".to_vec(), 1)]);
}

#[test]
fn dropping_a_memtable_lets_go_of_every_buffer() {
    let mut rng = rng();
    let owners: Vec<_> = (1..500u64).map(|seq| (seq, buffer(&random_key(&mut rng), b"value"))).collect();
    let list = Arc::new(ActiveMemtable::new(1 << 16));
    for (seq, (owner, place)) in &owners {
        list.insert(owner, *place, Trailer::new(*seq, EntryKind::Put)).unwrap();
        list.insert(owner, *place, Trailer::new(*seq, EntryKind::Put)).unwrap();
    }
    let mut iter = Memtable::List(list.clone()).iter();
    iter.seek_to_first().unwrap();
    let kept = iter.value_slice();
    let counts = || owners.iter().map(|(_, (owner, _))| Arc::strong_count(owner)).collect::<Vec<_>>();
    for _ in 0..100 {
        iter.next().unwrap();
    }
    drop(list);
    assert_eq!(counts().iter().sum::<usize>(), owners.len() * 2 + 1, "the cursor keeps the list alive");
    drop(iter);
    assert_eq!(counts().iter().sum::<usize>(), owners.len() + 1, "the value keeps its buffer alive");
    drop(kept);
    assert!(counts().iter().all(|count| *count == 1));
}

#[test]
fn a_value_taken_out_outlives_the_memtable() {
    let list = Arc::new(ActiveMemtable::new(1000));
    insert(&list, b"key", Trailer::new(1, EntryKind::Put), b"value");
    let (_, value) = list.get(b"key", key_hash(b"key"), 1).unwrap();
    drop(list);
    assert_eq!(value, "value");
}

#[test]
fn the_filter_passes_every_added_key_and_few_others() {
    const KEYS: u64 = 20_000;
    let hash = |number: u64| key_hash(&number.to_be_bytes());
    let filter = Filter::new(KEYS as usize);
    (0..KEYS).for_each(|number| filter.add(hash(number)));
    assert!((0..KEYS).all(|number| filter.may_contain(hash(number))));
    let passed = (KEYS..2 * KEYS).filter(|number| filter.may_contain(hash(*number))).count();
    assert!(passed < KEYS as usize / 100, "{passed} of {KEYS} absent keys passed");
    assert!(!Filter::new(0).may_contain(hash(0)), "an empty filter passes nothing");
}
