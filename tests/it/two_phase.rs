//! Two-phase commit from the outside: what prepared transactions hold, show and refuse, before and after reopening.
//! Crashes in the middle of all that are in `transaction_crash`.

use crate::support::{Map, contents};
use esker::env::{Env, MemFs};
use esker::{Db, ErrorKind, Isolation, LockWait, Options, Slice, TransactionOptions, WriteOptions};
use std::sync::Arc;
use std::time::Duration;

const DIR: &str = "/db";
const LEVELS: [Isolation; 4] = [
    Isolation::ReadUncommitted,
    Isolation::ReadCommitted,
    Isolation::RepeatableRead,
    Isolation::Serializable,
];

struct Rig {
    env: Env,
    db: Db,
}

impl Rig {
    fn new() -> Rig {
        let env = Env::simulated(Arc::new(MemFs::new()), 1);
        let db = options(&env).open(DIR).expect("create");
        Rig { env, db }
    }

    /// Closes and opens again, if asked to: everything prepared must be the same on both ways.
    fn reopened(self, reopen: bool) -> Rig {
        if !reopen {
            return self;
        }
        self.db.close().expect("close");
        let db = options(&self.env).open(DIR).expect("open");
        Rig { env: self.env, db }
    }

    fn xids(&self) -> Vec<String> {
        self.db.prepared_transactions().into_iter().map(|prepared| prepared.xid).collect()
    }

    fn state(&self) -> Map {
        contents(&self.db.default_keyspace()).expect("read")
    }
}

fn options(env: &Env) -> Options {
    Options::tiny().background_threads(0).env(env.clone())
}

fn no_wait() -> WriteOptions {
    WriteOptions::new().lock_wait(LockWait::NoWait)
}

fn map(entries: &[(&str, &str)]) -> Map {
    entries.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

fn text(value: Option<Slice>) -> Option<String> {
    value.map(|value| String::from_utf8_lossy(&value).into_owned())
}

fn kind<T: std::fmt::Debug>(result: esker::Result<T>) -> ErrorKind {
    result.expect_err("refused").kind()
}

/// Every level, with and without a reopening after the preparation.
fn each_way(mut check: impl FnMut(Isolation, bool)) {
    for level in LEVELS {
        check(level, false);
        check(level, true);
    }
}

#[test]
fn prepared_is_listed_then_committed_or_rolled_back() {
    each_way(|level, reopen| {
        for commits in [true, false] {
            let rig = Rig::new();
            let ks = rig.db.default_keyspace();
            rig.db.put("a", "old").expect("put");
            rig.db.put("b", "old").expect("put");
            let mut txn = rig.db.begin_with(TransactionOptions::new(level).label("two")).expect("begin");
            txn.put(&ks, "a", "new").expect("put");
            txn.delete(&ks, "b").expect("delete");
            txn.savepoint();
            txn.put(&ks, "c", "undone").expect("put");
            txn.rollback_to_savepoint().expect("rollback");
            txn.prepare("x").expect("prepare");
            let mut rig = rig.reopened(reopen);
            let listed = rig.db.prepared_transactions();
            let [one] = listed.as_slice() else { panic!("{listed:?}") };
            assert_eq!((one.xid.as_str(), one.label.as_deref()), ("x", Some("two")));
            assert_eq!((one.isolation, one.writes), (level, 2));
            assert_eq!(rig.db.transactions().len(), 1);
            assert_eq!(rig.state(), map(&[("a", "old"), ("b", "old")]), "{level}: not committed yet");
            let expected = if commits {
                rig.db.commit_prepared("x").expect("commit");
                map(&[("a", "new")])
            } else {
                rig.db.rollback_prepared("x").expect("rollback");
                map(&[("a", "old"), ("b", "old")])
            };
            for again in [false, true] {
                rig = rig.reopened(again);
                assert_eq!(rig.state(), expected, "{level}");
                assert!(rig.xids().is_empty() && rig.db.transactions().is_empty());
                assert_eq!(kind(rig.db.commit_prepared("x")), ErrorKind::NotFound);
                assert_eq!(kind(rig.db.rollback_prepared("x")), ErrorKind::NotFound);
                let stats = rig.db.transaction_stats();
                assert_eq!((stats.prepared, stats.prepared_bytes, stats.write_bytes), (0, 0, 0));
                assert_eq!((stats.locks.held, stats.locks.bytes), (0, 0));
            }
            for key in ["a", "b", "c"] {
                rig.db.put_with(key, "after", no_wait()).expect("the locks are gone");
            }
        }
    });
}

#[test]
fn locks_of_every_kind_stay_through_reopening() {
    each_way(|level, reopen| {
        let rig = Rig::new();
        let ks = rig.db.default_keyspace();
        rig.db.put("m", "1").expect("put");
        let mut txn = rig.db.begin(level).expect("begin");
        txn.put(&ks, "written", "1").expect("put");
        txn.get_for_update(&ks, "claimed").expect("get");
        txn.get_for_share(&ks, "shared").expect("get");
        txn.scan_for_update(&ks, "l".."n").expect("scan");
        txn.savepoint();
        txn.put(&ks, "undone", "1").expect("put");
        txn.rollback_to_savepoint().expect("rollback");
        txn.prepare("x").expect("prepare");
        let mut rig = rig.reopened(reopen);
        for round in 0..2 {
            let ks = rig.db.default_keyspace();
            for key in ["written", "claimed", "shared", "undone", "l", "m", "mm"] {
                let error = rig.db.put_with(key, "2", no_wait()).expect_err("locked");
                assert_eq!(error.kind(), ErrorKind::LockTimeout, "{level} {key}");
            }
            rig.db.put_with("k", "2", no_wait()).expect("before the range");
            rig.db.put_with("n", "2", no_wait()).expect("after the range");
            let mut other = rig
                .db
                .begin_with(TransactionOptions::new(Isolation::ReadCommitted).no_wait())
                .expect("begin");
            assert_eq!(text(other.get_for_share(&ks, "shared").expect("shared with shared")), None);
            assert_eq!(kind(other.get_for_share(&ks, "written")), ErrorKind::LockTimeout);
            assert_eq!(kind(other.scan_for_update(&ks, "a".."d")), ErrorKind::LockTimeout);
            other.scan_for_update(&ks, "d".."e").expect("nobody is there");
            drop(other);
            // A second generation of records: what was recovered is recovered again.
            rig = if round == 0 { rig.reopened(reopen) } else { rig };
        }
        rig.db.rollback_prepared("x").expect("rollback");
        for key in ["written", "claimed", "shared", "undone", "l", "m", "mm"] {
            rig.db.put_with(key, "2", no_wait()).expect("free again");
        }
    });
}

#[test]
fn prepared_writes_are_seen_by_read_uncommitted_alone() {
    each_way(|level, reopen| {
        let rig = Rig::new();
        let ks = rig.db.default_keyspace();
        rig.db.put("a", "old").expect("put");
        rig.db.put("b", "old").expect("put");
        let mut txn = rig.db.begin(level).expect("begin");
        txn.put(&ks, "a", "new").expect("put");
        txn.delete(&ks, "b").expect("delete");
        txn.put(&ks, "c", "new").expect("put");
        txn.prepare("x").expect("prepare");
        let rig = rig.reopened(reopen);
        let ks = rig.db.default_keyspace();
        let (old, new) = (map(&[("a", "old"), ("b", "old")]), map(&[("a", "new"), ("c", "new")]));
        for reader in LEVELS {
            let txn = rig.db.begin_with(TransactionOptions::new(reader).read_only()).expect("begin");
            let seen: Map = txn
                .iter(&ks)
                .map(|item| item.map(|(k, v)| (k.to_vec(), v.to_vec())).expect("read"))
                .collect();
            let is_dirty = reader == Isolation::ReadUncommitted;
            assert_eq!(&seen, if is_dirty { &new } else { &old }, "{level} seen by {reader}");
            for key in ["a", "b", "c"] {
                let expected =
                    seen.get(key.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned());
                assert_eq!(text(txn.get(&ks, key).expect("get")), expected, "{key} seen by {reader}");
            }
        }
        let snapshot = rig.db.begin(Isolation::RepeatableRead).expect("begin");
        assert_eq!(text(snapshot.get(&ks, "a").expect("get")).as_deref(), Some("old"));
        rig.db.commit_prepared("x").expect("commit");
        assert_eq!(
            text(snapshot.get(&ks, "a").expect("get")).as_deref(),
            Some("old"),
            "one state for all reads"
        );
        assert_eq!(rig.state(), new);
        let mut late = rig.db.begin(Isolation::RepeatableRead).expect("begin");
        late.put(&ks, "a", "later").expect("its snapshot has the commit");
        drop(snapshot);
        late.commit().expect("commit");
    });
}

/// A prepared transaction can always be committed: whoever would close a dangerous structure with it must give way.
#[test]
fn serializable_transactions_give_way_to_prepared_ones() {
    for reopen in [false, true] {
        // Write skew: each reads what the other writes.
        let rig = Rig::new();
        let ks = rig.db.default_keyspace();
        for key in ["x", "y"] {
            rig.db.put(key, "1").expect("put");
        }
        let mut first = rig.db.begin(Isolation::Serializable).expect("begin");
        let mut second = (!reopen).then(|| rig.db.begin(Isolation::Serializable).expect("begin"));
        first.get(&ks, "x").expect("get");
        first.get(&ks, "y").expect("get");
        first.put(&ks, "x", "first").expect("put");
        first.prepare("p").expect("prepare");
        let rig = rig.reopened(reopen);
        let ks = rig.db.default_keyspace();
        let mut second =
            second.take().unwrap_or_else(|| rig.db.begin(Isolation::Serializable).expect("begin"));
        let skewed = second
            .get(&ks, "x")
            .and_then(|_| second.get(&ks, "y"))
            .and_then(|_| second.put(&ks, "y", "second"))
            .and_then(|()| second.commit());
        assert_eq!(kind(skewed), ErrorKind::Conflict, "reopened: {reopen}");
        rig.db.commit_prepared("p").expect("what is prepared commits");
        assert_eq!(rig.state(), map(&[("x", "first"), ("y", "1")]));
        // After it nothing is in the way.
        let mut third = rig.db.begin(Isolation::Serializable).expect("begin");
        assert_eq!(text(third.get(&ks, "x").expect("get")).as_deref(), Some("first"));
        third.put(&ks, "y", "third").expect("put");
        third.commit().expect("commit");
    }
}

/// The other one commits while the transaction is open, or nothing connects them.
#[test]
fn serializable_checks_at_the_preparation() {
    let rig = Rig::new();
    let ks = rig.db.default_keyspace();
    let mut first = rig.db.begin(Isolation::Serializable).expect("begin");
    let mut second = rig.db.begin(Isolation::Serializable).expect("begin");
    for (txn, key) in [(&mut first, "x"), (&mut second, "y")] {
        txn.get(&ks, "x").expect("get");
        txn.get(&ks, "y").expect("get");
        txn.put(&ks, key, "1").expect("put");
    }
    second.commit().expect("the first to commit wins");
    assert_eq!(kind(first.prepare("p")), ErrorKind::Conflict);
    assert!(rig.xids().is_empty());
    assert_eq!(rig.db.transaction_stats().locks.held, 0);
    rig.db.put_with("x", "2", no_wait()).expect("its locks are gone");
    for reopen in [false, true] {
        let rig = Rig::new();
        let ks = rig.db.default_keyspace();
        let mut txn = rig.db.begin(Isolation::Serializable).expect("begin");
        txn.get(&ks, "a").expect("get");
        txn.put(&ks, "b", "1").expect("put");
        txn.prepare("p").expect("prepare");
        let rig = rig.reopened(reopen);
        let ks = rig.db.default_keyspace();
        for n in 0..20 {
            let mut other = rig.db.begin(Isolation::Serializable).expect("begin");
            other.get(&ks, format!("c{n}")).expect("get");
            other.put(&ks, format!("d{n}"), "1").expect("put");
            other.commit().expect("disjoint");
        }
        rig.db.commit_prepared("p").expect("commit");
    }
}

#[test]
fn what_a_preparation_refuses() {
    let rig = Rig::new();
    let ks = rig.db.default_keyspace();
    let begin = |key: &str| {
        let mut txn = rig.db.begin(Isolation::ReadCommitted).expect("begin");
        txn.put(&ks, key, "1").expect("put");
        txn
    };
    begin("a").prepare("taken").expect("prepare");
    let long = "é".repeat(128);
    for (name, xid) in [("duplicate", "taken"), ("empty", ""), ("long", long.as_str())] {
        assert_eq!(kind(begin("b").prepare(xid)), ErrorKind::InvalidArgument, "{name}");
        rig.db.put_with("b", "2", no_wait()).expect("a refused preparation is a rollback");
    }
    begin("b").prepare(&"x".repeat(255)).expect("the longest name");
    let reader =
        rig.db.begin_with(TransactionOptions::new(Isolation::Serializable).read_only()).expect("begin");
    assert_eq!(kind(reader.prepare("r")), ErrorKind::InvalidArgument);
    let mut failed = rig.db.begin(Isolation::RepeatableRead).expect("begin");
    rig.db.put("c", "1").expect("put");
    assert_eq!(kind(failed.put(&ks, "c", "2")), ErrorKind::Conflict);
    assert_eq!(kind(failed.prepare("f")), ErrorKind::TransactionFailed);
    for xid in ["unknown", "", "b"] {
        assert_eq!(kind(rig.db.commit_prepared(xid)), ErrorKind::NotFound, "{xid:?}");
        assert_eq!(kind(rig.db.rollback_prepared(xid)), ErrorKind::NotFound, "{xid:?}");
    }
    rig.db.begin(Isolation::Serializable).expect("begin").prepare("nothing written").expect("prepare");
    rig.db.commit_prepared("nothing written").expect("commit");
    assert_eq!(rig.xids().len(), 2);
    assert_eq!(rig.db.transactions().len(), 2);
}

#[test]
fn optimistic_transactions_take_their_locks_when_prepared() {
    each_way(|level, reopen| {
        if matches!(level, Isolation::ReadUncommitted | Isolation::ReadCommitted) {
            return;
        }
        let rig = Rig::new();
        let ks = rig.db.default_keyspace();
        let begin = || rig.db.begin_with(TransactionOptions::new(level).optimistic()).expect("begin");
        let (mut late, mut txn) = (begin(), begin());
        txn.put(&ks, "a", "1").expect("put");
        txn.get_for_update(&ks, "b").expect("get");
        late.put(&ks, "c", "1").expect("put");
        rig.db.put_with("c", "2", no_wait()).expect("nothing is locked yet");
        assert_eq!(kind(late.prepare("late")), ErrorKind::Conflict);
        txn.prepare("x").expect("prepare");
        let rig = rig.reopened(reopen);
        let ks = rig.db.default_keyspace();
        let reader = rig.db.begin(Isolation::ReadUncommitted).expect("begin");
        assert_eq!(text(reader.get(&ks, "a").expect("get")).as_deref(), Some("1"), "reopened: {reopen}");
        assert_eq!(reader.iter(&ks).count(), 2, "reopened: {reopen}");
        drop(reader);
        for key in ["a", "b"] {
            assert_eq!(kind(rig.db.put_with(key, "2", no_wait())), ErrorKind::LockTimeout, "{key}");
        }
        assert_eq!(rig.xids(), ["x"]);
        rig.db.commit_prepared("x").expect("commit");
        assert_eq!(rig.state(), map(&[("a", "1"), ("c", "2")]));
    });
}

#[test]
fn what_is_prepared_is_bounded() {
    let env = Env::simulated(Arc::new(MemFs::new()), 1);
    let db = options(&env).prepared_bytes_max(2000).open(DIR).expect("create");
    let ks = db.default_keyspace();
    let prepare = |db: &Db, key: &str, xid: &str| {
        let mut txn = db.begin(Isolation::ReadCommitted).expect("begin");
        txn.put(&ks, key, [7; 1200]).expect("put");
        txn.prepare(xid)
    };
    prepare(&db, "a", "first").expect("prepare");
    let error = prepare(&db, "b", "second").expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(error.to_string().contains("prepared_bytes_max"), "{error}");
    let bytes = db.transaction_stats().prepared_bytes;
    assert!((1200..2000).contains(&bytes), "{bytes}");
    db.put_with("b", "2", no_wait()).expect("a refused preparation is a rollback");
    db.commit_prepared("first").expect("commit");
    prepare(&db, "b", "second").expect("there is room again");
    db.close().expect("close");
    // Less room than there is already is no reason not to open.
    let db = options(&env).prepared_bytes_max(100).lock_bytes_max(64).open(DIR).expect("open");
    assert_eq!(db.prepared_transactions().len(), 1);
    assert_eq!(kind(db.put_with("b", "3", no_wait())), ErrorKind::LockTimeout);
    db.commit_prepared("second").expect("commit");
    assert_eq!(db.get("b").expect("get").expect("a value").len(), 1200);
}

#[test]
fn a_keyspace_that_is_needed_is_not_dropped() {
    for reopen in [false, true] {
        let rig = Rig::new();
        let (own, locked) =
            (rig.db.keyspace("own").expect("create"), rig.db.keyspace("locked").expect("create"));
        let mut txn = rig.db.begin(Isolation::ReadCommitted).expect("begin");
        txn.put(&own, "a", "1").expect("put");
        txn.get_for_update(&locked, "b").expect("get");
        txn.prepare("x").expect("prepare");
        drop((own, locked));
        let rig = rig.reopened(reopen);
        for name in ["own", "locked"] {
            let error = rig.db.drop_keyspace(name).expect_err("in use");
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains("\"x\""), "{error}");
        }
        rig.db.commit_prepared("x").expect("commit");
        assert_eq!(
            contents(&rig.db.existing_keyspace("own").expect("exists")).expect("read"),
            map(&[("a", "1")])
        );
        rig.db.drop_keyspace("own").expect("drop");
        rig.db.drop_keyspace("locked").expect("drop");
    }
    let rig = Rig::new();
    let gone = rig.db.keyspace("gone").expect("create");
    let mut txn = rig.db.begin(Isolation::ReadCommitted).expect("begin");
    txn.put(&gone, "a", "1").expect("put");
    rig.db.drop_keyspace("gone").expect("an open transaction does not hold it");
    assert_eq!(kind(txn.prepare("x")), ErrorKind::NotFound);
    assert!(rig.xids().is_empty());
}

/// Whoever waits for a prepared transaction waits until it is ended. It does not wait itself, so it is in no cycle.
#[test]
fn a_prepared_transaction_is_never_the_victim() {
    for policy in
        [esker::VictimPolicy::Youngest, esker::VictimPolicy::FewestWrites, esker::VictimPolicy::Requester]
    {
        let dir = tempfile::tempdir().expect("a directory");
        let db = Options::tiny().deadlock_victim(policy).open(dir.path()).expect("open");
        let ks = db.default_keyspace();
        let begin = || db.begin(Isolation::ReadCommitted).expect("begin");
        let (mut one, mut two, mut prepared) = (begin(), begin(), begin());
        one.put(&ks, "a", "1").expect("put");
        two.put(&ks, "b", "1").expect("put");
        // The youngest, with the fewest writes.
        prepared.get_for_update(&ks, "p").expect("get");
        let holder = prepared.id();
        prepared.prepare("x").expect("prepare");
        let (members, victim) = std::thread::scope(|scope| {
            let run = |mut txn: esker::Transaction, other: &'static str| {
                let ks = &ks;
                scope.spawn(move || {
                    let short = txn.put(ks, other, "2");
                    let result = short.and_then(|()| txn.put(ks, "p", "2")).and_then(|()| txn.commit());
                    result.map(drop).map_err(|error| error.deadlock().expect("a deadlock").victim)
                })
            };
            let ids = [one.id(), two.id()];
            let threads = [run(one, "b"), run(two, "a")];
            while !db.wait_graph().edges.iter().any(|edge| edge.blocker == holder) {
                std::thread::sleep(Duration::from_millis(1));
            }
            db.commit_prepared("x").expect("commit");
            let results = threads.map(|thread| thread.join().expect("a thread"));
            assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1, "{results:?}");
            (ids, results.into_iter().find_map(Result::err).expect("one"))
        });
        assert!(members.contains(&victim));
        assert_eq!(db.transaction_stats().locks.deadlocks, 1);
    }
}
