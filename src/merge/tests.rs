//! Merges of several cursors against the sorted sequence of all their entries.

use super::*;
use crate::base::error::{Error, ErrorKind};
use crate::base::types::EntryKind;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};
use std::sync::{Arc, Mutex};

/// User key, sequence number, value.
type Row = (Vec<u8>, u64, Vec<u8>);

fn key(row: &Row) -> KeyRef<'_> {
    KeyRef::new(&row.0, Trailer::new(row.1, EntryKind::Put))
}

/// A sorted sequence to which rows can be added while cursors are on it.
type Shared = Arc<Mutex<Vec<Row>>>;

/// A cursor over rows that remembers its row, not its index; fails when the count of its calls reaches `fail_at`.
struct Rows {
    rows: Shared,
    here: Option<Row>,
    calls: Arc<AtomicUsize>,
    fail_at: usize,
}

impl Rows {
    fn new(rows: Shared) -> Rows {
        Rows { rows, here: None, calls: Arc::default(), fail_at: usize::MAX }
    }

    fn place(&mut self, find: impl FnOnce(&[Row]) -> Option<usize>) -> Result<()> {
        self.here = None;
        if self.calls.fetch_add(1, Atomic::Relaxed) + 1 == self.fail_at {
            return Err(Error::new(ErrorKind::Io, "out of order"));
        }
        let rows = self.rows.lock().unwrap();
        self.here = find(&rows).and_then(|index| rows.get(index)).cloned();
        Ok(())
    }
}

impl InternalIter for Rows {
    fn valid(&self) -> bool {
        self.here.is_some()
    }
    fn key(&self) -> KeyRef<'_> {
        self.here.as_ref().map_or(KeyRef::new(&[], Trailer::LAST), key)
    }
    fn value(&self) -> &[u8] {
        self.here.as_ref().map(|row| &row.2[..]).unwrap_or_default()
    }
    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.place(|rows| Some(rows.partition_point(|row| key(row) < target)))
    }
    fn seek_for_prev(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.place(|rows| rows.partition_point(|row| key(row) <= target).checked_sub(1))
    }
    fn seek_to_first(&mut self) -> Result<()> {
        self.place(|_| Some(0))
    }
    fn seek_to_last(&mut self) -> Result<()> {
        self.place(|rows| rows.len().checked_sub(1))
    }
    fn next(&mut self) -> Result<()> {
        let Some(here) = self.here.take() else { return Ok(()) };
        self.place(|rows| Some(rows.partition_point(|row| key(row) <= key(&here))))
    }
    fn prev(&mut self) -> Result<()> {
        let Some(here) = self.here.take() else { return Ok(()) };
        self.place(|rows| rows.partition_point(|row| key(row) < key(&here)).checked_sub(1))
    }
}

fn rng() -> StdRng {
    let seed = std::env::var("ESKER_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("ESKER_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// How the keys of a case look.
#[derive(Debug, Clone, Copy)]
enum Keys {
    /// Few different short ones, with zeros at the end, so that versions and ties abound.
    Crowded,
    /// A prefix longer than the compared bytes, then a number.
    SharedPrefix,
    /// Groups with long prefixes of their own.
    Groups,
}

fn random_key(rng: &mut StdRng, keys: Keys) -> Vec<u8> {
    match keys {
        Keys::Crowded => {
            let mut key = vec![0u8; rng.random_range(1..5)];
            key[0] = rng.random_range(0..6);
            key
        }
        Keys::SharedPrefix => format!("user:00000001:profile:{:06}", rng.random_range(0..5000)).into_bytes(),
        Keys::Groups => {
            format!("{:04}:the rest of the group:{:03}", rng.random_range(0..9), rng.random_range(0..99))
                .into_bytes()
        }
    }
}

/// Rows spread over the children. With `ties`, some internal keys are in several children; their values differ.
fn random_children(rng: &mut StdRng, keys: Keys, children: usize, rows: usize, ties: bool) -> Vec<Shared> {
    let mut all = vec![Vec::new(); children];
    for seq in 1..=rows as u64 {
        let row = random_key(rng, keys);
        let copies = if ties && rng.random_bool(0.3) { 3 } else { 1 };
        for _ in 0..copies {
            let child = rng.random_range(0..children);
            all[child].push((row.clone(), seq, format!("{child}").into_bytes()));
        }
    }
    for rows in &mut all {
        rows.sort_by(|a, b| key(a).cmp(&key(b)));
        rows.dedup_by(|a, b| key(a) == key(b));
    }
    all.into_iter().map(|rows| Arc::new(Mutex::new(rows))).collect()
}

/// All rows in the order of the merge: by internal key, then by child.
fn merged(children: &[Shared]) -> Vec<Row> {
    let mut all: Vec<Row> = children.iter().flat_map(|rows| rows.lock().unwrap().clone()).collect();
    all.sort_by(|a, b| key(a).cmp(&key(b)));
    all
}

fn merge_of(children: &[Shared]) -> Merge<Rows> {
    Merge::new(children.iter().map(|rows| Rows::new(rows.clone())).collect())
}

fn here(merge: &Merge<impl InternalIter>) -> Option<Row> {
    assert_eq!(merge.value_slice(), merge.value());
    merge.valid().then(|| (merge.key().user.to_vec(), merge.key().trailer.seq(), merge.value().to_vec()))
}

/// Walks at random and compares each position with an index into all rows.
fn check_walk(rng: &mut StdRng, keys: Keys, children: &[Shared], steps: usize) {
    let all = merged(children);
    let mut merge = merge_of(children);
    let mut at: Option<usize> = None;
    assert_eq!(here(&merge), None);
    for step in 0..steps {
        let target_key = random_key(rng, keys);
        let target =
            KeyRef::new(&target_key, Trailer::new(rng.random_range(0..=all.len() as u64), EntryKind::Put));
        match rng.random_range(0..60) {
            0 => {
                merge.seek_to_first().unwrap();
                at = Some(0);
            }
            1 => {
                merge.seek_to_last().unwrap();
                at = all.len().checked_sub(1);
            }
            2..5 => {
                merge.seek(target).unwrap();
                at = Some(all.partition_point(|row| key(row) < target));
            }
            5..8 => {
                merge.seek_for_prev(target).unwrap();
                at = all.partition_point(|row| key(row) <= target).checked_sub(1);
            }
            turn => {
                // Runs in one direction, and at times back and forth.
                for _ in 0..rng.random_range(1..20) {
                    if turn % 2 == 0 {
                        merge.next().unwrap();
                        at = at.map(|at| at + 1);
                    } else {
                        merge.prev().unwrap();
                        at = at.and_then(|at| at.checked_sub(1));
                    }
                    at = at.filter(|at| *at < all.len());
                    assert_eq!(here(&merge), at.map(|at| all[at].clone()), "{keys:?}, step {step}");
                }
            }
        }
        at = at.filter(|at| *at < all.len());
        assert_eq!(here(&merge), at.map(|at| all[at].clone()), "{keys:?}, step {step}");
    }
}

#[test]
fn random_walks_match_the_sorted_rows() {
    let mut rng = rng();
    for keys in [Keys::Crowded, Keys::SharedPrefix, Keys::Groups] {
        for children in [0, 1, 2, 3, 8, 30] {
            let rows = if children == 0 { 0 } else { 300 };
            for ties in [false, true] {
                let children = random_children(&mut rng, keys, children, rows, ties);
                check_walk(&mut rng, keys, &children, 300);
            }
        }
    }
}

#[test]
fn whole_passes_both_ways_see_every_row_once() {
    let mut rng = rng();
    for keys in [Keys::Crowded, Keys::SharedPrefix, Keys::Groups] {
        let children = random_children(&mut rng, keys, 6, 3000, true);
        let all = merged(&children);
        let mut merge = merge_of(&children);
        merge.seek_to_first().unwrap();
        for row in &all {
            assert_eq!(here(&merge).as_ref(), Some(row));
            merge.next().unwrap();
        }
        assert_eq!(here(&merge), None);
        merge.seek_to_last().unwrap();
        for row in all.iter().rev() {
            assert_eq!(here(&merge).as_ref(), Some(row));
            merge.prev().unwrap();
        }
        assert_eq!(here(&merge), None);
    }
}

#[test]
fn the_compared_bytes_move_behind_a_prefix_that_all_keys_share() {
    let rows = |child: u64| -> Shared {
        let row =
            |number| (format!("a long prefix that all keys share:{number:04}").into_bytes(), 1, Vec::new());
        Arc::new(Mutex::new((0..200).map(|number| row(number * 2 + child)).collect()))
    };
    let mut merge = merge_of(&[rows(0), rows(1)]);
    merge.seek_to_first().unwrap();
    for _ in 0..100 {
        merge.next().unwrap();
    }
    assert!(merge.shared.starts_with(b"a long prefix that all key"), "{:?}", merge.shared);
    let ties = merge.ties;
    for _ in 0..100 {
        merge.next().unwrap();
    }
    assert_eq!(merge.ties, ties, "no ties any more");
}

#[test]
fn rows_that_appear_meanwhile_do_not_break_the_order() {
    let mut rng = rng();
    for _ in 0..20 {
        let children = random_children(&mut rng, Keys::Crowded, 4, 60, false);
        let mut merge = merge_of(&children);
        merge.seek_to_first().unwrap();
        let mut seq = 1000;
        for _ in 0..400 {
            let (last, forward) = (here(&merge), rng.random_bool(0.5));
            let rows = &children[rng.random_range(0..children.len())];
            if rng.random_bool(0.3) {
                seq += 1;
                let mut rows = rows.lock().unwrap();
                rows.push((random_key(&mut rng, Keys::Crowded), seq, Vec::new()));
                rows.sort_by(|a, b| key(a).cmp(&key(b)));
            }
            if forward {
                merge.next().unwrap()
            } else {
                merge.prev().unwrap()
            }
            match (last, here(&merge)) {
                (Some(last), Some(now)) if forward => assert!(key(&last) < key(&now)),
                (Some(last), Some(now)) => assert!(key(&now) < key(&last)),
                (None, Some(_)) => panic!("a step from nowhere led somewhere"),
                (_, None) => merge.seek_to_first().unwrap(),
            }
        }
    }
}

#[test]
fn every_row_that_was_there_is_seen_while_others_appear() {
    let mut rng = rng();
    for forward in [true, false] {
        let children = random_children(&mut rng, Keys::Groups, 5, 300, false);
        let mut expected = merged(&children);
        let mut merge = merge_of(&children);
        if forward {
            merge.seek_to_first().unwrap()
        } else {
            merge.seek_to_last().unwrap()
        }
        let mut seen = Vec::new();
        let mut seq = 1000;
        while let Some(row) = here(&merge) {
            if row.1 <= 300 {
                seen.push(row);
            }
            if seq < 1600 {
                seq += 1;
                let mut rows = children[rng.random_range(0..5)].lock().unwrap();
                rows.push((random_key(&mut rng, Keys::Groups), seq, Vec::new()));
                rows.sort_by(|a, b| key(a).cmp(&key(b)));
            }
            if forward { merge.next().unwrap() } else { merge.prev().unwrap() }
        }
        if !forward {
            expected.reverse();
        }
        assert_eq!(seen, expected);
    }
}

#[test]
fn an_error_of_any_child_is_returned_and_leaves_the_merge_invalid() {
    let mut rng = rng();
    let children = random_children(&mut rng, Keys::Crowded, 3, 30, false);
    let all = merged(&children);
    let script = |merge: &mut Merge<Rows>| -> Result<()> {
        merge.seek_to_first()?;
        for _ in 0..10 {
            merge.next()?;
        }
        for _ in 0..5 {
            merge.prev()?;
        }
        merge.seek(key(&all[20]))?;
        merge.seek_for_prev(key(&all[10]))?;
        merge.next()?;
        merge.seek_to_last()
    };
    for failing in 0..3 {
        for fail_at in 1.. {
            let mut merge = merge_of(&children);
            merge.children[failing].fail_at = fail_at;
            let calls = merge.children[failing].calls.clone();
            let result = script(&mut merge);
            if calls.load(Atomic::Relaxed) < fail_at {
                assert!(result.is_ok() && merge.valid() && fail_at > 6, "the script makes {fail_at} calls");
                break;
            }
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Io);
            assert_eq!(here(&merge), None);
            merge.next().unwrap();
            assert_eq!(here(&merge), None, "steps after an error do nothing");
            merge.seek_to_first().unwrap();
            assert_eq!(here(&merge).as_ref(), all.first(), "a seek makes it whole again");
        }
    }
}
