//! Sets of reads, step functions and retained writes against naive models.

use super::super::reads::{End, RangeEnd, ReadSet, hash_of};
use super::super::steps::{Mark, Steps};
use super::super::writes::{Edges, NEVER, Pivot, Retained, Since, WriteKeys};
use super::KEYSPACE;
use crate::base::random::{SplitMix64, test_seed};
use crate::base::types::{KeyspaceId, SeqNo};

fn one(key: &[u8]) -> WriteKeys {
    WriteKeys::collect([(KEYSPACE, key)])
}

fn covers(reads: &ReadSet, key: &[u8]) -> bool {
    reads.covers(one(key).iter().next().unwrap())
}

/// Keys of one and two bytes, in order.
fn universe() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = (0..12).map(|byte| vec![byte]).collect();
    keys.extend((0..12).flat_map(|first| (0..3).map(move |second| vec![first, second])));
    keys.sort();
    keys
}

fn random_end<'a>(random: &mut SplitMix64, keys: &'a [Vec<u8>]) -> RangeEnd<'a> {
    let key = &keys[random.below(keys.len() as u64) as usize];
    match random.below(12) {
        0 => RangeEnd::Unbounded,
        1..=6 => RangeEnd::Through(key),
        _ => RangeEnd::Before(key),
    }
}

fn is_inside(start: &[u8], end: RangeEnd<'_>, key: &[u8]) -> bool {
    start <= key
        && match end {
            RangeEnd::Through(last) => key <= last,
            RangeEnd::Before(first) => key < first,
            RangeEnd::Unbounded => true,
        }
}

/// Kept ranges neither touch nor overlap.
fn check_disjoint(reads: &ReadSet) {
    let exported = reads.export();
    let mut ranges = exported.keyspaces.first().map(|one| one.ranges.clone()).unwrap_or_default();
    let last_is_growing = ranges.len() > 1;
    if last_is_growing {
        ranges.pop(); // The growing one may overlap the others.
    }
    for pair in ranges.windows(2) {
        assert!(pair[0].1.as_ref().unwrap() < &pair[1].0, "{ranges:?}");
    }
}

#[test]
fn ranges_contain_what_was_added_and_nothing_else() {
    let mut random = SplitMix64::new(test_seed(11));
    let keys = universe();
    for _ in 0..3_000 {
        let mut reads = ReadSet::default();
        let mut added = Vec::new();
        for _ in 0..=random.below(8) {
            let start = &keys[random.below(keys.len() as u64) as usize];
            let end = random_end(&mut random, &keys);
            reads.add_range(KEYSPACE, start, end);
            added.push((start, end));
            check_disjoint(&reads);
            for key in &keys {
                let expected = added.iter().any(|(start, end)| is_inside(start, *end, key));
                assert_eq!(covers(&reads, key), expected, "{key:?} in {added:?}");
            }
        }
        let again = ReadSet::import(&reads.export());
        assert!(keys.iter().all(|key| covers(&again, key) == covers(&reads, key)));
        while reads.coarsen() {
            let lost = keys.iter().find(|key| covers(&again, key) && !covers(&reads, key));
            assert_eq!(lost, None, "{added:?}");
        }
        assert!(keys.iter().all(|key| covers(&reads, key)), "a whole keyspace at the end");
    }
}

#[test]
fn growth_by_an_iterator_keeps_one_range() {
    let mut reads = ReadSet::default();
    for step in 0..=200u8 {
        reads.add_range(KEYSPACE, b"\x05", RangeEnd::Through(&[step]));
    }
    for step in (0..100u8).rev() {
        reads.add_range(KEYSPACE, &[5, step], RangeEnd::Before(b"\xc9"));
    }
    assert_eq!(reads.export().keyspaces[0].ranges, [(vec![5], Some(vec![201]))]);
    assert!(reads.bytes() < 400, "{}", reads.bytes());
}

#[test]
fn keys_are_kept_apart_by_keyspace() {
    let mut reads = ReadSet::default();
    reads.add_key(KEYSPACE, hash_of(KEYSPACE, b"k"));
    assert!(covers(&reads, b"k"));
    let elsewhere = WriteKeys::collect([(KeyspaceId(8), b"k".as_slice())]);
    assert!(!reads.covers(elsewhere.iter().next().unwrap()));
}

/// Stored with prepared transactions.
#[test]
fn golden_hashes() {
    assert_eq!(hash_of(KeyspaceId(0), b""), 0x2d06_8005_38d3_94c2);
    assert_eq!(hash_of(KeyspaceId(2), b""), 0x2d06_8005_38d3_94c2 ^ 0x3c6e_f372_fe94_f82a);
}

#[test]
fn steps_are_the_maximum_of_the_ranges() {
    let mut random = SplitMix64::new(test_seed(12));
    for _ in 0..2_000 {
        let mut steps = Steps::default();
        let mut naive = [0u64; 32];
        let mut horizon = 0;
        for at in 1..40 {
            let (from, upto) = (random.below(30) as u8, random.below(34) as u8);
            let at = if random.below(4) == 0 { random.below(at) + 1 } else { at };
            let end = [upto];
            steps.raise(&[from], (upto < 32).then_some(&end[..]), Mark { at, id: at });
            for key in from..upto.min(32) {
                naive[key as usize] = naive[key as usize].max(at);
            }
            if random.below(5) == 0 {
                horizon = horizon.max(at / 2);
                steps.sweep(horizon);
            }
            for (key, expected) in naive.iter().enumerate() {
                let found = steps.get(&[key as u8]).at;
                assert!(found == *expected || (found <= horizon && *expected <= horizon), "{key}");
            }
        }
        steps.raise(&[], None, Mark { at: 1_000, id: 1 });
        assert_eq!(steps.bytes(), 80, "one step is left");
    }
}

/// The commits of a naive store: number, oldest edge out, keys.
type Naive = Vec<(SeqNo, SeqNo, Vec<Vec<u8>>)>;

fn naive_edges(commits: &Naive, reads: &ReadSet, snapshot: SeqNo) -> Edges {
    let mut edges = Edges::NONE;
    for (commit, out_min, keys) in commits {
        if *commit > snapshot && keys.iter().any(|key| covers(reads, key)) {
            edges.out_min = edges.out_min.min(*commit);
            if *out_min != NEVER && edges.pivot.is_none_or(|known| *out_min < known.out_min) {
                edges.pivot = Some(Pivot { commit: *commit, out_min: *out_min });
            }
        }
    }
    edges
}

fn random_reads(random: &mut SplitMix64, keys: &[Vec<u8>]) -> ReadSet {
    let mut reads = ReadSet::default();
    for _ in 0..=random.below(3) {
        let key = &keys[random.below(keys.len() as u64) as usize];
        match random.below(3) {
            0 => reads.add_range(KEYSPACE, key, random_end(random, keys)),
            _ => reads.add_key(KEYSPACE, hash_of(KEYSPACE, key)),
        }
    }
    reads
}

/// Edges by log, by index, and of the model agree; with collapsed commits nothing is lost.
#[test]
fn both_ways_to_the_edges_agree_with_a_model() {
    let mut random = SplitMix64::new(test_seed(13));
    let keys = universe();
    for _ in 0..600 {
        let mut retained = Retained::default();
        let mut naive: Naive = Vec::new();
        for seq in 1..40u64 {
            let written: Vec<Vec<u8>> = (0..=random.below(3))
                .map(|_| keys[random.below(keys.len() as u64) as usize].clone())
                .collect();
            let out_min = if random.below(3) == 0 { random.below(seq) } else { NEVER };
            let write_keys = WriteKeys::collect(written.iter().map(|key| (KEYSPACE, key.as_slice())));
            retained.record(seq, Some(seq), out_min, write_keys);
            naive.push((seq, out_min, written));
            if random.below(6) == 0 {
                let horizon = random.below(seq);
                while retained.collect(horizon, 2) {}
                naive.retain(|(seq, ..)| *seq > horizon);
            }
            let oldest = naive.first().map_or(seq, |(seq, ..)| seq - 1);
            let snapshot = oldest + random.below(seq + 1 - oldest);
            let reads = random_reads(&mut random, &keys);
            let expected = naive_edges(&naive, &reads, snapshot);
            let by_log = edges_by_log(&retained, &reads, snapshot);
            let by_index = edges_by_index(&mut retained, &reads, snapshot);
            let both = (by_log.out_min, by_log.pivot.map(|pivot| pivot.out_min));
            assert_eq!((expected.out_min, expected.pivot.map(|pivot| pivot.out_min)), both);
            assert_eq!(both, (by_index.out_min, by_index.pivot.map(|pivot| pivot.out_min)));
        }
        check_collapsed(retained, &naive, &mut random, &keys);
    }
}

fn edges_by_log(retained: &Retained, reads: &ReadSet, snapshot: SeqNo) -> Edges {
    let mut edges = Edges::NONE;
    let mut since = Since { snapshot, position: 0 };
    while since.position < retained.position() {
        since.position = retained.log_edges(reads, since, 3, &mut edges);
    }
    edges
}

fn edges_by_index(retained: &mut Retained, reads: &ReadSet, snapshot: SeqNo) -> Edges {
    let mut edges = Edges::NONE;
    retained.hash_edges(reads.hashes(), snapshot, &mut edges);
    for (keyspace, of_keyspace) in reads.keyspaces() {
        for (start, end) in of_keyspace.ranges() {
            let mut from = start.to_vec();
            while let Some(next) = range_piece(retained, keyspace, (&from, end), snapshot, &mut edges) {
                from = next;
            }
        }
    }
    edges
}

fn range_piece(
    retained: &mut Retained,
    keyspace: KeyspaceId,
    range: (&[u8], &End),
    snapshot: SeqNo,
    edges: &mut Edges,
) -> Option<Vec<u8>> {
    retained.range_edges(keyspace, range, snapshot, 2, edges).map(|next| next.to_vec())
}

fn check_collapsed(mut retained: Retained, naive: &Naive, random: &mut SplitMix64, keys: &[Vec<u8>]) {
    let oldest = naive.first().map_or(0, |(seq, ..)| seq - 1);
    while retained.collapse() {
        let snapshot = oldest + random.below(41 - oldest);
        let reads = random_reads(random, keys);
        let exact = naive_edges(naive, &reads, snapshot);
        let mut coarse = Edges::NONE;
        retained.edges(&reads, Since { snapshot, position: 0 }, &mut coarse);
        assert!(coarse.out_min <= exact.out_min);
        if let Some(pivot) = exact.pivot {
            assert!(coarse.pivot.is_some_and(|found| found.out_min <= pivot.out_min));
        }
    }
    assert_eq!(retained.bytes(), 0);
    retained.collect(NEVER - 1, 1);
    let mut none = Edges::NONE;
    let reads = random_reads(random, keys);
    retained.edges(&reads, Since { snapshot: oldest, position: 0 }, &mut none);
    assert_eq!(none, Edges::NONE, "coarse entries end as well");
}
