//! One transaction: its reads, its writes and its end.
//!
//! Writes stay in memory, under exclusive locks, until the commit puts them into one batch. A transaction belongs to
//! one thread at a time; what others may look at of it is in [`Shared`].

use super::Transactions;
use super::error::{conflict, transaction_failed};
use super::iter::{TxnIter, Written};
use super::locks::{Mode, Owner};
use super::options::TransactionOptions;
use super::ssi::{RangeEnd, Tracker};
use super::write_set::{Value, WriteSet};
use crate::base::conflict::ConflictReason;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::slice::Slice;
use crate::base::sync::Mutex;
use crate::base::types::{KEY_BYTES_MAX, KeyspaceId, SeqNo, VALUE_BYTES_MAX};
use crate::engine::{Bounds, Core, KeyspaceCore, PinKind, Registration, VersionedStore};
use std::cell::{Cell, OnceCell, RefCell};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

/// Number of a transaction, unique while the database is open.
pub(crate) type TxnId = u64;

/// What other transactions see of one.
pub(crate) struct Shared {
    pub(crate) id: TxnId,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) isolation: super::Isolation,
    /// When it began, on the clock of the database.
    pub(crate) started: Duration,
    /// When it may be rolled back for being idle.
    pub(crate) expires_at: Option<Duration>,
    /// It is optimistic and does not hold the locks of its writes yet, so READ UNCOMMITTED does not see them either.
    pub(crate) is_hidden: AtomicBool,
    pub(crate) owner: Arc<Owner>,
    /// Looked at by READ UNCOMMITTED readers.
    pub(crate) writes: Mutex<WriteSet>,
    /// Which of its owner and its age ended it.
    pub(super) fate: Fate,
}

impl Shared {
    pub(super) fn is_hidden(&self) -> bool {
        self.is_hidden.load(Ordering::Acquire)
    }
}

/// Whether a transaction is open, being ended by its owner, or rolled back for its age: decided once.
#[derive(Default)]
pub(super) struct Fate(AtomicU8);

const OPEN: u8 = 0;
const SETTLED: u8 = 1;
const EXPIRED: u8 = 2;

impl Fate {
    /// Its owner ends it; false if its age was faster.
    pub(super) fn settle(&self) -> bool {
        self.0.compare_exchange(OPEN, SETTLED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Its age ends it; false if its owner was faster.
    pub(super) fn expire(&self) -> bool {
        self.0.compare_exchange(OPEN, EXPIRED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    #[inline]
    fn is_expired(&self) -> bool {
        self.0.load(Ordering::Acquire) == EXPIRED
    }
}

/// What an optimistic transaction must find unchanged at its commit, beside what it writes.
pub(super) enum Claim {
    Key(Arc<KeyspaceCore>, Box<[u8]>),
    Range(Arc<KeyspaceCore>, Bounds),
}

/// A transaction that is open. Dropping it rolls it back.
pub(crate) struct Txn {
    pub(super) manager: Arc<Transactions>,
    pub(super) shared: Arc<Shared>,
    pub(super) options: TransactionOptions,
    /// State that all reads see, for levels that have one.
    snapshot: OnceCell<Registration>,
    /// Records reads of SERIALIZABLE transactions.
    pub(super) tracker: RefCell<Option<Tracker>>,
    /// The keyspaces that an optimistic transaction has written to, for its commit to lock keys in.
    pub(super) keyspaces: RefCell<Vec<Arc<KeyspaceCore>>>,
    pub(super) claims: RefCell<Vec<Claim>>,
    /// Why it can only be rolled back.
    failure: OnceCell<Error>,
    /// Its share of the memory of all write sets.
    charged_bytes: Cell<usize>,
    /// The part of it that is for claims.
    claimed_bytes: Cell<usize>,
    pub(super) ended: Cell<bool>,
}

impl Txn {
    pub(super) fn new(manager: Arc<Transactions>, shared: Arc<Shared>, options: TransactionOptions) -> Txn {
        Txn {
            manager,
            shared,
            options,
            snapshot: OnceCell::new(),
            tracker: RefCell::new(None),
            keyspaces: RefCell::new(Vec::new()),
            claims: RefCell::new(Vec::new()),
            failure: OnceCell::new(),
            charged_bytes: Cell::new(0),
            claimed_bytes: Cell::new(0),
            ended: Cell::new(false),
        }
    }

    pub(crate) fn id(&self) -> TxnId {
        self.shared.id
    }

    pub(crate) fn options(&self) -> &TransactionOptions {
        &self.options
    }

    /// Sequence number of the state that its reads see, once it has one.
    pub(crate) fn snapshot_seq(&self) -> Option<SeqNo> {
        self.snapshot.get().map(Registration::seq)
    }

    #[inline]
    pub(super) fn store(&self) -> &Arc<Core> {
        &self.manager.core
    }

    pub(super) fn reads_uncommitted(&self) -> bool {
        self.options.isolation == super::Isolation::ReadUncommitted
    }

    /// An error if it can only be rolled back.
    #[inline]
    pub(super) fn check_usable(&self) -> Result<()> {
        if let Some(cause) = self.failure.get() {
            return Err(transaction_failed(self.id(), cause));
        }
        if self.shared.fate.is_expired() {
            self.let_go();
            return Err(super::error::expired(self.id()));
        }
        Ok(())
    }

    /// Notes an error that ends the transaction: its locks are gone before the caller learns of it.
    pub(super) fn failed(&self, error: Error) -> Error {
        // Whoever expires in the middle of an operation is refused its locks in the words of the lock table.
        let is_late = error.kind() == ErrorKind::InvalidArgument && self.shared.fate.is_expired();
        let error = if is_late { super::error::expired(self.id()) } else { error };
        if leaves_usable(error.kind()) || self.failure.set(error.clone()).is_err() {
            return error;
        }
        self.manager.count_conflict(&error);
        self.let_go();
        error
    }

    /// Gives up everything others could wait for.
    fn let_go(&self) {
        *self.shared.writes.lock() = WriteSet::default();
        self.claims.borrow_mut().clear();
        self.claimed_bytes.set(0);
        self.charge(0);
        self.tracker.replace(None);
        self.manager.locks.release_all(&self.shared.owner);
    }

    fn noting<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.failed(error))
    }

    // Snapshots.

    /// The state that all reads see; taken now if it was not taken before.
    pub(super) fn snapshot(&self) -> Result<&Registration> {
        self.snapshot_at(|| self.manager.now())
    }

    /// As [`snapshot`](Self::snapshot), for whoever knows the time already.
    pub(super) fn snapshot_at(&self, now: impl FnOnce() -> Duration) -> Result<&Registration> {
        if let Some(snapshot) = self.snapshot.get() {
            return Ok(snapshot);
        }
        let (registration, tracker) = self.manager.take_snapshot(&self.shared, &self.options, now())?;
        if tracker.is_some() {
            self.tracker.replace(tracker);
        }
        Ok(self.snapshot.get_or_init(|| registration))
    }

    /// A registered reader for one read.
    pub(super) fn reader(&self) -> Result<Registration> {
        match self.options.isolation.has_snapshot() {
            true => Ok(self.snapshot()?.fork(PinKind::Transaction)),
            false => Ok(self.store().reader(PinKind::Transaction, self.shared.label.clone())),
        }
    }

    /// An error if the snapshot was given up.
    pub(super) fn check_reader(&self) -> Result<()> {
        match self.snapshot.get() {
            Some(snapshot) => snapshot.check(),
            None => Ok(()),
        }
    }

    // Reads.

    /// The value of a key.
    pub(crate) fn get(&self, keyspace: &Arc<KeyspaceCore>, key: &[u8]) -> Result<Option<Slice>> {
        self.check_usable()?;
        self.noting(self.read(keyspace, key))
    }

    fn read(&self, keyspace: &Arc<KeyspaceCore>, key: &[u8]) -> Result<Option<Slice>> {
        if let Some(own) = self.shared.writes.lock().get(keyspace.id, key) {
            keyspace.check_exists()?;
            return Ok(own);
        }
        if !self.options.isolation.has_snapshot() {
            if self.reads_uncommitted()
                && let Some(dirty) = self.manager.dirty(keyspace.id, key)
            {
                return Ok(dirty);
            }
            return self.store().read_newest(keyspace, key);
        }
        let snapshot = self.snapshot()?;
        if let Some(tracker) = &*self.tracker.borrow() {
            tracker.read_key(keyspace.id, key);
        }
        self.store().read_at(keyspace, key, snapshot)
    }

    /// The values of several keys, as of one moment at every level but READ UNCOMMITTED.
    pub(crate) fn multi_get<K: AsRef<[u8]>>(
        &self,
        keyspace: &Arc<KeyspaceCore>,
        keys: &[K],
    ) -> Result<Vec<Option<Slice>>> {
        self.check_usable()?;
        if self.options.isolation != super::Isolation::ReadCommitted {
            return keys.iter().map(|key| self.get(keyspace, key.as_ref())).collect();
        }
        let reader = self.reader()?;
        let one = |key: &[u8]| match self.shared.writes.lock().get(keyspace.id, key) {
            Some(own) => Ok(own),
            None => self.store().read_at(keyspace, key, &reader),
        };
        let values = keys.iter().map(|key| one(key.as_ref())).collect::<Result<Vec<_>>>();
        self.noting(values)
    }

    /// The entries within bounds.
    pub(crate) fn iter(&self, keyspace: &Arc<KeyspaceCore>, bounds: Bounds) -> Result<TxnIter<'_>> {
        self.check_usable()?;
        self.noting(TxnIter::new(self, Arc::clone(keyspace), bounds))
    }

    /// The first uncommitted write that this transaction sees within bounds.
    pub(super) fn overlay_first(
        &self,
        keyspace: KeyspaceId,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> Option<Written> {
        let own = owned(self.shared.writes.lock().first(keyspace, lower, upper));
        if !self.reads_uncommitted() {
            return own;
        }
        let others = self.manager.others(self.id(), |writes| owned(writes.first(keyspace, lower, upper)));
        // Of equal keys the own write, which comes first.
        own.into_iter().chain(others).reduce(|best, next| if next.0 < best.0 { next } else { best })
    }

    /// The last one.
    pub(super) fn overlay_last(
        &self,
        keyspace: KeyspaceId,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> Option<Written> {
        let own = owned(self.shared.writes.lock().last(keyspace, lower, upper));
        if !self.reads_uncommitted() {
            return own;
        }
        let others = self.manager.others(self.id(), |writes| owned(writes.last(keyspace, lower, upper)));
        own.into_iter().chain(others).reduce(|best, next| if next.0 > best.0 { next } else { best })
    }

    /// Notes that everything from `start` up to `end` was looked at.
    pub(super) fn note_range(&self, keyspace: KeyspaceId, start: &[u8], end: RangeEnd<'_>) {
        if let Some(tracker) = &*self.tracker.borrow() {
            tracker.read_range(keyspace, start, end);
        }
    }

    // Locking reads.

    /// Locks a key, then reads it.
    pub(crate) fn get_locked(
        &self,
        keyspace: &Arc<KeyspaceCore>,
        key: &[u8],
        mode: Mode,
    ) -> Result<Option<Slice>> {
        self.check_writable()?;
        check_key(key)?;
        let result = self.claim(keyspace, key, mode).and_then(|()| self.read(keyspace, key));
        self.noting(result)
    }

    fn claim(&self, keyspace: &Arc<KeyspaceCore>, key: &[u8], mode: Mode) -> Result<()> {
        if self.options.optimistic {
            return self.note_claim(WriteSet::cost(key, None), Claim::Key(Arc::clone(keyspace), key.into()));
        }
        self.lock_key(keyspace, key, mode)
    }

    /// Remembers what the commit of an optimistic transaction must find unchanged.
    fn note_claim(&self, bytes: usize, claim: Claim) -> Result<()> {
        self.check_room(bytes)?;
        self.snapshot()?;
        self.claims.borrow_mut().push(claim);
        self.claimed_bytes.set(self.claimed_bytes.get().saturating_add(bytes));
        self.charge(self.charged_bytes().saturating_add(bytes));
        Ok(())
    }

    /// Locks a range, gaps included, then reads it.
    pub(crate) fn scan_locked(
        &self,
        keyspace: &Arc<KeyspaceCore>,
        bounds: Bounds,
    ) -> Result<Vec<(Slice, Slice)>> {
        self.check_writable()?;
        let locked = match self.options.optimistic {
            true => {
                let lower = bounds.lower.as_deref().unwrap_or_default();
                let bytes = WriteSet::cost(lower, bounds.upper.as_deref());
                self.note_claim(bytes, Claim::Range(Arc::clone(keyspace), bounds.clone()))
            }
            false => self.lock_range(keyspace, &bounds),
        };
        self.noting(locked)?;
        self.iter(keyspace, bounds)?.collect()
    }

    /// Takes a lock and makes sure that nobody changed the key since the snapshot.
    pub(super) fn lock_key(&self, keyspace: &Arc<KeyspaceCore>, key: &[u8], mode: Mode) -> Result<()> {
        keyspace.check_exists()?;
        self.manager.lock_key(&self.shared, keyspace, key, mode, self.options.lock_wait)?;
        if !self.options.isolation.has_snapshot() {
            return Ok(());
        }
        // A snapshot that is only taken now sees what was waited for.
        let seq = self.snapshot()?.seq();
        if self.store().changed_since(keyspace, key, seq)? {
            return Err(conflict(ConflictReason::Write, keyspace, key, self.id()));
        }
        self.check_reader()
    }

    /// Locks the record of a session, for a commit of this transaction as one of its operations.
    pub(crate) fn lock_turn(&self, keyspace: KeyspaceId, record: &[u8]) -> Result<()> {
        self.check_usable()?;
        let locked = self.manager.lock_turn(&self.shared.owner, keyspace, record);
        locked.map_err(|error| self.failed(error))
    }

    pub(super) fn lock_range(&self, keyspace: &Arc<KeyspaceCore>, bounds: &Bounds) -> Result<()> {
        keyspace.check_exists()?;
        self.manager.lock_range(&self.shared, keyspace, bounds, self.options.lock_wait)?;
        if !self.options.isolation.has_snapshot() {
            return Ok(());
        }
        let seq = self.snapshot()?.seq();
        match self.store().changed_in_range_since(keyspace, bounds, seq)? {
            Some(key) => Err(conflict(ConflictReason::Write, keyspace, &key, self.id())),
            None => self.check_reader(),
        }
    }

    // Writes.

    /// Sets or deletes a key.
    pub(crate) fn write(&self, keyspace: &Arc<KeyspaceCore>, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.check_writable()?;
        check_key(key)?;
        check_value(value)?;
        let result = self.try_write(keyspace, key, value);
        self.noting(result)
    }

    fn try_write(&self, keyspace: &Arc<KeyspaceCore>, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        keyspace.check_exists()?;
        self.check_room(WriteSet::cost(key, value))?;
        match self.options.optimistic {
            true => self.snapshot().map(|_| ())?,
            false => self.lock_key(keyspace, key, Mode::Exclusive)?,
        }
        if self.options.optimistic {
            self.note_keyspace(keyspace);
        }
        let (bytes, count) = {
            let mut writes = self.shared.writes.lock();
            // Who expires is marked before the writes are taken away: nothing is added after that.
            if self.shared.fate.is_expired() {
                return Err(super::error::expired(self.id()));
            }
            writes.insert(keyspace.id, key, value);
            (writes.bytes(), writes.len())
        };
        self.shared.owner.set_writes(count as u64);
        self.charge(bytes.saturating_add(self.claimed_bytes.get()));
        Ok(())
    }

    fn note_keyspace(&self, keyspace: &Arc<KeyspaceCore>) {
        let mut keyspaces = self.keyspaces.borrow_mut();
        if !keyspaces.iter().any(|known| known.id == keyspace.id) {
            keyspaces.push(Arc::clone(keyspace));
        }
    }

    /// Refuses a write that would take too much memory, before it has any effect.
    fn check_room(&self, more: usize) -> Result<()> {
        let bytes = self.charged_bytes.get().saturating_add(more);
        self.manager.check_room(bytes, more)
    }

    /// Its share of the memory of all write sets.
    pub(super) fn charged_bytes(&self) -> usize {
        self.charged_bytes.get()
    }

    /// Sets its share of the memory of all write sets.
    fn charge(&self, bytes: usize) {
        let before = self.charged_bytes.replace(bytes);
        self.manager.charge(before, bytes);
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        self.check_usable()?;
        if self.options.read_only {
            let message = "the transaction was declared read-only: it takes no locks and no writes";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok(())
    }

    // Savepoints.

    pub(crate) fn savepoint(&self) {
        self.shared.writes.lock().savepoint();
    }

    pub(crate) fn rollback_to_savepoint(&self) -> Result<()> {
        self.check_usable()?;
        let (found, bytes, count) = {
            let mut writes = self.shared.writes.lock();
            (writes.rollback_to_savepoint(), writes.bytes(), writes.len())
        };
        self.charge(bytes.saturating_add(self.claimed_bytes.get()));
        self.shared.owner.set_writes(count as u64);
        if found { Ok(()) } else { Err(no_savepoint()) }
    }

    pub(crate) fn release_savepoint(&self) -> Result<()> {
        self.check_usable()?;
        let (found, bytes) = {
            let mut writes = self.shared.writes.lock();
            (writes.release_savepoint(), writes.bytes())
        };
        self.charge(bytes.saturating_add(self.claimed_bytes.get()));
        if found { Ok(()) } else { Err(no_savepoint()) }
    }

    // The end.

    /// After the commit or instead of it: nothing of it is left.
    pub(super) fn end(&self) {
        if !self.ended.replace(true) {
            self.let_go();
            self.manager.forget(&self.shared, &self.options);
        }
    }
}

impl Drop for Txn {
    fn drop(&mut self) {
        if !self.ended.get() {
            self.manager.counters.rolled_back.add(1);
        }
        self.end();
    }
}

/// Errors after which a transaction goes on: nothing was done.
fn leaves_usable(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidArgument
            | ErrorKind::LimitExceeded
            | ErrorKind::NotFound
            | ErrorKind::LockTimeout
            | ErrorKind::TransactionFailed
    )
}

fn no_savepoint() -> Error {
    Error::new(ErrorKind::InvalidArgument, "the transaction has no open savepoint")
}

fn check_key(key: &[u8]) -> Result<()> {
    if key.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "a key has at least one byte"));
    }
    if key.len() > KEY_BYTES_MAX {
        let message = format!("a key of {} bytes; at most {KEY_BYTES_MAX} are possible", key.len());
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(())
}

fn check_value(value: Option<&[u8]>) -> Result<()> {
    match value {
        Some(value) if value.len() > VALUE_BYTES_MAX => {
            let message = format!("a value of {} bytes; at most {VALUE_BYTES_MAX} are possible", value.len());
            Err(Error::new(ErrorKind::LimitExceeded, message))
        }
        _ => Ok(()),
    }
}

fn owned(found: Option<(&[u8], &Value)>) -> Option<Written> {
    found.map(|(key, value)| (key.to_vec(), value.clone()))
}
