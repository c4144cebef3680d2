//! What a user meets: the options in force, and what an error says that nobody expected.

use esker::env::{Env, Fault, FaultFs, FaultRule, MemFs, Op};
use esker::{Db, Error, ErrorKind, KeyspaceOptions, Options};
use std::io;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn open(disk: &Arc<MemFs>, options: Options) -> Db {
    options.background_threads(0).env(Env::simulated(disk.clone(), 1)).open("/db").unwrap()
}

/// The options of the open that was refused the change were shown, and the sizes of the log derived from them.
#[test]
fn the_options_shown_are_those_in_force_after_a_reopen() {
    let check = |created: Options, reopened: Options, write_buffer_bytes: u64| {
        let disk = Arc::new(MemFs::new());
        open(&disk, created).close().unwrap();
        let db = open(&disk, reopened);
        let shown = db.options();
        assert_eq!(shown.write_buffer_bytes, write_buffer_bytes);
        assert_eq!(shown.wal_bytes_max, 4 * write_buffer_bytes);
        assert_eq!(shown.wal_segment_bytes, (write_buffer_bytes / 4).max(MIB));
        let stored = db.default_keyspace().options().write_buffer_bytes;
        assert!(stored == 0 || stored == write_buffer_bytes, "{stored}");
    };
    let new = Options::new;
    // Chosen when the database was created: kept for good.
    check(new().write_buffer_bytes(8 * MIB), new().write_buffer_bytes(MIB), 8 * MIB);
    check(new().write_buffer_bytes(8 * MIB), new(), 8 * MIB);
    // Not chosen then: every open decides, by itself or by its budget.
    check(new(), new().write_buffer_bytes(2 * MIB), 2 * MIB);
    check(new(), new().memory_budget(32 * MIB), 4 * MIB);
    check(new().memory_budget(32 * MIB), new(), 64 * MIB);
}

#[test]
fn a_keyspace_says_what_it_was_created_with() {
    let disk = Arc::new(MemFs::new());
    let chosen = KeyspaceOptions::new().bloom_bits(3).size_ratio(5);
    let db = open(&disk, Options::new());
    assert_eq!(db.keyspace_with("logs", &chosen).unwrap().options(), &chosen);
    db.close().unwrap();
    let db = open(&disk, Options::new().bloom_bits(20));
    let logs = db.keyspace_with("logs", &KeyspaceOptions::new().bloom_bits(20)).unwrap();
    assert_eq!((logs.options().bloom_bits, logs.options().size_ratio), (3, 5));
    assert_eq!(db.default_keyspace().options().bloom_bits, 10);
    assert_eq!(db.keyspace("default").unwrap().options(), db.default_keyspace().options());
}

fn check_error<T>(result: Result<T, Error>, kind: ErrorKind, says: &[&str]) {
    let Err(error) = result else { panic!("no error: {kind:?} was expected") };
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for part in says {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    assert!(format!("{error:?}").starts_with(&format!("{kind:?}: ")), "{error:?}");
}

#[test]
fn a_write_beyond_the_budget_says_what_to_change() {
    let db = open(&Arc::new(MemFs::new()), Options::new().memory_budget(16 * MIB));
    let limit = 3 * MIB;
    assert_eq!(db.options().batch_bytes_max, limit);
    let large = vec![0u8; limit as usize];
    let says = ["3145728 bytes", "Options::memory_budget", "3/16", "split"];
    check_error(db.put("k", &large), ErrorKind::LimitExceeded, &says);
    check_error(db.batch().put(&db.default_keyspace(), "k", &large), ErrorKind::LimitExceeded, &says);
    db.put("k", &large[64..]).unwrap();
}

#[test]
fn an_empty_path_is_an_argument_that_is_not_acceptable() {
    check_error(Db::open(""), ErrorKind::InvalidArgument, &["path", "empty"]);
}

#[test]
fn a_second_handle_learns_where_the_first_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Db::open(dir.path()).unwrap();
    check_error(Db::open(dir.path()), ErrorKind::Locked, &["another process", "handle in this one"]);
}

#[test]
fn files_that_may_not_be_written_to_are_explained() {
    for (fault, kind) in [
        (io::ErrorKind::PermissionDenied, ErrorKind::Io),
        (io::ErrorKind::ReadOnlyFilesystem, ErrorKind::ReadOnly),
    ] {
        let faults = Arc::new(FaultFs::new(Arc::new(MemFs::new())));
        let open = || Options::new().background_threads(0).env(Env::simulated(faults.clone(), 1)).open("/db");
        open().unwrap().close().unwrap();
        faults.add(FaultRule::new(Op::Lock, Fault::Error(fault)));
        let opened = open();
        assert!(opened.as_ref().is_err_and(|error| error.io_fault().is_some()));
        check_error(opened, kind, &["even to be read", "may write", "/db/LOCK"]);
    }
}

#[test]
fn a_file_in_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let name = file.display().to_string();
    check_error(Db::open(&file), ErrorKind::NotADatabase, &[&format!("{name} is not a directory")]);
    check_error(
        Db::open(file.join("sub")),
        ErrorKind::NotADatabase,
        &[&format!("{name} is not a directory")],
    );
}

#[test]
fn all_problems_are_listed_with_their_values_and_their_keyspace() {
    let bad = Options::new().memory_budget(1).wal_segment_bytes(1).bloom_bits(65);
    let says =
        ["memory_budget must", "wal_segment_bytes must be 4096 to 4294967296, is 1", "bloom_bits must"];
    check_error(bad.open("/nowhere"), ErrorKind::InvalidArgument, &says);
    let db = open(&Arc::new(MemFs::new()), Options::new());
    let bad = KeyspaceOptions::new().size_ratio(1).l0_runs(0);
    let says = ["keyspace \"logs\"", "size_ratio must be 2 to 100, is 1", "l0_runs"];
    check_error(db.keyspace_with("logs", &bad), ErrorKind::InvalidArgument, &says);
}

#[test]
fn a_dropped_keyspace_is_named_whatever_is_done_with_it() {
    let db = open(&Arc::new(MemFs::new()), Options::new());
    let gone = db.keyspace("gone").unwrap();
    db.drop_keyspace("gone").unwrap();
    let says = ["keyspace \"gone\" was dropped"];
    check_error(gone.get("k"), ErrorKind::NotFound, &says);
    check_error(gone.put("k", "v"), ErrorKind::NotFound, &says);
    check_error(gone.delete("k"), ErrorKind::NotFound, &says);
    check_error(gone.cursor(), ErrorKind::NotFound, &says);
    check_error(gone.compact(), ErrorKind::NotFound, &says);
    check_error(db.batch().put(&gone, "k", "v"), ErrorKind::NotFound, &says);
}

/// A line break in a name broke the lines of the text.
#[test]
fn statistics_print_names_and_latencies_that_mean_something() {
    let db = open(&Arc::new(MemFs::new()), Options::new());
    db.keyspace("a\nb\0").unwrap();
    let text = db.stats().to_string();
    assert!(text.contains("keyspace \"a\\nb\\0\": 0 bytes"), "{text}");
    assert!(text.contains("get ns: too few to time (1 in 64 is)"), "{text}");
    for _ in 0..256 {
        db.get("k").unwrap();
    }
    let text = db.stats().to_string();
    assert!(text.contains("get ns: p50 "), "{text}");
}
