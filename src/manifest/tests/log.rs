//! Writing and reading the two copies while nothing crashes: growth, rewrites, failures, full disks.

use super::world::*;
use super::*;
use crate::base::error::ErrorKind;
use crate::env::{Env, FaultFs, Fs, Op};
use crate::manifest::log::Limits;
use std::path::Path;
use std::sync::Arc;

fn first_generation(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[32..40].try_into().unwrap())
}

#[test]
fn edits_come_back_and_both_copies_are_the_same() {
    let count = 12;
    let states = states(count);
    let (env, disk) = world();
    let (mut manifest, mut version) = create(&env).unwrap();
    let mut rewrites = 0;
    for index in 1..count {
        let before = first_generation(&bytes(&disk, A));
        version = manifest.append(&version, &edit(index)).unwrap();
        assert_eq!(state(&version), states[index + 1]);
        assert_eq!(version.generation, index as u64 + 1);
        assert_eq!(bytes(&disk, A), bytes(&disk, B));
        assert!(disk.is_durable(Path::new(A)).unwrap() && disk.is_durable(Path::new(B)).unwrap());
        rewrites += u32::from(first_generation(&bytes(&disk, A)) != before);

        let loaded = read(&env).unwrap().unwrap();
        assert_eq!(loaded.version, version);
        assert!(!loaded.needs_heal() && loaded.dropped_bytes == 0);
    }
    assert!(rewrites >= 2, "{rewrites}");
    assert!(litter(&disk).is_empty());
}

#[test]
fn reading_changes_nothing_and_the_first_append_writes_new_files() {
    let (env, disk) = written(4, TINY, |_| ());
    let mutations = disk.mutations();
    let mut loaded = read(&env).unwrap().unwrap();
    assert_eq!(disk.mutations(), mutations);
    assert_eq!(first_generation(&bytes(&disk, A)), 1);
    let next = loaded.manifest.append(&loaded.version, &edit(4)).unwrap();
    assert_eq!(first_generation(&bytes(&disk, A)), 5);
    let appended = disk.mutations();
    loaded.manifest.append(&next, &Edit::default()).unwrap();
    assert_eq!(disk.mutations() - appended, 4, "two writes and two syncs");
}

#[test]
fn neither_copy_is_no_manifest() {
    let (env, disk) = world();
    assert!(read(&env).unwrap().is_none());
    leave(&env, "/db/MANIFEST-A.tmp");
    leave(&env, "/db/MANIFEST-B.tmp");
    assert!(read(&env).unwrap().is_none());
    assert!(
        disk.list_files().iter().all(|path| is_manifest_file(path.file_name().unwrap().to_str().unwrap()))
    );
    create(&env).unwrap();
    assert!(litter(&disk).is_empty());
    assert!(
        !is_manifest_file("MANIFEST")
            && !is_manifest_file("MANIFEST-A.tmp2")
            && is_manifest_file("MANIFEST-B")
    );
}

#[test]
fn a_manifest_is_not_created_over_another() {
    for path in [A, B] {
        let (env, disk) = written(3, TINY, |_| ());
        put(&disk, path, None);
        let before = disk.mutations();
        assert_eq!(create(&env).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(disk.mutations(), before);
    }
}

#[test]
fn wrong_edits_are_refused_without_effect() {
    let (env, disk) = world();
    let (mut manifest, version) = create(&env).unwrap();
    let mutations = disk.mutations();
    let other = Version { db: 5, ..version.clone() };
    let stale = Version { generation: 0, ..version.clone() };
    let fine = Edit::parse("log 5");
    for (version, edit) in [
        (&version, &Edit::parse("remove 0 L0 #5 12")),
        (&version, &Edit::parse("add 0 L0 #5 2000:[a..b]@1-2")),
        (&other, &fine),
        (&stale, &fine),
    ] {
        assert_eq!(manifest.append(version, edit).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(disk.mutations(), mutations);
    manifest.append(&version, &fine).unwrap();
    assert_eq!(manifest.append(&version, &fine).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(manifest.heal(&version).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

/// Every mutation of an append and of a rewrite fails in turn. What was acknowledged before is there afterwards,
/// the failed edit is there whole or not at all, and nothing is written after a failure that left it open.
#[test]
fn any_failure_leaves_a_readable_manifest_and_stops_writing_where_it_must() {
    let states = states(12);
    let (mut open_outcomes, mut without_effect) = (0, 0);
    for failing in 0.. {
        let (env, disk) = world();
        let faults = Arc::new(FaultFs::new(disk.clone()));
        let faulty = Env { fs: faults.clone(), ..env.clone() };
        let (mut manifest, mut version) = create(&faulty).unwrap();
        faults.fail_nth(crate::env::OpSet::mutations(), failing + 1);
        let outcome: crate::base::error::Result<()> = (1..11).try_for_each(|index| {
            version = manifest.append(&version, &edit(index))?;
            Ok(())
        });
        let Err(error) = outcome else {
            assert!(failing > 30, "only {failing} failures");
            break;
        };
        let acknowledged = version.generation as usize;
        let again = manifest.append(&version, &edit(acknowledged));
        if error.kind() == ErrorKind::OutcomeUnknown {
            open_outcomes += 1;
            let mutations = disk.mutations();
            let again = again.unwrap_err();
            assert_eq!(again.kind(), ErrorKind::Poisoned);
            assert!(again.io_fault().is_some(), "the first cause is kept");
            assert_eq!(manifest.heal(&version).unwrap_err().kind(), ErrorKind::Poisoned);
            assert_eq!(disk.mutations(), mutations);
        } else {
            without_effect += 1;
            assert_eq!(error.kind(), ErrorKind::Io);
        }
        let found = state(&read(&env).unwrap().unwrap().version);
        assert!(
            [&states[acknowledged], &states[acknowledged + 1]].contains(&&found),
            "failure {failing}: {found}"
        );
        let (_, reopened) = open(&env).unwrap().unwrap();
        assert_eq!(state(&reopened), found);
    }
    assert!(open_outcomes > 10 && without_effect > 5, "{open_outcomes} {without_effect}");
}

/// A failed sync takes the pages for clean: they are visible now and gone later.
#[test]
fn a_failed_sync_stops_writing() {
    for failing in 1..=2 {
        let (env, disk) = world();
        let (mut manifest, version) = create(&env).unwrap();
        disk.fail_sync_at(failing);
        assert_eq!(manifest.append(&version, &edit(1)).unwrap_err().kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(manifest.append(&version, &edit(1)).unwrap_err().kind(), ErrorKind::Poisoned);
        drop(manifest);
        let (_, version) = open(&env).unwrap().unwrap();
        assert_eq!(state(&version), states(2)[failing as usize], "A was {failing} of 2 to be synced");
    }
}

#[test]
fn a_full_disk_takes_edits_from_the_reserve_and_recovers() {
    let limits = Limits { rewrite_bytes_min: 1000, reserve_bytes: 500 };
    let (env, disk) = world();
    let (mut manifest, mut version) = Manifest::create_with(&env, dir(), DB, &edit(0), limits).unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let mut taken = 0;
    let refused = loop {
        match manifest.append(&version, &Edit::parse("log 3")) {
            Ok(next) => (version, taken) = (next, taken + 1),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::NoSpace);
    assert!(bytes(&disk, A).len() > 1000, "{taken} edits went into the reserve");
    assert!(litter(&disk).is_empty());
    for _ in 0..3 {
        assert_eq!(manifest.append(&version, &edit(1)).unwrap_err().kind(), ErrorKind::NoSpace);
    }
    let found = read(&env).unwrap().unwrap();
    assert!(found.version == version && !found.needs_heal());

    // A new process cannot write, but can read; and both go on when there is space again.
    let mut other = read(&env).unwrap().unwrap();
    assert_eq!(other.manifest.append(&version, &edit(1)).unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(other.manifest.heal(&version).unwrap_err().kind(), ErrorKind::NoSpace);
    assert!(litter(&disk).is_empty());
    disk.set_capacity(None);
    let next = other.manifest.append(&version, &edit(1)).unwrap();
    assert_eq!(read(&env).unwrap().unwrap().version, next);
}

#[test]
fn closing_gives_back_the_reserve_and_keeps_the_content() {
    let (env, disk) = world();
    let (mut manifest, version) = create(&env).unwrap();
    let used = disk.used_bytes();
    manifest.close().unwrap();
    assert!(disk.used_bytes() < used);
    assert_eq!(read(&env).unwrap().unwrap().version, version);
    let next = manifest.append(&version, &edit(1)).unwrap();
    assert_eq!(read(&env).unwrap().unwrap().version, next);
}

/// Large enough for records of several blocks, and for rewrites at twice the snapshot.
#[test]
fn a_large_manifest_is_rewritten_at_twice_its_snapshot() {
    let (env, disk) = world();
    let create = Edit::parse("create 0 \"default\"\nfiles 100000");
    let (mut manifest, mut version) = Manifest::create(&env, dir(), DB, &create).unwrap();
    let many = (1..=2000).map(|number| format!("add 0 L1 #1 {number}:[k{number:05}..k{number:05}z]@1-2\n"));
    version = manifest.append(&version, &Edit::parse(&many.collect::<String>())).unwrap();
    let snapshot = bytes(&disk, A);
    assert!(first_generation(&snapshot) == 2 && snapshot.len() > 4 * 32 * 1024);
    for round in 0..40 {
        let numbers = round * 50 + 1..=round * 50 + 50;
        let moved = numbers.map(|number| {
            let table = format!("{number}:[k{number:05}..k{number:05}z]@1-2");
            format!("remove 0 L1 #1 {number}\nadd 0 L2 #9 {table}\n")
        });
        version = manifest.append(&version, &Edit::parse(&moved.collect::<String>())).unwrap();
        let loaded = read(&env).unwrap().unwrap();
        assert!(loaded.version == version && !loaded.needs_heal());
    }
    assert!(first_generation(&bytes(&disk, A)) > 10);
}

#[test]
fn a_copy_that_cannot_be_read_is_healed_and_one_that_cannot_be_opened_is_an_error() {
    let (env, disk) = written(4, TINY, |_| ());
    let expect = read(&env).unwrap().unwrap().version;
    let with_fault = |op: Op, count: u64| {
        let faults = Arc::new(FaultFs::new(disk.clone() as Arc<dyn Fs>));
        (1..=count).for_each(|n| faults.fail_nth(op, n));
        read(&Env { fs: faults, ..env.clone() })
    };
    let loaded = with_fault(Op::Read, 1).unwrap().unwrap();
    assert_eq!(loaded.version, expect);
    assert_eq!(loaded.damaged[0].kind(), ErrorKind::Io);
    assert_eq!(with_fault(Op::Read, 2).err().unwrap().kind(), ErrorKind::Io);
    assert_eq!(with_fault(Op::Open, 1).err().unwrap().kind(), ErrorKind::Io);
}

#[test]
fn a_real_disk_behaves_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let (env, dir) = (Env::os(), directory.path());
    let states = states(12);
    let (mut manifest, mut version) = Manifest::create_with(&env, dir, DB, &edit(0), TINY).unwrap();
    for index in 1..12 {
        if index == 4 || index == 9 {
            manifest.close().unwrap();
            Manifest::sync_existing(&env, dir).unwrap();
            let loaded = Manifest::read_with(&env, dir, TINY).unwrap().unwrap();
            assert!(loaded.version == version && !loaded.needs_heal() && loaded.dropped_bytes == 0);
            manifest = loaded.manifest;
        }
        version = manifest.append(&version, &edit(index)).unwrap();
        assert_eq!(state(&version), states[index + 1]);
    }
    let names: Vec<String> = env.fs.list(dir).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["MANIFEST-A", "MANIFEST-B"]);
    env.fs.remove(&dir.join("MANIFEST-A")).unwrap();
    let mut loaded = Manifest::read_with(&env, dir, TINY).unwrap().unwrap();
    assert!(loaded.version == version && loaded.damaged.len() == 1);
    let healed = loaded.manifest.heal(&version).unwrap();
    let again = Manifest::read_with(&env, dir, TINY).unwrap().unwrap();
    assert!(again.version == healed && !again.needs_heal());
}
