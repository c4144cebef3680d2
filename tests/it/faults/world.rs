//! A simulated world whose disk can be told to fail, and the ledger of what was written to it.

use crate::support::{Map, contents};
use esker::env::{Env, FaultFs, MemFs, OsClock, OsSpawner};
use esker::{Db, Durability, Error, ErrorKind, Event, KeyspaceOptions, Options, WriteOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const DIR: &str = "/db";
/// Keyspaces of the ledger's writes.
pub const KEYSPACES: [&str; 2] = ["default", "second"];

/// Limits so small that a few dozen writes reach flush, rotation of the log and compaction.
pub fn tiny() -> KeyspaceOptions {
    KeyspaceOptions::new()
        .write_buffer_bytes(2 << 10)
        .target_table_bytes(2 << 10)
        .level_base_bytes(4 << 10)
        .block_bytes(256)
        .restart_interval(3)
        .size_ratio(2)
        .l0_runs(2)
}

/// A disk in memory, a layer of faults over it, a clock.
#[derive(Clone)]
pub struct World {
    pub disk: Arc<MemFs>,
    pub faults: Arc<FaultFs>,
    pub env: Env,
    /// What the listener heard, by name of the event.
    pub events: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// Without threads, on a clock that stands still: the same run every time.
    pub fn new() -> World {
        World::on(Arc::new(MemFs::new()))
    }

    pub fn on(disk: Arc<MemFs>) -> World {
        let faults = Arc::new(FaultFs::new(disk.clone()));
        let env = Env::simulated(faults.clone(), 7);
        World { disk, faults, env, events: Arc::default() }
    }

    /// With the system's threads and clock.
    pub fn with_threads() -> World {
        let mut world = World::new();
        world.env.clock = Arc::new(OsClock::new());
        world.env.spawner = Arc::new(OsSpawner);
        world
    }

    /// Without threads, reporting events.
    pub fn options(&self) -> Options {
        let events = self.events.clone();
        let listener = move |event: &Event| {
            let name = format!("{event:?}");
            let end = name.find(|char: char| !char.is_alphanumeric()).unwrap_or(name.len());
            events.lock().expect("no panic").push(name[..end].to_string());
        };
        Options::tiny()
            .default_keyspace(tiny())
            .wal_segment_bytes(4 << 10)
            .wal_bytes_max(8 << 10)
            .background_threads(0)
            .listener(Arc::new(listener))
            .env(self.env.clone())
    }

    pub fn open(&self) -> esker::Result<Db> {
        self.options().open(DIR)
    }

    pub fn heard(&self, event: &str) -> usize {
        self.events.lock().expect("no panic").iter().filter(|name| *name == event).count()
    }

    pub fn pass(&self, seconds: u64) {
        self.env.clock.sleep(Duration::from_secs(seconds));
    }

    /// Lets all that is queued and all that waits for its time happen.
    pub fn settle(&self, db: &Db) {
        for _ in 0..5 {
            while db.run_background_job() {}
            self.pass(3);
        }
        while db.run_background_job() {}
    }

    /// After a write and a collection: no file that nothing names, nothing open that a closed database could use.
    pub fn check_nothing_left(&self, db: Db, what: &str) {
        let scratch = db.keyspace("scratch").unwrap_or_else(|error| panic!("{what}: {error}"));
        scratch.put("key", "value").unwrap_or_else(|error| panic!("{what}: write: {error}"));
        db.flush().unwrap_or_else(|error| panic!("{what}: flush: {error}"));
        // Views are reclaimed by epochs, which a thread of another test may hold up for as long as it is not run.
        for _ in 0..10_000 {
            self.settle(&db);
            if self.leftover_files(&db).is_none() {
                break;
            }
            std::thread::yield_now();
        }
        if let Some(files) = self.leftover_files(&db) {
            panic!("{what}: files that nothing names: {files:?}");
        }
        db.close().unwrap_or_else(|error| panic!("{what}: close: {error}"));
        assert_eq!(self.disk.open_handles(), [], "{what}");
    }
}

impl World {
    /// The files, when there are some that no version and no log needs.
    fn leftover_files(&self, db: &Db) -> Option<Vec<PathBuf>> {
        let keyspaces = db.stats().keyspaces;
        let tables: usize = keyspaces.iter().flat_map(|one| &one.levels).map(|level| level.tables).sum();
        let files = self.disk.list_files();
        let count = |extension: &str| files.iter().filter(|path| has_extension(path, extension)).count();
        // The one being written, the one prepared, and what idle keyspaces still pin.
        let sound = count("sst") == tables && count("tmp") == 0 && count("wal") <= 6;
        (!sound).then_some(files)
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// One write: keyspace (index into `KEYSPACES`), key, value or removal.
pub type Write = (usize, Vec<u8>, Option<Vec<u8>>);

/// What became of the commits that may be in the database, in commit order. Those that were refused are not kept:
/// they must not be there.
#[derive(Default, Clone)]
pub struct Ledger {
    /// Each with whether it was acknowledged.
    pub commits: Vec<(Vec<Write>, bool)>,
    /// How many of them are safe against a power failure.
    pub durable: usize,
}

impl Ledger {
    /// Commits a batch and notes what came of it.
    pub fn commit(&mut self, db: &Db, writes: Vec<Write>, durability: Durability) -> Result<(), Error> {
        let mut batch = db.batch();
        for (keyspace, key, value) in &writes {
            let keyspace = db.existing_keyspace(KEYSPACES[*keyspace])?;
            match value {
                Some(value) => batch.put(&keyspace, key, value)?,
                None => batch.delete(&keyspace, key)?,
            }
        }
        match batch.commit_with(WriteOptions::new().durability(durability)) {
            Ok(_) => {
                self.commits.push((writes, true));
                if durability == Durability::Disk {
                    self.durable = self.commits.len();
                }
                Ok(())
            }
            Err(error) => {
                if error.kind() == ErrorKind::OutcomeUnknown {
                    self.commits.push((writes, false));
                }
                Err(error)
            }
        }
    }

    /// One key of the default keyspace.
    pub fn put(&mut self, db: &Db, key: &str, durability: Durability) -> Result<(), Error> {
        let value = format!("value of {key}").repeat(10).into_bytes();
        self.commit(db, vec![(0, key.as_bytes().to_vec(), Some(value))], durability)
    }

    /// What readers see while the database is open: what was acknowledged, and nothing else.
    pub fn visible(&self) -> Vec<Map> {
        let mut state = vec![Map::new(); KEYSPACES.len()];
        for (writes, _) in self.commits.iter().filter(|(_, acknowledged)| *acknowledged) {
            apply(&mut state, writes);
        }
        state
    }

    /// Whether a state may be shown after a reopen (all that was acknowledged is there) or a power failure (all that
    /// is durable is): the first so many commits, whole.
    pub fn allows(&self, shown: &[Map], least: usize) -> bool {
        self.matching_prefix(shown, least).is_some()
    }

    fn matching_prefix(&self, shown: &[Map], least: usize) -> Option<usize> {
        let mut state = vec![Map::new(); KEYSPACES.len()];
        for count in 0..=self.commits.len() {
            if count >= least && state == shown {
                return Some(count);
            }
            if let Some((writes, _)) = self.commits.get(count) {
                apply(&mut state, writes);
            }
        }
        None
    }

    /// Takes over what a reopen showed: a commit whose outcome was unknown is there from now on, or never was.
    /// Answers whether it may show that.
    pub fn resolve(&mut self, shown: &[Map]) -> bool {
        let Some(count) = self.matching_prefix(shown, self.acknowledged()) else { return false };
        self.commits.truncate(count);
        self.commits.iter_mut().for_each(|(_, acknowledged)| *acknowledged = true);
        true
    }

    /// Number of the last acknowledged commit.
    pub fn acknowledged(&self) -> usize {
        self.commits.iter().rposition(|(_, acknowledged)| *acknowledged).map_or(0, |index| index + 1)
    }

    /// Everything reads as acknowledged.
    pub fn check_reads(&self, db: &Db, what: &str) {
        let shown = state(db).unwrap_or_else(|error| panic!("{what}: read: {error}"));
        assert!(shown == self.visible(), "{what}: reads do not show what was acknowledged");
    }
}

fn apply(state: &mut [Map], writes: &[Write]) {
    for (keyspace, key, value) in writes {
        match value {
            Some(value) => state[*keyspace].insert(key.clone(), value.clone()),
            None => state[*keyspace].remove(key),
        };
    }
}

/// What a database shows. A keyspace that was never created is empty.
pub fn state(db: &Db) -> esker::Result<Vec<Map>> {
    let one = |name: &&str| match db.existing_keyspace(name) {
        Ok(keyspace) => contents(&keyspace),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(error),
    };
    KEYSPACES.iter().map(one).collect()
}
