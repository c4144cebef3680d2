//! The handle of a transaction, and how to begin one.

use super::{Db, Handle, Keyspace, Receipt};
use crate::base::deadlock::DeadlockReport;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::slice::Slice;
use crate::engine::{Bounds, KeyspaceCore, WriteOptions};
use crate::mvcc::{
    Isolation, Mode, PreparedTransaction, RetryPolicy, TransactionInfo, TransactionOptions, TransactionStats,
    Txn, TxnIter, WaitGraph,
};
use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;

/// Reads and writes over any keyspaces that take effect together or not at all.
///
/// Begun by [`Db::begin`]. Writes are seen by the transaction itself at once, by others after the commit (by READ
/// UNCOMMITTED transactions at once). Dropping it rolls it back. A transaction belongs to one thread at a time.
///
/// After an error of kind `Conflict`, `Deadlock`, `SnapshotTooOld`, or one of the storage such as `Io` and `Corruption`,
/// the transaction has let go of its locks and answers `TransactionFailed` to everything but
/// [`rollback`](Transaction::rollback). `InvalidArgument`, `LimitExceeded`, `NotFound` and `LockTimeout` leave it as it was.
///
/// Only what is called on the transaction is part of it. A write through [`Db`] or a [`Keyspace`] is not, and waits for
/// the transaction like anybody else's where it meets its locks: on the same thread until the lock timeout.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = esker::Db::open(dir.path())?;
/// use esker::Isolation;
/// let accounts = db.keyspace("accounts")?;
/// accounts.put("a", "100")?;
///
/// let mut txn = db.begin(Isolation::Serializable)?;
/// let balance = txn.get(&accounts, "a")?.unwrap();
/// let balance: u64 = std::str::from_utf8(&balance).unwrap().parse().unwrap();
/// txn.put(&accounts, "a", (balance - 10).to_string())?;
/// txn.commit()?;
/// assert_eq!(accounts.get("a")?.unwrap(), "90");
/// # Ok(()) }
/// ```
pub struct Transaction {
    pub(super) handle: Arc<Handle>,
    pub(super) txn: Box<Txn>,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("id", &self.id())
            .field("isolation", &self.isolation())
            .field("label", &self.label())
            .finish_non_exhaustive()
    }
}

impl Transaction {
    /// Number, unique while the database is open; stands in errors and reports.
    pub fn id(&self) -> u64 {
        self.txn.id()
    }

    /// Level.
    pub fn isolation(&self) -> Isolation {
        self.txn.options().isolation
    }

    /// What it was called.
    pub fn label(&self) -> Option<&str> {
        self.txn.options().label.as_deref()
    }

    /// Sequence number of the commit up to which its reads see, for levels that read from a snapshot; `None` for the
    /// others, and before a lazy snapshot is taken.
    pub fn snapshot_seq(&self) -> Option<u64> {
        self.txn.snapshot_seq()
    }

    fn keyspace<'k>(&self, keyspace: &'k Keyspace) -> Result<&'k Arc<KeyspaceCore>> {
        if keyspace.belongs_to(&self.handle) {
            return Ok(keyspace.core_keyspace());
        }
        Err(Error::new(ErrorKind::InvalidArgument, "the keyspace belongs to another database"))
    }

    /// The value of a key, as the level shows it, own writes first.
    ///
    /// # Errors
    /// `Corruption`, `Io`, `NotFound` for a dropped keyspace, `SnapshotTooOld`, `TransactionFailed`, `Closed`.
    pub fn get(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.txn.get(self.keyspace(keyspace)?, key.as_ref())
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// See [`get`](Transaction::get).
    pub fn contains_key(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(keyspace, key)?.is_some())
    }

    /// The values of several keys in the order asked; as of one moment at every level but READ UNCOMMITTED.
    ///
    /// # Errors
    /// See [`get`](Transaction::get).
    pub fn multi_get<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, keys: &[K]) -> Result<Vec<Option<Slice>>> {
        self.txn.multi_get(self.keyspace(keyspace)?, keys)
    }

    /// All entries of a keyspace in key order.
    pub fn iter(&self, keyspace: &Keyspace) -> TransactionIter<'_> {
        self.iter_over(keyspace, Bounds::default())
    }

    /// The entries whose keys lie in a range.
    pub fn range<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        range: impl RangeBounds<K>,
    ) -> TransactionIter<'_> {
        self.iter_over(keyspace, Bounds::range(&range))
    }

    /// The entries whose keys start with these bytes.
    pub fn prefix(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> TransactionIter<'_> {
        self.iter_over(keyspace, Bounds::prefix(prefix.as_ref()))
    }

    fn iter_over(&self, keyspace: &Keyspace, bounds: Bounds) -> TransactionIter<'_> {
        let iter = self.keyspace(keyspace).and_then(|keyspace| self.txn.iter(keyspace, bounds));
        match iter {
            Ok(iter) => TransactionIter { iter: Some(iter), error: None },
            Err(error) => TransactionIter { iter: None, error: Some(error) },
        }
    }

    /// Takes the exclusive lock of a key, then reads it: nobody changes it before this transaction has ended.
    ///
    /// # Errors
    /// See [`put`](Transaction::put).
    pub fn get_for_update(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.txn.get_locked(self.keyspace(keyspace)?, key.as_ref(), Mode::Exclusive)
    }

    /// Takes a shared lock of a key, then reads it: others may read it so too, nobody may change it.
    ///
    /// # Errors
    /// See [`put`](Transaction::put).
    pub fn get_for_share(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.txn.get_locked(self.keyspace(keyspace)?, key.as_ref(), Mode::Shared)
    }

    /// Locks a range, keys that are absent included, then reads it: nobody changes, removes or adds anything in it
    /// before this transaction has ended.
    ///
    /// # Errors
    /// See [`put`](Transaction::put).
    pub fn scan_for_update<K: AsRef<[u8]>>(
        &mut self,
        keyspace: &Keyspace,
        range: impl RangeBounds<K>,
    ) -> Result<Vec<(Slice, Slice)>> {
        self.txn.scan_locked(self.keyspace(keyspace)?, Bounds::range(&range))
    }

    /// Sets a key. Takes its exclusive lock, and keeps it to the end.
    ///
    /// # Errors
    /// `Conflict`: at levels with a snapshot, somebody changed the key since. `Deadlock`: this transaction was chosen
    /// as the victim. `LockTimeout`: the lock was not granted in time; nothing was done. `LimitExceeded`,
    /// `InvalidArgument`, `NotFound`: nothing was done. `TransactionFailed`, `Closed`, and as [`get`](Transaction::get).
    pub fn put(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.txn.write(self.keyspace(keyspace)?, key.as_ref(), Some(value.as_ref()))
    }

    /// Removes a key, present or not. Takes its exclusive lock.
    ///
    /// # Errors
    /// See [`put`](Transaction::put).
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<()> {
        self.txn.write(self.keyspace(keyspace)?, key.as_ref(), None)
    }

    /// Marks a point to go back to. Savepoints nest.
    pub fn savepoint(&mut self) {
        self.txn.savepoint();
    }

    /// Undoes all writes since the innermost savepoint, which ends. Locks taken since stay.
    ///
    /// # Errors
    /// `InvalidArgument` when no savepoint is open; `TransactionFailed`.
    pub fn rollback_to_savepoint(&mut self) -> Result<()> {
        self.txn.rollback_to_savepoint()
    }

    /// Ends the innermost savepoint and keeps what was written since.
    ///
    /// # Errors
    /// See [`rollback_to_savepoint`](Transaction::rollback_to_savepoint).
    pub fn release_savepoint(&mut self) -> Result<()> {
        self.txn.release_savepoint()
    }

    /// Makes all writes visible and, with the transaction's or the database's durability, durable.
    ///
    /// # Errors
    /// `Conflict`: at SERIALIZABLE and in optimistic transactions. `OutcomeUnknown`: the disk did not confirm; after
    /// reopening the transaction is there whole or not at all. With any other error nothing of it is or ever will be
    /// there. See also [`Db::put`].
    pub fn commit(self) -> Result<Receipt> {
        self.commit_with(WriteOptions::new())
    }

    /// Commits with options of this commit: its durability. How long a transaction waits for locks is in its own options.
    ///
    /// # Errors
    /// See [`commit`](Transaction::commit); `InvalidArgument` for durability `Memory`.
    pub fn commit_with(self, options: WriteOptions) -> Result<Receipt> {
        let seq = self.txn.commit(options.durability)?;
        Ok(Receipt { seq })
    }

    /// Makes the writes durable and keeps the locks, without committing: the first phase of a two-phase commit. From
    /// then on the transaction is in the hands of [`Db::commit_prepared`] and [`Db::rollback_prepared`], also after a
    /// crash. `xid` is the coordinator's name for it, 1 to 255 bytes.
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = esker::Db::open(dir.path())?;
    /// # let accounts = db.keyspace("accounts")?;
    /// let mut txn = db.begin(esker::Isolation::Serializable)?;
    /// txn.put(&accounts, "a", "1")?;
    /// txn.prepare("xid-42")?;
    /// // Here the process may crash: after reopening the transaction is still prepared.
    /// assert_eq!(db.prepared_transactions()[0].xid, "xid-42");
    /// db.commit_prepared("xid-42")?;
    /// assert_eq!(accounts.get("a")?.unwrap(), "1");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`commit`](Transaction::commit); `InvalidArgument` for a name in use or too long; `LimitExceeded` beyond
    /// [`Options::prepared_bytes_max`](crate::Options::prepared_bytes_max). The transaction is rolled back then, except
    /// after `OutcomeUnknown`.
    pub fn prepare(self, xid: &str) -> Result<()> {
        self.txn.prepare(xid)
    }

    /// Forgets all writes and lets go of all locks. Dropping does the same.
    pub fn rollback(self) {}
}

/// Entries inside a transaction, in key order, from both ends, own writes included. At every level but READ
/// UNCOMMITTED they are of one state.
///
/// Items are `Result<(key, value)>`; after an error the iterator ends.
pub struct TransactionIter<'t> {
    iter: Option<TxnIter<'t>>,
    error: Option<Error>,
}

impl fmt::Debug for TransactionIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionIter").finish_non_exhaustive()
    }
}

impl TransactionIter<'_> {
    /// Makes `next` yield the first entry whose key is at or after this one, within the iterator's range and before
    /// what `next_back` has yielded. An iterator that has ended stays ended.
    ///
    /// # Errors
    /// See [`Transaction::get`].
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        match (&mut self.iter, self.error.take()) {
            (_, Some(error)) => Err(error),
            (Some(iter), None) => iter.seek(key.as_ref()),
            (None, None) => Ok(()),
        }
    }
}

impl Iterator for TransactionIter<'_> {
    type Item = Result<(Slice, Slice)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.error.take() {
            Some(error) => Some(Err(error)),
            None => self.iter.as_mut()?.next(),
        }
    }
}

impl DoubleEndedIterator for TransactionIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self.error.take() {
            Some(error) => Some(Err(error)),
            None => self.iter.as_mut()?.next_back(),
        }
    }
}

impl std::iter::FusedIterator for TransactionIter<'_> {}

impl Db {
    /// Begins a transaction of this level.
    ///
    /// # Errors
    /// `Poisoned`, `ReadOnly`, `Closed`.
    pub fn begin(&self, isolation: Isolation) -> Result<Transaction> {
        self.begin_with(TransactionOptions::new(isolation))
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// See [`begin`](Db::begin); `InvalidArgument` for options that exclude each other.
    pub fn begin_with(&self, options: TransactionOptions) -> Result<Transaction> {
        let txn = self.handle().txns().begin(options)?;
        Ok(Transaction { handle: Arc::clone(self.handle()), txn })
    }

    /// Runs `body` in a transaction and commits it; after an error that [may pass](crate::Error::is_retryable), as when
    /// another transaction was in the way, from the start again, up to ten times with pauses that grow. So `body` may
    /// run several times: it should do nothing beside the transaction that cannot be done twice. Each attempt may wait
    /// for locks as long as [`Options::lock_timeout`](crate::Options::lock_timeout) says, and when the engine is behind,
    /// as long as [`Options::stall_timeout`](crate::Options::stall_timeout) says.
    ///
    /// Whatever `Ok` the body returns, what it wrote is committed. To give up, return
    /// [`Error::aborted`](crate::Error::aborted), or any other error:
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = esker::Db::open(dir.path())?;
    /// # let counters = db.keyspace("counters")?;
    /// let visits = db.transact(esker::Isolation::Serializable, |txn| {
    ///     let visits = txn.get(&counters, "visits")?.map_or(0, |value| value[0]) + 1;
    ///     txn.put(&counters, "visits", [visits])?;
    ///     Ok(visits)
    /// })?;
    /// assert_eq!(visits, 1);
    ///
    /// let refused = db.transact(esker::Isolation::Serializable, |txn| {
    ///     txn.put(&counters, "visits", [100])?;
    ///     Err::<(), _>(esker::Error::aborted("too many"))
    /// });
    /// assert_eq!(refused.unwrap_err().kind(), esker::ErrorKind::Aborted);
    /// assert_eq!(counters.get("visits")?.unwrap()[0], 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The error of `body` or of the commit if it is not one to try again on; after the last attempt the last error,
    /// which then says how many attempts were made.
    pub fn transact<T>(
        &self,
        isolation: Isolation,
        body: impl FnMut(&mut Transaction) -> Result<T>,
    ) -> Result<T> {
        self.transact_with(TransactionOptions::new(isolation), RetryPolicy::default(), body)
    }

    /// As [`transact`](Db::transact) with options and a policy of one's own.
    ///
    /// # Errors
    /// See [`transact`](Db::transact).
    pub fn transact_with<T>(
        &self,
        options: TransactionOptions,
        policy: RetryPolicy,
        mut body: impl FnMut(&mut Transaction) -> Result<T>,
    ) -> Result<T> {
        self.handle().txns().transact(&options, &policy, |txn| {
            let mut transaction = Transaction { handle: Arc::clone(self.handle()), txn };
            let value = body(&mut transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    /// The transactions that are prepared and not ended, by name.
    pub fn prepared_transactions(&self) -> Vec<PreparedTransaction> {
        self.handle().txns().list_prepared()
    }

    /// Commits a prepared transaction. Durable when this returns.
    ///
    /// # Errors
    /// `NotFound`; `Locked` while another thread ends it; as [`put`](Db::put): it is still prepared then, unless
    /// `OutcomeUnknown`.
    pub fn commit_prepared(&self, xid: &str) -> Result<Receipt> {
        let seq = self.handle().txns().commit_prepared(xid)?;
        Ok(Receipt { seq })
    }

    /// Rolls a prepared transaction back. Durable when this returns.
    ///
    /// # Errors
    /// See [`commit_prepared`](Db::commit_prepared).
    pub fn rollback_prepared(&self, xid: &str) -> Result<()> {
        self.handle().txns().rollback_prepared(xid)
    }

    /// All open transactions, oldest first: who holds which locks, and who waits for what.
    pub fn transactions(&self) -> Vec<TransactionInfo> {
        self.handle().txns().list()
    }

    /// What transactions did so far.
    pub fn transaction_stats(&self) -> TransactionStats {
        self.handle().txns().stats()
    }

    /// Who waits for whom at this moment.
    pub fn wait_graph(&self) -> WaitGraph {
        self.handle().txns().wait_graph()
    }

    /// The last deadlocks, oldest first; [`Options::deadlock_reports`](crate::Options::deadlock_reports) of them are
    /// kept.
    pub fn deadlocks(&self) -> Vec<DeadlockReport> {
        self.handle().txns().deadlocks()
    }
}
