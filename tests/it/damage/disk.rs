//! Damage on the real file system: a table that another process truncates while it is being read.

use crate::support::Random;
use esker::{Db, Error, ErrorKind, KeyspaceOptions, Options, ReadMode};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

const KEYS: u32 = 4000;
const READERS: u64 = 4;

fn key(number: u32) -> Vec<u8> {
    format!("key{number:06}").into_bytes()
}

fn value(number: u32) -> Vec<u8> {
    let mut random = Random::new(u64::from(number));
    random.bytes(100 + (number % 50) as usize)
}

fn open(path: &Path, mode: ReadMode) -> Db {
    let keyspace = KeyspaceOptions::new().target_table_bytes(64 << 10).write_buffer_bytes(4 << 20);
    let options = Options::new().default_keyspace(keyspace).memory_budget(16 << 20);
    // Without a cache every read goes to the files.
    options.block_cache_bytes(0).read_mode(mode).background_threads(1).open(path).expect("open")
}

/// The tables of the database, in the order of their numbers.
fn tables(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("list").map(|entry| entry.expect("entry").path());
    let mut tables: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "sst")).collect();
    tables.sort();
    tables
}

struct Watch<'a> {
    db: &'a Db,
    damaged: &'a Path,
    done: AtomicBool,
    right: AtomicU64,
    failed: AtomicU64,
}

impl Watch<'_> {
    /// Reads points and short scans until told to stop. Every answer is right or names the truncated table.
    fn read(&self, seed: u64) {
        let _end = EndOnPanic(&self.done);
        let mut random = Random::new(seed);
        while !self.done.load(Ordering::Acquire) {
            let number = random.below(u64::from(KEYS)) as u32;
            match self.db.get(key(number)) {
                Ok(found) => self.check(number, found.as_deref()),
                Err(error) => self.refused(&error),
            }
            let iter = self.db.range(key(number)..);
            for (nth, item) in iter.take(20).enumerate() {
                match item {
                    Ok((found, value)) => {
                        assert_eq!(found, *key(number + nth as u32));
                        self.check(number + nth as u32, Some(&value));
                    }
                    Err(error) => self.refused(&error),
                }
            }
        }
    }

    fn check(&self, number: u32, found: Option<&[u8]>) {
        assert_eq!(found, Some(&value(number)[..]), "key {number}");
        self.right.fetch_add(1, Ordering::Relaxed);
    }

    fn refused(&self, error: &Error) {
        let named = error.corruption().map(|damage| damage.file.as_path());
        assert_eq!((error.kind(), named), (ErrorKind::Corruption, Some(self.damaged)), "{error}");
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets the readers go on for a while, unless one of them has given up.
    fn wait_for(&self, count: &AtomicU64, more: u64) {
        let goal = count.load(Ordering::Relaxed) + more;
        while count.load(Ordering::Relaxed) < goal && !self.done.load(Ordering::Acquire) {
            thread::yield_now();
        }
    }
}

/// Ends everything when a reader panics.
struct EndOnPanic<'a>(&'a AtomicBool);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}

/// `left` says how much of the table is left, in 256ths. Index and filter at its end are in memory already.
fn truncate_while_reading(mode: ReadMode, left: u64) {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let db = open(dir.path(), mode);
    let mut batch = db.batch();
    for number in 0..KEYS {
        batch.put(&db.default_keyspace(), key(number), value(number)).expect("within limits");
    }
    batch.commit().expect("commit");
    db.compact().expect("compact");
    db.close().expect("close");

    let db = open(dir.path(), mode);
    let tables = tables(dir.path());
    assert!(tables.len() >= 4, "{tables:?}");
    let damaged = &tables[tables.len() / 2];
    let watch = Watch {
        db: &db,
        damaged,
        done: AtomicBool::new(false),
        right: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        for seed in 0..READERS {
            let watch = &watch;
            scope.spawn(move || watch.read(seed));
        }
        watch.wait_for(&watch.right, 2000);
        assert_eq!(watch.failed.load(Ordering::Relaxed), 0, "nothing fails before");
        let file = OpenOptions::new().write(true).open(damaged).expect("open the table");
        let bytes = file.metadata().expect("length").len();
        file.set_len(bytes * left / 256).expect("truncate");
        watch.wait_for(&watch.failed, 50);
        watch.wait_for(&watch.right, 2000);
        watch.done.store(true, Ordering::Release);
    });
    check_others(&db, damaged);
    // Writes go on as well.
    db.put("other", "value").expect("write");
    assert_eq!(db.get("other").expect("read").expect("there"), "value");
    db.close().expect("close");
}

/// All keys but those of one table are there.
fn check_others(db: &Db, damaged: &Path) {
    let mut failed = Vec::new();
    for number in 0..KEYS {
        match db.get(key(number)) {
            Ok(found) => assert_eq!(found.as_deref(), Some(&value(number)[..]), "key {number}"),
            Err(error) => {
                assert_eq!(error.corruption().map(|damage| damage.file.as_path()), Some(damaged), "{error}");
                failed.push(number);
            }
        }
    }
    assert!(!failed.is_empty() && failed.len() < KEYS as usize / 2, "{} keys failed", failed.len());
    let error = db.verify().expect_err("a table is damaged");
    assert_eq!(error.corruption().map(|damage| damage.file.as_path()), Some(damaged), "{error}");
}

#[test]
fn a_mapped_table_truncated_while_it_is_read() {
    for left in [0, 100, 200] {
        truncate_while_reading(ReadMode::Mmap, left);
    }
}

#[test]
fn a_table_truncated_while_it_is_read_by_position() {
    for left in [0, 100, 200] {
        truncate_while_reading(ReadMode::Pread, left);
    }
}
