//! The gate under a model checker: the kernel's source once more, over parts whose every access is a point where
//! another thread may go on (shuttle: random and probabilistic concurrency testing, Burckhardt et al. 2010).

/// The same kernel, in this module over the checker's parts.
#[path = "kernel.rs"]
#[expect(clippy::duplicate_mod, reason = "a second time, over other parts")]
mod kernel;

mod parts {
    pub(super) use crate::base::model::{AtomicU64, Condvar, Mutex, Rank, thread_stripe};
}

use crate::base::model::explore;
use kernel::{Gate, is_passing};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

/// What the threads of a model know of each other. Counted past the checker: this adds no points where it switches.
struct World {
    gate: Gate,
    /// Writes that passed and have not ended.
    passing: AtomicU64,
    passed: AtomicU64,
    locked: AtomicU64,
}

impl World {
    fn write(&self) {
        match self.gate.pass() {
            Some(_pass) => {
                assert!(is_passing());
                self.passing.fetch_add(1, SeqCst);
                shuttle::thread::yield_now();
                self.passing.fetch_sub(1, SeqCst);
                self.passed.fetch_add(1, SeqCst);
            }
            None => {
                self.locked.fetch_add(1, SeqCst);
            }
        };
    }

    fn transaction(&self) {
        self.gate.open();
        for _ in 0..2 {
            assert_eq!(self.passing.load(SeqCst), 0, "a write passes while a transaction is open");
            shuttle::thread::yield_now();
        }
        self.gate.close();
    }
}

/// Threads with so many operations each: all end, no write passes an open transaction, and with none open all pass.
#[test]
fn no_write_passes_while_a_transaction_is_open_in_any_interleaving() {
    let (passed, locked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for (writers, transactions, rounds) in [(1, 1, 1), (1, 1, 3), (2, 1, 2), (2, 2, 2), (3, 2, 1), (1, 3, 2)]
    {
        let (all_passed, all_locked) = (Arc::clone(&passed), Arc::clone(&locked));
        explore(move || {
            let zero = || AtomicU64::new(0);
            let world =
                Arc::new(World { gate: Gate::new(), passing: zero(), passed: zero(), locked: zero() });
            let spawn = |body: fn(&World)| {
                let world = Arc::clone(&world);
                shuttle::thread::spawn(move || (0..rounds).for_each(|_| body(&world)))
            };
            let mut threads: Vec<_> = (0..writers).map(|_| spawn(World::write)).collect();
            threads.extend((0..transactions).map(|_| spawn(World::transaction)));
            // A waiter that nobody wakes is a deadlock, which the checker reports.
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            all_passed.fetch_add(world.passed.load(SeqCst), SeqCst);
            all_locked.fetch_add(world.locked.load(SeqCst), SeqCst);
            let before = world.passed.load(SeqCst);
            world.write();
            assert_eq!(world.passed.load(SeqCst), before + 1, "nobody is open: the gate is open for all");
        });
    }
    assert!(passed.load(SeqCst) > 0 && locked.load(SeqCst) > 0, "both ways were taken");
}
