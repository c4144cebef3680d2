//! Many threads at once, and many locks at once.

use super::*;
use crate::base::random::{SplitMix64, test_seed};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const THREADS: u64 = 16;
const ROUNDS: u64 = 60;

/// One transaction: three random locks, and the key's own proof that nobody else is there.
fn transaction(
    table: &LockTable,
    random: &mut SplitMix64,
    id: u64,
    ranges: bool,
    users: &[AtomicU64],
) -> Result<()> {
    let one = owner(table, id);
    let mut mine = HashSet::new();
    let mut body = || {
        for _ in 0..3 {
            let key = random.below(100);
            if ranges && random.below(4) == 0 {
                take(table, &one, &format!("s k{key:03}..k{:03}", key + 3), LONG)?;
                let readable = users.iter().skip(key as usize).take(3);
                assert!(readable.map(|user| user.load(Ordering::SeqCst)).all(|user| user == 0 || user == id));
            } else {
                take(table, &one, &format!("x k{key:03}"), LONG)?;
                let before = users[key as usize].swap(id, Ordering::SeqCst);
                assert!(before == 0 || before == id, "{id} and {before} have {key}");
                mine.insert(key);
            }
            thread::yield_now();
        }
        Ok(())
    };
    let answer = body();
    for key in mine {
        assert_eq!(users[key as usize].swap(0, Ordering::SeqCst), id);
    }
    table.release_all(&one);
    answer
}

fn storm(seed: u64, ranges: bool) {
    let table = table_with(LockOptions { reports_kept: 1 << 20, ..options() });
    let users: Vec<AtomicU64> = (0..104).map(|_| AtomicU64::new(0)).collect();
    let (next_id, victims) = (AtomicU64::new(1), AtomicU64::new(0));
    let worker = |number: u64| {
        let mut random = SplitMix64::new(seed ^ (number << 32));
        for _ in 0..ROUNDS {
            // As a caller would: again, until it gets through.
            while let Err(error) = {
                let id = next_id.fetch_add(1, Ordering::Relaxed);
                transaction(&table, &mut random, id, ranges, &users)
            } {
                assert_eq!(error.kind(), ErrorKind::Deadlock, "{error}");
                victims.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for number in 0..THREADS {
            let worker = &worker;
            scope.spawn(move || worker(number));
        }
    });
    assert_empty(&table);
    let reports = table.deadlocks();
    assert_eq!(reports.len() as u64, victims.load(Ordering::Relaxed));
    assert_eq!(table.stats().deadlocks, reports.len() as u64);
    let distinct: HashSet<u64> = reports.iter().map(|report| report.victim).collect();
    assert_eq!(distinct.len(), reports.len(), "nobody dies twice");
    // A victim leaves, so no later cycle has it.
    let mut dead = HashSet::new();
    for report in &reports {
        assert!(report.cycle.len() >= 2);
        assert!(report.cycle.iter().all(|member| !dead.contains(&member.id)), "{report}");
        assert!(report.cycle.iter().any(|member| member.id == report.victim));
        assert_eq!(report.cycle.iter().map(|member| member.id).max(), Some(report.victim), "youngest");
        dead.insert(report.victim);
    }
    println!("{} deadlocks, {} waits", reports.len(), table.stats().waits);
}

#[test]
fn a_storm_on_keys_passes_with_one_victim_for_each_cycle() {
    storm(test_seed(31), false);
}

#[test]
fn a_storm_on_keys_and_ranges_passes_with_one_victim_for_each_cycle() {
    storm(test_seed(32), true);
}

/// Short waits among long ones: nobody is left behind when others give up.
#[test]
fn a_storm_of_timeouts_leaves_nothing_behind() {
    let table = table();
    let seed = test_seed(33);
    let next_id = AtomicU64::new(1);
    let worker = |number: u64| {
        let mut random = SplitMix64::new(seed ^ (number << 32));
        for _ in 0..ROUNDS {
            let one = owner(&table, next_id.fetch_add(1, Ordering::Relaxed));
            for _ in 0..3 {
                let what = ["x k", "s k", "x a..z", "s l", "x l", "s k..m"][random.below(6) as usize];
                let wait = match random.below(3) {
                    0 => Wait::No,
                    1 => Wait::Upto(Duration::from_micros(random.below(300))),
                    _ => LONG,
                };
                match take(&table, &one, what, wait) {
                    Ok(_) => {}
                    Err(error) if wait == LONG => {
                        assert_eq!(error.kind(), ErrorKind::Deadlock, "{error}");
                        break;
                    }
                    Err(error) => {
                        assert!(matches!(error.kind(), ErrorKind::LockTimeout | ErrorKind::Deadlock));
                    }
                }
            }
            table.release_all(&one);
        }
    };
    thread::scope(|scope| {
        for number in 0..THREADS {
            let worker = &worker;
            scope.spawn(move || worker(number));
        }
    });
    assert_empty(&table);
}

#[test]
fn a_hundred_thousand_locks_are_given_back_while_others_wait_for_them() {
    let table = table();
    let (one, two, three) = (owner(&table, 1), owner(&table, 2), owner(&table, 3));
    for number in 0..100_000u32 {
        table.acquire(&one, KS, &number.to_be_bytes(), Mode::Exclusive, Wait::No).unwrap();
    }
    assert_eq!(table.stats().held, 100_000);
    let all = {
        let (table, two) = (Arc::clone(&table), Arc::clone(&two));
        thread::spawn(move || table.acquire_range(&two, KS, b"", None, Mode::Shared, LONG))
    };
    let last = {
        let (table, three) = (Arc::clone(&table), Arc::clone(&three));
        let key = 99_999u32.to_be_bytes();
        thread::spawn(move || table.acquire(&three, KS, &key, Mode::Shared, LONG))
    };
    while table.stats().waiting < 2 {
        thread::yield_now();
    }
    table.release_all(&one);
    granted(all);
    granted(last);
    table.release_all(&two);
    table.release_all(&three);
    assert_empty(&table);
}

#[test]
#[ignore = "a measurement: run it alone, optimised, with --nocapture"]
fn cost_of_locks_without_contention() {
    let table = table();
    for (name, locks) in [("1 lock", 1u32), ("10 locks", 10), ("10000 locks", 10_000)] {
        let rounds = 2_000_000 / locks;
        let mut best = f64::MAX;
        for _ in 0..5 {
            let begin = Instant::now();
            for round in 0..rounds {
                let one = owner(&table, u64::from(round));
                for number in 0..locks {
                    let mut key = [7u8; 16];
                    key[8..12].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
                    key[12..].copy_from_slice(&round.to_be_bytes());
                    table.acquire(&one, KS, &key, Mode::Exclusive, Wait::No).unwrap();
                }
                table.release_all(&one);
            }
            let nanos = begin.elapsed().as_nanos() as f64 / f64::from(rounds) / f64::from(locks);
            best = best.min(nanos);
        }
        println!("{name}: {best:.0} ns for one, acquire and release and its part of the owner");
    }
    let begin = Instant::now();
    for round in 0..10_000 {
        let one = owner(&table, round);
        table.acquire_range(&one, KS, b"a", Some(b"b"), Mode::Exclusive, Wait::No).unwrap();
        table.release_all(&one);
    }
    println!("range: {} ns", begin.elapsed().as_nanos() / 10_000);
}
