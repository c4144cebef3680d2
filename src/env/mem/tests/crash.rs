//! Crashes: what each mode may and may not do, crash points, failed syncs.

use super::*;

const POWER_CUTS: [CrashMode; 4] =
    [CrashMode::SyncedOnly, CrashMode::PerFilePrefix, CrashMode::Random, CrashMode::Torn];

/// What a mode makes of the disk, over many seeds.
fn outcomes<T: Ord>(disk: &MemFs, mode: CrashMode, look: impl Fn(&MemFs) -> T) -> Vec<T> {
    let mut seen: Vec<T> = (0..SEEDS).map(|seed| look(&disk.crash_clone(seed, mode))).collect();
    seen.sort();
    seen.dedup();
    seen
}

#[test]
fn synced_content_under_a_synced_name_survives_every_mode() {
    let disk = disk();
    let file = durable(&disk, "/db/a", &pattern(700));
    file.append(&pattern(3000)).unwrap();
    create(&disk, "/db/b").append(b"x").unwrap();
    for mode in CrashMode::ALL {
        for bytes in outcomes(&disk, mode, |after| after.read_file(path("/db/a")).unwrap()) {
            assert_eq!(bytes[..700], pattern(700), "{mode:?}");
        }
    }
    let synced_only = disk.crash_clone(1, CrashMode::SyncedOnly);
    assert_eq!(dump(&synced_only), [(PathBuf::from("/db/a"), pattern(700))]);
}

#[test]
fn after_a_process_death_everything_is_there_and_still_pending() {
    let disk = disk();
    let file = durable(&disk, "/db/a", b"old");
    file.append(b"new").unwrap();
    create(&disk, "/db/b").append(b"x").unwrap();
    let next = disk.crash_clone(1, CrashMode::ProcessKill);
    assert_eq!(dump(&next), dump(&disk));
    assert_eq!(next.open_handles(), []);
    let lost = next.crash_clone(1, CrashMode::SyncedOnly);
    assert_eq!(dump(&lost), [(PathBuf::from("/db/a"), b"old".to_vec())]);
    for name in ["/db/a", "/db/b"] {
        next.sync_file(path(name)).unwrap();
    }
    next.sync_dir(path("/db")).unwrap();
    assert_eq!(dump(&next.crash_clone(1, CrashMode::SyncedOnly)), dump(&disk));
}

#[test]
fn a_name_that_was_not_synced_can_be_lost_although_the_content_was() {
    let disk = disk();
    let file = create(&disk, "/db/a");
    file.append(b"hello").unwrap();
    file.sync().unwrap();
    for mode in [CrashMode::PerFilePrefix, CrashMode::Random, CrashMode::Torn] {
        let seen = outcomes(&disk, mode, |after| after.read_file(path("/db/a")).ok());
        assert_eq!(seen, [None, Some(b"hello".to_vec())], "{mode:?}");
    }
    assert_eq!(names(&disk.crash_clone(1, CrashMode::SyncedOnly)), [""; 0]);
}

#[test]
fn a_synced_name_does_not_cover_the_content() {
    let disk = disk();
    let file = create(&disk, "/db/a");
    file.append(&[7; 512]).unwrap();
    disk.sync_dir(path("/db")).unwrap();
    let seen = outcomes(&disk, CrashMode::Random, |after| after.read_file(path("/db/a")).unwrap());
    assert!(seen.contains(&vec![]), "length lost");
    assert!(seen.contains(&vec![0; 512]), "length grew, data zeros");
    assert!(seen.contains(&vec![7; 512]), "all kept");
    assert!(seen.iter().any(|bytes| !bytes.is_empty() && bytes.len() < 512), "length in between");
    assert_eq!(disk.crash_clone(1, CrashMode::SyncedOnly).read_file(path("/db/a")).unwrap(), b"");
}

#[test]
fn a_directory_that_was_not_synced_takes_everything_below_with_it() {
    let disk = MemFs::new();
    disk.create_dir_all(path("/db/sub")).unwrap();
    let file = create(&disk, "/db/sub/a");
    file.append(b"x").unwrap();
    file.sync().unwrap();
    let check = |expect: bool| {
        let after = disk.crash_clone(1, CrashMode::SyncedOnly);
        assert_eq!(after.exists(path("/db/sub/a")).unwrap(), expect);
    };
    disk.sync_dir(path("/db/sub")).unwrap();
    disk.sync_dir(path("/db")).unwrap();
    check(false);
    disk.sync_dir(path("/")).unwrap();
    check(true);
}

#[test]
fn a_rename_is_atomic_and_leads_to_the_old_or_the_new_file() {
    let disk = disk();
    durable(&disk, "/db/tmp", b"new");
    durable(&disk, "/db/name", b"old");
    disk.rename(path("/db/tmp"), path("/db/name")).unwrap();
    let file = |name: &str, bytes: &[u8]| (PathBuf::from(name), bytes.to_vec());
    let old = vec![file("/db/name", b"old"), file("/db/tmp", b"new")];
    let new = vec![file("/db/name", b"new")];
    assert_eq!(dump(&disk), new);
    for mode in [CrashMode::PerFilePrefix, CrashMode::Random, CrashMode::Torn] {
        assert_eq!(outcomes(&disk, mode, dump), [new.clone(), old.clone()], "{mode:?}");
    }
    assert_eq!(outcomes(&disk, CrashMode::SyncedOnly, dump), [old]);
    disk.sync_dir(path("/db")).unwrap();
    for mode in CrashMode::ALL {
        assert_eq!(outcomes(&disk, mode, dump), std::slice::from_ref(&new), "{mode:?}");
    }
}

#[test]
fn a_removal_that_was_not_synced_can_be_undone() {
    let disk = disk();
    drop(durable(&disk, "/db/a", b"hello"));
    let id = disk.disk.lock().names().find_file(path("/db/a")).unwrap();
    disk.remove(path("/db/a")).unwrap();
    assert_eq!(names(&disk), [""; 0]);
    let seen = outcomes(&disk, CrashMode::Random, |after| after.read_file(path("/db/a")).ok());
    assert_eq!(seen, [None, Some(b"hello".to_vec())]);
    disk.sync_dir(path("/db")).unwrap();
    assert!(disk.disk.lock().inode(id).is_err(), "no crash can bring it back: its memory is free");
    for mode in CrashMode::ALL {
        assert_eq!(outcomes(&disk, mode, names), [vec![""; 0]], "{mode:?}");
    }
}

#[test]
fn operations_of_a_directory_are_lost_independently_or_as_a_suffix() {
    let disk = disk();
    for name in ["/db/1", "/db/2", "/db/3"] {
        create(&disk, name);
    }
    let random = outcomes(&disk, CrashMode::Random, names);
    assert_eq!(random.len(), 8, "every subset: {random:?}");
    let prefix = outcomes(&disk, CrashMode::PerFilePrefix, names);
    assert_eq!(prefix, [vec![""; 0], vec!["1"], vec!["1", "2"], vec!["1", "2", "3"]]);
}

#[test]
fn a_rename_between_directories_is_synced_by_either() {
    for synced in ["/db", "/other"] {
        let disk = disk();
        disk.create_dir_all(path("/other")).unwrap();
        disk.sync_dir(path("/")).unwrap();
        create(&disk, "/db/a");
        create(&disk, "/other/b");
        disk.rename(path("/db/a"), path("/other/c")).unwrap();
        let seen = outcomes(&disk, CrashMode::Random, MemFs::list_files);
        assert!(seen.iter().all(|files| files.iter().filter(|file| !file.ends_with("b")).count() < 2));
        disk.sync_dir(path(synced)).unwrap();
        for mode in CrashMode::ALL {
            let files = outcomes(&disk, mode, MemFs::list_files);
            assert_eq!(files, [[path("/other/b"), path("/other/c")]], "{synced} {mode:?}");
        }
    }
}

#[test]
fn prefix_mode_keeps_the_first_bytes_of_a_file() {
    let disk = disk();
    let file = durable(&disk, "/db/a", &pattern(100));
    file.append(&pattern(2000)[100..]).unwrap();
    let lens = outcomes(&disk, CrashMode::PerFilePrefix, |after| {
        let bytes = after.read_file(path("/db/a")).unwrap();
        assert_eq!(bytes, pattern(bytes.len()));
        bytes.len()
    });
    assert!(lens.len() > 100 && lens[0] >= 100 && lens[lens.len() - 1] <= 2000, "{lens:?}");

    let file = reserve(&disk, "/db/b", 4096).unwrap();
    file.append(&pattern(3000)).unwrap();
    disk.sync_dir(path("/db")).unwrap();
    let lens = outcomes(&disk, CrashMode::PerFilePrefix, |after| {
        let bytes = after.read_file(path("/db/b")).unwrap();
        let kept = bytes.iter().take_while(|byte| **byte != 0).count();
        assert_eq!(bytes[..kept], pattern(kept));
        assert!(bytes[kept..].iter().all(|byte| *byte == 0));
        bytes.len()
    });
    assert_eq!(lens, [0, 4096]);
}

#[test]
fn sectors_are_lost_whole_in_random_mode_and_torn_in_torn_mode() {
    let disk = disk();
    let file = reserve(&disk, "/db/a", 8192).unwrap();
    file.append(&[9; 700]).unwrap();
    file.sync().unwrap();
    disk.sync_dir(path("/db")).unwrap();
    file.append(&[7; 4000]).unwrap();
    let look = |after: &MemFs| after.read_file(path("/db/a")).unwrap();
    // The sectors of the 4000 bytes; the first holds 700 - 512 synced ones, which never change.
    let sectors = |bytes: &[u8]| -> Vec<Vec<u8>> {
        assert_eq!(
            (bytes.len(), &bytes[..700], &bytes[4700..]),
            (8192, &[9; 700][..], &[0; 8192 - 4700][..])
        );
        bytes[512..4700]
            .chunks(512)
            .map(|sector| sector.iter().copied().filter(|byte| *byte != 9).collect())
            .collect()
    };
    let uniform = |sector: &Vec<u8>, value: u8| sector.iter().all(|byte| *byte == value);
    let mut holes = 0;
    for bytes in outcomes(&disk, CrashMode::Random, look) {
        let sectors = sectors(&bytes);
        assert!(sectors.iter().all(|sector| uniform(sector, 0) || uniform(sector, 7)));
        holes += usize::from(sectors.windows(2).any(|pair| uniform(&pair[0], 0) && uniform(&pair[1], 7)));
    }
    assert!(holes > 10, "{holes}");
    let (mut halves, mut garbage) = (0, 0);
    for bytes in outcomes(&disk, CrashMode::Torn, look) {
        let sectors = sectors(&bytes);
        let two_values = |sector: &&Vec<u8>| sector.iter().all(|byte| [0, 7].contains(byte));
        halves += usize::from(sectors.iter().filter(two_values).any(|s| !uniform(s, 0) && !uniform(s, 7)));
        garbage += usize::from(!sectors.iter().all(|sector| two_values(&sector)));
    }
    assert!(halves > 10 && garbage > 10, "{halves} {garbage}");
}

#[test]
fn the_length_of_a_reserved_file_is_pending_until_synced_and_after_finish() {
    let disk = disk();
    let file = reserve(&disk, "/db/a", 4096).unwrap();
    disk.sync_dir(path("/db")).unwrap();
    let lens = |mode| outcomes(&disk, mode, |after| after.read_file(path("/db/a")).unwrap().len());
    assert_eq!(lens(CrashMode::SyncedOnly), [0]);
    let seen = lens(CrashMode::Random);
    assert!(seen.contains(&0) && seen.contains(&4096), "{seen:?}");
    file.append(&pattern(1000)).unwrap();
    file.sync().unwrap();
    POWER_CUTS.iter().for_each(|mode| assert_eq!(lens(*mode), [4096], "{mode:?}"));
    file.finish().unwrap();
    assert_eq!(lens(CrashMode::SyncedOnly), [4096]);
    assert_eq!(lens(CrashMode::PerFilePrefix), [1000, 4096]);
    let seen = lens(CrashMode::Random);
    assert!(seen.contains(&1000) && seen.contains(&4096) && seen[0] == 1000, "{seen:?}");
    file.sync().unwrap();
    POWER_CUTS.iter().for_each(|mode| assert_eq!(lens(*mode), [1000], "{mode:?}"));
}

#[test]
fn both_sides_of_a_crash_live_on_apart() {
    let disk = disk();
    let file = durable(&disk, "/db/a", &pattern(5000));
    let reader = disk.open(path("/db/a")).unwrap();
    let after = disk.crash_clone(1, CrashMode::SyncedOnly);
    file.append(b"more").unwrap();
    file.sync().unwrap();
    create(&disk, "/db/old");
    after.flip(path("/db/a"), 0, 0xff).unwrap();
    create(&after, "/db/new");
    assert_eq!(
        (names(&disk), names(&after)),
        (vec!["a".into(), "old".into()], vec!["a".into(), "new".into()])
    );
    assert_eq!(after.read_file(path("/db/a")).unwrap().len(), 5000);
    let mut first = [0];
    reader.read_exact_at(0, &mut first).unwrap();
    assert_eq!(first[0], pattern(1)[0]);
}

/// A small history; answers what it managed to do.
fn workload(disk: &MemFs) -> io::Result<()> {
    let db = path("/db");
    let file = reserve(disk, "/db/log", 4096)?;
    file.append(&pattern(600))?;
    file.sync()?;
    disk.sync_dir(db)?;
    file.append(&pattern(900))?;
    let other = disk.create(path("/db/tmp"), AppendOptions::default())?;
    other.append(&pattern(300))?;
    disk.rename(path("/db/tmp"), path("/db/table"))?;
    other.sync()?;
    disk.sync_dir(db)?;
    disk.remove(path("/db/log"))?;
    disk.create_dir_all(path("/db/sub"))?;
    file.finish()
}

#[test]
fn freezing_visits_every_crash_point_once() {
    let total = {
        let disk = disk();
        let before = disk.mutations();
        workload(&disk).unwrap();
        disk.mutations() - before
    };
    assert_eq!(total, 13);
    let mut partial_appends = 0;
    for n in 1..=total {
        let frozen = disk();
        frozen.freeze_at(n);
        assert!(!frozen.is_frozen());
        workload(&frozen).unwrap_err();
        assert!(frozen.is_frozen());
        let state = dump(&frozen);
        assert!(frozen.create(path("/db/more"), AppendOptions::default()).is_err());
        assert!(frozen.sync_dir(path("/db")).is_err());
        assert!(frozen.remove(path("/db/log")).is_err());
        assert_eq!(dump(&frozen), state, "nothing changes any more");
        // The append of 900 bytes is the 5th mutation.
        let log = frozen.read_file(path("/db/log")).unwrap_or_default();
        let written = log.iter().filter(|byte| **byte != 0).count();
        partial_appends += usize::from(n == 5 && written > 600 && written < 1500);
        for mode in CrashMode::ALL {
            let after = frozen.crash_clone(n, mode);
            let again = frozen.crash_clone(n, mode);
            assert_eq!(dump(&after), dump(&again), "the same seed, the same disk");
            assert!(!after.is_frozen() && after.mutations() == 0);
            create(&after, "/db/more");
        }
    }
    assert_eq!(partial_appends, 1);
    let disk = disk();
    disk.freeze_at(total + 1);
    workload(&disk).unwrap();
    assert!(!disk.is_frozen());
    disk.sync_dir(path("/db")).unwrap_err();
    disk.thaw();
    disk.sync_dir(path("/db")).unwrap();
}

#[test]
fn looking_at_the_disk_is_not_a_mutation() {
    let disk = disk();
    let file = durable(&disk, "/db/a", b"hello");
    drop(disk.lock(path("/db/LOCK")).unwrap());
    let before = disk.mutations();
    drop(disk.lock(path("/db/LOCK")).unwrap());
    disk.create_dir_all(path("/db")).unwrap();
    let reader = disk.open(path("/db/a")).unwrap();
    reader.map(5).unwrap().copy_out(0, &mut [0; 5]).unwrap();
    disk.list(path("/db")).unwrap();
    disk.drop_cache(path("/db/a"));
    file.start_writeback();
    assert_eq!(disk.mutations(), before);
}

#[test]
fn a_failed_sync_takes_the_pages_for_clean() {
    let disk = disk();
    let file = durable(&disk, "/db/a", b"kept,");
    file.append(b"gone,").unwrap();
    disk.fail_sync_at(2);
    disk.sync_file(path("/db/a")).unwrap();
    file.append(b"lost,").unwrap();
    file.sync().unwrap_err();
    file.sync().unwrap();
    file.append(b"more.").unwrap();
    file.sync().unwrap();
    assert_eq!(disk.read_file(path("/db/a")).unwrap(), b"kept,gone,lost,more.", "cached reads are new");
    assert!(!disk.is_durable(path("/db/a")).unwrap());
    let real = b"kept,gone,\0\0\0\0\0more.";
    let cut = disk.crash_clone(1, CrashMode::SyncedOnly);
    assert_eq!(cut.read_file(path("/db/a")).unwrap(), real, "durable is old");
    for mode in [CrashMode::PerFilePrefix, CrashMode::Random, CrashMode::Torn] {
        for bytes in outcomes(&disk, mode, |after| after.read_file(path("/db/a")).unwrap()) {
            assert_eq!((&bytes[..10], &bytes[15..]), (&real[..10], &real[15..]), "{mode:?}");
        }
    }
    // The next process in the same system: syncing does not help, dropping the cache shows the truth.
    let next = disk.crash_clone(1, CrashMode::ProcessKill);
    next.sync_file(path("/db/a")).unwrap();
    assert_eq!(next.read_file(path("/db/a")).unwrap(), b"kept,gone,lost,more.");
    next.drop_cache(path("/db/a"));
    assert_eq!(next.read_file(path("/db/a")).unwrap(), real);
    assert!(next.is_durable(path("/db/a")).unwrap());
}
