//! The machine of the model test: a database, the reference it must agree with, and one random step after the other.
//!
//! Here are the steps that write, that change the database's shape and that open and close it; reads are in `reads`,
//! cursors and iterators that are held over many steps in `held`.

use super::draw;
use super::held::{HeldCursor, HeldIter};
use super::reference::{Bytes, Space};
use crate::support::Random;
use esker::env::{Env, HandleKind, MemFs};
use esker::{CompactionStyle, Db, ErrorKind, Keyspace, KeyspaceOptions, Snapshot, WriteOptions};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where the database lives.
pub enum World {
    /// On a simulated disk, without threads: every run can be repeated exactly.
    Memory(Arc<MemFs>, Env),
    /// On the real file system, with background threads.
    Disk(tempfile::TempDir),
}

impl World {
    pub fn memory(seed: u64) -> World {
        let fs = Arc::new(MemFs::new());
        let env = Env::simulated(fs.clone(), seed);
        World::Memory(fs, env)
    }

    pub fn disk() -> World {
        World::Disk(tempfile::tempdir().expect("a directory for the test"))
    }

    fn path(&self) -> PathBuf {
        match self {
            World::Memory(..) => PathBuf::from("/model/db"),
            World::Disk(dir) => dir.path().join("db"),
        }
    }
}

/// A keyspace and where the reference keeps its content.
#[derive(Clone)]
pub struct Handle {
    pub keyspace: Keyspace,
    /// Index of its [`Space`]; a keyspace created again under its old name has another.
    pub space: usize,
    /// Old entries may be missing.
    pub lossy: bool,
}

/// A keyspace as it was created.
struct Known {
    options: KeyspaceOptions,
    space: usize,
    lossy: bool,
}

pub struct Rig {
    pub random: Random,
    pub world: World,
    db: Option<Db>,
    pub handles: BTreeMap<String, Handle>,
    /// Handles of keyspaces that were dropped.
    dropped: Vec<Keyspace>,
    /// Never removed: a held cursor may read what was dropped long ago.
    pub spaces: Vec<Space>,
    /// What must be there after an open, by name.
    known: BTreeMap<String, Known>,
    pub commits: u64,
    pub keys: Vec<Vec<u8>>,
    pub snapshots: Vec<(Snapshot, u64)>,
    pub cursors: Vec<HeldCursor>,
    pub iters: Vec<HeldIter>,
    /// Whether readers are held for longer than a step in this run.
    holds_readers: bool,
    seed: u64,
    step: u64,
}

impl fmt::Display for Rig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = if self.is_simulated() { "memory" } else { "disk" };
        write!(f, "ESKER_SEED={} ({world}) step {}", self.seed, self.step)
    }
}

/// Names of keyspaces that come and go.
const NAMES: [&str; 4] = ["second", "third", "fourth", "a name with spaces and \u{fc}"];

impl Rig {
    pub fn new(seed: u64, world: World) -> Rig {
        let mut random = Random::new(seed);
        let keys = draw::keys(&mut random);
        let holds_readers = random.chance(80);
        let mut rig = Rig {
            random,
            world,
            db: None,
            handles: BTreeMap::new(),
            dropped: Vec::new(),
            spaces: Vec::new(),
            known: BTreeMap::new(),
            commits: 0,
            keys,
            snapshots: Vec::new(),
            cursors: Vec::new(),
            iters: Vec::new(),
            holds_readers,
            seed,
            step: 0,
        };
        rig.open();
        rig
    }

    pub fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    /// Without threads, everything happens in an order of our choosing.
    pub fn is_simulated(&self) -> bool {
        matches!(self.world, World::Memory(..))
    }

    /// The oldest commit that anything held reads at.
    fn oldest_read(&self) -> u64 {
        let held = self.snapshots.iter().map(|(_, commit)| *commit);
        let held = held.chain(self.cursors.iter().map(|cursor| cursor.commit));
        held.chain(self.iters.iter().map(|iter| iter.commit)).min().unwrap_or(self.commits)
    }

    pub fn any_handle(&mut self) -> Handle {
        let nth = if self.random.chance(50) { 0 } else { self.random.below(self.handles.len() as u64) };
        self.handles.values().nth(nth as usize).expect("the default keyspace at least").clone()
    }

    pub fn run(&mut self, steps: u64) {
        for step in 0..steps {
            self.step = step;
            self.take_step();
            if !self.holds_readers {
                self.release_readers();
            }
        }
        self.finish();
    }

    fn take_step(&mut self) {
        match self.random.below(10_000) {
            0..2500 => self.put(),
            2500..3300 => self.delete(),
            3300..3900 => self.batch(),
            3900..5400 => self.point_reads(),
            5400..5900 => self.read_snapshot(),
            5900..6000 => self.take_snapshot(),
            6000..6080 => self.release_snapshot(),
            6080..6300 => self.new_cursor(),
            6300..7600 => self.move_cursor(),
            7600..7750 => self.drop_cursor(),
            7750..8000 => self.new_iter(),
            8000..8900 => self.move_iter(),
            8900..9050 => self.drop_iter(),
            9050..9080 => self.compare_one(),
            9080..9500 => {
                self.db().run_background_job();
            }
            9500..9560 => self.pass_time(),
            9560..9620 => self.sync(),
            9620..9660 => self.flush(),
            9660..9675 => self.compact(),
            9675..9690 => self.compact_range(),
            9690..9710 => self.settle(),
            9710..9730 => self.create_keyspace(),
            9730..9740 => self.drop_keyspace(),
            9740..9750 => self.reopen(),
            9750..9755 => self.verify(),
            9755..9800 => self.refused(),
            9800..9830 => self.use_dropped(),
            _ => self.look(),
        }
    }

    // Writes.

    fn durability(&mut self) -> WriteOptions {
        let syncs_are_cheap = self.is_simulated();
        draw::durability(&mut self.random, syncs_are_cheap)
    }

    fn put(&mut self) {
        let handle = self.any_handle();
        let (key, value) = (draw::key(&mut self.random, &self.keys), draw::value(&mut self.random));
        let options = self.durability();
        let result = handle.keyspace.put_with(&key, &value, options);
        result.unwrap_or_else(|error| panic!("{self}: put: {error}"));
        self.committed(&[(handle.space, key, Some(value))]);
    }

    fn delete(&mut self) {
        let handle = self.any_handle();
        let key = draw::key(&mut self.random, &self.keys);
        let options = self.durability();
        let result = handle.keyspace.delete_with(&key, options);
        result.unwrap_or_else(|error| panic!("{self}: delete: {error}"));
        self.committed(&[(handle.space, key, None)]);
    }

    fn batch(&mut self) {
        let spans = self.random.chance(60);
        let mut handle = self.any_handle();
        let mut batch = self.db().batch();
        let mut writes = Vec::new();
        for _ in 0..self.random.below(12) {
            if spans {
                handle = self.any_handle();
            }
            let key = draw::key(&mut self.random, &self.keys);
            let value = (!self.random.chance(30)).then(|| draw::value(&mut self.random));
            let added = match &value {
                Some(value) => batch.put(&handle.keyspace, &key, value),
                None => batch.delete(&handle.keyspace, &key),
            };
            match added {
                Ok(()) => writes.push((handle.space, key, value)),
                Err(error) if error.kind() == ErrorKind::LimitExceeded => {}
                Err(error) => panic!("{self}: add to a batch: {error}"),
            }
        }
        assert_eq!(batch.len(), writes.len(), "{self}");
        if self.random.chance(3) {
            batch.clear();
            assert!(batch.is_empty(), "{self}");
            return;
        }
        let spans = writes.iter().any(|(space, ..)| *space != writes[0].0);
        let options = self.durability();
        let before = self.db().latest_seq();
        match batch.commit_with(options) {
            Ok(receipt) => {
                assert_eq!(receipt.seq, before + writes.len() as u64, "{self}: sequence of the batch");
                assert_eq!(receipt.seq, self.db().latest_seq(), "{self}: sequence of the batch");
                self.committed(&writes);
            }
            // The durability is Memory, chosen or by default.
            Err(error) if spans && error.kind() == ErrorKind::InvalidArgument => {}
            Err(error) => panic!("{self}: commit: {error}"),
        }
    }

    fn committed(&mut self, writes: &[(usize, Vec<u8>, Option<Bytes>)]) {
        let oldest = self.oldest_read();
        self.commits += 1;
        for (space, key, value) in writes {
            self.spaces[*space].write(key, value.clone(), self.commits, oldest);
        }
    }

    /// Writes that must have no effect.
    fn refused(&mut self) {
        let handle = self.any_handle();
        let before = self.db().latest_seq();
        let too_long = vec![b'x'; draw::KEY_BYTES_MAX + 1];
        let kinds = [
            handle.keyspace.put("", "v").map_err(|error| error.kind()),
            handle.keyspace.delete("").map_err(|error| error.kind()),
            handle.keyspace.put(&too_long, "v").map_err(|error| error.kind()),
            self.db().keyspace("").map(|_| ()).map_err(|error| error.kind()),
            self.db().drop_keyspace("default").map_err(|error| error.kind()),
            self.db().drop_keyspace("no such keyspace").map_err(|error| error.kind()),
            self.db().existing_keyspace("no such keyspace").map(|_| ()).map_err(|error| error.kind()),
        ];
        let expect = [
            ErrorKind::InvalidArgument,
            ErrorKind::InvalidArgument,
            ErrorKind::LimitExceeded,
            ErrorKind::InvalidArgument,
            ErrorKind::InvalidArgument,
            ErrorKind::NotFound,
            ErrorKind::NotFound,
        ]
        .map(Err);
        assert_eq!(kinds, expect, "{self}");
        let empty = self.db().batch().commit().map(|receipt| receipt.seq);
        assert_eq!(empty.ok(), Some(before), "{self}: an empty batch");
        assert_eq!(self.db().latest_seq(), before, "{self}: refused writes have no effect");
    }

    // Shape.

    fn flush(&mut self) {
        self.db().flush().unwrap_or_else(|error| panic!("{self}: flush: {error}"));
    }

    fn settle(&mut self) {
        self.db().wait_for_background().unwrap_or_else(|error| panic!("{self}: background work: {error}"));
    }

    fn sync(&mut self) {
        let before = self.db().durable_seq();
        self.db().sync().unwrap_or_else(|error| panic!("{self}: sync: {error}"));
        assert!(self.db().durable_seq() >= before, "{self}: what is durable stays durable");
    }

    /// Lets proofs, periodic syncs and retries become due.
    fn pass_time(&mut self) {
        let millis = self.random.below(400);
        if let World::Memory(_, env) = &self.world {
            env.clock.sleep(Duration::from_millis(millis));
        }
    }

    fn compact(&mut self) {
        let alone = self.random.chance(40);
        if alone {
            self.release_readers();
        }
        let (name, handle) = self.any_named_handle();
        handle.keyspace.compact().unwrap_or_else(|error| panic!("{self}: compact: {error}"));
        let fifo = handle.keyspace.options().clone().compaction_style(CompactionStyle::Fifo);
        if alone && self.is_simulated() && *handle.keyspace.options() != fifo {
            self.check_compacted(&name, &handle);
        }
    }

    /// After a full compaction that nobody held up there is one run, with one entry for each key that has a value. What
    /// was kept for a reader in the last run may stay when the reader is gone: only tables with deletes are rewritten.
    fn check_compacted(&self, name: &str, handle: &Handle) {
        let stats = self.db().stats();
        let found = stats.keyspaces.iter().find(|keyspace| keyspace.name == name).expect("listed");
        let runs: usize = found.levels.iter().map(|level| level.runs).sum();
        let entries: u64 = found.levels.iter().map(|level| level.entries).sum();
        let live = self.spaces[handle.space].count(self.commits) as u64;
        let is_exact = entries == live || (self.holds_readers && entries > live);
        assert!(is_exact, "{self}: {entries} entries after a full compaction, {live} keys: {stats}");
        assert_eq!(runs, usize::from(entries > 0), "{self}: runs after a full compaction: {stats}");
    }

    fn compact_range(&mut self) {
        let (_, handle) = self.any_named_handle();
        let range = draw::range(&mut self.random, &self.keys);
        let result = handle.keyspace.compact_range(range);
        result.unwrap_or_else(|error| panic!("{self}: compact a range: {error}"));
    }

    fn any_named_handle(&mut self) -> (String, Handle) {
        let nth = self.random.below(self.handles.len() as u64) as usize;
        let (name, handle) = self.handles.iter().nth(nth).expect("at least one");
        (name.clone(), handle.clone())
    }

    fn verify(&mut self) {
        self.settle();
        let report = self.db().verify().unwrap_or_else(|error| panic!("{self}: verify: {error}"));
        if self.is_simulated() {
            let stats = self.db().stats();
            let levels = || stats.keyspaces.iter().flat_map(|keyspace| &keyspace.levels);
            assert_eq!(report.tables, levels().map(|level| level.tables as u64).sum::<u64>(), "{self}");
            assert_eq!(report.entries, levels().map(|level| level.entries).sum::<u64>(), "{self}");
            assert_eq!(report.bytes, levels().map(|level| level.bytes).sum::<u64>(), "{self}");
        }
    }

    /// What can be seen without changing anything.
    fn look(&mut self) {
        let stats = self.db().stats();
        assert!(stats.to_string().contains("keyspace \"default\""), "{self}");
        assert_eq!(stats.latest_seq, self.db().latest_seq(), "{self}");
        let mut names: Vec<_> = self.handles.keys().cloned().collect();
        names.sort();
        assert_eq!(self.db().keyspaces(), names, "{self}");
        if self.is_simulated() {
            // An iterator that ended reads nothing any more.
            let held = self.snapshots.len() + self.cursors.len();
            assert!(stats.readers as usize >= held, "{self}: {} readers, {held} held", stats.readers);
        }
    }

    // Keyspaces.

    fn create_keyspace(&mut self) {
        let name = *self.random.pick(&NAMES);
        let (options, lossy) = draw::keyspace_options(&mut self.random);
        let created = self.db().keyspace_with(name, &options);
        let keyspace = created.unwrap_or_else(|error| panic!("{self}: create {name:?}: {error}"));
        if let Some(handle) = self.handles.get(name) {
            assert_eq!(
                keyspace.options(),
                handle.keyspace.options(),
                "{self}: an existing one keeps its own"
            );
            return;
        }
        assert_eq!((keyspace.options(), keyspace.name()), (&options, name), "{self}");
        self.adopt(name, keyspace, lossy);
    }

    fn adopt(&mut self, name: &str, keyspace: Keyspace, lossy: bool) {
        let (options, space) = (keyspace.options().clone(), self.spaces.len());
        self.spaces.push(Space::default());
        self.known.insert(name.to_string(), Known { options, space, lossy });
        self.handles.insert(name.to_string(), Handle { keyspace, space, lossy });
    }

    fn drop_keyspace(&mut self) {
        let name = *self.random.pick(&NAMES);
        if let Some(handle) = self.handles.remove(name) {
            self.db().drop_keyspace(name).unwrap_or_else(|error| panic!("{self}: drop {name:?}: {error}"));
            self.known.remove(name);
            self.dropped.push(handle.keyspace);
        }
    }

    /// Handles of dropped keyspaces answer `NotFound`, whatever exists under their name.
    fn use_dropped(&mut self) {
        let Some(nth) = (self.random.below(4) as usize).checked_rem(self.dropped.len()) else { return };
        let keyspace = &self.dropped[nth];
        let key = self.keys[0].clone();
        let mut batch = self.db().batch();
        let snapshot = self.db().snapshot();
        let kinds = [
            keyspace.put(&key, "v").map_err(|error| error.kind()),
            keyspace.delete(&key).map_err(|error| error.kind()),
            keyspace.get(&key).map(|_| ()).map_err(|error| error.kind()),
            keyspace.multi_get(&[&key]).map(|_| ()).map_err(|error| error.kind()),
            snapshot.get_in(keyspace, &key).map(|_| ()).map_err(|error| error.kind()),
            snapshot.iter_in(keyspace).next().expect("the error").map(|_| ()).map_err(|error| error.kind()),
            keyspace.iter().next().expect("the error").map(|_| ()).map_err(|error| error.kind()),
            keyspace.iter().next_back().expect("the error").map(|_| ()).map_err(|error| error.kind()),
            keyspace.cursor().map(|_| ()).map_err(|error| error.kind()),
            batch.put(keyspace, &key, "v").map_err(|error| error.kind()),
            keyspace.compact().map_err(|error| error.kind()),
        ];
        assert_eq!(kinds, [Err(ErrorKind::NotFound); 11], "{self}");
    }

    // Sessions.

    /// Opens the database. What the reference holds must be there.
    fn open(&mut self) {
        let (keyspace, lossy) = draw::keyspace_options(&mut self.random);
        let mut options = draw::options(&mut self.random, keyspace);
        match &self.world {
            World::Memory(_, env) => options = options.env(env.clone()).background_threads(0),
            World::Disk(_) => options = options.background_threads(2),
        }
        let db = options.open(self.world.path()).unwrap_or_else(|error| panic!("{self}: open: {error}"));
        if self.spaces.is_empty() {
            self.adopt("default", db.default_keyspace(), lossy);
        }
        let names: Vec<String> = self.known.keys().cloned().collect();
        assert_eq!(db.keyspaces(), names, "{self}: keyspaces after an open");
        for (name, Known { options, space, lossy }) in &self.known {
            let keyspace = db.existing_keyspace(name).expect("listed");
            assert_eq!(keyspace.options(), options, "{self}: settings of {name} after an open");
            self.handles.insert(name.clone(), Handle { keyspace, space: *space, lossy: *lossy });
        }
        self.db = Some(db);
    }

    /// Closes, by the call or by letting go of every handle.
    fn close(&mut self) {
        let db = self.db.take().expect("open");
        let by_drop = self.random.chance(10);
        // Cursors and iterators may outlive the close.
        if by_drop || self.random.chance(70) {
            self.release_readers();
        }
        if by_drop {
            drop(db);
        } else {
            db.close().unwrap_or_else(|error| panic!("{self}: close: {error}"));
            self.use_after_close();
        }
        self.handles.clear();
        self.dropped.clear();
    }

    fn use_after_close(&mut self) {
        for handle in self.handles.values() {
            let key = &self.keys[0];
            let kinds = [
                handle.keyspace.put(key, "v").map_err(|error| error.kind()),
                handle.keyspace.get(key).map(|_| ()).map_err(|error| error.kind()),
                handle.keyspace.cursor().map(|_| ()).map_err(|error| error.kind()),
            ];
            assert_eq!(kinds, [Err(ErrorKind::Closed); 3], "{self}: after the close");
        }
        for nth in 0..self.cursors.len() {
            self.walk_cursor(nth, 4, true);
        }
        for nth in 0..self.iters.len() {
            self.walk_iter(nth, 4, true);
        }
    }

    fn reopen(&mut self) {
        self.close();
        self.open();
        // What outlived the close has done so long enough.
        self.release_readers();
        self.check_files();
        self.compare_all();
    }

    /// After a clean close there are the tables in use, the manifest and the lock, and nobody holds a file.
    fn check_files(&self) {
        let World::Memory(fs, _) = &self.world else { return };
        let files = fs.list_files();
        let count =
            |suffix: &str| files.iter().filter(|file| file.to_string_lossy().ends_with(suffix)).count();
        let stats = self.db().stats();
        let levels = stats.keyspaces.iter().flat_map(|keyspace| &keyspace.levels);
        let tables: usize = levels.map(|level| level.tables).sum();
        assert_eq!((count(".sst"), files.len()), (tables, tables + 3), "{self}: {files:?}");
    }

    pub fn release_readers(&mut self) {
        self.snapshots.clear();
        self.cursors.clear();
        self.iters.clear();
    }

    fn finish(&mut self) {
        self.compare_all();
        self.verify();
        self.reopen();
        self.verify();
        self.close();
        self.release_readers();
        if let World::Memory(fs, _) = &self.world {
            let open = fs.open_handles();
            let left: Vec<_> = open.iter().filter(|handle| handle.kind != HandleKind::Map).collect();
            assert!(left.is_empty(), "{self}: open after the end: {left:?}");
        }
    }
}
