//! Values: slices of one pool of compressible bytes, as in RocksDB's db_bench, so that making a value costs nothing.

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Normal};
use serde::Serialize;
use std::fmt;

/// Bytes of the pool, unless one value is larger.
const POOL_BYTES: usize = 1 << 20;
/// The pool is made of pieces of this size, each compressible by itself.
const PIECE_BYTES: usize = 100;

/// How value sizes spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SizeDistribution {
    /// All of one size
    Fixed,
    /// Every size between smallest and largest equally likely
    Uniform,
    /// A bell around the middle, with smallest and largest three standard deviations away
    Normal,
}

/// Sizes of values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueSizes {
    /// All of one size.
    Fixed(usize),
    /// Equally likely between the bounds, both included.
    Uniform { min: usize, max: usize },
    /// A bell between the bounds.
    Normal { min: usize, max: usize },
}

impl ValueSizes {
    /// Mean size.
    pub fn mean(self) -> f64 {
        match self {
            ValueSizes::Fixed(size) => size as f64,
            ValueSizes::Uniform { min, max } | ValueSizes::Normal { min, max } => {
                (min as f64 + max as f64) / 2.0
            }
        }
    }

    /// Largest size.
    pub fn max(self) -> usize {
        match self {
            ValueSizes::Fixed(size) => size,
            ValueSizes::Uniform { max, .. } | ValueSizes::Normal { max, .. } => max,
        }
    }

    #[inline]
    fn next(self, rng: &mut SmallRng) -> usize {
        match self {
            ValueSizes::Fixed(size) => size,
            ValueSizes::Uniform { min, max } => rng.random_range(min..=max),
            ValueSizes::Normal { min, max } => {
                let deviation = (max as f64 - min as f64) / 6.0;
                let size = Normal::new(self.mean(), deviation).map_or(self.mean(), |bell| bell.sample(rng));
                (size as usize).clamp(min, max)
            }
        }
    }
}

impl fmt::Display for ValueSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueSizes::Fixed(size) => write!(f, "{size} bytes each"),
            ValueSizes::Uniform { min, max } => write!(f, "{min} to {max} bytes, uniform"),
            ValueSizes::Normal { min, max } => write!(f, "{min} to {max} bytes, normal"),
        }
    }
}

/// The pool, shared by all threads.
#[derive(Debug)]
pub struct ValuePool {
    bytes: Vec<u8>,
}

impl ValuePool {
    /// A pool that compresses to about `ratio` of its size and can serve values of `size_max` bytes.
    pub fn new(ratio: f64, size_max: usize, seed: u64) -> ValuePool {
        let mut rng = SmallRng::seed_from_u64(seed);
        let size = POOL_BYTES.max(size_max);
        let raw_bytes = ((PIECE_BYTES as f64 * ratio) as usize).clamp(1, PIECE_BYTES);
        let mut bytes = Vec::with_capacity(size + PIECE_BYTES);
        while bytes.len() < size {
            let raw: Vec<u8> = (0..raw_bytes).map(|_| rng.random_range(b' '..=b'~')).collect();
            bytes.extend(raw.iter().cycle().take(PIECE_BYTES));
        }
        ValuePool { bytes }
    }

    /// Values for one thread, starting at a place of its own.
    pub fn values(&self, sizes: ValueSizes, rng: &mut SmallRng) -> Values<'_> {
        Values { pool: &self.bytes, position: rng.random_range(0..self.bytes.len()), sizes }
    }
}

/// The values of one thread.
#[derive(Debug)]
pub struct Values<'a> {
    pool: &'a [u8],
    position: usize,
    sizes: ValueSizes,
}

impl<'a> Values<'a> {
    /// The next value.
    #[inline]
    pub fn next(&mut self, rng: &mut SmallRng) -> &'a [u8] {
        let size = self.sizes.next(rng).min(self.pool.len());
        if self.position + size > self.pool.len() {
            self.position = 0;
        }
        let value = &self.pool[self.position..self.position + size];
        self.position += size;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_sizes(sizes: ValueSizes, low: usize, high: usize, mean: f64) {
        let mut rng = SmallRng::seed_from_u64(7);
        let drawn: Vec<usize> = (0..20_000).map(|_| sizes.next(&mut rng)).collect();
        assert!(drawn.iter().all(|size| (low..=high).contains(size)), "{sizes:?}");
        let average = drawn.iter().sum::<usize>() as f64 / drawn.len() as f64;
        assert!((average - mean).abs() < mean * 0.02, "{sizes:?}: mean {average}, expected {mean}");
    }

    #[test]
    fn sizes_follow_their_distribution() {
        check_sizes(ValueSizes::Fixed(100), 100, 100, 100.0);
        check_sizes(ValueSizes::Uniform { min: 10, max: 30 }, 10, 30, 20.0);
        check_sizes(ValueSizes::Normal { min: 100, max: 700 }, 100, 700, 400.0);
        check_sizes(ValueSizes::Normal { min: 5, max: 5 }, 5, 5, 5.0);
    }

    #[test]
    fn a_piece_repeats_after_its_incompressible_part() {
        let pool = ValuePool::new(0.25, 0, 3);
        assert!(pool.bytes.len() >= POOL_BYTES);
        for piece in pool.bytes.chunks_exact(PIECE_BYTES).take(50) {
            assert_eq!(piece[..25], piece[25..50]);
            assert_ne!(piece[..24], piece[1..25]);
        }
    }

    #[test]
    fn values_wrap_around_the_pool_and_may_be_as_large_as_it() {
        let size = 2 * POOL_BYTES + 17;
        let pool = ValuePool::new(0.5, size, 3);
        let mut rng = SmallRng::seed_from_u64(1);
        let mut values = pool.values(ValueSizes::Fixed(size), &mut rng);
        for _ in 0..3 {
            assert_eq!(values.next(&mut rng).len(), size);
        }
    }
}
