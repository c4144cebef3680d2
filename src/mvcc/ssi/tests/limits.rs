//! Recording on and off, garbage, the budget, prepared transactions across a restart, threads.

use super::super::check::IDLE_COMMITS;
use super::super::{RecoveredReads, Rule};
use super::{KEYSPACE, Kind, RangeEnd, Ssi, Tracker, World, WriteKeys, bytes};
use crate::base::sync::{Mutex, Rank};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn writes(numbers: &[u64]) -> WriteKeys {
    let keys: Vec<[u8; 8]> = numbers.iter().map(|number| key(*number)).collect();
    WriteKeys::collect(keys.iter().map(|key| (KEYSPACE, key.as_slice())))
}

/// Begins at what is visible.
fn begin(ssi: &Arc<Ssi>, id: u64, visible: u64) -> Tracker {
    let published = |_| Ok::<(), Infallible>(());
    ssi.begin(id, || visible, published, || ((), visible)).unwrap().1
}

#[test]
fn recording_begins_at_the_assigned_number_and_stops_when_idle() {
    let ssi = Ssi::new(1 << 20);
    assert!(!ssi.is_recording());
    let mut visible = 3;
    let waited = AtomicU64::new(0);
    let visible_now = AtomicU64::new(3);
    let assigned = || {
        assert!(ssi.is_recording(), "commits after this see that they record");
        5
    };
    let published = |seq| {
        waited.store(seq, Ordering::Relaxed);
        visible_now.store(seq, Ordering::Relaxed);
        Ok::<(), Infallible>(())
    };
    let take = || ((), visible_now.load(Ordering::Relaxed));
    let ((), tracker) = ssi.begin(1, assigned, published, take).unwrap();
    assert_eq!((tracker.snapshot(), waited.load(Ordering::Relaxed)), (5, 5));
    drop(tracker);
    for seq in 6.. {
        if !ssi.is_recording() {
            assert_eq!(seq, 6 + u64::from(IDLE_COMMITS));
            break;
        }
        ssi.check_and_record(None, &writes(&[seq]), seq, seq - 1).unwrap();
        visible = seq;
    }
    assert_eq!((ssi.stats().retained, ssi.stats().bytes), (0, 0));
    let tracker = begin(&ssi, 2, visible);
    assert!(ssi.is_recording());
    for seq in visible + 1..visible + 3_000 {
        ssi.check_and_record(None, &writes(&[seq]), seq, seq - 1).unwrap();
    }
    assert!(ssi.is_recording(), "never while one is open");
    assert_eq!(ssi.stats().retained, 2_999);
    tracker.read_key(KEYSPACE, &key(visible + 9));
    let refused = ssi.prepare(2, Some(&tracker), writes(&[1])).unwrap_err();
    assert_eq!(refused.rule, Rule::EdgeOfPrepared);
    assert_eq!(refused.key.unwrap().1[..], key(visible + 9));
}

#[test]
fn an_error_while_waiting_leaves_nothing_open() {
    let ssi = Ssi::new(1 << 20);
    let failed = ssi.begin(1, || 9, |_| Err("poisoned"), || ((), 3));
    assert_eq!(failed.unwrap_err(), "poisoned");
    assert_eq!(ssi.stats().open, 0);
    for seq in 10..10 + u64::from(IDLE_COMMITS) {
        ssi.check_and_record(None, &writes(&[1]), seq, seq - 1).unwrap();
    }
    assert!(!ssi.is_recording());
}

#[test]
fn garbage_goes_when_the_oldest_ends() {
    let ssi = Ssi::new(1 << 30);
    let oldest = begin(&ssi, 1, 10);
    for seq in 11..2_000 {
        let tracker = begin(&ssi, seq, seq - 1);
        tracker.read_key(KEYSPACE, &key(seq));
        tracker.read_range(KEYSPACE, &key(seq % 50), RangeEnd::Before(&key(seq % 50 + 3)));
        ssi.check_and_record(Some(&tracker), &writes(&[seq + 5_000, 7]), seq, seq - 1).unwrap();
    }
    let full = ssi.stats();
    assert_eq!((full.open, full.retained), (1, 1_989));
    assert!(full.bytes > 100_000, "{full:?}");
    drop(oldest);
    let rest = ssi.stats();
    assert!(rest.retained <= 2 && rest.bytes < full.bytes / 4, "{rest:?}");
    ssi.collect(2_000);
    assert_eq!((ssi.stats().retained, ssi.stats().bytes), (0, 0));
}

#[test]
fn memory_stays_near_the_budget() {
    let bytes_max = 1 << 20;
    let ssi = Ssi::new(bytes_max);
    let oldest = begin(&ssi, 1, 10);
    let mut peak = 0;
    for seq in 11..3_000u64 {
        let tracker = begin(&ssi, seq, seq - 1);
        for step in 0..20 {
            oldest.read_range(
                KEYSPACE,
                &key(seq * 1_000 + step * 2),
                RangeEnd::Through(&key(seq * 1_000 + step * 2)),
            );
            tracker.read_key(KEYSPACE, &key(seq * 50 + step));
        }
        let keys: Vec<u64> = (0..20).map(|step| (1 << 40) + seq * 100 + step).collect();
        let checked = ssi.check_and_record(Some(&tracker), &writes(&keys), seq, seq - 1);
        drop((tracker, checked));
        peak = peak.max(ssi.stats().bytes);
    }
    let stats = ssi.stats();
    assert!(stats.coarsened > 0, "{stats:?}");
    assert!(peak < bytes_max + bytes_max / 4, "{peak}: {stats:?}");
    drop(oldest);
    ssi.collect(3_000);
    assert_eq!(ssi.stats().bytes, 0);
}

#[test]
fn the_danger_names_who_and_what() {
    let ssi = Ssi::new(1 << 20);
    let (one, two) = (begin(&ssi, 1, 10), begin(&ssi, 2, 10));
    one.read_key(KEYSPACE, b"x");
    two.read_key(KEYSPACE, b"y");
    ssi.check_and_record(Some(&one), &WriteKeys::collect([(KEYSPACE, b"y".as_slice())]), 11, 10).unwrap();
    let danger = ssi
        .check_and_record(Some(&two), &WriteKeys::collect([(KEYSPACE, b"x".as_slice())]), 12, 10)
        .unwrap_err();
    assert_eq!((danger.rule, danger.other), (Rule::Pivot, Some(1)));
    let (keyspace, key) = danger.key.unwrap();
    assert_eq!((keyspace, &key[..]), (KEYSPACE, b"x".as_slice()));
}

/// A commit whose log record could not be written stays on record, and its number is given out again.
#[test]
fn a_number_given_out_twice_hides_nothing() {
    let ssi = Ssi::new(1 << 20);
    let (one, two) = (begin(&ssi, 1, 10), begin(&ssi, 2, 10));
    for number in 0..2_000 {
        one.read_key(KEYSPACE, &key(number));
    }
    for number in 0..600 {
        ssi.check_and_record(None, &writes(&[9_000 + number]), 11, 10).unwrap();
    }
    one.review();
    two.read_key(KEYSPACE, &key(5_000));
    ssi.check_and_record(Some(&two), &writes(&[7]), 11, 10).unwrap();
    let danger = ssi.check_and_record(Some(&one), &writes(&[5_000]), 12, 10).unwrap_err();
    assert_eq!(danger.rule, Rule::Pivot);
}

#[test]
fn recovered_prepared_transactions_conflict_both_ways() {
    let mut before = World::new(1 << 20);
    let mut txn = before.begin(Kind::Tracked);
    before.get(&mut txn, 1);
    before.scan(&mut txn, 3, 5, false);
    let exported = txn.tracker.as_ref().unwrap().export_reads();
    let written = || WriteKeys::collect([(KEYSPACE, bytes(9).as_slice())]);
    for (reads, is_read, is_tracked) in [
        (RecoveredReads::Known(exported), [1, 3, 4].as_slice(), true),
        (RecoveredReads::Unknown, &[0, 1, 2, 3, 4, 5], true),
        (RecoveredReads::Untracked, &[], false),
    ] {
        let mut world = World::new(1 << 20);
        world.ssi.recover_prepared(77, written(), &reads);
        assert_eq!(world.ssi.is_recording(), is_tracked);
        for key in 0..6 {
            let mut txn = world.begin(Kind::Tracked);
            assert!(world.put(&mut txn, key));
            assert_eq!(world.commit(txn).is_err(), is_read.contains(&key), "{reads:?} {key}");
            world.publish_upto(u64::MAX);
            let plain = world.plain(BTreeSet::from([key]));
            world.publish_upto(u64::MAX);
            let expected = is_read.contains(&key);
            assert_eq!(plain != Ok(true), expected, "{reads:?} {key}");
        }
        let mut reader = world.begin(Kind::Tracked);
        world.get(&mut reader, 9);
        assert_eq!(world.commit(reader).is_err(), is_tracked);
        let declared = world.begin(Kind::Declared);
        world.commit(declared).unwrap();
        let mut late = world.begin(Kind::Tracked);
        world.get(&mut late, 9);
        world.assigned += 1;
        world.ssi.commit_prepared(77, world.assigned, world.visible.get());
        world.ssi.made_prepared(77, world.assigned);
        assert_eq!(world.commit(late).is_err(), is_tracked, "its commit counts as a pivot's");
        world.visible.set(world.assigned);
        world.close();
    }
}

/// The log may still refuse it: until its commit is made, nobody may write over what it has read.
#[test]
fn a_prepared_transaction_is_prepared_until_its_commit_is_made() {
    let mut world = World::new(1 << 20);
    let mut txn = world.begin(Kind::Tracked);
    world.get(&mut txn, 1);
    assert!(world.put(&mut txn, 2));
    let id = world.prepare(txn).unwrap();
    let check = |world: &mut World| {
        let plain = world.plain(BTreeSet::from([1]));
        assert_eq!(plain.unwrap_err().rule, Rule::PreparedReader);
        world.locked.remove(&1);
    };
    check(&mut world);
    world.ssi.commit_prepared(id, world.assigned + 1, world.visible.get());
    check(&mut world);
    world.ssi.withdraw_prepared(id);
    check(&mut world);
    world.commit_prepared(id);
    world.publish_upto(u64::MAX);
    assert_eq!(world.plain(BTreeSet::from([1])), Ok(true));
    world.close();
}

/// Many open readers, each with its own reads: ends leave nothing behind.
#[test]
fn ten_thousand_open_readers() {
    let ssi = Ssi::new(1 << 28);
    let open: Vec<Tracker> = (0..10_000u64)
        .map(|id| {
            let tracker = begin(&ssi, id + 1, 10);
            tracker.read_key(KEYSPACE, &key(id));
            tracker.read_range(
                KEYSPACE,
                &key(1_000_000 + id * 10),
                RangeEnd::Through(&key(1_000_005 + id * 10)),
            );
            tracker
        })
        .collect();
    for seq in 11..1_000u64 {
        let tracker = begin(&ssi, 100_000 + seq, seq - 1);
        tracker.read_key(KEYSPACE, &key(seq));
        ssi.check_and_record(Some(&tracker), &writes(&[seq, 1_000_003 + seq * 10]), seq, seq - 1).unwrap();
    }
    let failed = open.iter().filter(|tracker| tracker.commit_read_only().is_err()).count();
    assert_eq!(failed, 0, "one edge each");
    drop(open);
    ssi.collect(1_000);
    assert_eq!(ssi.stats().bytes, 0);
}

/// Threads with a real lock order: commits under a lock of rank `Commit`, in the order of their numbers.
#[test]
fn threads_keep_a_sum() {
    const ACCOUNTS: usize = 6;
    /// Versions of each account, ascending by number, and the last number.
    struct Store {
        versions: Vec<Vec<(u64, i64)>>,
        last: u64,
    }
    let store = Mutex::new(Rank::Commit, Store { versions: vec![vec![(1, 100)]; ACCOUNTS], last: 1 });
    let visible = AtomicU64::new(1);
    let ssi = Ssi::new(1 << 16);
    let (commits, conflicts) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (store, visible, ssi, commits, conflicts) = (&store, &visible, &ssi, &commits, &conflicts);
            scope.spawn(move || {
                let mut random = crate::base::random::SplitMix64::new(thread);
                for round in 0..3_000u64 {
                    let take = || ((), visible.load(Ordering::Acquire));
                    let published = |_| Ok::<(), Infallible>(());
                    let assigned = || store.lock().last;
                    let ((), tracker) =
                        ssi.begin(thread * 10_000 + round + 1, assigned, published, take).unwrap();
                    // Anyone may take 10 from any account while all together hold more than 300.
                    let mut sum = 0;
                    let mut balances = Vec::new();
                    for account in 0..ACCOUNTS {
                        tracker.read_key(KEYSPACE, &[account as u8]);
                        std::thread::yield_now();
                        let at = tracker.snapshot();
                        let versions = &store.lock().versions[account];
                        let (_, balance) = *versions.iter().rfind(|(seq, _)| *seq <= at).unwrap();
                        balances.push(balance);
                        sum += balance;
                    }
                    let account = random.below(ACCOUNTS as u64) as usize;
                    let change = if sum > 300 { -10 } else { 30 };
                    let keys = WriteKeys::collect([(KEYSPACE, [account as u8].as_slice())]);
                    tracker.review();
                    let mut store = store.lock();
                    if store.versions[account].last().unwrap().0 > tracker.snapshot() {
                        continue;
                    }
                    let seq = store.last + 1;
                    if ssi
                        .check_and_record(Some(&tracker), &keys, seq, visible.load(Ordering::Acquire))
                        .is_err()
                    {
                        conflicts.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    commits.fetch_add(1, Ordering::Relaxed);
                    store.versions[account].push((seq, balances[account] + change));
                    store.last = seq;
                    let total: i64 = store.versions.iter().map(|versions| versions.last().unwrap().1).sum();
                    assert!(total >= 300, "write skew: {total}");
                    visible.store(seq, Ordering::Release);
                }
            });
        }
    });
    println!("{commits:?} commits, {conflicts:?} conflicts");
    assert!(commits.load(Ordering::Relaxed) > 500);
    assert!(conflicts.load(Ordering::Relaxed) > 0, "no two transactions overlapped");
    ssi.collect(u64::MAX - 1);
    assert_eq!((ssi.stats().open, ssi.stats().bytes), (0, 0));
}

/// A commit that the log refused, then the same one again with the same number, as a pivot; the first of the two is
/// collapsed.
#[test]
fn collapsing_a_refused_commit_keeps_the_pivot_that_got_its_number() {
    use super::super::reads::{ReadSet, hash_of};
    use super::super::writes::{Edges, NEVER, Retained, Since};
    let keys = |key: u8| WriteKeys::collect([(KEYSPACE, &[key][..])]);
    let mut retained = Retained::default();
    retained.record(10, Some(1), 7, keys(1));
    retained.withdraw(1);
    retained.record(10, Some(2), 7, keys(1));
    for n in 0..2000u64 {
        retained.record(11 + n, None, NEVER, keys(2));
    }
    let mut reads = ReadSet::default();
    reads.add_key(KEYSPACE, hash_of(KEYSPACE, &[1]));
    let since = Since { snapshot: 8, position: 0 };
    let mut before = Edges::NONE;
    retained.edges(&reads, since, &mut before);
    assert_eq!(before.pivot.map(|pivot| pivot.out_min), Some(7), "before");
    assert!(retained.collapse());
    let mut after = Edges::NONE;
    retained.edges(&reads, since, &mut after);
    assert_eq!(
        after.pivot.map(|pivot| pivot.out_min),
        Some(7),
        "after collapsing the refused one: {after:?}"
    );
}
