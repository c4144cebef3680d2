//! Keys keep the order of their numbers; permutations miss nothing; Zipf's law holds.

use super::*;
use rand::SeedableRng;

fn check_key(shape: KeyShape, size: usize, id: u64, expect: &[u8]) {
    assert_eq!(Key::new(shape, size).set(id), expect, "{shape} {size} {id}");
}

#[test]
fn keys_look_as_documented() {
    check_key(KeyShape::Int, 16, 0x0102, b"\0\0\0\0\0\0\x01\x0200000000");
    check_key(KeyShape::Int, 8, 7, b"\0\0\0\0\0\0\0\x07");
    check_key(KeyShape::Int, 3, 0x010203, b"\x01\x02\x03");
    check_key(KeyShape::User, 24, 1042, b"user:00000001:0000000042");
    check_key(KeyShape::User, 17, 99_999_999_999, b"user:99999999:999");
}

#[test]
fn keys_keep_the_order_of_their_numbers() {
    for (shape, size) in [(KeyShape::Int, 16), (KeyShape::Int, 4), (KeyShape::User, 32)] {
        let (mut low, mut high) = (Key::new(shape, size), Key::new(shape, size));
        for id in (0..200_000).step_by(97) {
            assert!(low.set(id) < high.set(id + 1), "{shape} {size} {id}");
        }
    }
}

#[test]
fn a_missing_key_is_no_other_key() {
    for shape in [KeyShape::Int, KeyShape::User] {
        let size = shape.size_default();
        let present: std::collections::HashSet<Vec<u8>> =
            (0..5000).map(|id| Key::new(shape, size).set(id).to_vec()).collect();
        assert_eq!(present.len(), 5000);
        assert!((0..5000).all(|id| !present.contains(Key::new(shape, size + 1).set(id))));
    }
}

#[test]
fn a_permutation_visits_everything_once_and_not_in_order() {
    for n in [1u64, 2, 3, 10, 1000, 1024, 4097] {
        let order = Permutation::new(n, 42);
        let visited: Vec<u64> = (0..n).map(|index| order.at(index)).collect();
        let mut sorted = visited.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..n), "{n}");
        if n >= 1000 {
            let ascending = visited.windows(2).filter(|pair| pair[0] < pair[1]).count() as f64;
            assert!((ascending / n as f64 - 0.5).abs() < 0.06, "{n}: {ascending} ascents");
            assert_ne!(visited, (0..n).map(|index| Permutation::new(n, 43).at(index)).collect::<Vec<_>>());
        }
    }
}

#[test]
fn ranks_follow_zipfs_law() {
    let (n, draws) = (1000u64, 200_000);
    let law = Zipfian::new(n).unwrap();
    let mut rng = SmallRng::seed_from_u64(5);
    let mut counts = vec![0u64; n as usize];
    (0..draws).for_each(|_| counts[law.rank(&mut rng) as usize] += 1);
    let harmonic: f64 = (1..=n).map(|rank| (rank as f64).powf(-YCSB_SKEW)).sum();
    for rank in [0usize, 1, 9, 99] {
        let expect = draws as f64 * ((rank + 1) as f64).powf(-YCSB_SKEW) / harmonic;
        let found = counts[rank] as f64;
        // Five standard deviations of a binomial count.
        assert!(
            (found - expect).abs() < 5.0 * expect.sqrt(),
            "rank {rank}: found {found}, expected {expect}"
        );
    }
}

#[test]
fn scattered_items_stay_in_range_and_the_popular_ones_are_apart() {
    let law = Zipfian::new(1000).unwrap();
    let mut rng = SmallRng::seed_from_u64(5);
    let mut counts = std::collections::HashMap::new();
    (0..50_000).for_each(|_| *counts.entry(law.scattered(&mut rng)).or_insert(0u64) += 1);
    assert!(counts.keys().all(|item| *item < 1000));
    let mut popular: Vec<_> = counts.into_iter().collect();
    popular.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    assert!(popular[0].0.abs_diff(popular[1].0) > 1);
    assert_eq!(popular[0].0, fnv1a(0) % 1000);
    assert_eq!(Zipfian::new(1).unwrap().scattered(&mut rng), 0);
}
