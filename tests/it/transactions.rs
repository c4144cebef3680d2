//! Transactions from the outside: own writes, savepoints, locks, limits, ends.

use esker::{ErrorKind, Isolation, LockWait, Options, TransactionOptions, WriteOptions};
use std::time::Duration;

const LEVELS: [Isolation; 4] = [
    Isolation::ReadUncommitted,
    Isolation::ReadCommitted,
    Isolation::RepeatableRead,
    Isolation::Serializable,
];

fn open() -> esker::Db {
    let (env, _) = esker::env::Env::memory(1);
    Options::tiny().background_threads(0).env(env).open("/db").expect("open")
}

fn text(entries: impl Iterator<Item = esker::Result<(esker::Slice, esker::Slice)>>) -> String {
    let one = |entry: esker::Result<(esker::Slice, esker::Slice)>| {
        let (key, value) = entry.expect("an entry");
        format!("{}={}", key.escape_ascii(), value.escape_ascii())
    };
    entries.map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_transaction_sees_its_own_writes_everywhere() {
    for level in LEVELS {
        let db = open();
        let ks = db.default_keyspace();
        for key in ["a", "c", "e"] {
            db.put(key, "old").expect("put");
        }
        let mut txn = db.begin(level).expect("begin");
        txn.put(&ks, "b", "new").expect("put");
        txn.put(&ks, "c", "new").expect("put");
        txn.delete(&ks, "e").expect("delete");
        txn.put(&ks, "f", "new").expect("put");
        assert_eq!(text(txn.iter(&ks)), "a=old b=new c=new f=new", "{level}");
        assert_eq!(text(txn.iter(&ks).rev()), "f=new c=new b=new a=old", "{level}");
        assert_eq!(text(txn.range(&ks, "b".."f")), "b=new c=new", "{level}");
        assert_eq!(text(txn.prefix(&ks, "f").rev()), "f=new", "{level}");
        let mut both = txn.iter(&ks);
        let (first, last) = (both.next(), both.next_back());
        assert_eq!(text([first, last].into_iter().flatten()), "a=old f=new");
        assert_eq!(text(both.by_ref()), "b=new c=new");
        assert!(both.next().is_none() && both.next_back().is_none());
        drop(both);
        let mut sought = txn.iter(&ks);
        sought.seek("bb").expect("seek");
        assert_eq!(text(sought), "c=new f=new", "{level}");
        let values = txn.multi_get(&ks, &["a", "b", "e", "x"]).expect("multi_get");
        let values: Vec<_> = values.iter().map(|value| value.as_deref().map(<[u8]>::to_vec)).collect();
        assert_eq!(values, [Some(b"old".to_vec()), Some(b"new".to_vec()), None, None]);
        assert_eq!(text(db.iter()), "a=old c=old e=old", "nobody else sees it at {level}");
        txn.commit().expect("commit");
        assert_eq!(text(db.iter()), "a=old b=new c=new f=new", "{level}");
    }
}

#[test]
fn what_is_rolled_back_was_never_there() {
    for level in LEVELS {
        let db = open();
        let ks = db.default_keyspace();
        let mut txn = db.begin(level).expect("begin");
        txn.put(&ks, "x", "1").expect("put");
        txn.savepoint();
        txn.put(&ks, "x", "2").expect("put");
        txn.delete(&ks, "y").expect("delete");
        txn.savepoint();
        txn.put(&ks, "z", "3").expect("put");
        txn.release_savepoint().expect("release");
        txn.rollback_to_savepoint().expect("rollback");
        let none = txn.rollback_to_savepoint().expect_err("no savepoint is left");
        assert_eq!(none.kind(), ErrorKind::InvalidArgument);
        txn.commit().expect("commit");
        assert_eq!(text(db.iter()), "x=1", "{level}");
        let mut txn = db.begin(level).expect("begin");
        txn.put(&ks, "x", "9").expect("put");
        txn.rollback();
        let mut dropped = db.begin(level).expect("begin");
        dropped.put(&ks, "x", "9").expect("the lock is free");
        drop(dropped);
        assert_eq!(text(db.iter()), "x=1", "{level}");
        assert_eq!(db.transactions().len(), 0);
    }
}

#[test]
fn plain_writes_respect_the_locks_of_transactions() {
    let db = open();
    let ks = db.default_keyspace();
    let mut txn =
        db.begin_with(TransactionOptions::new(Isolation::ReadCommitted).label("holder")).expect("begin");
    txn.put(&ks, "x", "1").expect("put");
    let no_wait = WriteOptions::new().lock_wait(LockWait::NoWait);
    let error = db.put_with("x", "2", no_wait).expect_err("the key is locked");
    assert_eq!(error.kind(), ErrorKind::LockTimeout);
    assert!(error.to_string().contains("holder"), "{error}");
    let short = WriteOptions::new().lock_wait(LockWait::Timeout(Duration::from_millis(30)));
    assert_eq!(db.delete_with("x", short).expect_err("locked").kind(), ErrorKind::LockTimeout);
    let mut batch = db.batch();
    batch.put(&ks, "w", "1").expect("put");
    batch.put(&ks, "x", "1").expect("put");
    assert_eq!(batch.commit_with(no_wait).expect_err("locked").kind(), ErrorKind::LockTimeout);
    db.put_with("y", "2", no_wait).expect("another key");
    assert_eq!(db.get("w").expect("get"), None, "of a batch all or nothing");
    txn.commit().expect("commit");
    db.put_with("x", "3", no_wait).expect("free again");
    assert_eq!(text(db.iter()), "x=3 y=2");
}

#[test]
fn a_transaction_that_failed_can_only_be_rolled_back() {
    for level in [Isolation::RepeatableRead, Isolation::Serializable] {
        let db = open();
        let ks = db.default_keyspace();
        let mut txn = db.begin(level).expect("begin");
        txn.put(&ks, "a", "1").expect("put");
        db.put("x", "2").expect("put");
        let error = txn.put(&ks, "x", "3").expect_err("changed since the snapshot");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.is_retryable());
        let conflict = error.conflict().expect("details");
        assert_eq!(
            (conflict.key.as_deref(), conflict.keyspace.as_deref()),
            (Some(&b"x"[..]), Some("default"))
        );
        let no_wait = WriteOptions::new().lock_wait(LockWait::NoWait);
        db.put_with("a", "4", no_wait).expect("its locks are gone");
        for error in [
            txn.get(&ks, "a").expect_err("failed"),
            txn.put(&ks, "b", "1").expect_err("failed"),
            txn.iter(&ks).next().expect("an item").expect_err("failed"),
            txn.commit().expect_err("failed"),
        ] {
            assert_eq!(error.kind(), ErrorKind::TransactionFailed, "{error}");
            assert!(error.is_retryable() && error.conflict().is_some());
        }
        assert_eq!(text(db.iter()), "a=4 x=2");
    }
}

#[test]
fn optimistic_transactions_take_no_locks_and_check_at_the_commit() {
    for level in [Isolation::RepeatableRead, Isolation::Serializable] {
        let db = open();
        let ks = db.default_keyspace();
        let begin = || db.begin_with(TransactionOptions::new(level).optimistic()).expect("begin");
        let (mut first, mut second, mut third) = (begin(), begin(), begin());
        first.put(&ks, "x", "1").expect("put");
        second.put(&ks, "x", "2").expect("no lock is held");
        second.put(&ks, "y", "2").expect("put");
        third.put(&ks, "z", "3").expect("put");
        assert_eq!(third.get_for_update(&ks, "x").expect("get"), None);
        first.commit().expect("the first wins");
        assert_eq!(second.commit().expect_err("x was changed").kind(), ErrorKind::Conflict);
        assert_eq!(third.commit().expect_err("x was changed").kind(), ErrorKind::Conflict);
        assert_eq!(text(db.iter()), "x=1", "{level}");
    }
    let db = open();
    let options = TransactionOptions::new(Isolation::ReadCommitted).optimistic();
    assert_eq!(db.begin_with(options).expect_err("no snapshot").kind(), ErrorKind::InvalidArgument);
}

#[test]
fn ranges_are_locked_with_their_gaps() {
    let db = open();
    let ks = db.default_keyspace();
    db.put("b", "1").expect("put");
    let mut txn = db.begin(Isolation::ReadCommitted).expect("begin");
    let found = txn.scan_for_update(&ks, "a".."c").expect("scan");
    assert_eq!(text(found.into_iter().map(Ok)), "b=1");
    let no_wait = WriteOptions::new().lock_wait(LockWait::NoWait);
    for (key, expect) in [("a", false), ("b", false), ("bzz", false), ("c", true), ("A", true)] {
        assert_eq!(db.put_with(key, "2", no_wait).is_ok(), expect, "{key}");
    }
    drop(txn);
    db.put_with("a", "2", no_wait).expect("free again");
}

#[test]
fn limits_are_refused_before_any_effect() {
    let (env, _) = esker::env::Env::memory(1);
    let options = Options::tiny().background_threads(0).env(env);
    let db = options.transaction_bytes_max(1000).transactions_bytes_max(1500).open("/db").expect("open");
    let ks = db.default_keyspace();
    let mut first = db.begin(Isolation::ReadCommitted).expect("begin");
    first.put(&ks, "a", [0; 500]).expect("put");
    let error = first.put(&ks, "b", [0; 500]).expect_err("too much");
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(error.to_string().contains("transaction_bytes_max"), "{error}");
    let mut second = db.begin(Isolation::ReadCommitted).expect("begin");
    second.put(&ks, "c", [0; 600]).expect("put");
    let error = second.put(&ks, "d", [0; 100]).expect_err("too much together");
    assert!(error.to_string().contains("transactions_bytes_max"), "{error}");
    first.commit().expect("a refused write does not fail the transaction");
    second.put(&ks, "d", [0; 100]).expect("there is room again");
    second.commit().expect("commit");
    assert_eq!(db.iter().count(), 3);
    assert_eq!(db.transaction_stats().write_bytes, 0);
    let mut claiming =
        db.begin_with(TransactionOptions::new(Isolation::RepeatableRead).optimistic()).expect("begin");
    let refused =
        (0..100).find_map(|_| claiming.get_for_update(&ks, "a").err()).expect("claims count as well");
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    claiming.commit().expect("what was claimed is unchanged");
    assert_eq!(db.transaction_stats().write_bytes, 0);
    for (key, value) in [(vec![], vec![]), (vec![0; 70_000], vec![])] {
        let mut txn = db.begin(Isolation::Serializable).expect("begin");
        txn.put(&ks, &key, &value).expect_err("no such key");
        txn.commit().expect("nothing was done");
    }
}

#[test]
fn an_abandoned_transaction_expires_when_others_ask_for_its_locks() {
    let db = open();
    let ks = db.default_keyspace();
    let options = TransactionOptions::new(Isolation::ReadCommitted).expires_after(Duration::from_millis(50));
    let mut txn = db.begin_with(options).expect("begin");
    txn.put(&ks, "x", "1").expect("put");
    db.put("x", "2").expect("waits until the other expires");
    let error = txn.put(&ks, "y", "1").expect_err("expired");
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    assert!(txn.commit().is_err());
    assert_eq!(text(db.iter()), "x=2");
    assert_eq!(db.transaction_stats().expired, 1);
}

#[test]
fn transact_tries_again_and_says_when_it_gives_up() {
    let db = open();
    let ks = db.default_keyspace();
    let mut attempts = 0;
    let seen = db.transact(Isolation::RepeatableRead, |txn| {
        attempts += 1;
        if attempts < 3 {
            db.put("x", format!("{attempts}"))?;
        }
        txn.put(&ks, "x", "mine")?;
        Ok(attempts)
    });
    assert_eq!(seen.expect("the third attempt"), 3);
    let policy = esker::RetryPolicy::new().attempts(4);
    let mut attempts = 0;
    let error = db
        .transact_with(TransactionOptions::new(Isolation::RepeatableRead), policy, |txn| {
            attempts += 1;
            db.put("x", format!("{attempts}"))?;
            txn.put(&ks, "x", "mine")
        })
        .expect_err("never");
    assert_eq!((attempts, error.kind()), (4, ErrorKind::Conflict));
    assert!(error.to_string().contains("4 attempts"), "{error}");
    assert_eq!(db.get("x").expect("get").expect("a value"), "4");
}

#[test]
fn declared_readers_write_nothing_and_wait_for_nobody() {
    for level in LEVELS {
        let db = open();
        let ks = db.default_keyspace();
        db.put("x", "1").expect("put");
        let mut writer = db.begin(Isolation::ReadCommitted).expect("begin");
        writer.put(&ks, "x", "2").expect("put");
        let mut reader = db.begin_with(TransactionOptions::new(level).read_only()).expect("begin");
        let expect = if level == Isolation::ReadUncommitted { "x=2" } else { "x=1" };
        assert_eq!(text(reader.iter(&ks)), expect, "{level}");
        assert_eq!(reader.put(&ks, "y", "1").expect_err("read-only").kind(), ErrorKind::InvalidArgument);
        assert_eq!(
            reader.get_for_update(&ks, "x").expect_err("read-only").kind(),
            ErrorKind::InvalidArgument
        );
        reader.commit().expect("never fails");
    }
}
