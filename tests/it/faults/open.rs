//! Running out of descriptors, and other failures to open a file: an error of the system, never taken for a missing
//! file, a missing key or a missing database.

use super::world::{DIR, Ledger, World};
use esker::env::{CrashMode, Fault, FaultRule, Op, OpSet, When};
use esker::{Durability, ErrorKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// EMFILE.
const NO_DESCRIPTORS: Fault = Fault::Errno(24);

/// A database with tables and a log, left without closing.
fn left_open() -> (World, Ledger) {
    let world = World::new();
    let mut ledger = Ledger::default();
    let db = world.open().expect("create");
    for index in 0..40 {
        ledger.put(&db, &format!("key{index}"), Durability::Os).expect("write");
    }
    db.flush().expect("flush");
    ledger.put(&db, "last", Durability::Disk).expect("write");
    let disk = world.disk.crash_clone(1, CrashMode::ProcessKill);
    (World::on(disk.into()), ledger)
}

fn files(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = world.disk.list_files().into_iter();
    paths.map(|path| (path.clone(), world.disk.read_file(&path).expect("read"))).collect()
}

#[test]
fn an_open_without_descriptors_fails_as_such_and_touches_nothing() {
    let rules = [
        FaultRule::new(Op::Open, NO_DESCRIPTORS).path("MANIFEST-*"),
        FaultRule::new(Op::Open, NO_DESCRIPTORS).path("*.wal"),
        FaultRule::new(Op::Read, Fault::Errno(5)).path("MANIFEST-*"),
        FaultRule::new(Op::Read, Fault::Errno(5)).path("*.wal"),
        FaultRule::new(Op::Len, Fault::Errno(5)),
        FaultRule::new(Op::List, NO_DESCRIPTORS),
        FaultRule::new(Op::Exists, Fault::Errno(13)),
        FaultRule::new(Op::Lock, NO_DESCRIPTORS),
        FaultRule::new(Op::SyncFile, NO_DESCRIPTORS),
        FaultRule::new(OpSet::ALL, NO_DESCRIPTORS),
    ];
    for rule in rules {
        let (world, ledger) = left_open();
        let before = files(&world);
        world.faults.add(rule.clone());
        let error = world.open().map(|_| ()).expect_err("it cannot be opened");
        assert_eq!(error.kind(), ErrorKind::Io, "{rule:?}: {error}");
        assert!(error.io_fault().is_some(), "{rule:?}: {error:?}");
        assert!(files(&world) == before, "{rule:?}: {error}: something was touched");
        assert_eq!(world.disk.open_handles(), [], "{rule:?}");
        world.faults.heal();
        let db = world.open().unwrap_or_else(|error| panic!("{rule:?}: {error}"));
        ledger.check_reads(&db, &format!("{rule:?}"));
        world.check_nothing_left(db, &format!("{rule:?}"));
    }
}

#[test]
fn a_table_that_cannot_be_opened_is_not_a_missing_one() {
    for fault in [NO_DESCRIPTORS, Fault::Errno(23), Fault::Errno(12), Fault::Errno(5)] {
        let (world, ledger) = left_open();
        let db = world.open().expect("open");
        world.faults.add(FaultRule::new(Op::Open, fault).path("*.sst"));
        let error = db.get("key1").expect_err("the table cannot be opened");
        assert_eq!(error.kind(), ErrorKind::Io, "{fault:?}: {error}");
        let error = db.iter().find_map(Result::err).expect("neither for a scan");
        assert_eq!(error.kind(), ErrorKind::Io, "{fault:?}: {error}");
        assert!(db.multi_get(&["key1", "key2"]).is_err() && db.contains_key("key1").is_err());
        assert_eq!(db.verify().expect_err("not verified").kind(), ErrorKind::Io);
        world.settle(&db);
        db.put("still", "writable").expect("reads do not stop writes");
        db.delete("still").expect("write");
        world.faults.heal();
        world.pass(3);
        ledger.check_reads(&db, &format!("{fault:?}"));
        world.check_nothing_left(db, &format!("{fault:?}"));
    }
}

#[test]
fn running_out_of_descriptors_once_is_not_noticed() {
    let (world, ledger) = left_open();
    let db = world.open().expect("open");
    world.faults.add(FaultRule::new(Op::Open, NO_DESCRIPTORS).path("*.sst").when(When::Nth(1)));
    assert!(db.get("key1").expect("handles were given back and the open tried again").is_some());
    assert_eq!(world.faults.faults(), 1);
    ledger.check_reads(&db, "once");
}

#[test]
fn a_read_that_fails_fails_alone() {
    for op in [OpSet::from([Op::Read, Op::MapRead]), OpSet::from([Op::Read, Op::Map])] {
        let (world, ledger) = left_open();
        let db = world.open().expect("open");
        world.faults.add(FaultRule::new(op, Fault::Errno(5)).path("*.sst").when(When::From(1)));
        let failed = (0..40).filter(|index| match db.get(format!("key{index}")) {
            Ok(value) => {
                assert!(value.is_some(), "{op:?}: key{index} is not absent");
                false
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io, "{op:?}: {error}");
                true
            }
        });
        assert!(failed.count() > 0, "{op:?}");
        assert!(db.get("last").expect("read").is_some(), "{op:?}: what is in memory is read");
        world.faults.heal();
        ledger.check_reads(&db, &format!("{op:?}"));
    }
}

/// The manifest uses the name of its temporary again, so nobody else may remove what has that name.
#[test]
fn a_manifest_copy_that_was_being_written_is_left_to_the_manifest() {
    let before = World::new();
    let mut ledger = Ledger::default();
    let db = before.open().expect("create");
    ledger.put(&db, "key", Durability::Disk).expect("write");
    db.flush().expect("flush");
    before.settle(&db);
    // Nothing is left to do that would write to the manifest, so whoever removed the leftover would be somebody else.
    let world = World::on(Arc::new(before.disk.crash_clone(1, CrashMode::ProcessKill)));
    let leftover: &Path = "/db/MANIFEST-A.tmp".as_ref();
    world.disk.write_file(leftover, b"half a copy").expect("write");
    let orphan: &Path = "/db/000999.sst".as_ref();
    world.disk.write_file(orphan, b"half a table").expect("write");
    let db = world.open().expect("open");
    world.settle(&db);
    assert_eq!(world.disk.read_file(leftover).expect("still there"), b"half a copy");
    assert!(world.disk.read_file(orphan).is_err(), "the collection was there");
    ledger.check_reads(&db, "a leftover");
    world.check_nothing_left(db, "a leftover");
}

#[test]
fn a_map_that_fails_is_read_around() {
    for op in [Op::Map, Op::MapRead] {
        let (world, ledger) = left_open();
        let db = world.open().expect("open");
        world.faults.add(FaultRule::new(op, Fault::Errno(5)).path("*.sst"));
        ledger.check_reads(&db, &format!("{op:?}"));
        assert!(world.faults.faults() > 0);
    }
}

#[test]
fn a_directory_that_cannot_be_created_is_an_error_and_nothing_is_left() {
    let world = World::new();
    for op in [Op::CreateDir, Op::Create, Op::Append, Op::Sync, Op::SyncDir, Op::Rename] {
        world.faults.add(FaultRule::new(op, Fault::Errno(5)));
        let Err(error) = world.open().map(drop) else { continue };
        let fair = [ErrorKind::Io, ErrorKind::OutcomeUnknown];
        assert!(fair.contains(&error.kind()), "{op:?}: {:?} {error}", error.kind());
        assert_eq!(world.disk.open_handles(), [], "{op:?}");
        world.faults.heal();
    }
    world.faults.heal();
    let db = world.open().expect("the leftovers of a failed creation do not block the next one");
    db.put("key", "value").expect("write");
    db.close().expect("close");
    let mut names: Vec<_> = world.disk.list_files();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "tmp"));
    assert!(names.is_empty(), "{DIR}: {names:?}");
}
