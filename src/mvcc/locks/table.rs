//! The table: stripes with their mutexes, and the operations that transactions call. How a wait goes on is in
//! `wait.rs`, how deadlocks are found in `graph.rs`.

use super::graph::Detector;
use super::owner::{ALL_STRIPES, Held, Owner, OwnerInfo};
use super::queue::{Attempt, Request, Stripe, Wanted};
use super::report::VictimPolicy;
use super::span::{Span, SpanRef};
use super::stripes::{self, Stripes};
use super::{Grant, Mode, STRIPES, TxnId, Wait, range};
use crate::base::checksum;
use crate::base::deadlock::LockDescription;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Mutex, MutexGuard, Rank};
use crate::base::types::KeyspaceId;
use crate::env::Clock;
use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// How a table behaves.
#[derive(Debug, Clone)]
pub(crate) struct LockOptions {
    /// Who dies in a deadlock, among those of lowest priority.
    pub(crate) victim: VictimPolicy,
    /// Reports of deadlocks that are kept.
    pub(crate) reports_kept: usize,
    /// Bytes of memory for locks, held and waited for.
    pub(crate) bytes_max: usize,
}

/// Memory of a lock beside the bytes of its key: its part of a map's node, the owner's list, the allocation's header.
pub(super) const LOCK_BYTES: usize = 144;

/// Memory of a range lock beside the bytes of its keys: a reference and a place in every stripe.
pub(super) const RANGE_BYTES: usize = STRIPES * 8 + LOCK_BYTES;

/// Numbers of a lock table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockStats {
    /// Locks held now: keys, once for each holder, and ranges.
    pub held: u64,
    /// Requests waiting now.
    pub waiting: u64,
    /// Requests that had to wait, ever.
    pub waits: u64,
    /// Time that ended waits took together.
    pub wait_time: Duration,
    /// Waits that ended because their time was over, and requests that would not wait.
    pub timeouts: u64,
    /// Deadlocks that were broken.
    pub deadlocks: u64,
    /// Searches for deadlocks, by requests that began to wait or waited on while something changed.
    pub searches: u64,
    /// Holders and waiting requests that these looked at.
    pub search_steps: u64,
    /// Memory of the locks, in bytes.
    pub bytes: u64,
}

/// A lock that an owner has.
pub(crate) type HeldLock = LockDescription;

/// What an owner waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WaitingFor {
    /// The lock.
    pub(crate) lock: LockDescription,
    /// For how long it has waited.
    pub(crate) waited: Duration,
}

/// What waiting threads do for others: called with the time, it does what is due and says when it wants to be called
/// again.
pub(super) type Alarm = Box<dyn Fn(Duration) -> Option<Duration> + Send + Sync>;

/// Gives keyspaces their names, for reports.
pub(super) type Namer = Box<dyn Fn(KeyspaceId) -> Option<String> + Send + Sync>;

/// A stripe on cache lines of its own.
#[repr(align(128))]
struct Padded(Mutex<Stripe>);

/// The stripes with their mutexes.
pub(super) struct Striped(Box<[Padded; STRIPES]>);

impl Stripes for Striped {
    type Guard<'a> = MutexGuard<'a, Stripe>;

    fn one(&self, index: u32) -> MutexGuard<'_, Stripe> {
        let [first, ..] = &*self.0;
        // The index is below the number of stripes, or that of all stripes and then any will do.
        self.0.get(index as usize % STRIPES).unwrap_or(first).0.lock()
    }

    fn all(&self) -> Vec<MutexGuard<'_, Stripe>> {
        self.0.iter().map(|stripe| stripe.0.lock_next()).collect()
    }
}

/// The lock table.
pub(crate) struct LockTable {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: LockOptions,
    pub(super) stripes: Striped,
    /// Requests so far that could not be granted at once. Counted while holding the stripe.
    arrivals: AtomicU64,
    pub(super) bytes: AtomicUsize,
    /// Locks are taken whatever memory they need.
    is_unbounded: AtomicBool,
    pub(super) counters: Counters,
    pub(super) detector: Mutex<Detector>,
    namer: OnceLock<Namer>,
    pub(super) alarm: OnceLock<Alarm>,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) waits: AtomicU64,
    pub(super) wait_nanos: AtomicU64,
    pub(super) timeouts: AtomicU64,
    pub(super) deadlocks: AtomicU64,
    pub(super) searches: AtomicU64,
    pub(super) search_steps: AtomicU64,
    /// Requests that left their queue without a grant.
    pub(super) withdrawn: AtomicU64,
}

impl fmt::Debug for LockTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockTable").field("options", &self.options).finish_non_exhaustive()
    }
}

impl LockTable {
    /// An empty table.
    pub(crate) fn new(clock: Arc<dyn Clock>, options: LockOptions) -> LockTable {
        let stripe = |_| Padded(Mutex::new(Rank::LockTable, Stripe::default()));
        LockTable {
            clock,
            options,
            stripes: Striped(Box::new(std::array::from_fn(stripe))),
            arrivals: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            is_unbounded: AtomicBool::new(false),
            counters: Counters::default(),
            detector: Mutex::new(Rank::LockGraph, Detector::default()),
            namer: OnceLock::new(),
            alarm: OnceLock::new(),
        }
    }

    /// Sets, once, what gives keyspaces their names in reports. It is called while a search for deadlocks goes on, and
    /// must not use this table.
    pub(crate) fn set_namer(&self, namer: impl Fn(KeyspaceId) -> Option<String> + Send + Sync + 'static) {
        // A second one is ignored: names would be the same.
        let _ = self.namer.set(Box::new(namer));
    }

    /// Sets, once, what waiting threads do for others, such as to end who holds locks for too long. It is called with no
    /// mutex held, and may use this table.
    pub(crate) fn set_alarm(&self, alarm: impl Fn(Duration) -> Option<Duration> + Send + Sync + 'static) {
        // A second one is ignored: it would do the same.
        let _ = self.alarm.set(Box::new(alarm));
    }

    /// Fills in the keyspace's name.
    pub(super) fn named(&self, mut lock: LockDescription) -> LockDescription {
        lock.keyspace_name = self.namer.get().and_then(|namer| namer(KeyspaceId(lock.keyspace)));
        lock
    }

    /// A new owner without locks.
    pub(crate) fn register(&self, info: OwnerInfo) -> Arc<Owner> {
        Arc::new(Owner::new(info))
    }

    /// Does what takes locks that were granted in an earlier life of the database: it could not be opened without them.
    pub(crate) fn unbounded<T>(&self, restore: impl FnOnce() -> T) -> T {
        self.is_unbounded.store(true, Ordering::Relaxed);
        let restored = restore();
        self.is_unbounded.store(false, Ordering::Relaxed);
        restored
    }

    /// Counts memory, or fails when there would be too much.
    pub(super) fn charge(&self, bytes: usize) -> Result<()> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= self.options.bytes_max || self.is_unbounded.load(Ordering::Relaxed)
        {
            return Ok(());
        }
        self.uncharge(bytes);
        let limit = self.options.bytes_max;
        let message = format!("locks would take more memory than lock_bytes_max = {limit} bytes allows");
        Err(Error::new(ErrorKind::LimitExceeded, message))
    }

    pub(super) fn uncharge(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Locks a key, whether it exists or not.
    pub(crate) fn acquire(
        &self,
        owner: &Arc<Owner>,
        keyspace: KeyspaceId,
        key: &[u8],
        mode: Mode,
        wait: Wait,
    ) -> Result<Grant> {
        let index = stripe_of(keyspace, key);
        let wanted = Wanted { owner, keyspace, span: SpanRef::Key(key), mode };
        let mut stripe = self.stripes.one(index);
        match stripe.attempt(&wanted, key) {
            Attempt::Held => {
                owner.check_open()?;
                Ok(Grant { waited: false, fresh: false })
            }
            Attempt::Free { fresh: true } => {
                self.charge(cost(wanted.span))?;
                let key: Arc<[u8]> = key.into();
                let held = Held { stripe: index, keyspace, span: Span::Key(Arc::clone(&key)) };
                owner.hold(held).inspect_err(|_| self.uncharge(cost(wanted.span)))?;
                stripe.insert(owner, keyspace, &key, mode);
                Ok(Grant { waited: false, fresh: true })
            }
            Attempt::Free { fresh: false } => {
                owner.check_open()?;
                stripe.upgrade(owner, keyspace, key, mode);
                Ok(Grant { waited: false, fresh: false })
            }
            Attempt::Blocked => {
                let request = self.request(owner, &wanted, index);
                if let Span::Key(key) = &request.span
                    && !stripe.is_blocked(&wanted, request.ticket)
                {
                    return self.pass(&mut stripe, &request, key);
                }
                let Wait::Upto(limit) = wait else {
                    drop(stripe);
                    return Err(self.refusal(&request));
                };
                self.begin_wait(&request)?;
                stripe.enqueue(Arc::clone(&request));
                drop(stripe);
                self.wait(&request, limit)
            }
        }
    }

    /// Locks all keys from `start`, and before `end` if there is one, those that do not exist included.
    pub(crate) fn acquire_range(
        &self,
        owner: &Arc<Owner>,
        keyspace: KeyspaceId,
        start: &[u8],
        end: Option<&[u8]>,
        mode: Mode,
        wait: Wait,
    ) -> Result<Grant> {
        if end.is_some_and(|end| end <= start) {
            owner.check_open()?;
            return Ok(Grant { waited: false, fresh: false });
        }
        let span = SpanRef::Range { start, end };
        let wanted = Wanted { owner, keyspace, span, mode };
        let mut stripes = self.stripes.all();
        match range::attempt(&stripes, &wanted) {
            Attempt::Held => {
                owner.check_open()?;
                Ok(Grant { waited: false, fresh: false })
            }
            Attempt::Free { fresh } => {
                let span = span.to_owned();
                self.hold(owner, Held { stripe: ALL_STRIPES, keyspace, span: span.clone() })?;
                range::insert(&mut stripes, owner, keyspace, span, mode);
                Ok(Grant { waited: false, fresh })
            }
            Attempt::Blocked => {
                let request = self.request(owner, &wanted, ALL_STRIPES);
                if !range::is_blocked(&stripes, &wanted, request.ticket) {
                    self.hold(owner, request.held())?;
                    range::insert(&mut stripes, owner, keyspace, request.span.clone(), mode);
                    return Ok(Grant { waited: false, fresh: true });
                }
                let Wait::Upto(limit) = wait else {
                    drop(stripes);
                    return Err(self.refusal(&request));
                };
                self.begin_wait(&request)?;
                range::enqueue(&mut stripes, &request);
                drop(stripes);
                self.wait(&request, limit)
            }
        }
    }

    fn request(&self, owner: &Arc<Owner>, wanted: &Wanted<'_>, stripe: u32) -> Arc<Request> {
        let arrival = self.arrivals.fetch_add(1, Ordering::Relaxed);
        Arc::new(Request::new(arrival, owner, wanted, stripe, self.clock.now()))
    }

    /// Grants a request for a key that has all who are in its way behind it.
    #[cold]
    fn pass(&self, stripe: &mut Stripe, request: &Request, key: &Arc<[u8]>) -> Result<Grant> {
        let (owner, keyspace) = (&request.owner, request.keyspace);
        let fresh = stripe.mode_of(owner.id(), keyspace, key).is_none();
        if fresh {
            self.hold(owner, request.held())?;
        } else {
            owner.check_open()?;
        }
        stripe.insert(owner, keyspace, key, request.mode);
        Ok(Grant { waited: false, fresh })
    }

    /// Counts a lock and gives it to its owner. The caller adds the owner to the stripes.
    fn hold(&self, owner: &Owner, held: Held) -> Result<()> {
        let bytes = cost(held.span.as_ref());
        self.charge(bytes)?;
        owner.hold(held).inspect_err(|_| self.uncharge(bytes))
    }

    fn begin_wait(&self, request: &Arc<Request>) -> Result<()> {
        let bytes = cost(request.span.as_ref());
        self.charge(bytes)?;
        request.owner.begin_wait(request).inspect_err(|_| self.uncharge(bytes))
    }

    /// Gives back all locks of an owner, which gets no others. Whoever can go on does, in order of arrival.
    pub(crate) fn release_all(&self, owner: &Owner) {
        let released = stripes::release(&self.stripes, owner);
        self.uncharge(released.bytes);
        // If it waits on another thread, that wait ends.
        owner.notify();
        released.woken.iter().for_each(|owner| owner.notify());
    }

    /// Who holds this key alone.
    pub(crate) fn exclusive_holder(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<TxnId> {
        self.stripes.one(stripe_of(keyspace, key)).exclusive_holder(keyspace, key)
    }

    /// From now on this owner is no victim of a deadlock.
    pub(crate) fn mark_prepared(&self, owner: &Owner) {
        owner.set_prepared();
    }

    /// What an owner holds, in the order of acquisition.
    pub(crate) fn held_by(&self, owner: &Owner) -> Vec<HeldLock> {
        let describe = |held: Held| {
            let stripe = self.stripes.one(held.stripe);
            let mode = match &held.span {
                Span::Key(key) => stripe.mode_of(owner.id(), held.keyspace, key),
                Span::Range { .. } => {
                    let mut own = stripe.ranges.iter().filter(|hold| hold.owner.id() == owner.id());
                    own.find(|hold| hold.keyspace == held.keyspace && hold.span == held.span)
                        .map(|hold| hold.mode)
                }
            };
            drop(stripe);
            // It may have ended meanwhile.
            mode.map(|mode| LockDescription::new(held.keyspace.0, held.span.as_ref().describe(), mode))
        };
        owner.held().into_iter().filter_map(describe).map(|lock| self.named(lock)).collect()
    }

    /// Grows whenever a search for a deadlock may find what an earlier one did not.
    pub(super) fn changes(&self) -> u64 {
        let counters = &self.counters;
        let withdrawn = counters.withdrawn.load(Ordering::Acquire);
        counters.waits.load(Ordering::Acquire).wrapping_add(withdrawn)
    }

    /// What an owner waits for.
    pub(crate) fn waiting_for(&self, owner: &Owner) -> Option<WaitingFor> {
        let request = owner.waiting()?;
        let waited = self.clock.now().saturating_sub(request.since);
        Some(WaitingFor { lock: self.named(request.describe()), waited })
    }

    /// The table's numbers. They are read one after the other.
    pub(crate) fn stats(&self) -> LockStats {
        let (mut held, mut waiting, mut ranges, mut waiting_ranges) = (0usize, 0usize, 0usize, 0usize);
        for stripe in self.stripes.0.iter() {
            let stripe = stripe.0.lock();
            held = held.saturating_add(stripe.held);
            let wanted = stripe.waiting.iter().filter(|request| request.is_range()).count();
            waiting = waiting.saturating_add(stripe.waiting.len().saturating_sub(wanted));
            (ranges, waiting_ranges) = (stripe.ranges.len(), wanted);
        }
        let counters = &self.counters;
        LockStats {
            held: held.saturating_add(ranges) as u64,
            waiting: waiting.saturating_add(waiting_ranges) as u64,
            waits: counters.waits.load(Ordering::Relaxed),
            wait_time: Duration::from_nanos(counters.wait_nanos.load(Ordering::Relaxed)),
            timeouts: counters.timeouts.load(Ordering::Relaxed),
            deadlocks: counters.deadlocks.load(Ordering::Relaxed),
            searches: counters.searches.load(Ordering::Relaxed),
            search_steps: counters.search_steps.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed) as u64,
        }
    }
}

/// Stripe of a key.
fn stripe_of(keyspace: KeyspaceId, key: &[u8]) -> u32 {
    let hash = checksum::key_hash(key) ^ u64::from(keyspace.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> 32).checked_rem(STRIPES as u64).unwrap_or(0) as u32
}

/// Memory of a lock on this.
pub(super) fn cost(span: SpanRef<'_>) -> usize {
    let fixed = match span {
        SpanRef::Key(_) => LOCK_BYTES,
        SpanRef::Range { .. } => RANGE_BYTES,
    };
    fixed.saturating_add(span.bytes())
}
