//! Crashes, simulated: a random workload on a disk in memory, cut by power failures and kills at random operations,
//! recoveries that are cut themselves, and one definition of what must be there afterwards.
//!
//! **The oracle.** Commits are numbered in commit order. Of the logged ones, what a recovery shows must be a prefix,
//! whole batches only, that contains every commit known to be safe: after a power failure all up to the last `Disk`
//! commit or `sync` that returned, after a kill all that returned. A commit whose call failed may be in the prefix.
//! `Memory` commits live in a keyspace of their own and show a prefix of theirs. What an open has shown is still
//! there after any later crash. No file is left that nothing names.
//!
//! Runs are chains: the database that came back is used and crashed again. `ESKER_CRASH_CYCLES` sets how many.

use crate::support::{Map, Random, contents, seed, setting};
use esker::env::{CrashMode, Env, MemFs};
use esker::{
    CompactionStyle, Db, Durability, ErrorKind, FilterKind, KeyspaceOptions, Options, ReadMode, WriteOptions,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const DIR: &str = "/db";
/// Keyspaces of logged commits, and the one of `Memory` commits.
const LOGGED: [&str; 2] = ["default", "second"];
const UNLOGGED: &str = "unlogged";

/// One write: keyspace (index into `LOGGED`), key, value or removal.
type Write = (usize, Vec<u8>, Option<Vec<u8>>);

/// The commits since the last recovery and what is known of them.
#[derive(Default, Clone)]
struct History {
    /// State before the first of them, per keyspace.
    base: Vec<Map>,
    commits: Vec<Vec<Write>>,
    /// How many of them are safe against a power failure, and against a kill.
    durable: usize,
    returned: usize,
}

impl History {
    fn from(base: Vec<Map>) -> History {
        History { base, ..History::default() }
    }

    /// The prefix that shows this state, and its state.
    fn matching_prefix(&self, shown: &[Map], least: usize) -> Option<usize> {
        let mut state = self.base.clone();
        for count in 0..=self.commits.len() {
            if count >= least && state == shown {
                return Some(count);
            }
            if let Some(commit) = self.commits.get(count) {
                apply(&mut state, commit);
            }
        }
        None
    }

    fn current(&self) -> Vec<Map> {
        let mut state = self.base.clone();
        self.commits.iter().for_each(|commit| apply(&mut state, commit));
        state
    }
}

fn apply(state: &mut [Map], commit: &[Write]) {
    for (keyspace, key, value) in commit {
        match value {
            Some(value) => state[*keyspace].insert(key.clone(), value.clone()),
            None => state[*keyspace].remove(key),
        };
    }
}

/// A database on a simulated disk and the histories it must agree with.
struct Rig {
    random: Random,
    fs: Arc<MemFs>,
    env: Env,
    db: Option<Db>,
    logged: History,
    unlogged: History,
    style: CompactionStyle,
    what: String,
}

fn options(env: &Env, random: &mut Random, style: CompactionStyle) -> Options {
    let keyspace = KeyspaceOptions::new()
        .write_buffer_bytes(4 << 10)
        .target_table_bytes(2 << 10)
        .level_base_bytes(8 << 10)
        .block_bytes(256)
        .restart_interval(3)
        .size_ratio(2)
        .l0_runs(2)
        .compaction_style(style)
        .filter(*random.pick(&[FilterKind::Blocked, FilterKind::Standard, FilterKind::None]));
    Options::tiny()
        .default_keyspace(keyspace)
        .wal_segment_bytes(4096 + random.below(12 << 10))
        .wal_bytes_max(24 << 10)
        .wal_mapped(random.chance(50))
        .read_mode(*random.pick(&[ReadMode::Mmap, ReadMode::Pread]))
        .background_threads(0)
        .env(env.clone())
}

impl Rig {
    fn new(seed: u64) -> Rig {
        let mut random = Random::new(seed);
        let fs = Arc::new(MemFs::new());
        let env = Env::simulated(fs.clone(), random.next());
        let style =
            *random.pick(&[CompactionStyle::LazyLeveling, CompactionStyle::Leveled, CompactionStyle::Tiered]);
        let empty = |count| History::from(vec![Map::new(); count]);
        let what = format!("seed {seed}");
        Rig { random, fs, env, db: None, logged: empty(LOGGED.len()), unlogged: empty(1), style, what }
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    fn options(&mut self) -> Options {
        options(&self.env, &mut self.random, self.style)
    }

    /// Some operations; stops at the first that fails, which happens only when the disk froze.
    fn work(&mut self, steps: u64) {
        for _ in 0..steps {
            if !self.step() {
                assert!(self.fs.is_frozen(), "{}: an operation failed on a sound disk", self.what);
                return;
            }
        }
    }

    fn step(&mut self) -> bool {
        match self.random.below(100) {
            0..60 => self.commit(),
            60..66 => self.commit_unlogged(),
            66..82 => {
                self.db().run_background_job();
                true
            }
            82..85 => self.settled(|db| db.flush()),
            85..88 => {
                let ok = self.settled(|db| db.sync());
                if ok {
                    self.logged.durable = self.logged.commits.len();
                }
                ok
            }
            88..90 => self.settled(|db| db.compact()),
            90..92 => self.settled(|db| db.wait_for_background()),
            92..94 => {
                self.env.clock.sleep(Duration::from_millis(self.random.clone().below(300)));
                true
            }
            94..95 => self.reopen_cleanly(),
            _ => self.check_reads(),
        }
    }

    fn settled(&self, operation: impl FnOnce(&Db) -> esker::Result<()>) -> bool {
        operation(self.db()).is_ok()
    }

    fn key(&mut self) -> Vec<u8> {
        let number = self.random.below(60);
        if number == 0 { vec![b'l'; 600] } else { format!("key{number:03}").into_bytes() }
    }

    fn value(&mut self) -> Vec<u8> {
        let len = if self.random.chance(3) { 6000 } else { self.random.below(120) };
        self.random.bytes(len as usize)
    }

    fn commit(&mut self) -> bool {
        let count = if self.random.chance(70) { 1 } else { 1 + self.random.below(6) };
        let mut writes: Vec<Write> = Vec::new();
        for _ in 0..count {
            let keyspace = self.random.below(LOGGED.len() as u64) as usize;
            let key = self.key();
            let value = if self.random.chance(25) { None } else { Some(self.value()) };
            writes.push((keyspace, key, value));
        }
        let durability = if self.random.chance(40) { Durability::Disk } else { Durability::Os };
        let mut batch = self.db().batch();
        for (keyspace, key, value) in &writes {
            let keyspace = self.db().existing_keyspace(LOGGED[*keyspace]).expect("exists");
            match value {
                Some(value) => batch.put(&keyspace, key, value),
                None => batch.delete(&keyspace, key),
            }
            .expect("within limits");
        }
        let result = batch.commit_with(WriteOptions::new().durability(durability));
        self.logged.commits.push(writes);
        match result {
            Ok(_) => {
                self.logged.returned = self.logged.commits.len();
                if durability == Durability::Disk {
                    self.logged.durable = self.logged.commits.len();
                }
                true
            }
            Err(_) => false,
        }
    }

    fn commit_unlogged(&mut self) -> bool {
        let (key, value) = (self.key(), self.value());
        let keyspace = self.db().existing_keyspace(UNLOGGED).expect("exists");
        let result = keyspace.put_with(&key, &value, WriteOptions::new().durability(Durability::Memory));
        self.unlogged.commits.push(vec![(0, key, Some(value))]);
        result.is_ok()
    }

    fn state(&self) -> esker::Result<Vec<Map>> {
        LOGGED.iter().map(|name| contents(&self.db().existing_keyspace(name)?)).collect()
    }

    fn unlogged_state(&self) -> esker::Result<Vec<Map>> {
        Ok(vec![contents(&self.db().existing_keyspace(UNLOGGED)?)?])
    }

    /// While nothing fails, reads agree with all that was committed.
    fn check_reads(&mut self) -> bool {
        let (Ok(shown), Ok(unlogged)) = (self.state(), self.unlogged_state()) else { return false };
        assert_eq!(shown, self.logged.current(), "{}", self.what);
        assert_eq!(unlogged, self.unlogged.current(), "{}", self.what);
        let key = self.key();
        let expect = self.logged.current()[0].get(&key).cloned();
        assert_eq!(self.db().get(&key).ok().flatten().map(|value| value.to_vec()), expect, "{}", self.what);
        true
    }

    fn reopen_cleanly(&mut self) -> bool {
        let Some(db) = self.db.take() else { return true };
        let closed = db.close();
        if closed.is_err() {
            return false;
        }
        let before = self.fs.mutations();
        let options = self.options();
        match options.open(DIR) {
            Ok(db) => {
                assert_eq!(self.fs.mutations(), before, "{}: a clean open writes nothing", self.what);
                self.db = Some(db);
                let all = self.logged.commits.len();
                (self.logged.durable, self.logged.returned) = (all, all);
                let all = self.unlogged.commits.len();
                (self.unlogged.durable, self.unlogged.returned) = (all, all);
                self.check_reads()
            }
            Err(error) => panic!("{}: open after a clean close: {error}", self.what),
        }
    }

    /// Cuts the power (or kills the process) and moves to the disk as it is then.
    fn crash(&mut self, mode: CrashMode) {
        let next = Arc::new(self.fs.crash_clone(self.random.next(), mode));
        // What the old process still does happens on a disk that nobody looks at again.
        self.fs.freeze_at(1);
        drop(self.db.take());
        self.fs = next;
        self.env = Env::simulated(self.fs.clone(), self.random.next());
    }

    /// Opens after a crash of this mode, cutting the recovery itself short a few times first. Answers the mode whose
    /// losses are allowed in the end: a power failure during the recovery from a kill is a power failure.
    fn recover(&mut self, mut allowed: CrashMode) -> CrashMode {
        for _ in 0..self.random.below(3) {
            let after = 1 + self.random.below(30);
            self.fs.freeze_at(after);
            let options = self.options();
            match options.open(DIR) {
                Ok(db) => self.db = Some(db),
                Err(error) => assert!(self.fs.is_frozen(), "{}: recovery failed: {error}", self.what),
            }
            let mode = *self.random.pick(&CrashMode::ALL);
            self.crash(mode);
            if mode != CrashMode::ProcessKill {
                allowed = mode;
            }
        }
        let options = self.options();
        self.db =
            Some(options.open(DIR).unwrap_or_else(|error| panic!("{}: recovery failed: {error}", self.what)));
        allowed
    }

    /// Holds what a recovery shows against the histories and continues from there.
    fn judge(&mut self, mode: CrashMode) {
        let least = |history: &History| match mode {
            CrashMode::ProcessKill => history.returned,
            _ => history.durable,
        };
        let shown =
            self.state().unwrap_or_else(|error| panic!("{}: read after recovery: {error}", self.what));
        let prefix = self.logged.matching_prefix(&shown, least(&self.logged));
        let count = self.logged.commits.len();
        assert!(
            prefix.is_some(),
            "{} {mode:?}: the state after recovery is no prefix of the {count} commits with at least {} of them",
            self.what,
            least(&self.logged)
        );
        let unlogged = self.unlogged_state().unwrap_or_else(|error| panic!("{}: {error}", self.what));
        assert!(
            self.unlogged.matching_prefix(&unlogged, self.unlogged.durable).is_some(),
            "{} {mode:?}: the unlogged keyspace shows no prefix",
            self.what
        );
        self.logged = History::from(shown);
        self.unlogged = History::from(unlogged);
    }

    /// What was shown stays; the structure is sound; nothing is left over.
    fn check_after_recovery(&mut self) {
        self.db().verify().unwrap_or_else(|error| panic!("{}: verify: {error}", self.what));
        if self.random.chance(30) {
            // Shown once, shown for ever: even when nothing was written since.
            self.crash(CrashMode::SyncedOnly);
            self.recover(CrashMode::SyncedOnly);
            self.judge(CrashMode::SyncedOnly);
            assert!(self.logged.commits.is_empty());
        }
        if self.random.chance(20) {
            // A clean open removes nothing until the session writes.
            assert!(self.commit() && self.settled(|db| db.flush()), "{}: write after recovery", self.what);
            self.db().wait_for_background().unwrap_or_else(|error| panic!("{}: {error}", self.what));
            // Views are reclaimed by epochs, which a thread of another test may hold up for as long as it is not run.
            for _ in 0..100_000 {
                self.env.clock.sleep(Duration::from_secs(3));
                while self.db().run_background_job() {}
                if self.leftover_files().is_none() {
                    break;
                }
                std::thread::yield_now();
            }
            self.check_files();
        }
    }

    fn check_files(&self) {
        if let Some(files) = self.leftover_files() {
            panic!("{}: files that nothing names: {files:?}", self.what);
        }
    }

    /// The files, when there are some that no version and no log needs.
    fn leftover_files(&self) -> Option<Vec<PathBuf>> {
        let files = self.fs.list_files();
        let count = |extension: &str| files.iter().filter(|file| has_extension(file, extension)).count();
        let tables: usize = self
            .db()
            .stats()
            .keyspaces
            .iter()
            .flat_map(|keyspace| &keyspace.levels)
            .map(|level| level.tables)
            .sum();
        let sound = count("sst") == tables && count("wal") <= 16 && count("tmp") == 0;
        (!sound).then_some(files)
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// A chain of crashes on one database.
fn chain(seed: u64, cycles: u64) {
    let mut rig = Rig::new(seed);
    let options = rig.options();
    let db = options.open(DIR).expect("create");
    for name in ["second", UNLOGGED] {
        db.keyspace_with(name, db.default_keyspace().options()).expect("create a keyspace");
    }
    rig.db = Some(db);
    for cycle in 0..cycles {
        rig.what = format!("ESKER_SEED={seed} cycle {cycle}");
        let at_operation = rig.random.chance(60);
        if at_operation {
            let after = 1 + rig.random.below(200);
            rig.fs.freeze_at(after);
        }
        let steps = rig.random.below(80);
        rig.work(steps);
        let mode = *rig.random.pick(&CrashMode::ALL);
        rig.crash(mode);
        let allowed = rig.recover(mode);
        rig.judge(allowed);
        rig.check_after_recovery();
    }
}

#[test]
fn what_comes_back_after_crashes_is_a_prefix_with_everything_acknowledged() {
    let cycles = setting("ESKER_CRASH_CYCLES", 400);
    let per_chain = 25;
    let first = seed(1);
    println!("ESKER_SEED={first} ESKER_CRASH_CYCLES={cycles}");
    for index in 0..cycles.div_ceil(per_chain) {
        chain(first + index, per_chain.min(cycles));
    }
}

/// A crash during the very first open leaves a directory that the next open turns into a database.
#[test]
fn a_crash_while_creating_leaves_nothing_that_blocks_the_next_open() {
    for at in 0..200 {
        for mode in CrashMode::ALL {
            let fs = Arc::new(MemFs::new());
            let mut random = Random::new(at);
            fs.freeze_at(at + 1);
            let env = Env::simulated(fs.clone(), 7);
            let first = options(&env, &mut random, CompactionStyle::default()).open(DIR);
            let complete = first.is_ok() && !fs.is_frozen();
            let next = Arc::new(fs.crash_clone(at, mode));
            drop(first);
            let env = Env::simulated(next, 8);
            let db = options(&env, &mut random, CompactionStyle::default())
                .open(DIR)
                .unwrap_or_else(|error| panic!("crash at operation {at}, {mode:?}: {error}"));
            db.put("k", "v").expect("write after a crashed creation");
            assert_eq!(db.get("k").expect("read").expect("present"), "v");
            db.close().expect("close");
            if complete {
                assert!(at > 0);
            }
        }
    }
}

/// Errors that a failed write may have on a frozen disk, none of which may be `Corruption`.
#[test]
fn a_frozen_disk_refuses_writes_and_serves_reads() {
    let fs = Arc::new(MemFs::new());
    let env = Env::simulated(fs.clone(), 1);
    let db = options(&env, &mut Random::new(1), CompactionStyle::default()).open(DIR).expect("create");
    db.put("k", "v").expect("write");
    fs.freeze_at(1);
    let error = db.put("k", "w").expect_err("the disk is frozen");
    assert!(
        matches!(error.kind(), ErrorKind::OutcomeUnknown | ErrorKind::Io | ErrorKind::Poisoned),
        "{error}"
    );
    assert_eq!(db.get("k").expect("read").expect("present"), "v");
}
