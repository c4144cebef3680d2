//! Many transactions at once: ten thousand open in one process on few keys, and storms of deadlocks.
//!
//! Every transaction adds one to counters, so a lost update shows in their sum. Those of the crowd are steps of few
//! threads that do not wait for locks: what is locked is tried again in the next round. Each takes its keys in
//! ascending order, so somebody always goes on. Those of the storms wait, lock in random order, and begin again when
//! they are the victim of a deadlock; what every report says is held against what its members were about to lock.
//!
//! `ESKER_STORM_THREADS` sets the threads of the storm, each with a small stack.

use crate::support::{Random, seed, setting};
use esker::{
    Db, DeadlockReport, Durability, ErrorKind, Isolation, Keyspace, LockSpan, Options, Transaction,
    TransactionOptions, VictimPolicy,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Duration;

/// Open at the same time.
const CROWD: usize = 10_000;
const DRIVERS: usize = 64;

const MIB: u64 = 1 << 20;
const LOCK_BYTES_MAX: u64 = 8 * MIB;
const WRITE_BYTES_MAX: u64 = 8 * MIB;

fn key(number: u64) -> String {
    format!("counter {number:04}")
}

fn counter(value: Option<esker::Slice>) -> u64 {
    value.map_or(0, |value| String::from_utf8_lossy(&value).parse().expect("a number"))
}

fn sum(keyspace: &Keyspace) -> u64 {
    keyspace.iter().map(|item| counter(Some(item.expect("read").1))).sum()
}

fn open(dir: &std::path::Path, policy: VictimPolicy) -> Db {
    let options = Options::new().memory_budget(128 * MIB).durability(Durability::Os);
    options
        .lock_bytes_max(LOCK_BYTES_MAX)
        .transactions_bytes_max(WRITE_BYTES_MAX)
        .lock_timeout(Duration::from_secs(600))
        .deadlock_victim(policy)
        .deadlock_reports(1 << 20)
        .open(dir)
        .expect("open")
}

/// Nothing is left when all have ended.
fn check_end(db: &Db) {
    let stats = db.transaction_stats();
    let left = (stats.open, stats.write_bytes, stats.locks.held, stats.locks.waiting, stats.locks.bytes);
    assert_eq!(left, (0, 0, 0, 0, 0), "{stats:?}");
    assert_eq!((stats.serializable.open, stats.serializable.retained_commits), (0, 0), "{stats:?}");
    assert!(db.transactions().is_empty() && db.wait_graph().edges.is_empty());
}

/// One transaction of the crowd.
struct Member {
    level: Isolation,
    keys: Vec<u64>,
    /// Keys that are done.
    done: usize,
    txn: Option<Transaction>,
    restarts: u64,
}

enum Step {
    Committed,
    Locked,
    Restarted,
    Went,
}

impl Member {
    fn begin(&mut self, db: &Db, random: &mut Random) {
        let options = TransactionOptions::new(self.level).no_wait();
        let options = if random.chance(50) { options.lazy_snapshot() } else { options };
        self.txn = Some(db.begin_with(options).expect("begin"));
        self.done = 0;
    }

    /// One operation.
    fn step(&mut self, db: &Db, keyspace: &Keyspace, random: &mut Random) -> Step {
        let mut txn = self.txn.take().expect("open");
        let (result, is_end) = match self.keys.get(self.done) {
            Some(number) => {
                let key = key(*number);
                // At the levels with a snapshot the read need not lock: whoever is late conflicts.
                let read = match self.level {
                    Isolation::ReadCommitted => txn.get_for_update(keyspace, &key),
                    _ => txn.get(keyspace, &key),
                };
                let added = read.map(|value| counter(value) + 1);
                let put = added.and_then(|value| txn.put(keyspace, &key, value.to_string()));
                self.txn = Some(txn);
                (put, false)
            }
            None => (txn.commit().map(drop), true),
        };
        match result.map_err(|error| error.kind()) {
            Ok(()) if is_end => Step::Committed,
            Ok(()) => {
                self.done += 1;
                Step::Went
            }
            Err(ErrorKind::LockTimeout) => Step::Locked,
            Err(ErrorKind::Conflict) => {
                self.restarts += 1;
                self.txn = None;
                self.begin(db, random);
                Step::Restarted
            }
            Err(kind) => panic!("{kind:?}"),
        }
    }
}

/// What a driver's transactions met.
#[derive(Default)]
struct Met {
    increments: u64,
    commits: u64,
    locked: u64,
    restarts: u64,
}

fn drive(db: &Db, seed: u64, count: usize, keys: u64, all_open: &Barrier, increments: &AtomicU64) -> Met {
    let mut random = Random::new(seed);
    let keyspace = db.default_keyspace();
    let levels = [Isolation::ReadCommitted, Isolation::RepeatableRead, Isolation::Serializable];
    let mut members: Vec<Member> = (0..count)
        .map(|_| {
            let mut chosen: Vec<u64> = (0..=random.below(2)).map(|_| random.below(keys)).collect();
            chosen.sort_unstable();
            chosen.dedup();
            let level = *random.pick(&levels);
            let mut member = Member { level, keys: chosen, done: 0, txn: None, restarts: 0 };
            member.begin(db, &mut random);
            member
        })
        .collect();
    // All are open, then all are active: each has tried its first key before the first one goes on.
    all_open.wait();
    let mut met = Met::default();
    for member in &mut members {
        member.step(db, &keyspace, &mut random);
    }
    if all_open.wait().is_leader() {
        let stats = db.transaction_stats();
        assert!(stats.open >= CROWD, "{} open", stats.open);
        assert!(stats.locks.held > 0 && stats.write_bytes > 0, "{stats:?}");
    }
    all_open.wait();
    while !members.is_empty() {
        members.retain_mut(|member| match member.step(db, &keyspace, &mut random) {
            Step::Committed => {
                met.increments += member.keys.len() as u64;
                met.restarts += member.restarts;
                met.commits += 1;
                false
            }
            Step::Locked => {
                met.locked += 1;
                true
            }
            Step::Restarted | Step::Went => true,
        });
        let stats = db.transaction_stats();
        assert!(stats.locks.bytes <= LOCK_BYTES_MAX, "{stats:?}");
        assert!(stats.write_bytes as u64 <= WRITE_BYTES_MAX, "{stats:?}");
        std::thread::yield_now();
    }
    increments.fetch_add(met.increments, Ordering::Relaxed);
    met
}

#[test]
fn ten_thousand_transactions_at_once_lose_no_update() {
    let seed = seed(1);
    println!("ESKER_SEED={seed}");
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path(), VictimPolicy::Youngest);
    let (barrier, increments) = (Barrier::new(DRIVERS), AtomicU64::new(0));
    let met: Vec<Met> = std::thread::scope(|scope| {
        let drive = |driver: usize| {
            let count = CROWD / DRIVERS + usize::from(driver < CROWD % DRIVERS);
            let (db, barrier, increments) = (&db, &barrier, &increments);
            scope.spawn(move || drive(db, seed.wrapping_add(driver as u64), count, 500, barrier, increments))
        };
        let threads: Vec<_> = (0..DRIVERS).map(drive).collect();
        threads.into_iter().map(|thread| thread.join().expect("a driver")).collect()
    });
    let total = |of: fn(&Met) -> u64| met.iter().map(of).sum::<u64>();
    let (commits, locked, restarts) =
        (total(|met| met.commits), total(|met| met.locked), total(|met| met.restarts));
    println!("{commits} commits, {locked} times locked, {restarts} times begun again");
    assert_eq!(commits, CROWD as u64);
    assert!(locked > 0 && restarts > 0, "nobody was in the way of anybody");
    assert_eq!(sum(&db.default_keyspace()), increments.load(Ordering::Relaxed), "an update was lost");
    assert_eq!(db.transaction_stats().committed, CROWD as u64);
    check_end(&db);
}

/// The keys that transactions lock, in their order, by number of the transaction: noted before they begin to.
type Plans = Mutex<HashMap<u64, Vec<String>>>;

/// Holds a report against what its members were about to do.
fn check_report(report: &DeadlockReport, plans: &Plans) {
    let plans = plans.lock().expect("plans");
    let victims = report.cycle.iter().filter(|member| member.id == report.victim).count();
    assert_eq!(victims, 1, "{report}");
    assert!(report.cycle.len() >= 2, "{report}");
    let position = |id: u64, span: &LockSpan| {
        let LockSpan::Key(key) = span else { panic!("a range in {report}") };
        let planned = plans.get(&id).and_then(|plan| plan.iter().position(|own| own.as_bytes() == &key[..]));
        planned.unwrap_or_else(|| panic!("{id} never asked for {span} in {report}"))
    };
    for (index, member) in report.cycle.iter().enumerate() {
        let next = &report.cycle[(index + 1) % report.cycle.len()];
        assert_eq!(member.waits_for.span, next.holds.span, "{report}");
        // It waits for the key after those that it has.
        let (wanted, held) =
            (position(member.id, &member.waits_for.span), position(member.id, &member.holds.span));
        if member.holds_granted {
            assert!(held < wanted, "{report}");
        } else {
            assert_eq!(held, wanted, "in two queues at once: {report}");
        }
    }
    let ids: std::collections::BTreeSet<u64> = report.cycle.iter().map(|member| member.id).collect();
    assert_eq!(ids.len(), report.cycle.len(), "somebody is twice in {report}");
}

/// One attempt: `Ok` if it committed.
fn lock_three(db: &Db, level: Isolation, keys: &[String], plans: &Plans) -> esker::Result<()> {
    let keyspace = db.default_keyspace();
    let options = TransactionOptions::new(level).lazy_snapshot();
    let mut txn = db.begin_with(options).expect("begin");
    plans.lock().expect("plans").insert(txn.id(), keys.to_vec());
    for key in keys {
        let value = counter(txn.get_for_update(&keyspace, key)?) + 1;
        txn.put(&keyspace, key, value.to_string())?;
        // Others get their locks meanwhile, also where thousands of threads share few processors.
        std::thread::sleep(Duration::from_millis(1));
    }
    txn.commit().map(drop)
}

struct Storm {
    threads: usize,
    per_thread: usize,
    keys: u64,
    level: Isolation,
    policy: VictimPolicy,
}

/// Answers deadlocks and restarts because of conflicts.
fn storm(seed: u64, storm: &Storm) -> (u64, u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let db = open(dir.path(), storm.policy);
    let (plans, deadlocks, conflicts) = (Plans::default(), AtomicU64::new(0), AtomicU64::new(0));
    let barrier = Barrier::new(storm.threads);
    let run = |thread: usize| {
        let mut random = Random::new(seed.wrapping_add(thread as u64));
        barrier.wait();
        for _ in 0..storm.per_thread {
            let mut keys: Vec<String> = Vec::new();
            while keys.len() < 3 {
                let key = key(random.below(storm.keys));
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
            while let Err(error) = lock_three(&db, storm.level, &keys, &plans) {
                match error.deadlock() {
                    Some(report) => {
                        deadlocks.fetch_add(1, Ordering::Relaxed);
                        assert!(plans.lock().expect("plans")[&report.victim] == keys, "{report}");
                        check_report(report, &plans);
                    }
                    None => {
                        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                        conflicts.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let spawn = |thread: usize| {
            let run = &run;
            let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
            builder.spawn_scoped(scope, move || run(thread)).expect("a thread")
        };
        let threads: Vec<_> = (0..storm.threads).map(spawn).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("a thread of the storm"));
    });
    let all = (storm.threads * storm.per_thread) as u64;
    assert_eq!(sum(&db.default_keyspace()), 3 * all, "an update was lost");
    let stats = db.transaction_stats();
    assert_eq!(stats.committed, all);
    let (deadlocks, conflicts) = (deadlocks.into_inner(), conflicts.into_inner());
    assert_eq!(stats.locks.deadlocks, deadlocks, "each victim is told of its deadlock");
    let reports = db.deadlocks();
    assert_eq!(reports.len() as u64, deadlocks);
    let victims: std::collections::BTreeSet<u64> = reports.iter().map(|report| report.victim).collect();
    assert_eq!(victims.len(), reports.len(), "a victim of two deadlocks");
    reports.iter().for_each(|report| check_report(report, &plans));
    check_end(&db);
    (deadlocks, conflicts)
}

/// Of each thread of a storm: ten thousand of them then reserve little.
const STACK_BYTES: usize = 256 << 10;

#[test]
fn storms_of_deadlocks_pass_with_one_victim_for_each() {
    let seed = seed(2);
    let threads = setting("ESKER_STORM_THREADS", 64) as usize;
    println!("ESKER_SEED={seed} ESKER_STORM_THREADS={threads}");
    let policies = [VictimPolicy::Youngest, VictimPolicy::FewestWrites, VictimPolicy::Requester];
    let levels = [Isolation::ReadCommitted, Isolation::RepeatableRead, Isolation::Serializable];
    for (policy, level) in policies.into_iter().zip(levels) {
        let per_thread = (1500 / threads).max(1);
        let storm_of = Storm { threads, per_thread, keys: 100, level, policy };
        let (deadlocks, conflicts) = storm(seed, &storm_of);
        println!("{level}, {policy:?}: {deadlocks} deadlocks, {conflicts} conflicts");
        assert!(deadlocks > 0, "no storm");
    }
}
