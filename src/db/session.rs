//! `Session`: writes that are numbered, so that after a crash a producer resumes with the first one that is missing.

use super::{Batch, Db, Handle, Keyspace, Transaction};
use crate::base::error::{Error, ErrorKind, Result};
use crate::engine::WriteOptions;
use crate::mvcc::{SessionCore, SessionInfo, Sessions, Stamp, Stamped};
use crate::wal::BatchBuilder;
use std::fmt;
use std::sync::Arc;

impl Db {
    /// Opens the session of this name, new or not.
    ///
    /// A session belongs to one producer at a time. Its operations carry serial numbers 1, 2, 3 and so on;
    /// [`recovered_serial`](Session::recovered_serial) says with which of them the database came back.
    ///
    /// # Errors
    /// `InvalidArgument` unless the name has 1 to 255 bytes; `Locked` while the session is open elsewhere in this
    /// process; `Poisoned`, `Closed`, `Corruption`, `Io`.
    pub fn session(&self, name: &str) -> Result<Session> {
        let handle = &self.default.handle;
        let session = handle.sessions.open(handle.core(), name)?;
        Ok(Session { handle: Arc::clone(handle), session })
    }

    /// The sessions that have operations in the database, open or not, in the order of their names.
    ///
    /// # Errors
    /// `Closed`, `Corruption`, `Io`.
    pub fn sessions(&self) -> Result<Vec<SessionInfo>> {
        Sessions::list(self.core())
    }

    /// Removes what is stored of a session, not what it wrote; a later session of this name starts at 0. Durable when
    /// this returns.
    ///
    /// # Errors
    /// `NotFound`; `Locked` while the session is open; as [`put`](Db::put).
    pub fn forget_session(&self, name: &str) -> Result<()> {
        self.default.handle.sessions.forget(self.core(), name)
    }
}

/// Writes with serial numbers. See [`Db::session`].
///
/// The number of the last operation is stored in the same batch as the operation. So after any crash
/// [`recovered_serial`](Session::recovered_serial) is exactly the last operation that survived: with
/// [`Disk`](crate::Durability::Disk) at least the last one that was acknowledged. A producer that applies its input in
/// order and resumes after that number applies everything exactly once.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = esker::Db::open(dir.path())?;
/// # let events = ["a", "b", "c"];
/// let counters = db.keyspace("counters")?;
/// let session = db.session("ingest-7")?;
/// for event in &events[session.recovered_serial() as usize..] {
///     session.put(&counters, event, "seen")?;
/// }
/// assert_eq!(session.serial(), 3);
/// # Ok(()) }
/// ```
pub struct Session {
    handle: Arc<Handle>,
    session: SessionCore,
}

/// Proof of a session's commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionReceipt {
    /// Sequence number of the commit, as in [`Receipt`](crate::Receipt).
    pub seq: u64,
    /// Serial number of the operation within its session.
    pub serial: u64,
}

impl From<Stamped> for SessionReceipt {
    fn from(stamped: Stamped) -> SessionReceipt {
        SessionReceipt { seq: stamped.seq, serial: stamped.serial }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("name", &self.name())
            .field("serial", &self.serial())
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Name.
    pub fn name(&self) -> &str {
        self.session.name()
    }

    /// The last operation that the database had of this session when it was opened; 0 for none. It stays there
    /// whatever happens later.
    pub fn recovered_serial(&self) -> u64 {
        self.session.recovered_serial()
    }

    /// The last operation that was committed; 0 for none.
    pub fn serial(&self) -> u64 {
        self.session.serial()
    }

    /// Sets a key, as the session's next operation. Answers its serial number.
    ///
    /// # Errors
    /// See [`commit`](Session::commit).
    pub fn put(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64> {
        let mut batch = Batch::new(Arc::clone(&self.handle));
        batch.put(keyspace, key, value)?;
        Ok(self.commit(batch)?.serial)
    }

    /// Removes a key, present or not, as the session's next operation. Answers its serial number.
    ///
    /// # Errors
    /// See [`commit`](Session::commit).
    pub fn delete(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<u64> {
        let mut batch = Batch::new(Arc::clone(&self.handle));
        batch.delete(keyspace, key)?;
        Ok(self.commit(batch)?.serial)
    }

    /// Commits a batch as the session's next operation, with the database's durability. An empty batch is an
    /// operation, too.
    ///
    /// # Errors
    /// As [`Db::put`]; the serial number is then not used up, and the next operation gets it. After `OutcomeUnknown`
    /// it is not known which number the next one would have: the session answers `Poisoned` until the database is
    /// opened again. `InvalidArgument` for [`Durability::Memory`](crate::Durability::Memory).
    pub fn commit(&self, batch: Batch) -> Result<SessionReceipt> {
        self.commit_with(batch, WriteOptions::new())
    }

    /// Commits a batch as the session's next operation.
    ///
    /// # Errors
    /// See [`commit`](Session::commit).
    pub fn commit_with(&self, batch: Batch, options: WriteOptions) -> Result<SessionReceipt> {
        let mut batch = self.builder_of(batch)?;
        let core = self.handle.core();
        let durability = core.durability(options.durability);
        let (keyspace, record) = self.session.turn(core, durability)?;
        let stamped = self.handle.txns().holding(keyspace, record, |owner| {
            self.session.commit_through(core, durability, |stamp| {
                stamp.add(&mut batch)?;
                self.handle.txns().write_as(owner, &batch, durability, options.lock_wait)
            })
        })?;
        Ok(stamped.into())
    }

    /// Commits a transaction as the session's next operation: its writes and the serial number survive together.
    ///
    /// Waits for the session's turn with the transaction's locks in hand. If the operation that has the turn waits for
    /// one of these locks, that is a deadlock, and one of the two is its victim: the turn is a lock of the session's
    /// record. Waiting for a turn has no timeout of its own; the operation that has it ends in its own time.
    ///
    /// # Errors
    /// See [`commit`](Session::commit) and [`Transaction::commit`].
    pub fn commit_transaction(&self, transaction: Transaction) -> Result<SessionReceipt> {
        if !Arc::ptr_eq(&transaction.handle, &self.handle) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the transaction belongs to another database",
            ));
        }
        let core = self.handle.core();
        let durability = core.durability(transaction.txn.options().durability);
        let (keyspace, record) = self.session.turn(core, durability)?;
        transaction.txn.lock_turn(keyspace, record)?;
        let commit =
            |stamp: &Stamp<'_>| transaction.txn.commit_with(Some(durability), |batch| stamp.add(batch));
        Ok(self.session.commit_through(core, durability, commit)?.into())
    }

    fn builder_of(&self, batch: Batch) -> Result<BatchBuilder> {
        if !Arc::ptr_eq(&batch.handle, &self.handle) {
            return Err(Error::new(ErrorKind::InvalidArgument, "the batch belongs to another database"));
        }
        Ok(batch.builder)
    }
}
