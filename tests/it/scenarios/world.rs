//! The database of a run: in memory, so small that everything happens at once, and noisy if asked to be.

use super::actor::entry;
use super::parse::{State, Who};
use esker::env::{CrashMode, Env, MemFs};
use esker::{Db, LockWait, Options, WriteOptions};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// What the database does between the steps, which nobody may notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    None,
    Flush,
    Compact,
    /// Writes to another keyspace until the log goes on in another segment.
    Rotate,
    /// Garbage, and the removal of all versions that nobody needs.
    Collect,
}

impl Noise {
    pub const ALL: [Noise; 5] = [Noise::None, Noise::Flush, Noise::Compact, Noise::Rotate, Noise::Collect];
}

/// Longer than every timeout of the table.
const LOCK_TIMEOUT: Duration = Duration::from_secs(100 * 24 * 3600);

pub struct World {
    pub fs: Arc<MemFs>,
    pub env: Env,
    pub db: Db,
}

fn open(env: &Env) -> esker::Result<Db> {
    Options::tiny()
        .wal_segment_bytes(4096)
        .background_threads(0)
        .lock_timeout(LOCK_TIMEOUT)
        .env(env.clone())
        .open("/db")
}

impl World {
    pub fn new(start: &State) -> World {
        let (env, fs) = Env::memory(1);
        let db = open(&env).expect("open");
        // Older versions, so that there is something to collect and something wrong to be read.
        for key in ["w", "x", "y", "z"] {
            db.put(key, "-1").expect("put");
            db.delete(key).expect("delete");
        }
        for (key, value) in start {
            db.put(key, "-2").expect("put");
            db.put(key, value.to_string()).expect("put");
        }
        db.keyspace("other").expect("a keyspace");
        World { fs, env, db }
    }

    pub fn state(&self) -> State {
        state_of(&self.db)
    }

    /// Who waits for a lock.
    pub fn waiting(&self) -> BTreeSet<String> {
        let edges = self.db.wait_graph().edges;
        let labels = edges.into_iter().map(|edge| edge.waiter_label.expect("everybody has a label"));
        labels.map(|label| if label == "plain write" { "P".to_string() } else { label }).collect()
    }

    /// As the list of transactions has it.
    pub fn listed_as_waiting(&self) -> BTreeSet<String> {
        let all = self.db.transactions().into_iter().filter(|txn| txn.waiting_for.is_some());
        all.filter_map(|txn| txn.label).collect()
    }

    pub fn make(&self, noise: Noise) -> esker::Result<()> {
        match noise {
            Noise::None => Ok(()),
            Noise::Flush => self.db.flush(),
            Noise::Compact => {
                self.db.flush()?;
                self.db.compact()
            }
            Noise::Rotate => self.fill(10),
            Noise::Collect => {
                self.fill(2)?;
                self.db.flush()?;
                while self.db.run_background_job() {}
                self.db.existing_keyspace("other")?.compact()?;
                self.db.compact()
            }
        }
    }

    fn fill(&self, count: u8) -> esker::Result<()> {
        let other = self.db.existing_keyspace("other")?;
        (0..count).try_for_each(|number| other.put([b'a' + number % 3], [number; 600]))
    }

    /// Nothing is left of any transaction: no lock, no waiter, no snapshot.
    pub fn check_quiet(&self) -> Result<(), String> {
        let open = self.db.transactions();
        if !open.is_empty() {
            return Err(format!("still open: {open:?}"));
        }
        let no_wait = WriteOptions::new().lock_wait(LockWait::NoWait);
        let probe = self.db.begin(esker::Isolation::ReadCommitted).map_err(|error| error.to_string())?;
        for key in ["w", "x", "xx", "y", "z"] {
            self.db.delete_with(key, no_wait).map_err(|error| format!("a lock is left: {error}"))?;
        }
        probe.rollback();
        Ok(())
    }

    /// The state that a crash now leaves behind, and whether the database that comes back is free of locks.
    pub fn after_crash(&self, mode: CrashMode, seed: u64) -> Result<State, String> {
        let fs = Arc::new(self.fs.crash_clone(seed, mode));
        let env = Env::simulated(fs, seed);
        let db = open(&env).map_err(|error| format!("{mode:?}: open after a crash: {error}"))?;
        let state = state_of(&db);
        let open = db.transactions();
        if !open.is_empty() {
            return Err(format!("{mode:?}: open after a crash: {open:?}"));
        }
        Ok(state)
    }
}

fn state_of(db: &Db) -> State {
    db.iter().map(|item| entry(item.expect("an entry"))).collect()
}

/// Names of those that wait.
pub fn names(who: &BTreeSet<Who>) -> BTreeSet<String> {
    who.iter().map(|who| super::parse::name(*who)).collect()
}
