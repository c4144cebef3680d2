//! One test for each fault that was found once: small, and as close to the cause as the public API allows.

use esker::env::{Clock, Env, Fault, FaultFs, FaultRule, MemFs, Op, OsClock, OsSpawner, When};
use esker::{Db, Durability, ErrorKind, Event, KeyspaceOptions, Options, WriteOptions};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

const DIR: &str = "/db";

/// A disk in memory with faults, run on the caller's thread.
fn simulated() -> (Arc<MemFs>, Arc<FaultFs>, Env) {
    let disk = Arc::new(MemFs::new());
    let faults = Arc::new(FaultFs::new(disk.clone()));
    let env = Env::simulated(faults.clone(), 1);
    (disk, faults, env)
}

fn os() -> WriteOptions {
    WriteOptions::new().durability(Durability::Os)
}

fn tables(disk: &MemFs) -> usize {
    disk.list_files().iter().filter(|path| path.extension().is_some_and(|kind| kind == "sst")).count()
}

fn threaded(fs: Arc<FaultFs>) -> Env {
    Env { fs, clock: Arc::new(OsClock::default()), spawner: Arc::new(OsSpawner), seed: Some(1) }
}

/// The active segment is never given back, so a batch beyond twice the log's budget left it over the budget for good
/// and no later write was accepted.
#[test]
fn a_batch_larger_than_the_log_budget_does_not_block_later_writes() {
    let (_, _, env) = simulated();
    let db = Options::tiny().background_threads(0).env(env).open(DIR).unwrap();
    let large = vec![7u8; 300 << 10];
    assert!(large.len() as u64 > 2 * db.options().wal_bytes_max, "the test needs a larger batch");
    for round in 0..4 {
        db.put("large", &large).unwrap();
        for key in 0..10 {
            db.put(format!("key{key}"), format!("value{round}")).unwrap();
        }
    }
    assert_eq!(db.get("large").unwrap().unwrap(), large);
}

/// What pinned the log went away with its keyspace, and nothing was left whose flush could shorten the log.
#[test]
fn a_dropped_keyspace_does_not_block_the_log() {
    let (_, _, env) = simulated();
    let db = Options::tiny().background_threads(0).write_buffer_bytes(1 << 20).env(env).open(DIR).unwrap();
    let gone = db.keyspace_with("gone", &KeyspaceOptions::new().write_buffer_bytes(1 << 20)).unwrap();
    for key in 0..60 {
        gone.put_with(format!("{key}"), [1u8; 1000], os()).unwrap();
    }
    db.put_with("first", "1", os()).unwrap();
    db.drop_keyspace("gone").unwrap();
    for key in 0..300 {
        db.put_with(format!("key{key}"), [2u8; 1000], os()).unwrap();
    }
}

/// Filling memtables of many keyspaces used up the memory; the write that met it waited for a flush of nothing.
#[test]
fn filling_memtables_of_many_keyspaces_do_not_block_writes() {
    let (_, _, env) = simulated();
    let options = Options::tiny().background_threads(0).wal_bytes_max(1 << 30).env(env);
    let db = options.open(DIR).unwrap();
    let small = KeyspaceOptions::new().write_buffer_bytes(32 << 10);
    let keyspaces: Vec<_> = (0..60).map(|n| db.keyspace_with(&format!("k{n}"), &small).unwrap()).collect();
    let total = 60 * (32 << 10);
    assert!(total > db.options().write_buffers_bytes_max, "the test needs more keyspaces");
    for round in 0..80 {
        for keyspace in &keyspaces {
            keyspace.put_with(format!("{round}"), [3u8; 900], os()).unwrap();
        }
        let held = db.stats().memtable_bytes;
        let most = db.options().write_buffers_bytes_max / 8 * 9;
        assert!(held <= most, "{held} bytes of memtables");
    }
}

/// The largest memtable was frozen, or so it was meant: it was empty, and large because its keyspace may grow large.
#[test]
fn an_empty_memtable_that_is_large_does_not_block_writes() {
    let (_, _, env) = simulated();
    let options = Options::tiny().background_threads(0).wal_bytes_max(1 << 30).env(env);
    let db = options.open(DIR).unwrap();
    db.keyspace_with("idle", &KeyspaceOptions::new().write_buffer_bytes(1 << 30)).unwrap();
    for key in 0..100 {
        db.put_with(format!("{key}"), [3u8; 900], os()).unwrap();
    }
}

/// A table that changes its level has new metadata; the file belongs to readers of the old metadata, too.
#[test]
fn a_cursor_keeps_a_table_that_was_moved_and_then_compacted_away() {
    let (_, _, env) = simulated();
    let db = Options::tiny().background_threads(0).env(env).open(DIR).unwrap();
    for key in 0..20 {
        db.put(format!("key{key:02}"), [4u8; 100]).unwrap();
    }
    db.flush().unwrap();
    // Stands nowhere yet: no table is open.
    let mut before = db.cursor().unwrap();
    // Alone in the tree, so it is moved as it is.
    db.compact().unwrap();
    for key in 0..20 {
        db.delete(format!("key{key:02}")).unwrap();
    }
    db.compact().unwrap();
    db.wait_for_background().unwrap();
    before.seek_to_first().unwrap();
    let mut seen = 0;
    while before.valid() {
        seen += 1;
        before.next().unwrap();
    }
    assert_eq!(seen, 20);
}

/// A flush that cannot be installed for want of space left its tables behind, again with each attempt.
#[test]
fn a_flush_that_finds_no_space_in_the_manifest_leaves_no_table() {
    let (disk, faults, env) = simulated();
    let options = || Options::tiny().background_threads(0).env(env.clone());
    let db = options().open(DIR).unwrap();
    db.put("a", "1").unwrap();
    db.close().unwrap();
    let db = options().open(DIR).unwrap();
    db.put("b", "2").unwrap();
    // File numbers are reserved by the first attempt; then the manifest cannot grow.
    db.flush().unwrap();
    let before = tables(&disk);
    let mut failed = 0;
    faults.add(FaultRule::new(Op::Create, Fault::Error(std::io::ErrorKind::StorageFull)).path("MANIFEST*"));
    for round in 0..4000 {
        db.put("c", format!("{round}")).unwrap();
        if db.flush().is_err() {
            failed += 1;
            env.clock.sleep(Duration::from_secs(3));
        }
        if failed == 5 {
            break;
        }
    }
    assert_eq!(failed, 5, "the manifest never was full");
    faults.heal();
    db.wait_for_background().unwrap();
    db.compact().unwrap();
    db.wait_for_background().unwrap();
    assert!(tables(&disk) <= before.max(1), "{} tables", tables(&disk));
}

/// Without threads, waiting answered that all was done while a failed flush waited for its next attempt.
#[test]
fn waiting_for_background_work_reports_a_failed_flush() {
    let (_, faults, env) = simulated();
    let db = Options::tiny().background_threads(0).env(env.clone()).open(DIR).unwrap();
    db.put("a", "1").unwrap();
    faults.add(FaultRule::new(Op::Create, Fault::Error(std::io::ErrorKind::StorageFull)).path("*.sst"));
    db.flush().unwrap_err();
    let error = db.wait_for_background().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    faults.heal();
    env.clock.sleep(Duration::from_secs(3));
    db.wait_for_background().unwrap();
}

/// After a failed sync of a directory nothing may be assumed of the entries that were on their way.
#[test]
fn a_failed_sync_of_the_directory_stops_writes() {
    let (_, faults, env) = simulated();
    let db = Options::tiny().background_threads(0).env(env).open(DIR).unwrap();
    db.put("a", "1").unwrap();
    db.flush().unwrap();
    db.put("b", "2").unwrap();
    faults.fail_nth(Op::SyncDir, 1);
    assert!(db.flush().is_err());
    assert_eq!(db.put("c", "3").unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(db.get("a").unwrap().unwrap().as_ref(), b"1");
}

/// The event came while the engine held its locks: a listener that asked the database anything hung.
#[test]
fn a_listener_may_ask_the_database_when_writes_are_stopped() {
    let (_, faults, env) = simulated();
    let handle: Arc<OnceLock<Mutex<Option<Db>>>> = Arc::default();
    let answers = Arc::new(AtomicU64::new(0));
    let (shared, count) = (Arc::clone(&handle), Arc::clone(&answers));
    let listener = move |event: &Event| {
        if matches!(event, Event::Poisoned { .. })
            && let Some(db) = shared.get().and_then(|db| db.lock().unwrap().clone())
        {
            db.stats();
            count.fetch_add(1, Ordering::SeqCst);
        }
    };
    let db = Options::tiny().background_threads(0).listener(Arc::new(listener)).env(env).open(DIR).unwrap();
    handle.set(Mutex::new(Some(db.clone()))).ok();
    db.put("a", "1").unwrap();
    faults.add(FaultRule::new(Op::Rename, Fault::Error(std::io::ErrorKind::Other)).path("MANIFEST*"));
    faults.add(FaultRule::new(Op::Sync, Fault::Error(std::io::ErrorKind::Other)).path("MANIFEST*"));
    assert!(db.keyspace("new").is_err());
    assert_eq!(answers.load(Ordering::SeqCst), 1);
    handle.get().unwrap().lock().unwrap().take();
}

/// Segments were used up faster than they were prepared; the preparation that came late was called a failure.
#[test]
fn preparing_a_segment_too_late_is_no_failure() {
    let faults = Arc::new(FaultFs::with_clock(Arc::new(MemFs::new()), Arc::new(OsClock::default())));
    let slow = Fault::Latency(Duration::from_millis(3));
    let when = When::Probability { seed: 1, probability: 0.5 };
    faults.add(FaultRule::new(Op::Create, slow).path("*.wal").when(when));
    let errors = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&errors);
    let listener = move |event: &Event| {
        if let Event::BackgroundError { .. } = event {
            seen.lock().unwrap().push(event.to_string());
        }
    };
    let db = Options::tiny()
        .wal_segment_bytes(4096)
        .env(threaded(faults))
        .listener(Arc::new(listener))
        .open(Path::new(DIR))
        .unwrap();
    for key in 0..600 {
        db.put_with(format!("{key}"), [5u8; 3000], os()).unwrap();
    }
    db.close().unwrap();
    assert_eq!(*errors.lock().unwrap(), Vec::<String>::new());
}

/// Each failed attempt of a flush woke the writer, whose patience then began anew.
#[test]
fn a_write_that_waits_for_a_failing_flush_is_given_up() {
    let faults = Arc::new(FaultFs::new(Arc::new(MemFs::new())));
    let db = Options::tiny()
        .stall_timeout(Duration::from_millis(2500))
        .env(threaded(Arc::clone(&faults)))
        .open(Path::new(DIR))
        .unwrap();
    faults.add(FaultRule::new(Op::Create, Fault::Error(std::io::ErrorKind::Other)).path("*.sst"));
    let (sender, receiver) = std::sync::mpsc::channel();
    let writer = db.clone();
    let thread = std::thread::spawn(move || {
        let outcome = (0..).find_map(|key: u64| writer.put_with(format!("{key}"), [6u8; 3000], os()).err());
        sender.send(outcome).ok();
    });
    let outcome = receiver.recv_timeout(Duration::from_secs(20));
    faults.heal();
    assert_eq!(outcome.ok().flatten().map(|error| error.kind()), Some(ErrorKind::Stalled));
    thread.join().unwrap();
}

/// The system's clock, which counts who sleeps.
#[derive(Default)]
struct NapClock {
    clock: OsClock,
    naps: AtomicU64,
}

impl Clock for NapClock {
    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn unix_micros(&self) -> u64 {
        self.clock.unix_micros()
    }

    fn sleep(&self, time: Duration) {
        self.naps.fetch_add(1, Ordering::SeqCst);
        self.clock.sleep(time);
    }
}

/// A compaction that is kept at a rate sleeps; the rate may be so slow that nobody would wait for it.
#[test]
fn closing_does_not_wait_for_a_slow_compaction() {
    let faults = Arc::new(FaultFs::new(Arc::new(MemFs::new())));
    let clock = Arc::new(NapClock::default());
    let env = Env { clock: clock.clone(), ..threaded(faults) };
    let db = Options::tiny().rate_limit(1).env(env).open(DIR).unwrap();
    for round in 0..4 {
        for key in 0..200 {
            db.put_with(format!("{key}"), [round; 100], os()).unwrap();
        }
        db.flush().unwrap();
    }
    while clock.naps.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let closing = std::thread::spawn(move || sender.send(db.close().is_ok()).ok());
    assert_eq!(receiver.recv_timeout(Duration::from_secs(20)), Ok(true));
    closing.join().unwrap();
}

/// The last handle can go wherever it was: in a listener, too, that runs on one of the threads to be joined.
#[test]
fn the_last_handle_may_be_dropped_on_a_background_thread() {
    let faults = Arc::new(FaultFs::new(Arc::new(MemFs::new())));
    let slot: Arc<Mutex<Option<Db>>> = Arc::default();
    let (sender, receiver) = std::sync::mpsc::channel();
    let (held, sender) = (Arc::clone(&slot), Mutex::new(Some(sender)));
    let listener = move |event: &Event| {
        if matches!(event, Event::Flushed { .. })
            && let Some(sender) = sender.lock().unwrap().take()
        {
            let last = loop {
                match held.lock().unwrap().take() {
                    Some(db) => break db,
                    None => std::thread::yield_now(),
                }
            };
            drop(last);
            sender.send(true).ok();
        }
    };
    let db = Options::tiny().env(threaded(faults.clone())).listener(Arc::new(listener)).open(DIR).unwrap();
    for key in 0..8 {
        db.put_with(format!("{key}"), [5u8; 3000], os()).unwrap();
    }
    *slot.lock().unwrap() = Some(db);
    assert!(receiver.recv_timeout(Duration::from_secs(20)).expect("the drop ended"));
    // Closed, so that it can be opened again, once the threads are gone.
    let start = std::time::Instant::now();
    loop {
        match Options::tiny().env(threaded(faults.clone())).open(DIR) {
            Ok(db) => break assert_eq!(db.get("7").unwrap().unwrap().as_ref(), [5u8; 3000]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Locked);
                assert!(start.elapsed() < Duration::from_secs(20), "still locked");
                std::thread::yield_now();
            }
        }
    }
}

/// The close waited for ever for threads that this world does not have, unless the options had asked for none.
#[test]
fn a_world_without_threads_needs_no_option() {
    let (_, _, env) = simulated();
    let db = Options::new().env(env.clone()).open(DIR).unwrap();
    db.put("a", "1").unwrap();
    db.flush().unwrap();
    db.put("a", "2").unwrap();
    db.wait_for_background().unwrap();
    db.close().unwrap();
    assert_eq!(Options::new().env(env).open(DIR).unwrap().get("a").unwrap().unwrap(), "2");
}

/// With one background thread a flush, and with it every write, waited for the end of a long compaction.
#[test]
fn one_background_thread_flushes_in_the_middle_of_a_compaction() {
    let disk = Arc::new(MemFs::new());
    let env = threaded(Arc::new(FaultFs::new(disk.clone())));
    let keyspace = KeyspaceOptions::new().l0_runs(2).write_buffer_bytes(1 << 20);
    // A compaction of what is written below takes minutes; the end of the test cancels it.
    let options = Options::tiny().default_keyspace(keyspace).background_threads(1).rate_limit(1 << 10);
    let options = options.wal_bytes_max(8 << 20);
    let db = options.env(env).open(DIR).unwrap();
    for round in 0..2 {
        for key in 0..2000 {
            db.put_with(format!("{key:05}"), [round; 100], os()).unwrap();
        }
        db.flush().unwrap();
    }
    while tables(&disk) < 3 {
        std::thread::yield_now();
    }
    db.put_with("later", "write", os()).unwrap();
    db.flush().unwrap();
    assert_eq!(db.stats().compactions, 0, "the compaction was not waited for");
}
