//! Whether a plain write may pass without locks: it may while no transaction is open.
//!
//! A plain write announces itself in one of a few counters, then looks whether a transaction is open. A transaction
//! counts itself as open, then waits until every counter is zero. One of the two sees the other (both sides write
//! before they read, in one total order), so once `open` has returned, every plain write has either been published
//! or takes locks. The counters are spread over cache lines, so that writers on different processors do not share
//! one.

use super::parts::{AtomicU64, Condvar, Mutex, Rank, thread_stripe};
use std::cell::Cell;
use std::sync::atomic::Ordering::SeqCst;

thread_local! {
    /// Writes of this thread that pass.
    static PASSING: Cell<u32> = const { Cell::new(0) };
}

/// Whether the calling thread is inside a write that passes: [`Gate::open`] would wait for itself.
pub(crate) fn is_passing() -> bool {
    PASSING.get() > 0
}

/// Counters of passing writes.
const STRIPES: usize = 16;

#[derive(Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

/// The gate. See the module's doc.
pub(crate) struct Gate {
    open: AtomicU64,
    passing: [Stripe; STRIPES],
    /// Transactions that wait for writes to pass.
    drained: Condvar,
    turn: Mutex<()>,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate {
            open: AtomicU64::new(0),
            passing: Default::default(),
            drained: Condvar::default(),
            turn: Mutex::new(Rank::Leaf, ()),
        }
    }

    /// Lets a plain write pass until the answer is dropped; `None` while a transaction is open: then it takes locks.
    #[inline]
    pub(crate) fn pass(&self) -> Option<Pass<'_>> {
        let stripe = self.passing.get(thread_stripe() % STRIPES)?;
        stripe.0.fetch_add(1, SeqCst);
        PASSING.set(PASSING.get().wrapping_add(1));
        let pass = Pass { gate: self, stripe };
        (self.open.load(SeqCst) == 0).then_some(pass)
    }

    /// Counts a transaction as open, and returns when no write passes any more. To be followed by [`close`](Gate::close).
    pub(crate) fn open(&self) {
        self.open.fetch_add(1, SeqCst);
        if self.is_drained() {
            return;
        }
        let mut turn = self.turn.lock();
        while !self.is_drained() {
            self.drained.wait(&mut turn);
        }
    }

    /// The end of a transaction.
    pub(crate) fn close(&self) {
        self.open.fetch_sub(1, SeqCst);
    }

    fn is_drained(&self) -> bool {
        self.passing.iter().all(|stripe| stripe.0.load(SeqCst) == 0)
    }
}

/// A write that passes.
pub(crate) struct Pass<'a> {
    gate: &'a Gate,
    stripe: &'a Stripe,
}

impl Drop for Pass<'_> {
    #[inline]
    fn drop(&mut self) {
        PASSING.set(PASSING.get().wrapping_sub(1));
        self.stripe.0.fetch_sub(1, SeqCst);
        if self.gate.open.load(SeqCst) > 0 {
            // The turn is taken so that a transaction between its look and its wait does not miss this.
            let turn = self.gate.turn.lock();
            drop(turn);
            self.gate.drained.notify_all();
        }
    }
}
