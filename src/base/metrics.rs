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

/// A number of the calling thread, for choosing among a few cache lines.
#[inline]
pub(crate) fn thread_stripe() -> usize {
    STRIPE.with(Cell::get)
}

impl Counter {
    /// Adds to it.
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        let index = thread_stripe();
        if let Some(stripe) = self.stripes.get(index) {
            stripe.0.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// Sum of everything added.
    pub(crate) fn get(&self) -> u64 {
        self.stripes.iter().fold(0u64, |sum, stripe| sum.wrapping_add(stripe.0.load(Ordering::Relaxed)))
    }
}

/// Buckets of a histogram: 16 per power of two.
const SUB_BITS: u32 = 4;
const BUCKETS: usize = 61 << SUB_BITS;

/// Counts of values in buckets whose bounds grow by a sixteenth: a value is known within 7 %.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Box<[AtomicU64]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Histogram {
    /// Counts a value.
    pub(crate) fn record(&self, value: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(value)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts now.
    pub(crate) fn snapshot(&self) -> Counts {
        Counts(self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect())
    }
}

/// Counts of a histogram at one moment.
#[derive(Debug)]
pub(crate) struct Counts(Vec<u64>);

impl Counts {
    /// Number of values.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Upper bound of the bucket in which this share of the values is reached; 0 when there are none.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let wanted = ((self.total() as f64) * share).ceil() as u64;
        let mut sum = 0u64;
        for (index, count) in self.0.iter().enumerate() {
            sum = sum.wrapping_add(*count);
            if *count > 0 && sum >= wanted {
                return bucket_end(index);
            }
        }
        0
    }
}

/// Below 16 each value has a bucket; above, the four bits after the leading one choose it.
fn bucket_of(value: u64) -> usize {
    let exponent = 63u32.saturating_sub(value.max(1).leading_zeros());
    let Some(shift) = exponent.checked_sub(SUB_BITS) else { return value as usize };
    let sub = (value >> shift) as usize;
    ((shift as usize) << SUB_BITS).wrapping_add(sub)
}

/// Largest value of a bucket.
fn bucket_end(index: usize) -> u64 {
    let Some(shift) = (index >> SUB_BITS).checked_sub(1) else { return index as u64 };
    let sub = (index & ((1 << SUB_BITS) - 1)) | (1 << SUB_BITS);
    let next = (sub as u128).wrapping_add(1) << shift;
    u64::try_from(next.wrapping_sub(1)).unwrap_or(u64::MAX)
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

    #[test]
    fn every_value_lies_in_its_bucket_and_buckets_are_narrow() {
        let mut values: Vec<u64> = (0..5000).collect();
        values.extend(
            (5..64).flat_map(|shift| [(1u64 << shift) - 1, 1 << shift, (1 << shift) + (1 << (shift - 5))]),
        );
        values.push(u64::MAX);
        for value in values {
            let index = bucket_of(value);
            assert!(index < BUCKETS, "{value}");
            let end = bucket_end(index);
            assert!(end >= value, "{value} in bucket ending {end}");
            assert!((end - value) as f64 <= value as f64 / 15.0, "{value} in bucket ending {end}");
            assert!(index == 0 || bucket_end(index - 1) < value, "{value}");
        }
    }

    #[test]
    fn quantiles_come_from_the_counts() {
        let histogram = Histogram::default();
        (1..=100).for_each(|value| histogram.record(value));
        let counts = histogram.snapshot();
        assert_eq!(counts.total(), 100);
        assert!((50..=53).contains(&counts.quantile(0.5)), "{}", counts.quantile(0.5));
        assert!((100..=103).contains(&counts.quantile(1.0)));
        assert_eq!(Histogram::default().snapshot().quantile(0.5), 0);
    }
}
