//! Counters that many threads bump without sharing a cache line, and a histogram of latencies.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Stripes of a counter; a power of two.
const STRIPES: usize = 16;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

/// A counter striped by thread: adding touches a line that other threads rarely touch, reading sums.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    stripes: [Stripe; STRIPES],
}

static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: Cell<usize> = Cell::new(NEXT_STRIPE.fetch_add(1, Ordering::Relaxed) & (STRIPES - 1));
}

impl Counter {
    /// Adds to it.
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        let index = STRIPE.with(Cell::get);
        if let Some(stripe) = self.stripes.get(index) {
            stripe.0.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// Sum of everything added.
    pub(crate) fn get(&self) -> u64 {
        self.stripes.iter().fold(0u64, |sum, stripe| sum.wrapping_add(stripe.0.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|_| counter.add(3)));
            }
        });
        assert_eq!(counter.get(), 24_000);
    }
}
