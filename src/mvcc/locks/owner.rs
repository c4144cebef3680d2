//! The owner of locks: a transaction, or a plain write for as long as it takes.
//!
//! Its slot is where it sleeps, and where others tell it how its wait ended. The slot also has the list of what it
//! holds. Both change under the slot's mutex, which is taken under the mutex of a stripe and never the other way
//! round; so an owner that was ended, chosen as a victim, or gave up, is never granted anything afterwards.

use super::TxnId;
use super::queue::Request;
use super::span::Span;
use crate::base::deadlock::{DeadlockReport, transaction_name};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Condvar, Mutex, Rank};
use crate::base::types::KeyspaceId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What reports say of an owner, and what the choice of a victim looks at.
#[derive(Debug, Clone)]
pub(crate) struct OwnerInfo {
    /// Unlike that of any other owner of the table, ever.
    pub(crate) id: TxnId,
    /// Given by the user.
    pub(crate) label: Option<Arc<str>>,
    /// Isolation level, or what it is.
    pub(crate) level: &'static str,
    /// Lower ones are sacrificed first.
    pub(crate) priority: i32,
    /// When it began, by the clock of the table.
    pub(crate) started: Duration,
}

/// Whoever holds locks.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(super) info: OwnerInfo,
    writes: AtomicU64,
    prepared: AtomicBool,
    slot: Mutex<Slot>,
    changed: Condvar,
}

/// A held lock, as its owner remembers it. The mode is in the stripe.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// Stripe of a key; [`ALL_STRIPES`] for a range.
    pub(super) stripe: u32,
    pub(super) keyspace: KeyspaceId,
    pub(super) span: Span,
}

/// Stands for the stripe of a range.
pub(super) const ALL_STRIPES: u32 = u32::MAX;

#[derive(Debug, Default)]
struct Slot {
    held: Vec<Held>,
    phase: Phase,
    /// All locks were given back; there will be no others.
    ended: bool,
}

/// How far a wait is.
#[derive(Debug, Default)]
enum Phase {
    #[default]
    Idle,
    Waiting(Arc<Request>),
    Granted {
        fresh: bool,
    },
    Doomed(Arc<DeadlockReport>),
}

/// How a wait ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Granted {
        fresh: bool,
    },
    Doomed(Arc<DeadlockReport>),
    /// `release_all` was called meanwhile, which also took back what was granted, if it was.
    Ended {
        granted: bool,
    },
    /// It has not.
    Waiting,
}

impl Owner {
    pub(super) fn new(info: OwnerInfo) -> Owner {
        Owner {
            info,
            writes: AtomicU64::new(0),
            prepared: AtomicBool::new(false),
            slot: Mutex::new(Rank::Leaf, Slot::default()),
            changed: Condvar::default(),
        }
    }

    /// Number of the transaction.
    pub(crate) fn id(&self) -> TxnId {
        self.info.id
    }

    /// What it said of itself.
    pub(crate) fn info(&self) -> &OwnerInfo {
        &self.info
    }

    /// Number and label.
    pub(super) fn name(&self) -> String {
        transaction_name(self.info.id, self.info.label.as_deref())
    }

    /// Writes done so far, for the choice of a victim.
    pub(crate) fn set_writes(&self, writes: u64) {
        self.writes.store(writes, Ordering::Relaxed);
    }

    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    pub(super) fn set_prepared(&self) {
        self.prepared.store(true, Ordering::Release);
    }

    pub(crate) fn is_prepared(&self) -> bool {
        self.prepared.load(Ordering::Acquire)
    }

    fn ended_error(&self) -> Error {
        Error::new(ErrorKind::InvalidArgument, format!("{} has ended: it takes no locks", self.name()))
    }

    /// Fails when the owner may take no more locks.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.slot.lock().ended { Err(self.ended_error()) } else { Ok(()) }
    }

    /// Notes a lock that was free. The caller holds the stripe, and adds the owner to it.
    pub(super) fn hold(&self, held: Held) -> Result<()> {
        let mut slot = self.slot.lock();
        if slot.ended {
            return Err(self.ended_error());
        }
        slot.held.push(held);
        Ok(())
    }

    /// Begins to wait. The caller holds the stripe, and adds the request to its queue.
    pub(super) fn begin_wait(&self, request: &Arc<Request>) -> Result<()> {
        let mut slot = self.slot.lock();
        if slot.ended {
            return Err(self.ended_error());
        }
        if !matches!(slot.phase, Phase::Idle) {
            let message = format!("{} already waits for a lock on another thread", self.name());
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        slot.phase = Phase::Waiting(Arc::clone(request));
        Ok(())
    }

    /// Grants a request, unless its wait has ended otherwise. `fresh` is what the owner does not hold yet. The caller
    /// holds the stripe, adds the owner to it if the answer is yes, and calls [`notify`](Owner::notify) later.
    pub(super) fn grant(&self, request: &Request, fresh: Option<Held>) -> bool {
        let mut slot = self.slot.lock();
        if slot.ended || !slot.waits_on(request.ticket) {
            return false;
        }
        slot.phase = Phase::Granted { fresh: fresh.is_some() };
        slot.held.extend(fresh);
        true
    }

    /// Makes the waiting owner a victim, if it still waits on this request.
    pub(super) fn doom(&self, ticket: u64, report: &Arc<DeadlockReport>) -> bool {
        let mut slot = self.slot.lock();
        if slot.ended || !slot.waits_on(ticket) {
            return false;
        }
        slot.phase = Phase::Doomed(Arc::clone(report));
        true
    }

    /// Wakes the thread that waits.
    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    /// How the wait ended, if it has; takes it.
    pub(super) fn outcome(&self) -> Outcome {
        self.slot.lock().take_outcome()
    }

    /// Sleeps for at most this real time, unless the wait has ended.
    pub(super) fn sleep(&self, time: Duration) -> Outcome {
        let mut slot = self.slot.lock();
        if matches!(slot.phase, Phase::Waiting(_)) && !slot.ended {
            self.changed.wait_for(&mut slot, time);
        }
        slot.take_outcome()
    }

    /// Gives up waiting, unless the wait has ended otherwise.
    pub(super) fn give_up(&self) -> Outcome {
        let mut slot = self.slot.lock();
        let outcome = slot.take_outcome();
        slot.phase = Phase::Idle;
        outcome
    }

    /// What it waits for.
    pub(super) fn waiting(&self) -> Option<Arc<Request>> {
        let slot = self.slot.lock();
        match &slot.phase {
            Phase::Waiting(request) if !slot.ended => Some(Arc::clone(request)),
            _ => None,
        }
    }

    /// Whether it waits on the request with this ticket.
    pub(super) fn waits_on(&self, ticket: u64) -> bool {
        let slot = self.slot.lock();
        !slot.ended && slot.waits_on(ticket)
    }

    /// Whether it has a lock.
    pub(super) fn holds_any(&self) -> bool {
        !self.slot.lock().held.is_empty()
    }

    /// What it holds.
    pub(super) fn held(&self) -> Vec<Held> {
        self.slot.lock().held.clone()
    }

    /// Takes the list of what it holds; from now on it gets nothing. The caller removes it from the stripes.
    pub(super) fn end(&self) -> Vec<Held> {
        let mut slot = self.slot.lock();
        slot.ended = true;
        std::mem::take(&mut slot.held)
    }
}

impl Slot {
    fn waits_on(&self, ticket: u64) -> bool {
        matches!(&self.phase, Phase::Waiting(request) if request.ticket == ticket)
    }

    fn take_outcome(&mut self) -> Outcome {
        if self.ended {
            let phase = std::mem::take(&mut self.phase);
            return Outcome::Ended { granted: matches!(phase, Phase::Granted { fresh: true }) };
        }
        match std::mem::take(&mut self.phase) {
            Phase::Granted { fresh } => Outcome::Granted { fresh },
            Phase::Doomed(report) => Outcome::Doomed(report),
            phase @ (Phase::Waiting(_) | Phase::Idle) => {
                self.phase = phase;
                Outcome::Waiting
            }
        }
    }
}
