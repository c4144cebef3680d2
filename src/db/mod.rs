//! The handles of the public API: [`Db`], [`Keyspace`], [`Snapshot`].

mod batch;
mod session;
mod transaction;

pub use batch::{Batch, Receipt};
pub use session::{Session, SessionReceipt};
pub use transaction::{Transaction, TransactionIter};

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::slice::Slice;
use crate::base::sync::{Mutex, Rank};
use crate::base::types::{KeyspaceId, micros};
use crate::engine::{
    Bounds, Core, Cursor, Event, Iter, KeyspaceCore, KeyspaceOptions, Options, Pin, PinKind, Registration,
    ResolvedOptions, Stats, Threads, VerifyReport, VersionedStore, WriteOptions, is_background_thread,
    waits_for_itself,
};
use crate::mvcc::{Sessions, Transactions};
use crate::wal::BatchBuilder;
use std::fmt;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// What all handles of an open database share; the last one to go closes it.
pub(crate) struct Handle {
    core: Arc<Core>,
    txns: Arc<Transactions>,
    /// Which sessions are open.
    sessions: Arc<Sessions>,
    /// Background threads; taken by the close.
    threads: Mutex<Option<Threads>>,
}

impl Handle {
    fn new(core: Arc<Core>, threads: Threads) -> Result<Handle> {
        let txns = match Transactions::new(Arc::clone(&core)) {
            Ok(txns) => Arc::new(txns),
            Err(error) => {
                close_unasked(&core, threads);
                return Err(error);
            }
        };
        let threads = Mutex::new(Rank::Leaf, Some(threads));
        Ok(Handle { core, txns, sessions: Sessions::new(), threads })
    }

    #[inline]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    #[inline]
    pub(crate) fn txns(&self) -> &Arc<Transactions> {
        &self.txns
    }

    fn close(&self) -> Result<()> {
        if is_background_thread() {
            return Err(waits_for_itself());
        }
        let threads = self.threads.lock().take();
        match threads {
            Some(threads) => self.core.close(threads),
            None => Ok(()),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Some(threads) = self.threads.lock().take() else { return };
        if !is_background_thread() {
            return close_unasked(&self.core, threads);
        }
        // A listener held the last handle: a thread cannot wait for its own end.
        let core = Arc::clone(&self.core);
        let closing = Box::new(move || close_unasked(&core, threads));
        if let Err(error) = self.core.env.spawner.spawn("esker-close".to_string(), closing) {
            report(&self.core, Error::io("start a thread", &self.core.dir, error));
        }
    }
}

fn close_unasked(core: &Arc<Core>, threads: Threads) {
    if let Err(error) = core.close(threads) {
        report(core, error);
    }
}

fn report(core: &Core, error: Error) {
    core.emit(&Event::BackgroundError { job: "closing the database on drop", error });
}

/// An open database. Cheap to clone; every clone is the same database.
///
/// Keys are 1 byte to 64 KiB - 1 and ordered byte by byte. A value has up to 1 GiB, as far as [`Options::memory_budget`]
/// allows: by default 96 MiB. Methods without a keyspace work on the default one. All methods can be called from many
/// threads at once.
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
        let keyspace = handle.core.state.lock().keyspaces.get(&KeyspaceId::DEFAULT).cloned();
        let Some(keyspace) = keyspace else {
            return Err(Error::corrupt(&handle.core.dir, None, "the default keyspace", "none"));
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
    /// It contains no commit that was made after that time. It may lack the last ones before it: those of the same 256th
    /// part of the retention window, and after a crash those since the last flush before the crash. A time in the
    /// future is the latest state.
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
    /// `InvalidArgument` for an empty name, one over 255 bytes or one that begins with a zero byte; as [`put`](Db::put) when it has to be created.
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
    /// `NotFound`; `InvalidArgument` for the default keyspace and for one that a prepared transaction needs; as [`put`](Db::put).
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        self.core().drop_keyspace(name, |id| self.handle().txns.prepared.dropping(id))
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

/// A keyspace: its own tree of tables and its own options, sharing the log and the commit order with the others.
///
/// Cheap to clone. See [`Db::keyspace`].
#[derive(Clone)]
pub struct Keyspace {
    handle: Arc<Handle>,
    keyspace: Arc<KeyspaceCore>,
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyspace").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Keyspace {
    /// Name.
    pub fn name(&self) -> &str {
        &self.keyspace.name
    }

    /// The options it was created with, which are in force whatever later opens ask for.
    pub fn options(&self) -> &KeyspaceOptions {
        &self.keyspace.options
    }

    pub(crate) fn belongs_to(&self, handle: &Arc<Handle>) -> bool {
        Arc::ptr_eq(&self.handle.core, &handle.core)
    }

    pub(crate) fn core_keyspace(&self) -> &Arc<KeyspaceCore> {
        &self.keyspace
    }

    #[inline]
    fn core(&self) -> &Arc<Core> {
        self.handle.core()
    }

    /// The versioned store behind it.
    #[cfg(test)]
    pub(crate) fn store(&self) -> &impl VersionedStore {
        self.core()
    }

    fn register(&self) -> Registration {
        self.core().reader(PinKind::Iterator, None)
    }

    /// Sets a key. See [`Db::put`].
    ///
    /// # Errors
    /// See [`Db::put`]; `NotFound` once the keyspace was dropped.
    #[inline]
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_with(key, value, WriteOptions::new())
    }

    /// Sets a key with options of this write.
    ///
    /// # Errors
    /// See [`put`](Keyspace::put).
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<()> {
        let (key, value) = (key.as_ref(), value.as_ref());
        let id = self.keyspace.id;
        self.write_one(options, |batch| batch.put(id, key, value))
    }

    #[inline]
    fn write_one(
        &self,
        options: WriteOptions,
        fill: impl FnOnce(&mut BatchBuilder) -> Result<()>,
    ) -> Result<()> {
        self.keyspace.check_exists()?;
        let durability = self.core().durability(options.durability);
        self.handle.txns.write_one(self.keyspace.id, durability, options.lock_wait, fill).map(|_| ())
    }

    /// Removes a key, present or not.
    ///
    /// # Errors
    /// See [`put`](Keyspace::put).
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.delete_with(key, WriteOptions::new())
    }

    /// Removes a key with options of this write.
    ///
    /// # Errors
    /// See [`put`](Keyspace::put).
    pub fn delete_with(&self, key: impl AsRef<[u8]>, options: WriteOptions) -> Result<()> {
        let key = key.as_ref();
        let id = self.keyspace.id;
        self.write_one(options, |batch| batch.delete(id, key))
    }

    /// The value of a key. See [`Db::get`].
    ///
    /// # Errors
    /// See [`Db::get`].
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.core().timed_get(|| self.core().get(&self.keyspace, key.as_ref()))
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// See [`Db::get`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// The values of several keys, all as of one moment, in the order asked.
    ///
    /// # Errors
    /// See [`Db::get`].
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Slice>>> {
        let registration = self.register();
        self.multi_get_at(keys, &registration)
    }

    fn multi_get_at<K: AsRef<[u8]>>(&self, keys: &[K], reader: &Registration) -> Result<Vec<Option<Slice>>> {
        self.core().stats.gets.add(keys.len() as u64);
        let view = self.keyspace.view();
        let get = |key: &K| self.core().get_in_view(&self.keyspace, &view, key.as_ref(), reader.seq());
        let values = keys.iter().map(get).collect::<Result<_>>()?;
        reader.check()?;
        Ok(values)
    }

    /// About how many bytes of tables a range of keys takes on disk. What is still in memory does not count.
    ///
    /// # Errors
    /// `Corruption`, `Io`, `Closed`, `NotFound` once the keyspace was dropped.
    pub fn approximate_bytes<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<u64> {
        self.core().approximate_bytes(&self.keyspace, &Bounds::range(&range))
    }

    /// All entries in key order.
    pub fn iter(&self) -> Iter {
        self.iter_over(Bounds::default())
    }

    /// The entries whose keys lie in a range.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        self.iter_over(Bounds::range(&range))
    }

    /// The entries whose keys start with these bytes.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        self.iter_over(Bounds::prefix(prefix.as_ref()))
    }

    fn iter_over(&self, bounds: Bounds) -> Iter {
        Iter::new(self.core().cursor_at(&self.keyspace, self.register(), bounds))
    }

    /// A cursor that lends keys and values.
    ///
    /// # Errors
    /// `Closed`; `NotFound` once the keyspace was dropped.
    pub fn cursor(&self) -> Result<Cursor> {
        self.core().cursor_at(&self.keyspace, self.register(), Bounds::default())
    }

    /// Rewrites the keyspace's tables into one sorted run, dropping what no reader needs.
    ///
    /// # Errors
    /// See [`Db::compact`].
    pub fn compact(&self) -> Result<()> {
        self.core().compact_range(&self.keyspace, None, None)
    }

    /// As [`compact`](Keyspace::compact) for the keys of a range.
    ///
    /// # Errors
    /// See [`Db::compact`].
    pub fn compact_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        let bounds = Bounds::range(&range);
        self.core().compact_range(&self.keyspace, bounds.lower.as_deref(), bounds.upper.as_deref())
    }
}

/// The state of the database at one moment, across all keyspaces. Reads like the database.
///
/// Keeps the versions it sees from being dropped: let go of it when done.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = esker::Db::open(dir.path())?;
/// db.put("k", "old")?;
/// let snapshot = db.snapshot();
/// db.put("k", "new")?;
/// assert_eq!(snapshot.get("k")?.unwrap(), "old");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Snapshot {
    default: Keyspace,
    registration: Registration,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("seq", &self.seq()).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Sequence number of the newest commit it sees.
    pub fn seq(&self) -> u64 {
        self.registration.seq()
    }

    /// The value of a key in the default keyspace.
    ///
    /// # Errors
    /// See [`Db::get`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.get_in(&self.default, key)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// See [`Db::get`]; `SnapshotTooOld` when it was given up for its age ([`Options::max_snapshot_age`]), as from
    /// every other read; `InvalidArgument` for a keyspace of another database.
    pub fn get_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.check(keyspace)?;
        keyspace
            .core()
            .timed_get(|| keyspace.core().read_at(&keyspace.keyspace, key.as_ref(), &self.registration))
    }

    /// The values of several keys of the default keyspace.
    ///
    /// # Errors
    /// See [`Db::get`].
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Slice>>> {
        self.multi_get_in(&self.default, keys)
    }

    /// The values of several keys.
    ///
    /// # Errors
    /// See [`get_in`](Snapshot::get_in).
    pub fn multi_get_in<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        keys: &[K],
    ) -> Result<Vec<Option<Slice>>> {
        self.check(keyspace)?;
        keyspace.multi_get_at(keys, &self.registration)
    }

    /// All entries of the default keyspace in key order.
    pub fn iter(&self) -> Iter {
        self.iter_over(&self.default, Bounds::default())
    }

    /// All entries of a keyspace in key order.
    pub fn iter_in(&self, keyspace: &Keyspace) -> Iter {
        self.iter_over(keyspace, Bounds::default())
    }

    /// The entries of the default keyspace whose keys lie in a range.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        self.iter_over(&self.default, Bounds::range(&range))
    }

    /// The entries of a keyspace whose keys lie in a range.
    pub fn range_in<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, range: impl RangeBounds<K>) -> Iter {
        self.iter_over(keyspace, Bounds::range(&range))
    }

    /// The entries of the default keyspace whose keys start with these bytes.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        self.iter_over(&self.default, Bounds::prefix(prefix.as_ref()))
    }

    /// The entries of a keyspace whose keys start with these bytes.
    pub fn prefix_in(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> Iter {
        self.iter_over(keyspace, Bounds::prefix(prefix.as_ref()))
    }

    /// A cursor over the default keyspace.
    ///
    /// # Errors
    /// `Closed`.
    pub fn cursor(&self) -> Result<Cursor> {
        self.cursor_in(&self.default)
    }

    /// A cursor over a keyspace.
    ///
    /// # Errors
    /// `Closed`, `NotFound`, `InvalidArgument` for a keyspace of another database.
    pub fn cursor_in(&self, keyspace: &Keyspace) -> Result<Cursor> {
        self.check(keyspace)?;
        keyspace.core().cursor_at(
            &keyspace.keyspace,
            self.registration.fork(PinKind::Iterator),
            Bounds::default(),
        )
    }

    fn iter_over(&self, keyspace: &Keyspace, bounds: Bounds) -> Iter {
        let cursor = self.check(keyspace).and_then(|()| {
            let reader = self.registration.fork(PinKind::Iterator);
            keyspace.core().cursor_at(&keyspace.keyspace, reader, bounds)
        });
        Iter::new(cursor)
    }

    fn check(&self, keyspace: &Keyspace) -> Result<()> {
        if keyspace.belongs_to(&self.default.handle) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidArgument, "the keyspace belongs to another database"))
    }
}
