//! The handles of the public API. Here [`Db`], whose methods without a keyspace hand on to the default one.

mod batch;
mod handle;
mod keyspace;
mod session;
mod snapshot;
mod transaction;

pub use batch::{Batch, Receipt};
pub use keyspace::Keyspace;
pub use session::{Session, SessionReceipt};
pub use snapshot::Snapshot;
pub use transaction::{Transaction, TransactionIter};

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::slice::Slice;
use crate::base::types::{KeyspaceId, micros};
use crate::engine::{
    Core, Cursor, Iter, KeyspaceOptions, Options, Pin, PinKind, Registration, ResolvedOptions, Stats,
    VerifyReport, VersionedStore, WriteOptions,
};
use handle::Handle;
use std::fmt;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// An open database. Cheap to clone; every clone is the same database.
///
/// Keys are 1 byte to 64 KiB - 1 and ordered byte by byte. A value has up to 1 GiB, as far as
/// [`Options::memory_budget`] allows: by default 96 MiB. Methods without a keyspace work on the default one. All
/// methods can be called from many threads at once.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// let db = esker::Db::open(path)?;
/// db.put("user:1", "ada")?; // on the disk when this returns
/// assert_eq!(db.get("user:1")?.unwrap(), "ada");
/// for item in db.prefix("user:") {
///     let (key, value) = item?;
///     println!("{key:?} = {value:?}");
/// }
/// db.close()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Db {
    default: Keyspace,
}

impl Options {
    /// Opens the database in this directory, creating it if it is not there.
    ///
    /// # Errors
    /// `InvalidArgument` (all problems at once), `Locked`, `NotADatabase`, `VersionUnsupported`, `Corruption`,
    /// `NotFound` (missing and [`create_if_missing`](Options::create_if_missing) is off), `Io`. Nothing is touched
    /// when the open is refused.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db> {
        let (core, threads) = crate::engine::open(self, path.as_ref())?;
        Db::new(Handle::new(core, threads)?)
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("path", &self.core().dir).finish_non_exhaustive()
    }
}

impl Db {
    /// Opens the database in this directory with default options, creating it if it is not there.
    ///
    /// # Errors
    /// See [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Db> {
        Options::new().open(path)
    }

    fn new(handle: Handle) -> Result<Db> {
        let handle = Arc::new(handle);
        let keyspace = handle.core().state.lock().keyspaces.get(&KeyspaceId::DEFAULT).cloned();
        let Some(keyspace) = keyspace else {
            return Err(Error::corrupt(&handle.core().dir, None, "the default keyspace", "none"));
        };
        Ok(Db { default: Keyspace { handle, keyspace } })
    }

    #[inline]
    fn core(&self) -> &Arc<Core> {
        self.default.handle.core()
    }

    #[inline]
    fn handle(&self) -> &Arc<Handle> {
        &self.default.handle
    }

    /// Sets a key, with the database's durability (by default: on the disk when this returns).
    ///
    /// # Errors
    /// Nothing was written with `InvalidArgument`, `LimitExceeded`, `NoSpace`, `Stalled`, `Io`, `Poisoned`, `Closed`.
    /// With `OutcomeUnknown` the disk did not confirm: after reopening the write is there whole or not at all.
    ///
    /// While transactions are open also, with nothing written: `LockTimeout` when one of them has locked the key for
    /// longer than [`Options::lock_timeout`], `Deadlock`, and `Conflict` over what a prepared one has read.
    #[inline]
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.default.put(key, value)
    }

    /// Sets a key with options of this write.
    ///
    /// # Errors
    /// See [`put`](Db::put).
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<()> {
        self.default.put_with(key, value, options)
    }

    /// Removes a key, present or not.
    ///
    /// # Errors
    /// See [`put`](Db::put).
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.default.delete(key)
    }

    /// Removes a key with options of this write.
    ///
    /// # Errors
    /// See [`put`](Db::put).
    pub fn delete_with(&self, key: impl AsRef<[u8]>, options: WriteOptions) -> Result<()> {
        self.default.delete_with(key, options)
    }

    /// The value of a key, `None` when it has none.
    ///
    /// # Errors
    /// `Corruption`, `Io`: never taken for absence. `Closed`.
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.default.get(key)
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// See [`get`](Db::get).
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.default.contains_key(key)
    }

    /// The values of several keys, all as of one moment, in the order asked.
    ///
    /// # Errors
    /// See [`get`](Db::get).
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Slice>>> {
        self.default.multi_get(keys)
    }

    /// All entries in key order.
    pub fn iter(&self) -> Iter {
        self.default.iter()
    }

    /// The entries whose keys lie in a range.
    ///
    /// A range without a key in it, and one of [`Bound`](std::ops::Bound)s, has to say of which type its keys are:
    ///
    /// ```
    /// # use std::ops::Bound;
    /// # fn main() -> esker::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = esker::Db::open(dir.path())?;
    /// for key in ["a", "b", "c"] { db.put(key, "value")?; }
    /// let keys = |iter: esker::Iter| iter.map(|item| Ok(item?.0)).collect::<esker::Result<Vec<_>>>();
    /// assert_eq!(keys(db.range("b"..))?, ["b", "c"]);
    /// assert_eq!(keys(db.range::<&str>(..))?, ["a", "b", "c"]);
    /// assert_eq!(keys(db.range::<&str>((Bound::Excluded("a"), Bound::Included("b"))))?, ["b"]);
    /// # Ok(()) }
    /// ```
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        self.default.range(range)
    }

    /// The entries whose keys start with these bytes.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        self.default.prefix(prefix)
    }

    /// A cursor that lends keys and values.
    ///
    /// # Errors
    /// `Closed`.
    pub fn cursor(&self) -> Result<Cursor> {
        self.default.cursor()
    }

    /// The state of all keyspaces at this moment, to read from as long as it is kept.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_of(self.core().reader(PinKind::Snapshot, None))
    }

    /// As [`snapshot`](Db::snapshot), under a name that shows in [`pins`](Db::pins) and in events.
    pub fn snapshot_labeled(&self, label: impl Into<String>) -> Snapshot {
        let label = Arc::from(label.into());
        self.snapshot_of(self.core().reader(PinKind::Snapshot, Some(label)))
    }

    /// The state of all keyspaces as of a sequence number of the past, such as one that
    /// [`latest_seq`](Db::latest_seq), [`Snapshot::seq`] or a [`Receipt`] answered.
    ///
    /// What can be read is what [`Options::retention`] keeps, the latest state, and what a living snapshot reads
    /// already. Snapshots of one sequence number are equal, whatever was flushed, compacted or reopened in between. A
    /// keyspace that was created later reads as empty; one that was dropped since is gone, with its past. Sequence
    /// numbers above [`durable_seq`](Db::durable_seq) may stand for other commits after a power cut.
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    /// let db = esker::Options::new().retention(Duration::from_secs(3600)).open(dir.path())?;
    /// db.put("k", "old")?;
    /// let before = db.latest_seq();
    /// db.put("k", "new")?;
    /// db.flush()?;
    /// db.compact()?;
    /// assert_eq!(db.snapshot_at(before)?.get("k")?.unwrap(), "old");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `SnapshotTooOld`, naming the oldest that can be read; `InvalidArgument` above the latest; `Closed`.
    pub fn snapshot_at(&self, seq: u64) -> Result<Snapshot> {
        self.core().health.check_open()?;
        Ok(self.snapshot_of(self.core().reader_at(seq)?))
    }

    /// The state of all keyspaces at a time of the past, by the calendar clock that was in force then. See
    /// [`snapshot_at`](Db::snapshot_at).
    ///
    /// It contains no commit that was made after that time. It may lack the last ones before it: those of the same
    /// 256th part of the retention window, and after a crash those since the last flush before the crash. A time in
    /// the future is the latest state.
    ///
    /// # Errors
    /// `SnapshotTooOld`, naming the oldest that can be read; `Closed`.
    pub fn snapshot_at_time(&self, time: SystemTime) -> Result<Snapshot> {
        self.core().health.check_open()?;
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at_micros = micros(since_epoch);
        Ok(self.snapshot_of(self.core().reader_at_time(at_micros)?))
    }

    fn snapshot_of(&self, registration: Registration) -> Snapshot {
        Snapshot { registration, default: self.default.clone() }
    }

    /// Who keeps old versions from being dropped, oldest first: snapshots, iterators, cursors, transactions. Not those
    /// that were given up for their age ([`Options::max_snapshot_age`]), and not [`Options::retention`].
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = esker::Db::open(dir.path())?;
    /// let export = db.snapshot_labeled("nightly export");
    /// db.put("k", "v")?;
    /// for pin in db.pins() {
    ///     println!("{pin}"); // snapshot "nightly export" at 0, 2.1ms old, about 18 bytes
    /// }
    /// assert_eq!(db.pins()[0].label.as_deref(), Some("nightly export"));
    /// drop(export);
    /// assert!(db.pins().is_empty());
    /// # Ok(()) }
    /// ```
    pub fn pins(&self) -> Vec<Pin> {
        self.core().pins()
    }

    /// An empty batch.
    pub fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.default.handle))
    }

    /// The keyspace of this name, created with default options if it does not exist. `"default"` is the name of the
    /// default keyspace.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty name, one over 255 bytes or one that begins with a zero byte; as
    /// [`put`](Db::put) when it has to be created.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        self.keyspace_with(name, &KeyspaceOptions::default())
    }

    /// The keyspace of this name, created with these options if it does not exist. An existing keyspace keeps its own.
    ///
    /// # Errors
    /// See [`keyspace`](Db::keyspace).
    pub fn keyspace_with(&self, name: &str, options: &KeyspaceOptions) -> Result<Keyspace> {
        let keyspace = self.core().keyspace_or_create(name, options)?;
        Ok(Keyspace { handle: Arc::clone(&self.default.handle), keyspace })
    }

    /// The keyspace of this name.
    ///
    /// # Errors
    /// `NotFound` if it does not exist.
    pub fn existing_keyspace(&self, name: &str) -> Result<Keyspace> {
        self.core().health.check_open()?;
        match self.core().find_keyspace(name) {
            Some(keyspace) => Ok(Keyspace { handle: Arc::clone(&self.default.handle), keyspace }),
            None => Err(Error::new(ErrorKind::NotFound, format!("there is no keyspace {name:?}"))),
        }
    }

    /// Removes a keyspace and all its data. Handles of it answer `NotFound` from then on. Its files go when the last
    /// reader is gone.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for the default keyspace and for one that a prepared transaction needs; as
    /// [`put`](Db::put).
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        self.core().drop_keyspace(name, |id| self.handle().txns().prepared.dropping(id))
    }

    /// Names of all keyspaces, sorted.
    pub fn keyspaces(&self) -> Vec<String> {
        self.core().keyspace_names()
    }

    /// The keyspace that the methods of `Db` itself work on.
    pub fn default_keyspace(&self) -> Keyspace {
        self.default.clone()
    }

    /// Makes every logged commit so far durable, whatever its own durability was.
    ///
    /// # Errors
    /// The failed sync; the database is poisoned then.
    pub fn sync(&self) -> Result<()> {
        self.core().sync()
    }

    /// Every logged commit up to this sequence number survives a power cut. A commit's own is in its
    /// [`Receipt`](crate::Receipt), or at most the [`latest_seq`](Db::latest_seq) after its call returned.
    pub fn durable_seq(&self) -> u64 {
        self.core().pipeline.durable()
    }

    /// Sequence number of the newest commit that readers see.
    pub fn latest_seq(&self) -> u64 {
        self.core().visible_seq()
    }

    /// Writes what is in memory into tables, in all keyspaces.
    ///
    /// # Errors
    /// `NoSpace`, `Poisoned`, `Stalled`, `Io`, `Closed`.
    pub fn flush(&self) -> Result<()> {
        let keyspaces: Vec<_> = self.core().state.lock().keyspaces.values().cloned().collect();
        self.core().health.check_writable()?;
        for keyspace in keyspaces {
            match self.core().flush_keyspace(&keyspace) {
                Err(_) if keyspace.is_dropped() => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Rewrites the tables of the default keyspace into one sorted run, dropping what no reader needs.
    ///
    /// # Errors
    /// `NoSpace`, `Poisoned`, `Corruption`, `Io`, `Closed`; the data is as before.
    pub fn compact(&self) -> Result<()> {
        self.default.compact()
    }

    /// As [`compact`](Db::compact) for the keys of a range.
    ///
    /// # Errors
    /// See [`compact`](Db::compact).
    pub fn compact_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        self.default.compact_range(range)
    }

    /// Returns when flushes and compactions have nothing left to do.
    ///
    /// # Errors
    /// `NoSpace`, `Poisoned`, `Closed`.
    pub fn wait_for_background(&self) -> Result<()> {
        self.core().wait_for_background()
    }

    /// Runs one queued piece of background work on this thread; says whether there was one. For databases opened
    /// with [`background_threads(0)`](Options::background_threads), such as simulations.
    pub fn run_background_job(&self) -> bool {
        self.core().run_one_job()
    }

    /// Sizes, counts and latencies.
    pub fn stats(&self) -> Stats {
        self.core().statistics()
    }

    /// The options in force, which are not always those asked for: what was chosen for the default keyspace when the
    /// database was created wins.
    pub fn options(&self) -> &ResolvedOptions {
        &self.core().options
    }

    /// Reads every table from the first to the last byte and checks checksums, order, counts and structure.
    ///
    /// # Errors
    /// `Corruption` with the first damage found, `Io`.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.core().verify()
    }

    /// Flushes, marks the database clean and stops its threads, for all handles. Also done when the last handle is
    /// dropped, where errors go to the event listener.
    ///
    /// # Errors
    /// What kept memory from being flushed. Nothing is lost then: the next open recovers it from the log.
    pub fn close(self) -> Result<()> {
        self.default.handle.close()
    }
}
