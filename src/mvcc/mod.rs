//! Transactions: four isolation levels over the engine's versioned store.
//!
//! * A transaction buffers its writes and commits them as one batch with one sequence number.
//! * Every write takes an exclusive lock on its key, at every level, and keeps it until after the commit is visible.
//!   So whoever gets a lock knows that the newest visible version of the key is the newest there is.
//! * A snapshot is a sequence number. REPEATABLE READ is snapshot isolation with first updater wins (Berenson et al.,
//!   "A Critique of ANSI SQL Isolation Levels", 1995); SERIALIZABLE adds the detection of dangerous structures
//!   (Cahill et al., 2008; Ports and Grittner, 2012), see `ssi`.
//! * READ UNCOMMITTED looks into the write sets of the transactions that hold the locks.
//! * Plain writes pass without a lock while no transaction is open (`gate`), and take locks otherwise.
//!
//! Rank 5: uses the engine through its versioned store and knows nothing of logs, tables or compaction.

mod commit;
mod committing;
mod error;
mod gate;
mod info;
mod iter;
mod locks;
mod options;
mod plain;
mod prepared;
mod record;
mod retry;
mod session;
mod ssi;
mod two_phase;
mod txn;
mod write_set;

pub use info::{SerializableStats, TransactionInfo, TransactionStats};
pub(crate) use iter::TxnIter;
pub(crate) use locks::Mode;
pub use locks::{LockStats, WaitEdge, WaitGraph};
pub use options::{Isolation, RetryPolicy, TransactionOptions};
pub use session::SessionInfo;
pub(crate) use session::{SessionCore, Sessions, Stamp, Stamped};
pub use two_phase::PreparedTransaction;
pub(crate) use txn::Txn;

use crate::base::deadlock::DeadlockReport;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::hash::Seeded;
use crate::base::metrics::Counter;
use crate::base::sync::{Mutex, Rank};
use crate::base::types::{KeyspaceId, SeqNo};
use crate::engine::{Bounds, Core, KeyspaceCore, LockWait, PinKind, Registration, VersionedStore};
use gate::Gate;
use locks::{LockOptions, LockTable, Owner, OwnerInfo, Wait};
use prepared::PreparedStore;
use ssi::{Ssi, Tracker};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use two_phase::PreparedTxn;
use txn::{Shared, TxnId};
use write_set::{Value, WriteSet};

/// What all transactions of an open database share.
pub(crate) struct Transactions {
    pub(crate) core: Arc<Core>,
    locks: LockTable,
    ssi: Arc<Ssi>,
    gate: Gate,
    next_id: AtomicU64,
    /// The open transactions, prepared ones included.
    open: Mutex<HashMap<TxnId, Arc<Shared>, Seeded>>,
    /// What is stored of prepared transactions.
    pub(crate) prepared: PreparedStore,
    /// The prepared transactions by their names.
    prepared_open: Mutex<BTreeMap<String, PreparedTxn>>,
    /// Transactions that may expire.
    expiring: AtomicUsize,
    /// Memory of all write sets.
    write_bytes: AtomicUsize,
    counters: Counters,
}

/// What happened so far.
#[derive(Default)]
struct Counters {
    begun: Counter,
    committed: Counter,
    rolled_back: Counter,
    write_conflicts: Counter,
    serialization_conflicts: Counter,
    expired: Counter,
}

impl Transactions {
    /// The transactions of a database that was just opened: none but those that were prepared.
    pub(crate) fn new(core: Arc<Core>) -> Result<Transactions> {
        let (prepared, records) = PreparedStore::load(&core)?;
        let options = &core.options;
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let locks = LockTable::new(
            Arc::clone(&core.env.clock),
            LockOptions {
                victim: options.deadlock_victim,
                reports_kept: options.deadlock_reports,
                bytes_max: bytes(options.lock_bytes_max),
            },
        );
        let named = Arc::downgrade(&core);
        locks.set_namer(move |id| {
            let core = named.upgrade()?;
            core.state.lock().keyspaces.get(&id).map(|keyspace| keyspace.name.clone())
        });
        let ssi = Ssi::new(bytes(options.lock_bytes_max));
        let transactions = Transactions {
            core,
            locks,
            ssi,
            gate: Gate::new(),
            next_id: AtomicU64::new(1),
            open: Mutex::new(Rank::Leaf, HashMap::default()),
            prepared,
            prepared_open: Mutex::new(Rank::Leaf, BTreeMap::new()),
            expiring: AtomicUsize::new(0),
            write_bytes: AtomicUsize::new(0),
            counters: Counters::default(),
        };
        transactions.recover_prepared(records)?;
        Ok(transactions)
    }

    fn now(&self) -> Duration {
        self.core.env.clock.now()
    }

    fn new_id(&self) -> TxnId {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Begins a transaction.
    pub(crate) fn begin(self: &Arc<Self>, options: TransactionOptions) -> Result<Box<Txn>> {
        check_options(&options)?;
        if gate::is_passing() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "a listener that is told of a write on the writer's thread cannot begin a transaction there",
            ));
        }
        self.core.health.check_open()?;
        if !options.read_only {
            self.core.health.check_writable()?;
        }
        let (id, started) = (self.new_id(), self.now());
        let label: Option<Arc<str>> = options.label.as_deref().map(Arc::from);
        let owner = self.locks.register(OwnerInfo {
            id,
            label: label.clone(),
            level: options.isolation.name(),
            priority: options.priority,
            started,
        });
        let expires_at = options.expires_after.map(|age| started.saturating_add(age));
        let shared = Arc::new(Shared {
            id,
            label,
            isolation: options.isolation,
            started,
            expires_at,
            is_hidden: AtomicBool::new(options.optimistic),
            owner,
            writes: Mutex::new(Rank::Leaf, WriteSet::default()),
            fate: txn::Fate::default(),
        });
        if !options.read_only {
            self.gate.open();
        }
        if expires_at.is_some() {
            self.expiring.fetch_add(1, Ordering::AcqRel);
            let transactions = Arc::downgrade(self);
            self.locks.set_alarm(move |now| transactions.upgrade()?.expire_due(now));
        }
        self.open.lock().insert(id, Arc::clone(&shared));
        self.counters.begun.add(1);
        let txn = Box::new(Txn::new(Arc::clone(self), shared, options));
        if txn.options().isolation.has_snapshot() && !txn.options().lazy_snapshot {
            txn.snapshot_at(|| started)?;
        }
        Ok(txn)
    }

    /// A transaction has ended and holds nothing any more.
    fn forget(&self, shared: &Shared, options: &TransactionOptions) {
        self.open.lock().remove(&shared.id);
        self.no_longer_expiring(shared);
        if !options.read_only {
            self.gate.close();
        }
    }

    fn no_longer_expiring(&self, shared: &Shared) {
        if shared.expires_at.is_some() {
            self.expiring.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Registers what a transaction reads from, now, and tracks it if it is SERIALIZABLE.
    fn take_snapshot(
        &self,
        shared: &Shared,
        options: &TransactionOptions,
        now: Duration,
    ) -> Result<(Registration, Option<Tracker>)> {
        let take = || {
            let registration = self.core.reader_under_lock(PinKind::Transaction, shared.label.clone(), now);
            let seq = registration.seq();
            (registration, seq)
        };
        // A number above the last assigned one is that of a commit that failed, and will be withdrawn.
        let published = |seq: SeqNo| self.core.wait_visible(seq.min(self.core.assigned_seq()));
        let (registration, tracker) = match options.isolation {
            Isolation::Serializable if options.read_only => (self.ssi.begin_declared(published, take)?, None),
            Isolation::Serializable => {
                let begun = self.ssi.begin(shared.id, || self.core.assigned_seq(), published, take)?;
                (begun.0, Some(begun.1))
            }
            _ => (take().0, None),
        };
        self.core.reader_registered();
        Ok((registration, tracker))
    }

    // Locks.

    fn lock_key(
        &self,
        shared: &Shared,
        keyspace: &KeyspaceCore,
        key: &[u8],
        mode: Mode,
        wait: LockWait,
    ) -> Result<()> {
        self.locked(wait, |wait| self.locks.acquire(&shared.owner, keyspace.id, key, mode, wait).map(|_| ()))
    }

    fn lock_range(
        &self,
        shared: &Shared,
        keyspace: &KeyspaceCore,
        bounds: &Bounds,
        wait: LockWait,
    ) -> Result<()> {
        let start = bounds.lower.as_deref().unwrap_or_default();
        let end = bounds.upper.as_deref();
        self.locked(wait, |wait| {
            self.locks
                .acquire_range(&shared.owner, keyspace.id, start, end, Mode::Exclusive, wait)
                .map(|_| ())
        })
    }

    /// Locks the record of a session, which stands for its turn, however long that takes.
    fn lock_turn(&self, owner: &Arc<Owner>, keyspace: KeyspaceId, record: &[u8]) -> Result<()> {
        let wait = LockWait::Timeout(Duration::MAX);
        self.locked(wait, |wait| {
            self.locks.acquire(owner, keyspace, record, Mode::Exclusive, wait).map(|_| ())
        })
    }

    /// Takes a lock by `acquire`.
    fn locked(&self, wait: LockWait, acquire: impl Fn(Wait) -> Result<()>) -> Result<()> {
        let is_inside = gate::is_passing() || committing::is_committing();
        match wait {
            // A listener, on the thread of a write that cannot end before it.
            _ if is_inside => self.without_expired(|| acquire(Wait::No)),
            LockWait::NoWait => self.without_expired(|| acquire(Wait::No)),
            LockWait::Default => acquire(Wait::Upto(self.core.options.lock_timeout)),
            LockWait::Timeout(timeout) => acquire(Wait::Upto(timeout)),
        }
    }

    fn without_expired(&self, acquire: impl Fn() -> Result<()>) -> Result<()> {
        match acquire() {
            Err(error)
                if error.kind() == ErrorKind::LockTimeout && self.expiring.load(Ordering::Acquire) > 0 =>
            {
                self.expire_due(self.now());
                acquire()
            }
            other => other,
        }
    }

    /// Rolls back what was open for longer than it asked for; says when the next transaction expires.
    fn expire_due(&self, now: Duration) -> Option<Duration> {
        if self.expiring.load(Ordering::Acquire) == 0 {
            return None;
        }
        let open = self.open.lock();
        let expiring = || open.values().filter_map(|shared| Some((shared.expires_at?, shared)));
        let due = expiring().filter(|(at, _)| *at <= now).map(|(_, shared)| Arc::clone(shared));
        let (due, next) =
            (due.collect::<Vec<_>>(), expiring().map(|(at, _)| at).filter(|at| *at > now).min());
        drop(open);
        for shared in due {
            if shared.fate.expire() {
                self.counters.expired.add(1);
                *shared.writes.lock() = WriteSet::default();
                self.locks.release_all(&shared.owner);
            }
        }
        next
    }

    // What READ UNCOMMITTED sees.

    /// The uncommitted value of a key, when a transaction has written it.
    fn dirty(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<Value> {
        let holder = self.locks.exclusive_holder(keyspace, key)?;
        let shared = self.open.lock().get(&holder).filter(|shared| !shared.is_hidden()).cloned()?;
        shared.writes.lock().get(keyspace, key)
    }

    /// What `look` finds in the write sets of all transactions but this one.
    fn others<T>(&self, id: TxnId, look: impl Fn(&WriteSet) -> Option<T>) -> Vec<T> {
        let is_seen = |shared: &&Arc<Shared>| shared.id != id && !shared.is_hidden();
        let open: Vec<Arc<Shared>> = self.open.lock().values().filter(is_seen).cloned().collect();
        open.iter().filter_map(|shared| look(&shared.writes.lock())).collect()
    }

    // Memory.

    /// Refuses a write of `more` bytes to a transaction that would then have `bytes`.
    fn check_room(&self, bytes: usize, more: usize) -> Result<()> {
        let options = &self.core.options;
        if bytes as u64 > options.transaction_bytes_max {
            let limit = options.transaction_bytes_max;
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "a transaction holds at most {limit} bytes of writes (transaction_bytes_max); commit in parts"
                ),
            ));
        }
        let all = self.write_bytes.load(Ordering::Relaxed).saturating_add(more);
        if all as u64 > options.transactions_bytes_max {
            let limit = options.transactions_bytes_max;
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "all open transactions together hold at most {limit} bytes of writes (transactions_bytes_max)"
                ),
            ));
        }
        Ok(())
    }

    fn charge(&self, before: usize, after: usize) {
        if after >= before {
            self.write_bytes.fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        } else {
            self.write_bytes.fetch_sub(before.saturating_sub(after), Ordering::Relaxed);
        }
    }

    // Reports.

    /// Who waits for whom.
    pub(crate) fn wait_graph(&self) -> WaitGraph {
        self.locks.wait_graph()
    }

    /// The last deadlocks.
    pub(crate) fn deadlocks(&self) -> Vec<DeadlockReport> {
        self.locks.deadlocks()
    }

    fn count_conflict(&self, error: &Error) {
        match error.conflict().map(|conflict| conflict.reason) {
            Some(crate::base::conflict::ConflictReason::Write) => self.counters.write_conflicts.add(1),
            Some(_) => self.counters.serialization_conflicts.add(1),
            None => {}
        }
    }
}

fn check_options(options: &TransactionOptions) -> Result<()> {
    let problem = if options.optimistic && !options.isolation.has_snapshot() {
        "an optimistic transaction is REPEATABLE READ or SERIALIZABLE"
    } else if options.optimistic && options.read_only {
        "a read-only transaction takes no locks: it cannot be optimistic"
    } else if options.durability == Some(crate::engine::Durability::Memory) {
        "a transaction cannot have durability Memory"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidArgument, problem))
}
