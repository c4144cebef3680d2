//! A machine that dies: a database on a simulated disk, cut off in the middle of anything, also of its recovery, and
//! opened again. What tests of crashes share that know their database by what they did to it.

use crate::support::{Map, Random, contents};
use esker::env::{CrashMode, Env, MemFs};
use esker::{Db, Keyspace, Options};
use std::sync::Arc;

pub const DIR: &str = "/db";

/// Both are there from the start.
pub const KEYSPACES: [&str; 2] = ["default", "second"];

/// Limits so small that a few dozen writes reach flush, rotation of the log and compaction; no threads.
pub fn options(env: &Env) -> Options {
    Options::tiny().wal_segment_bytes(4096).wal_bytes_max(12 << 10).background_threads(0).env(env.clone())
}

pub struct Machine {
    pub random: Random,
    pub fs: Arc<MemFs>,
    env: Env,
    db: Option<Db>,
    /// How to come here again, for the messages of failures.
    pub what: String,
}

impl Machine {
    pub fn new(seed: u64) -> Machine {
        let mut random = Random::new(seed);
        let fs = Arc::new(MemFs::new());
        let env = Env::simulated(fs.clone(), random.next());
        let db = options(&env).open(DIR).expect("create");
        db.keyspace_with("second", db.default_keyspace().options()).expect("create a keyspace");
        Machine { random, fs, env, db: Some(db), what: String::new() }
    }

    pub fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    pub fn keyspace(&self, index: usize) -> Keyspace {
        self.db().existing_keyspace(KEYSPACES[index]).expect("exists")
    }

    /// What the keyspaces hold.
    pub fn maps(&self) -> esker::Result<Vec<Map>> {
        (0..KEYSPACES.len()).map(|index| contents(&self.keyspace(index))).collect()
    }

    /// Closes and opens again; false if the disk failed.
    pub fn reopen(&mut self) -> bool {
        let closed = self.db.take().expect("open").close().is_ok();
        if closed {
            self.db = Some(options(&self.env).open(DIR).expect("open after a clean close"));
        }
        closed
    }

    /// The process or the power goes. Whoever holds something of the database lets go of it before.
    pub fn crash(&mut self, mode: CrashMode) {
        let next = Arc::new(self.fs.crash_clone(self.random.next(), mode));
        // What the old process still does happens on a disk that nobody looks at again.
        self.fs.freeze_at(1);
        drop(self.db.take());
        self.fs = next;
        self.env = Env::simulated(self.fs.clone(), self.random.next());
    }

    /// One recovery that is cut at this operation. Says whether it got that far.
    pub fn cut_recovery(&mut self, at: u64, then: CrashMode) -> bool {
        self.fs.freeze_at(at);
        match options(&self.env).open(DIR) {
            Ok(db) => self.db = Some(db),
            Err(error) => assert!(self.fs.is_frozen(), "{}: recovery: {error}", self.what),
        }
        let was_cut = self.fs.is_frozen();
        self.crash(then);
        was_cut
    }

    /// Recovers, at first perhaps not to the end. Answers the mode whose losses are allowed in the end.
    pub fn recover(&mut self, mut mode: CrashMode) -> CrashMode {
        for _ in 0..self.random.below(3) {
            let at = 1 + self.random.below(30);
            let next = *self.random.pick(&CrashMode::ALL);
            self.cut_recovery(at, next);
            if next != CrashMode::ProcessKill {
                mode = next;
            }
        }
        self.recover_whole();
        mode
    }

    pub fn recover_whole(&mut self) {
        let opened = options(&self.env).open(DIR);
        self.db = Some(opened.unwrap_or_else(|error| panic!("{}: recovery: {error}", self.what)));
    }
}
