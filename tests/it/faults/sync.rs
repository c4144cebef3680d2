//! A sync fails: the commits that waited for it are unknown and stay invisible, writes stop, reads go on, and the
//! next open shows a prefix with everything durable in it.

use super::world::{Ledger, World, state};
use esker::env::{CrashMode, Fault, FaultRule, Op, When};
use esker::{Db, Durability, ErrorKind, WriteOptions};
use std::collections::BTreeSet;
use std::sync::Arc;

/// EIO at the next sync of the log segment in use, not of the next one that is being prepared.
fn failing_log() -> FaultRule {
    FaultRule::new(Op::Sync, Fault::Errno(5)).path("000001.wal").when(When::Nth(1))
}

fn kind<T>(result: esker::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// Every way to find the disk after what was done to it.
fn check_recoveries(world: &World, ledger: &Ledger) {
    for mode in CrashMode::ALL {
        for seed in 0..10 {
            let after = World::on(Arc::new(world.disk.crash_clone(seed, mode)));
            let db = after.open().unwrap_or_else(|error| panic!("{mode:?} {seed}: {error}"));
            let least = if mode == CrashMode::ProcessKill { ledger.acknowledged() } else { ledger.durable };
            let shown = state(&db).expect("read");
            assert!(ledger.allows(&shown, least), "{mode:?} {seed}: not a prefix with {least} commits");
            after.check_nothing_left(db, &format!("{mode:?} {seed}"));
        }
    }
}

#[test]
fn a_failed_commit_is_unknown_and_the_rest_is_refused() {
    let world = World::new();
    let mut ledger = Ledger::default();
    let db = world.open().expect("create");
    ledger.put(&db, "durable", Durability::Disk).expect("write");
    ledger.put(&db, "published", Durability::Os).expect("write");
    let (durable, latest) = (db.durable_seq(), db.latest_seq());
    assert!(durable < latest);
    world.faults.add(failing_log());

    let error = ledger.put(&db, "unknown", Durability::Disk).expect_err("the sync fails");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert!(error.io_fault().is_some(), "the cause is told: {error:?}");
    for durability in [Durability::Disk, Durability::Os, Durability::Memory] {
        let options = WriteOptions::new().durability(durability);
        assert_eq!(
            kind(db.put_with("refused", "value", options)),
            Some(ErrorKind::Poisoned),
            "{durability:?}"
        );
    }
    assert_eq!(kind(db.flush()), Some(ErrorKind::Poisoned));
    assert_eq!(kind(db.sync()), Some(ErrorKind::Poisoned));
    assert_eq!(kind(db.compact()), Some(ErrorKind::Poisoned));
    assert_eq!(kind(db.keyspace("new")), Some(ErrorKind::Poisoned));
    assert_eq!(kind(db.drop_keyspace("default")), Some(ErrorKind::Poisoned));
    assert_eq!(kind(db.wait_for_background()), Some(ErrorKind::Poisoned));
    assert_eq!((db.durable_seq(), db.latest_seq()), (durable, latest));
    assert_eq!(world.heard("Poisoned"), 1);
    ledger.check_reads(&db, "poisoned");
    assert!(db.snapshot().get("unknown").expect("read").is_none(), "what was never published is not seen");
    db.verify().expect("verify");

    check_recoveries(&world, &ledger);
    let syncs = world.faults.count(Op::Sync);
    world.settle(&db);
    assert_eq!(world.faults.count(Op::Sync), syncs, "a failed sync is not tried again");
    assert_eq!(kind(db.close()), Some(ErrorKind::Poisoned));
    assert_eq!(world.disk.open_handles(), []);
    check_recoveries(&world, &ledger);
}

/// The sync that fails is not the commit's own: that of a segment that is full, of a flush, of a proof, an interval.
#[test]
fn a_failed_sync_of_the_log_poisons_whoever_asked_for_it() {
    type Trigger = fn(&World, &Db, &mut Ledger);
    let check = |what: &str, trigger: Trigger| {
        let world = World::new();
        let mut ledger = Ledger::default();
        let db = world.open().expect("create");
        ledger.put(&db, "durable", Durability::Disk).expect("write");
        if what != "proof" {
            // A later record proves the sync before it, and then no proof is written.
            ledger.put(&db, "published", Durability::Os).expect("write");
        }
        world.faults.add(failing_log());
        trigger(&world, &db, &mut ledger);
        assert!(world.faults.faults() > 0, "{what}: no sync failed");
        let error = ledger.put(&db, "refused", Durability::Os).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Poisoned, "{what}: {error}");
        ledger.check_reads(&db, what);
        drop(db);
        assert_eq!(world.disk.open_handles(), [], "{what}");
        check_recoveries(&world, &ledger);
    };
    check("sync", |_, db, _| assert!(db.sync().is_err()));
    check("flush", |_, db, _| assert!(db.flush().is_err()));
    check("proof", |world, db, _| world.settle(db));
    check("full segment", |_, db, ledger| {
        let full = (0..100).find_map(|index| ledger.put(db, &format!("{index}"), Durability::Os).err());
        assert!(full.is_some());
    });
}

#[test]
fn a_table_whose_sync_failed_is_written_again_under_another_number() {
    let world = World::new();
    let mut ledger = Ledger::default();
    let db = world.open().expect("create");
    ledger.put(&db, "key", Durability::Disk).expect("write");
    world.faults.add(FaultRule::new(Op::Sync, Fault::Errno(5)).path("*.sst").when(When::Nth(1)));
    assert_eq!(kind(db.flush()), Some(ErrorKind::Io));
    assert!(!world.disk.list_files().contains(&"/db/000001.sst".into()), "the failed table is removed");
    ledger.put(&db, "another", Durability::Disk).expect("a table can be written again: nothing is poisoned");
    world.pass(3);
    db.flush().expect("the second try");
    assert!(world.disk.list_files().contains(&"/db/000002.sst".into()), "{:?}", world.disk.list_files());
    ledger.check_reads(&db, "second try");
    world.check_nothing_left(db, "second try");
}

#[test]
fn a_failed_sync_of_the_manifest_poisons() {
    for name in ["MANIFEST-A*", "MANIFEST-B*"] {
        for op in [Op::Sync, Op::Append, Op::Create, Op::Rename, Op::SyncDir] {
            let world = World::new();
            let mut ledger = Ledger::default();
            let db = world.open().expect("create");
            ledger.put(&db, "key", Durability::Disk).expect("write");
            let path = if op == Op::SyncDir { "*" } else { name };
            world.faults.add(FaultRule::new(op, Fault::Errno(5)).path(path).when(When::Nth(1)));
            let flushed = db.flush();
            if world.faults.faults() == 0 {
                continue;
            }
            let what = format!("{op:?} of {name}: {flushed:?}");
            assert!(flushed.is_err(), "{what}");
            ledger.check_reads(&db, &what);
            if op == Op::Sync {
                assert_eq!(kind(db.put("key", "value")), Some(ErrorKind::Poisoned), "{what}");
            }
            drop(db);
            check_recoveries(&world, &ledger);
        }
    }
}

/// Many threads wait for one sync that fails: each is told the truth.
#[test]
fn of_many_waiting_commits_each_learns_its_outcome() {
    const THREADS: u64 = 8;
    for fails_at in 1..15 {
        let world = World::with_threads();
        let db = world.options().background_threads(2).open("/db").expect("create");
        world.faults.add(failing_log().when(When::Nth(fails_at)));
        let write = |thread: u64| {
            let mut acknowledged = Vec::new();
            let mut unknown = Vec::new();
            for n in 0..20 {
                let key = format!("{thread}-{n:02}");
                match db.put(&key, "value") {
                    Ok(()) => acknowledged.push(key),
                    Err(error) if error.kind() == ErrorKind::OutcomeUnknown => unknown.push(key),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
                        break;
                    }
                }
            }
            (acknowledged, unknown)
        };
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || write(thread))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let acknowledged: BTreeSet<_> = outcomes.iter().flat_map(|(yes, _)| yes.clone()).collect();
        let unknown: BTreeSet<_> = outcomes.iter().flat_map(|(_, maybe)| maybe.clone()).collect();
        let keys = |db: &Db| -> BTreeSet<String> {
            let text = |key: esker::Slice| String::from_utf8(key.to_vec()).expect("text");
            db.iter().map(|item| text(item.expect("read").0)).collect()
        };
        assert_eq!(keys(&db), acknowledged, "sync {fails_at}: what is visible is what was acknowledged");
        drop(db);
        for mode in CrashMode::ALL {
            let after = World::on(Arc::new(world.disk.crash_clone(fails_at, mode)));
            let found = keys(&after.open().expect("reopen"));
            assert!(found.is_superset(&acknowledged), "sync {fails_at} {mode:?}: lost");
            let strange: Vec<_> =
                found.difference(&acknowledged).filter(|key| !unknown.contains(*key)).collect();
            assert!(strange.is_empty(), "sync {fails_at} {mode:?}: {strange:?} were refused");
        }
    }
}
