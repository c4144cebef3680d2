//! The log fails: what is said of a commit whose append reported a failure is what is found after the process has died
//! or the power has gone, whenever that is; and who does not need the log is not told of its failures.

use super::world::{Ledger, World, state};
use esker::env::{CrashMode, Fault, FaultRule, Op, When};
use esker::{Durability, ErrorKind};
use std::io;
use std::sync::Arc;

/// The next append to the log, or all from then on, land and are reported as failed.
fn landing(when: When) -> FaultRule {
    FaultRule::new(Op::Append, Fault::ErrorAfter(io::ErrorKind::Other)).path("*.wal").when(when)
}

/// Every way to find the disk at this moment.
fn check_crashes(world: &World, ledger: &Ledger, what: &str) {
    for mode in CrashMode::ALL {
        for seed in 0..4 {
            let after = World::on(Arc::new(world.disk.crash_clone(seed, mode)));
            let db = after.open().unwrap_or_else(|error| panic!("{what} {mode:?} {seed}: {error}"));
            let least = if mode == CrashMode::ProcessKill { ledger.acknowledged() } else { ledger.durable };
            let shown = state(&db).expect("read");
            assert!(
                ledger.allows(&shown, least),
                "{what} {mode:?} {seed}: {least} commits and no refused one"
            );
        }
    }
}

#[test]
fn a_commit_that_was_refused_does_not_come_back() {
    for durability in [Durability::Disk, Durability::Os] {
        let world = World::new();
        let mut ledger = Ledger::default();
        let db = world.open().expect("create");
        ledger.put(&db, "first", durability).expect("write");
        world.faults.add(landing(When::Nth(1)));
        let error = ledger.put(&db, "refused", durability).expect_err("the append fails");
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        check_crashes(&world, &ledger, "after the refusal");
        ledger.put(&db, "second", durability).expect("the log goes on");
        check_crashes(&world, &ledger, "after another commit");
        ledger.check_reads(&db, "afterwards");
        db.close().expect("close");
        check_crashes(&world, &ledger, "after the close");
    }
}

#[test]
fn where_that_cannot_be_promised_the_outcome_is_unknown() {
    for durability in [Durability::Disk, Durability::Os] {
        let world = World::new();
        let mut ledger = Ledger::default();
        let db = world.open().expect("create");
        ledger.put(&db, "first", durability).expect("write");
        world.faults.add(landing(When::From(1)));
        let error = ledger.put(&db, "unknown", durability).expect_err("the append fails");
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
        assert!(error.io_fault().is_some(), "the cause is told: {error:?}");
        world.faults.heal();
        let error = ledger.put(&db, "refused", durability).expect_err("what is there is not known");
        assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
        assert_eq!(world.heard("Poisoned"), 1);
        ledger.check_reads(&db, "poisoned");
        check_crashes(&world, &ledger, "afterwards");
        db.close().expect_err("poisoned");
        check_crashes(&world, &ledger, "after the close");
    }
}

/// A flush has nothing to do with the segment that is made ahead.
#[test]
fn a_segment_that_cannot_be_prepared_is_no_failure_of_a_flush() {
    let world = World::new();
    let db = world.open().expect("create");
    world.faults.add(FaultRule::new(Op::Create, Fault::Errno(5)).path("000002.wal"));
    db.put("key", "value").expect("write");
    db.flush().expect("flush");
    assert_eq!(world.faults.faults(), 1, "the preparation has failed");
    db.wait_for_background().expect("neither a flush nor a compaction has");
}

#[test]
fn space_for_the_next_segment_ends_a_full_disk() {
    let world = World::new();
    let db = world.open().expect("create");
    world.faults.add(FaultRule::new(Op::Create, Fault::Errno(28)).path("000002.wal"));
    db.put("key", "value").expect("write");
    world.settle(&db);
    assert_eq!((world.heard("NoSpace"), world.heard("SpaceRestored")), (1, 0));
    world.faults.heal();
    world.settle(&db);
    assert_eq!((world.heard("NoSpace"), world.heard("SpaceRestored")), (1, 1));
    assert_eq!(db.stats().flushes, 0, "it did not take a flush to find out");
}
