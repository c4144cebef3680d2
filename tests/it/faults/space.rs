//! A full disk: reads go on, writes go on as far as the log's budget, then are refused without effect, and resume by
//! themselves.

use super::world::{Ledger, World, state};
use esker::env::{CrashMode, Fault, FaultRule, Op};
use esker::{Db, Durability, ErrorKind};
use std::sync::Arc;

/// ENOSPC.
const FULL: Fault = Fault::Errno(28);

fn no_tables() -> FaultRule {
    FaultRule::new([Op::Create, Op::Append], FULL).path("*.sst")
}

/// Writes until a write is refused, which must be for the full disk; answers how many were accepted.
fn write_until_refused(ledger: &mut Ledger, db: &Db, what: &str) -> u64 {
    for index in 0..10_000 {
        if let Err(error) = ledger.put(db, &format!("{what}{index:05}"), Durability::Os) {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{what}: {error}");
            assert!(error.is_retryable());
            let refused = db.get(format!("{what}{index:05}")).expect("read");
            assert!(refused.is_none(), "{what}: a refused write is visible");
            return index;
        }
    }
    panic!("{what}: the disk is full and nothing is refused");
}

fn check_refused(ledger: &mut Ledger, db: &Db, what: &str) {
    let error = ledger.put(db, "refused", Durability::Disk).expect_err(what);
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{what}: {error}");
    assert!(db.get("refused").expect("read").is_none(), "{what}: a refused write is visible");
}

#[test]
fn when_tables_do_not_fit_writes_go_on_within_the_log_budget() {
    let world = World::new();
    let mut ledger = Ledger::default();
    let db = world.open().expect("create");
    ledger.put(&db, "before", Durability::Disk).expect("write");
    db.flush().expect("flush");
    world.faults.add(no_tables());

    write_until_refused(&mut ledger, &db, "full");
    let logged = db.stats().wal_bytes;
    let budget = db.options().wal_bytes_max;
    assert!(logged >= budget, "refused with {logged} of {budget} bytes of log");
    assert!(logged <= budget * 3, "{logged} bytes of log for a budget of {budget}");
    for _ in 0..20 {
        check_refused(&mut ledger, &db, "full");
        world.pass(1);
    }
    assert!(db.stats().wal_bytes <= logged, "refused writes do not grow the log");
    assert_eq!(db.flush().expect_err("no tables").kind(), ErrorKind::NoSpace);
    ledger.check_reads(&db, "full");
    assert_eq!((world.heard("NoSpace"), world.heard("SpaceRestored"), world.heard("Poisoned")), (1, 0, 0));

    world.faults.heal();
    world.pass(3);
    ledger.put(&db, "resumed", Durability::Disk).expect("space is back and nobody had to reopen");
    world.settle(&db);
    ledger.check_reads(&db, "resumed");
    assert_eq!((world.heard("NoSpace"), world.heard("SpaceRestored"), world.heard("Poisoned")), (1, 1, 0));
    db.verify().expect("verify");
    db.close().expect("close");
    let db = world.open().expect("reopen");
    ledger.check_reads(&db, "reopened");
    world.check_nothing_left(db, "reopened");
}

#[test]
fn when_nothing_fits_nothing_is_lost_wherever_it_happens() {
    for free in (0..40).map(|step| step * 701) {
        let world = World::new();
        let what = format!("{free} bytes free");
        let mut ledger = Ledger::default();
        let db = world.open().expect("create");
        for index in 0..10 {
            ledger.put(&db, &format!("before{index}"), Durability::Disk).expect("write");
        }
        world.disk.set_capacity(Some(world.disk.used_bytes() + free));

        write_until_refused(&mut ledger, &db, "full");
        ledger.check_reads(&db, &what);
        // What could be flushed or thrown away meanwhile made a little room.
        world.settle(&db);
        write_until_refused(&mut ledger, &db, "still full");
        assert_eq!(db.sync().err().map(|error| error.kind()), None, "{what}: what is logged can be synced");
        ledger.durable = ledger.commits.len();
        ledger.check_reads(&db, &what);
        assert_eq!(world.heard("Poisoned"), 0, "{what}");

        // The power fails while the disk is full: the next open can read everything, and write once there is room.
        let dark = World::on(Arc::new(world.disk.crash_clone(free, CrashMode::SyncedOnly)));
        check_full_open(&dark, ledger.clone(), &what);

        world.disk.set_capacity(None);
        world.pass(3);
        ledger.put(&db, "resumed", Durability::Disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        world.settle(&db);
        ledger.check_reads(&db, &what);
        drop(db);
        let db = world.open().expect("reopen");
        ledger.check_reads(&db, &what);
        world.check_nothing_left(db, &what);
    }
}

/// On a disk without a free byte a database opens and reads; it writes as soon as there is room.
fn check_full_open(world: &World, mut ledger: Ledger, what: &str) {
    world.disk.set_capacity(Some(0));
    let db = world.open().unwrap_or_else(|error| panic!("{what}: open on a full disk: {error}"));
    let shown = state(&db).expect("read");
    assert!(ledger.allows(&shown, ledger.durable), "{what}: opened on a full disk");
    check_refused(&mut ledger, &db, what);
    world.settle(&db);
    world.disk.set_capacity(None);
    world.pass(3);
    ledger.put(&db, "room again", Durability::Disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    ledger.check_reads(&db, what);
    world.check_nothing_left(db, what);
}

#[test]
fn a_full_disk_opens() {
    let world = World::new();
    let mut ledger = Ledger::default();
    let db = world.open().expect("create");
    for index in 0..50 {
        ledger.put(&db, &format!("key{index}"), Durability::Disk).expect("write");
    }
    let at = |mode| Arc::new(world.disk.crash_clone(5, mode));
    check_full_open(&World::on(at(CrashMode::ProcessKill)), ledger.clone(), "killed");
    check_full_open(&World::on(at(CrashMode::SyncedOnly)), ledger.clone(), "power failure");
    // A copy of the manifest to heal, and no room to do it.
    let damaged = at(CrashMode::SyncedOnly);
    damaged.write_file("/db/MANIFEST-B".as_ref(), b"no manifest").expect("damage");
    let damaged = World::on(damaged);
    check_full_open(&damaged, ledger.clone(), "a damaged manifest");
    db.close().expect("close");
    check_full_open(&World::on(at(CrashMode::SyncedOnly)), ledger.clone(), "closed");
}

#[test]
fn when_a_compaction_does_not_fit_its_inputs_stay_and_writes_go_on() {
    let world = World::new();
    let mut ledger = Ledger::default();
    let db = world.open().expect("create");
    for run in 0..4 {
        for index in 0..8 {
            ledger.put(&db, &format!("key{index}-{run}"), Durability::Os).expect("write");
        }
        db.flush().expect("flush");
    }
    let compactions = db.stats().compactions;
    world.faults.add(no_tables());
    world.settle(&db);
    assert!(world.heard("BackgroundError") > 0, "a compaction was tried");
    assert_eq!(db.stats().compactions, compactions);
    ledger.check_reads(&db, "compaction failed");
    for index in 0..5 {
        ledger.put(&db, &format!("more{index}"), Durability::Disk).expect("compaction does not stop writes");
    }
    world.faults.heal();
    db.flush().expect("neither does it stop flushes");
    world.settle(&db);
    assert!(db.stats().compactions > compactions, "the compaction is tried again by itself");
    ledger.check_reads(&db, "compaction done");
    db.verify().expect("verify");
    world.check_nothing_left(db, "compaction done");
}

#[test]
fn writers_that_wait_for_space_are_answered_and_resume() {
    let world = World::with_threads();
    let db = world.options().background_threads(2).open("/db").expect("create");
    world.faults.add(no_tables());
    let mut ledger = Ledger::default();
    write_until_refused(&mut ledger, &db, "full");
    ledger.check_reads(&db, "full");
    world.faults.heal();
    // No reopen and nobody who helps: the next retry of the flush finds the space.
    while let Err(error) = ledger.put(&db, "resumed", Durability::Disk) {
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    db.wait_for_background().expect("background work");
    ledger.check_reads(&db, "resumed");
    db.close().expect("close");
    let db = World::on(world.disk.clone()).open().expect("reopen");
    ledger.check_reads(&db, "reopened");
}
