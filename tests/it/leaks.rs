//! What an open database holds, it gives back; what it does not own, it does not touch; and it sleeps when it has
//! nothing to do.

use crate::process::{alone, this_test};
use esker::env::{Clock, Env, Fault, FaultFs, FaultRule, Op, OsClock, OsFs, OsSpawner};
use esker::{Db, Durability, ErrorKind, Options, WriteOptions};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// What this process has open, by what it leads to, and its threads, by name.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: Vec<String>,
    mappings: Vec<String>,
    threads: Vec<String>,
}

fn held() -> Held {
    // A descriptor or thread may go while it is looked at: its own listing does.
    let names = |dir: &str, name: fn(&Path) -> io::Result<String>| {
        let entries = fs::read_dir(dir).expect("list").map(|entry| entry.expect("list").path());
        let mut names: Vec<String> = entries.filter_map(|path| name(&path).ok()).collect();
        names.sort();
        names
    };
    let descriptors = names("/proc/self/fd", |path| Ok(fs::read_link(path)?.display().to_string()));
    let threads =
        names("/proc/self/task", |path| Ok(fs::read_to_string(path.join("comm"))?.trim().to_string()));
    let maps = fs::read_to_string("/proc/self/maps").expect("read the mappings");
    let files = maps.lines().filter_map(|line| line.split_once('/'));
    let mut mappings: Vec<String> = files.map(|(_, path)| path.to_string()).collect();
    mappings.retain(|path| path.contains("esker-leaks"));
    Held { descriptors, mappings, threads }
}

/// Threads of a pool end a moment after they were told to: gives them that moment.
fn assert_held(expect: &Held, what: &str) {
    for _ in 0..500 {
        if held() == *expect {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(held(), *expect, "{what}");
}

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("esker-leaks").tempdir().expect("a directory")
}

/// Writes enough that there are tables, several log segments, compactions and open files.
fn work(db: &Db, round: u64) {
    for index in 0..120u64 {
        let key = format!("key{:03}", (index * 7 + round) % 150);
        let durability = if index % 40 == 0 { Durability::Disk } else { Durability::Os };
        db.put_with(key, vec![index as u8; 300], WriteOptions::new().durability(durability)).expect("write");
    }
    assert!(db.iter().all(|item| item.is_ok()));
    assert!(db.get("key001").expect("read").is_some());
}

/// Ways to end the life of a database.
const ENDINGS: [fn(Db); 5] = [
    |db| db.close().expect("close"),
    drop,
    |db| {
        let (keyspace, batch) = (db.default_keyspace(), db.batch());
        drop(db);
        drop(keyspace);
        drop(batch);
    },
    |db| {
        let (snapshot, mut iter) = (db.snapshot(), db.iter());
        assert!(iter.next().is_some());
        db.close().expect("close");
        assert_eq!(snapshot.get("key001").expect_err("closed").kind(), ErrorKind::Closed);
        drop(iter);
    },
    |db| {
        let clone = db.clone();
        db.close().expect("close");
        assert_eq!(clone.put("key", "value").expect_err("closed").kind(), ErrorKind::Closed);
        assert_eq!(clone.get("key").expect_err("closed").kind(), ErrorKind::Closed);
        clone.close().expect("closing twice");
    },
];

/// Files of a closed database: no more than the manifest names.
fn check_files_of_closed(dir: &Path) {
    let names: Vec<String> = image(dir).into_keys().filter(|name| !name.ends_with(".sst")).collect();
    assert_eq!(names, [".", "LOCK", "MANIFEST-A", "MANIFEST-B"]);
    let tables = image(dir).into_keys().filter(|name| name.ends_with(".sst")).count();
    let db = Options::tiny().background_threads(0).open(dir).expect("open");
    let keyspaces = db.stats().keyspaces;
    let named: usize = keyspaces.iter().flat_map(|one| &one.levels).map(|level| level.tables).sum();
    assert_eq!(tables, named);
}

#[test]
fn opening_and_closing_a_hundred_times_holds_nothing() {
    alone("leaks::opening_and_closing_a_hundred_times_holds_nothing", || {
        let dir = directory();
        let round = |round: u64| {
            let db = Options::tiny().open(dir.path()).expect("open");
            work(&db, round);
            ENDINGS[round as usize % ENDINGS.len()](db);
        };
        round(0);
        let before = held();
        assert_eq!(before.mappings, [""; 0]);
        for index in 1..=100 {
            round(index);
            assert_held(&before, &format!("after round {index}"));
        }
        check_files_of_closed(dir.path());
    });
}

/// The directory as it is now, as another directory: what a kill would leave.
fn copy_of(dir: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create a directory");
    for entry in fs::read_dir(dir).expect("list") {
        let path = entry.expect("list").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copy");
    }
}

#[test]
fn a_recovery_holds_nothing_when_it_is_done() {
    alone("leaks::a_recovery_holds_nothing_when_it_is_done", || {
        let dir = directory();
        let (live, copy) = (dir.path().join("live"), dir.path().join("copy"));
        // Without threads, so that the files stand still while they are copied.
        let db = Options::tiny().background_threads(0).open(&live).expect("open");
        // The mappings of the database that stays open come and go; look at the others only.
        let before = || {
            let mut held = held();
            held.mappings.retain(|path| path.contains("/copy/"));
            held.descriptors.retain(|path| !path.contains("/live/"));
            held
        };
        let mut expect = None;
        for round in 0..20 {
            work(&db, round);
            db.wait_for_background().expect("background work");
            copy_of(&live, &copy);
            let recovered = Options::tiny().open(&copy).expect("recover");
            assert_eq!(recovered.iter().count(), db.iter().count());
            drop(recovered);
            check_files_of_closed(&copy);
            fs::remove_dir_all(&copy).expect("remove");
            for _ in 0..500 {
                if expect.as_ref().is_none_or(|expect| *expect == before()) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(*expect.get_or_insert_with(before), before(), "round {round}");
        }
    });
}

/// Everything in a directory, itself included: mode, length, modification time and bytes.
fn image(dir: &Path) -> BTreeMap<String, (u32, u64, i64, Vec<u8>)> {
    let one = |path: &Path| {
        let metadata = fs::symlink_metadata(path).expect("look at a file");
        let bytes = if metadata.is_file() { fs::read(path).expect("read a file") } else { Vec::new() };
        let modified = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
        let len = if metadata.is_file() { metadata.len() } else { 0 };
        (metadata.mode(), len, modified, bytes)
    };
    let mut all = BTreeMap::from([(".".to_string(), one(dir))]);
    if !dir.is_dir() {
        return all;
    }
    for entry in fs::read_dir(dir).expect("list") {
        let entry = entry.expect("list");
        all.insert(entry.file_name().to_string_lossy().into_owned(), one(&entry.path()));
    }
    all
}

/// An open that is refused with this kind, leaves all as it was, and holds nothing.
fn check_refused(path: &Path, expect: ErrorKind) {
    let before = image(path);
    let error = Options::tiny().open(path).map(|_| ()).expect_err("must be refused");
    assert_eq!(error.kind(), expect, "{}: {error}", path.display());
    assert!(image(path) == before, "{}: {error}: something was touched", path.display());
}

fn create(path: &Path) {
    let db = Options::tiny().open(path).expect("create");
    work(&db, 0);
    db.close().expect("close");
}

#[test]
fn a_second_opener_is_refused_in_this_process() {
    let dir = directory();
    let path = dir.path().join("db");
    let db = Options::tiny().background_threads(0).open(&path).expect("create");
    work(&db, 0);
    check_refused(&path, ErrorKind::Locked);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).expect("make a link");
    let error = Options::tiny().open(&link).map(|_| ()).expect_err("the same database by another name");
    assert_eq!(error.kind(), ErrorKind::Locked);
    work(&db, 1);
    db.close().expect("close");
    Options::tiny().open(&path).expect("open when it is free again");
}

/// Set in a process that must find the database locked: where it is.
const LOCKED_DIR: &str = "ESKER_TEST_LOCKED_DIR";

#[test]
fn a_second_opener_is_refused_in_another_process() {
    if let Some(path) = std::env::var_os(LOCKED_DIR) {
        return check_refused(Path::new(&path), ErrorKind::Locked);
    }
    let dir = directory();
    let db = Options::tiny().background_threads(0).open(dir.path()).expect("create");
    work(&db, 0);
    let before = image(dir.path());
    let output = this_test("leaks::a_second_opener_is_refused_in_another_process")
        .env(LOCKED_DIR, dir.path())
        .output()
        .expect("start a process");
    assert!(output.status.success(), "{}", crate::process::text_of(&output));
    assert!(image(dir.path()) == before, "the other process touched something");
    work(&db, 1);
    db.close().expect("close");
}

/// Gives the header of a log or manifest file another format version, with the right checksum.
fn set_version(path: &Path, version: u32) {
    let mut bytes = fs::read(path).expect("read");
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    let sum = xxh3_64(&bytes[..56]);
    bytes[56..64].copy_from_slice(&sum.to_le_bytes());
    fs::write(path, bytes).expect("write");
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let dir = directory();
    let path = |name: &str| dir.path().join(name);
    let write = |name: &str, bytes: &[u8]| {
        fs::create_dir_all(path(name).parent().expect("a parent")).expect("create a directory");
        fs::write(path(name), bytes).expect("write");
    };
    write("foreign/notes.txt", b"something else");
    check_refused(&path("foreign"), ErrorKind::NotADatabase);
    write("leveldb/CURRENT", b"MANIFEST-000001\n");
    write("leveldb/MANIFEST-000001", b"");
    write("leveldb/LOCK", b"");
    check_refused(&path("leveldb"), ErrorKind::NotADatabase);
    fs::create_dir_all(path("nested/directory")).expect("create a directory");
    check_refused(&path("nested"), ErrorKind::NotADatabase);
    write("file", b"a file");
    check_refused(&path("file"), ErrorKind::NotADatabase);
    write("empty-file", b"");
    check_refused(&path("empty-file"), ErrorKind::NotADatabase);
    let error = Options::tiny().open(path("file/below")).map(|_| ()).expect_err("below a file");
    assert_eq!(error.kind(), ErrorKind::NotADatabase, "{error}");
    // Tables and a log, and no manifest: a database that lost its manifest is not to be made a new one.
    create(&path("headless"));
    fs::remove_file(path("headless/MANIFEST-A")).expect("remove");
    fs::remove_file(path("headless/MANIFEST-B")).expect("remove");
    check_refused(&path("headless"), ErrorKind::Corruption);
    assert!(!path("missing").exists());
    let options = Options::tiny().create_if_missing(false);
    let error = options.open(path("missing")).map(|_| ()).expect_err("missing");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!path("missing").exists());
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = directory();
    let path = |name: &str| dir.path().join(name);
    create(&path("manifest"));
    for copy in ["MANIFEST-A", "MANIFEST-B"] {
        set_version(&path("manifest").join(copy), 2);
    }
    check_refused(&path("manifest"), ErrorKind::VersionUnsupported);
    fs::remove_file(path("manifest/LOCK")).expect("remove");
    check_refused(&path("manifest"), ErrorKind::VersionUnsupported);

    let db = Options::tiny().background_threads(0).open(path("live")).expect("create");
    db.put("key", "value").expect("write");
    copy_of(&path("live"), &path("log"));
    drop(db);
    let names = image(&path("log")).into_keys().filter(|name| name.ends_with(".wal"));
    for segment in names.collect::<Vec<_>>() {
        set_version(&path("log").join(segment), 2);
    }
    check_refused(&path("log"), ErrorKind::VersionUnsupported);
}

#[test]
fn refused_opens_hold_nothing() {
    alone("leaks::refused_opens_hold_nothing", || {
        let dir = directory();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("foreign/directory")).expect("create a directory");
        create(&path("newer"));
        set_version(&path("newer/MANIFEST-A"), 2);
        set_version(&path("newer/MANIFEST-B"), 2);
        create(&path("damaged"));
        for copy in ["MANIFEST-A", "MANIFEST-B"] {
            fs::write(path("damaged").join(copy), b"no manifest at all").expect("write");
        }
        let open = Options::tiny().background_threads(0).open(path("open")).expect("create");
        let refused = || {
            for name in ["foreign", "newer", "damaged", "open"] {
                Options::tiny().open(path(name)).map(|_| ()).expect_err(name);
            }
        };
        refused();
        let before = held();
        for round in 0..100 {
            refused();
            assert_held(&before, &format!("after round {round}"));
        }
        drop(open);
    });
}

#[test]
fn files_are_their_owners_alone() {
    let dir = directory();
    let path = dir.path().join("parent/db");
    // Without threads of its own, so that no file comes or goes while the directory is looked at.
    let db = Options::tiny().background_threads(0).open(&path).expect("create");
    work(&db, 0);
    db.flush().expect("flush");
    let check = || {
        for (name, (mode, ..)) in image(&path) {
            let expect = if name == "." { 0o700 } else { 0o600 };
            assert_eq!(mode & 0o7777, expect, "{name}");
        }
    };
    check();
    assert!(image(&path).keys().any(|name| name.ends_with(".wal")), "a log is among what was checked");
    db.close().expect("close");
    check();
    let parent = fs::metadata(dir.path().join("parent")).expect("look at the parent");
    assert_eq!(parent.mode() & 0o7777, 0o700);
}

/// The system's clock, counting how often it is asked: once for every time a background thread wakes up.
struct CountingClock {
    clock: OsClock,
    calls: AtomicU64,
}

impl CountingClock {
    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Clock for CountingClock {
    fn now(&self) -> Duration {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.clock.now()
    }

    fn sleep(&self, duration: Duration) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.clock.sleep(duration);
    }

    fn unix_micros(&self) -> u64 {
        self.clock.unix_micros()
    }
}

/// A database on a real disk whose faults and wake-ups can be seen.
struct Sleeper {
    db: Db,
    clock: Arc<CountingClock>,
    faults: Arc<FaultFs>,
    _dir: tempfile::TempDir,
}

const WINDOW: Duration = Duration::from_millis(300);

impl Sleeper {
    fn new(options: Options) -> Sleeper {
        let dir = directory();
        let clock = Arc::new(CountingClock { clock: OsClock::new(), calls: AtomicU64::new(0) });
        let faults = Arc::new(FaultFs::new(Arc::new(OsFs::new())));
        let spawner = Arc::new(OsSpawner);
        let env = Env { fs: faults.clone(), clock: clock.clone(), spawner, seed: None };
        let db = options.env(env).open(dir.path()).expect("open");
        Sleeper { db, clock, faults, _dir: dir }
    }

    /// How often the background woke up in the next moment.
    fn wakes(&self) -> u64 {
        let before = self.clock.calls();
        std::thread::sleep(WINDOW);
        self.clock.calls() - before
    }

    /// Falls asleep for good: a while without any sign of life, as the engine sees it and as the system sees it.
    fn check_asleep(&self, what: &str) {
        let found = (0..50).map(|_| self.wakes()).find(|wakes| *wakes == 0);
        assert!(found.is_some(), "{what}: woke up {} times in {WINDOW:?}", self.wakes());
        let before = switches();
        std::thread::sleep(WINDOW);
        assert_eq!(switches(), before, "{what}: context switches by thread");
    }

    /// Wakes up now and then only.
    fn check_drowsy(&self, what: &str) {
        let found = (0..50).map(|_| self.wakes()).find(|wakes| *wakes <= 4);
        assert!(found.is_some(), "{what}: woke up {} times in {WINDOW:?}", self.wakes());
    }
}

/// How often each background thread gave up the processor.
fn switches() -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/task").expect("list") {
        let path = entry.expect("list").path();
        let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
        if status.starts_with("Name:\tesker-") {
            let lines = status.lines().filter(|line| line.contains("voluntary_ctxt_switches"));
            all.insert(path, lines.collect::<Vec<_>>().join(" "));
        }
    }
    all
}

#[test]
fn an_idle_database_sleeps() {
    alone("leaks::an_idle_database_sleeps", || {
        let quiet = Sleeper::new(Options::tiny());
        quiet.check_asleep("freshly opened");
        work(&quiet.db, 0);
        quiet.check_asleep("after work");
        quiet.db.flush().expect("flush");
        quiet.db.compact().expect("compact");
        quiet.check_asleep("after flush and compaction");
        drop(quiet);

        let syncing = Sleeper::new(Options::tiny().sync_interval(Duration::from_millis(5)));
        work(&syncing.db, 0);
        syncing.db.put_with("last", "one", WriteOptions::new().durability(Durability::Os)).expect("write");
        syncing.check_asleep("with an interval and nothing to sync");
        assert_eq!(syncing.db.durable_seq(), syncing.db.latest_seq());
    });
}

#[test]
fn a_database_with_garbage_that_is_still_read_sleeps_nearly_always() {
    alone("leaks::a_database_with_garbage_that_is_still_read_sleeps_nearly_always", || {
        let reading = Sleeper::new(Options::tiny());
        work(&reading.db, 0);
        reading.db.flush().expect("flush");
        let mut iter = reading.db.iter();
        assert!(iter.next().is_some());
        work(&reading.db, 1);
        reading.db.flush().expect("flush");
        reading.db.compact().expect("compact");
        reading.check_drowsy("while garbage is read");
        drop(iter);
        reading.check_asleep("when it is not any more");
    });
}

#[test]
fn a_failed_database_sleeps() {
    alone("leaks::a_failed_database_sleeps", || {
        let poisoned = Sleeper::new(Options::tiny());
        work(&poisoned.db, 0);
        poisoned.faults.fail_from(Op::Sync, 1);
        let error = poisoned.db.put("key", "value").expect_err("the sync fails");
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
        assert_eq!(poisoned.db.put("key", "value").expect_err("poisoned").kind(), ErrorKind::Poisoned);
        poisoned.check_asleep("poisoned");
        drop(poisoned);

        let failing = Sleeper::new(Options::tiny());
        let doomed = failing.db.keyspace("doomed").expect("create a keyspace");
        doomed.put("key", "value").expect("write");
        failing.faults.add(FaultRule::new(Op::Create, Fault::Errno(28)).path("*.sst"));
        assert_eq!(failing.db.flush().expect_err("no tables").kind(), ErrorKind::NoSpace);
        failing.check_drowsy("while a flush fails");
        failing.db.drop_keyspace("doomed").expect("drop what cannot be flushed");
        failing.check_asleep("when nothing is left to flush");
        failing.faults.heal();
        work(&failing.db, 0);
        failing.check_asleep("when all is well again");
    });
}

#[test]
fn a_closed_database_can_be_opened_again_while_handles_of_it_are_left() {
    let dir = directory();
    let db = Options::tiny().open(dir.path()).expect("create");
    work(&db, 0);
    let (keyspace, snapshot, batch, mut iter) = (db.default_keyspace(), db.snapshot(), db.batch(), db.iter());
    assert!(iter.next().is_some());
    db.close().expect("close");
    let again = Options::tiny().background_threads(0).open(dir.path()).expect("open again");
    work(&again, 1);
    assert_eq!(keyspace.put("key", "value").expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!(snapshot.get("key001").expect_err("closed").kind(), ErrorKind::Closed);
    assert_eq!(batch.commit().expect_err("closed").kind(), ErrorKind::Closed);
    drop((keyspace, snapshot, iter));
    check_refused(dir.path(), ErrorKind::Locked);
    again.close().expect("close");
}
