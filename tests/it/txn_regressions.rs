//! Defects of the transaction layer that were found once and must not come back.

use esker::env::{Clock, Env, Fault, FaultFs, FaultRule, MemFs, Op};
use esker::{Db, ErrorKind, Event, Isolation, LockWait, Options, TransactionOptions, WriteOptions};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// More than a segment of the log holds.
const LARGE: [u8; 6 << 10] = [7; 6 << 10];

/// Without threads, on a clock that stands still, on a disk that can be told to be full.
struct World {
    faults: Arc<FaultFs>,
    env: Env,
}

impl World {
    fn new() -> World {
        let faults = Arc::new(FaultFs::new(Arc::new(MemFs::new())));
        let env = Env::simulated(faults.clone(), 7);
        World { faults, env }
    }

    fn options(&self) -> Options {
        let options = Options::tiny().wal_segment_bytes(4 << 10).wal_bytes_max(64 << 10);
        options.background_threads(0).env(self.env.clone())
    }

    fn open(&self) -> Db {
        self.options().open("/db").expect("open")
    }

    /// Runs this while the log finds no space.
    fn full<T>(&self, work: impl FnOnce() -> T) -> T {
        let full = FaultRule::new([Op::Create, Op::Preallocate, Op::Append], Fault::Errno(28));
        self.faults.add(full.path("*.wal"));
        let result = work();
        self.faults.heal();
        self.env.clock.sleep(Duration::from_secs(3));
        result
    }
}

fn kind<T>(result: esker::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// The timer for old readers takes a lock that must not be taken under those of the conflict detection.
#[test]
fn a_serializable_transaction_begins_where_old_readers_are_looked_for() {
    let world = World::new();
    let db = world.options().max_snapshot_age(Duration::from_secs(60)).open("/db").expect("open");
    db.begin(Isolation::Serializable).expect("begin").commit().expect("commit");
    db.begin_with(TransactionOptions::new(Isolation::Serializable).read_only()).expect("begin");
}

#[test]
fn a_transaction_that_expires_while_it_waits_says_so() {
    let db = World::new().open();
    let ks = db.default_keyspace();
    let mut holder = db.begin(Isolation::ReadCommitted).expect("begin");
    holder.put(&ks, "x", "holder").expect("put");
    let options = TransactionOptions::new(Isolation::ReadCommitted)
        .expires_after(Duration::from_millis(50))
        .lock_timeout(Duration::from_secs(5));
    let mut waiter = db.begin_with(options).expect("begin");
    let error = waiter.put(&ks, "x", "waiter").expect_err("the lock is held");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed, "{error}");
    assert_eq!(kind(waiter.commit()), Some(ErrorKind::TransactionFailed));
    holder.commit().expect("commit");
}

/// Waiters used to leave the queue whenever somebody might expire, and to come back at its end.
#[test]
fn a_wait_is_one_wait_whoever_expires_meanwhile() {
    let db = World::new().open();
    let ks = db.default_keyspace();
    let expiring = |age: u64| {
        let options = TransactionOptions::new(Isolation::ReadCommitted);
        db.begin_with(options.expires_after(Duration::from_millis(age))).expect("begin")
    };
    let idle: Vec<_> = [20, 50, 90].into_iter().map(expiring).collect();
    let mut holder = db.begin(Isolation::ReadCommitted).expect("begin");
    holder.put(&ks, "x", "holder").expect("put");
    let options = TransactionOptions::new(Isolation::ReadCommitted);
    let mut waiter = db.begin_with(options.lock_timeout(Duration::from_millis(200))).expect("begin");
    assert_eq!(kind(waiter.put(&ks, "x", "waiter")), Some(ErrorKind::LockTimeout));
    let locks = db.transaction_stats().locks;
    assert_eq!((locks.waits, locks.timeouts), (1, 1));
    assert_eq!(db.transaction_stats().expired, 3);
    drop(idle);
    // The same when it is the holder who expires, and began to be one meanwhile.
    let mut late = expiring(100);
    late.put(&ks, "y", "late").expect("put");
    db.put("y", "1").expect("the holder expires");
    let locks = db.transaction_stats().locks;
    assert_eq!((locks.waits, locks.timeouts), (2, 1));
    holder.commit().expect("commit");
}

/// A listener that wrote what its own thread was committing waited for itself until the lock timeout.
#[test]
fn a_listener_on_the_thread_of_a_commit_waits_for_no_lock() {
    let world = World::new();
    // The database while the listener is to write.
    let seen: Arc<Mutex<Option<Db>>> = Arc::default();
    let (sent, heard) = mpsc::channel();
    let (shared, clock) = (Arc::clone(&seen), Arc::clone(&world.env.clock));
    let listener = move |_: &Event| {
        let Some(db) = shared.lock().expect("a database").take() else { return };
        let before = clock.now();
        let mut kinds = vec![kind(db.put("x", "listener"))];
        let mut txn = db.begin(Isolation::ReadCommitted).expect("begin");
        kinds.push(kind(txn.put(&db.default_keyspace(), "x", "listener")));
        let _ = sent.send((kinds, clock.now() - before));
    };
    let db = world.options().listener(Arc::new(listener)).open("/db").expect("open");
    let ks = db.default_keyspace();
    let session = db.session("producer").expect("a session");
    for how in ["commit", "prepared", "session"] {
        // Until a commit has to wait for background work, which without threads it then does itself.
        let of_commit = (0..1000).find_map(|_| {
            let mut txn = db.begin(Isolation::ReadCommitted).expect("begin");
            txn.put(&ks, "x", LARGE).expect("put");
            if how == "prepared" {
                txn.prepare("xid").expect("prepare");
                *seen.lock().expect("the place") = Some(db.clone());
                db.commit_prepared("xid").expect("commit");
            } else {
                *seen.lock().expect("the place") = Some(db.clone());
                match how {
                    "commit" => drop(txn.commit().expect("commit")),
                    _ => drop(session.commit_transaction(txn).expect("commit")),
                }
            }
            seen.lock().expect("the place").take();
            heard.try_recv().ok()
        });
        let locked = Some(ErrorKind::LockTimeout);
        assert_eq!(of_commit, Some((vec![locked, locked], Duration::ZERO)), "{how}");
    }
}

#[test]
fn what_an_optimistic_transaction_has_prepared_is_seen_by_dirty_gets_and_scans_alike() {
    let db = World::new().open();
    let ks = db.default_keyspace();
    let options = TransactionOptions::new(Isolation::RepeatableRead).optimistic();
    let mut txn = db.begin_with(options).expect("begin");
    txn.put(&ks, "k", "v").expect("put");
    let dirty = db.begin(Isolation::ReadUncommitted).expect("begin");
    assert!(dirty.get(&ks, "k").expect("get").is_none(), "it holds no lock yet");
    assert_eq!(dirty.iter(&ks).count(), 0);
    txn.prepare("x").expect("prepare");
    assert_eq!(dirty.get(&ks, "k").expect("get").expect("a value"), "v");
    assert_eq!(dirty.iter(&ks).count(), 1);
    assert_eq!(dirty.iter(&ks).rev().count(), 1);
}

/// A name is free for another transaction once the first one is gone altogether.
#[test]
fn a_name_of_a_prepared_transaction_can_be_used_again_at_once() {
    let db = World::new().open();
    let ks = db.default_keyspace();
    let worker = |key: &str| {
        for _ in 0..4_000 {
            let mut txn = db.begin(Isolation::ReadCommitted).expect("begin");
            txn.put(&ks, key, "v").expect("put");
            match txn.prepare("xid") {
                Ok(()) => drop(db.commit_prepared("xid").expect("what is prepared can be committed")),
                Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}"),
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| worker("a"));
        scope.spawn(|| worker("b"));
    });
    assert_eq!(db.transactions().len(), 0, "nothing is left open");
    assert_eq!(db.transaction_stats().locks.held, 0, "no lock is left");
}

/// A full disk, once, does not make the prepared transaction conflict with the rest of the world.
#[test]
fn a_prepared_transaction_whose_commit_found_no_space_is_prepared_as_before() {
    let world = World::new();
    let db = world.open();
    let ks = db.default_keyspace();
    db.put("read", "0").expect("put");
    let mut txn = db.begin(Isolation::Serializable).expect("begin");
    txn.get(&ks, "read").expect("get");
    txn.put(&ks, "written", LARGE).expect("put");
    txn.prepare("xid").expect("prepare");
    assert_eq!(world.full(|| kind(db.commit_prepared("xid"))), Some(ErrorKind::NoSpace));
    db.put("other", "1").expect("nobody has read this");
    assert_eq!(kind(db.put("read", "1")), Some(ErrorKind::Conflict), "this was read");
    db.commit_prepared("xid").expect("commit");
    assert_eq!(db.get("written").expect("get").expect("a value").to_vec(), LARGE);
    db.put("read", "1").expect("nobody is in the way any more");
    assert_eq!(db.transactions().len(), 0);
}

/// A commit that found no space, with a sequence number that is never published, is nothing to wait for.
#[test]
fn a_declared_reader_does_not_wait_for_a_commit_that_failed() {
    let world = World::new();
    let db = world.open();
    let ks = db.default_keyspace();
    db.put("a", "0").expect("put");
    let mut pivot = db.begin(Isolation::Serializable).expect("begin");
    pivot.get(&ks, "a").expect("get");
    pivot.put(&ks, "b", LARGE).expect("put");
    db.put("a", "1").expect("put");
    assert_eq!(world.full(|| kind(pivot.commit())), Some(ErrorKind::NoSpace));
    let (done, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let reader = db.begin_with(TransactionOptions::new(Isolation::Serializable).read_only());
        let value = reader.and_then(|reader| reader.get(&db.default_keyspace(), "a"));
        let _ = done.send(value.map(|value| value.map(|value| value.to_vec())));
    });
    let value = heard.recv_timeout(Duration::from_secs(20)).expect("it waits for nothing");
    assert_eq!(value.expect("get").expect("a value"), b"1");
}

/// A commit of several operations finds no space; the next one, of one operation, gets a lower sequence number.
#[test]
fn a_commit_that_failed_hides_no_later_one() {
    let world = World::new();
    let db = world.open();
    let ks = db.default_keyspace();
    for key in ["k", "m", "z"] {
        db.put(key, "0").expect("put");
    }
    let mut pivot = db.begin(Isolation::Serializable).expect("begin");
    pivot.get(&ks, "k").expect("get");
    pivot.put(&ks, "m", "pivot").expect("put");
    let mut failing = db.batch();
    failing.put(&ks, "k", LARGE).expect("put");
    for key in ["p", "q", "r", "s"] {
        failing.put(&ks, key, "failing").expect("put");
    }
    assert_eq!(world.full(|| kind(failing.commit())), Some(ErrorKind::NoSpace));
    db.put("k", "1").expect("put");
    // After the put and before the pivot, which is before the put.
    let mut reader = db.begin(Isolation::Serializable).expect("begin");
    assert_eq!(reader.get(&ks, "k").expect("get").expect("a value"), "1");
    assert_eq!(reader.get(&ks, "m").expect("get").expect("a value"), "0");
    reader.put(&ks, "z", "reader").expect("put");
    reader.commit().expect("commit");
    assert_eq!(kind(pivot.commit()), Some(ErrorKind::Conflict), "no serial order is left");
}

/// A row that is uncommitted and then committed is there at every moment.
#[test]
fn a_dirty_scan_misses_no_row_that_is_committed_meanwhile() {
    let db = World::new().open();
    let ks = db.default_keyspace();
    let (written, ended) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..20_000u32 {
                let mut txn = db.begin(Isolation::ReadCommitted).expect("begin");
                txn.put(&ks, number.to_be_bytes(), "v").expect("put");
                written.store(number + 1, Ordering::Release);
                txn.commit().expect("commit");
            }
            ended.store(true, Ordering::Release);
        });
        let dirty = db.begin(Isolation::ReadUncommitted).expect("begin");
        while !ended.load(Ordering::Acquire) {
            let Some(last) = written.load(Ordering::Acquire).checked_sub(1) else { continue };
            let first = dirty.range(&ks, last.to_be_bytes()..).next();
            let first = first.map(|item| item.expect("an entry").0.to_vec());
            assert_eq!(first, Some(last.to_be_bytes().to_vec()), "forward");
            let back = dirty.range(&ks, last.to_be_bytes()..(last + 1).to_be_bytes()).next_back();
            assert!(back.is_some(), "backward");
        }
    });
}

fn no_wait() -> WriteOptions {
    WriteOptions::new().lock_wait(LockWait::NoWait)
}

/// As any other read does.
#[test]
fn a_seek_that_cannot_read_fails_its_transaction() {
    let world = World::new();
    let db = world.open();
    for n in 0..500 {
        db.put(format!("key{n:03}"), [7; 100]).expect("put");
    }
    db.close().expect("close");
    let db = world.open();
    let ks = db.default_keyspace();
    let mut txn = db.begin(Isolation::ReadCommitted).expect("begin");
    txn.put(&ks, "held", "v").expect("put");
    let mut iter = txn.iter(&ks);
    world.faults.add(FaultRule::new([Op::Read, Op::MapRead], Fault::Errno(5)).path("*.sst"));
    assert_eq!(kind(iter.seek("key400")), Some(ErrorKind::Io));
    world.faults.heal();
    assert!(iter.next().is_none(), "after an error it has ended");
    iter.seek("key100").expect("and stays so");
    assert!(iter.next_back().is_none());
    drop(iter);
    db.put_with("held", "other", no_wait()).expect("its locks are gone");
    assert_eq!(kind(txn.get(&ks, "key000")), Some(ErrorKind::TransactionFailed));
}

#[test]
fn a_seek_in_a_transaction_that_has_expired_says_so() {
    let world = World::new();
    let db = world.open();
    let ks = db.default_keyspace();
    let age = Duration::from_secs(1);
    let options = TransactionOptions::new(Isolation::ReadCommitted).expires_after(age);
    let mut txn = db.begin_with(options).expect("begin");
    txn.put(&ks, "held", "v").expect("put");
    let mut iter = txn.iter(&ks);
    world.env.clock.sleep(age * 2);
    db.put_with("held", "other", no_wait()).expect("its lock is taken away");
    assert_eq!(kind(iter.seek("held")), Some(ErrorKind::TransactionFailed));
}

/// A clock that can be told to panic where a commit asks for the time to write down.
struct Fragile {
    clock: Arc<dyn Clock>,
    panics: AtomicBool,
}

impl Clock for Fragile {
    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration);
    }

    fn unix_micros(&self) -> u64 {
        if self.panics.swap(false, Ordering::AcqRel) {
            // Without the message and backtrace of a panic that is expected.
            std::panic::resume_unwind(Box::new("a clock that panics"));
        }
        self.clock.unix_micros()
    }
}

#[test]
fn a_panic_in_the_middle_of_a_plain_write_leaves_no_locks() {
    let mut world = World::new();
    let clock = Arc::new(Fragile { clock: world.env.clock.clone(), panics: AtomicBool::new(false) });
    world.env.clock = clock.clone();
    let db = world.options().retention(Duration::from_secs(60)).open("/db").expect("open");
    // While a transaction is open, plain writes lock their keys.
    let _open = db.begin(Isolation::ReadCommitted).expect("begin");
    clock.panics.store(true, Ordering::Release);
    let write = std::panic::AssertUnwindSafe(|| db.put("k", "v"));
    std::panic::catch_unwind(write).expect_err("the clock panics");
    assert_eq!(db.transaction_stats().locks.held, 0);
    db.put_with("k", "another", no_wait()).expect("nobody has locked it");
}
