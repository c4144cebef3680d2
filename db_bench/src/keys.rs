//! Keys: the number of a key turned into bytes, and orders in which numbers are visited.
//!
//! `int` is the shape of RocksDB's db_bench: the number as 8 bytes big-endian, filled up with the character `0`. Eight
//! bytes decide every comparison then, so an engine that keeps key prefixes beside pointers looks better than it is.
//! `user` is what applications have: `user:00000001:0000000042`, where a thousand neighbours share all but the last
//! bytes. Both keep the order of the numbers.

use anyhow::Result;
use clap::ValueEnum;
use rand::RngExt;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Zipf};
use serde::Serialize;
use std::fmt;

/// How keys look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyShape {
    /// 8 bytes big-endian, then '0's, as in RocksDB's db_bench
    Int,
    /// user:00000001:0000000042, a thousand keys per user
    User,
}

const USER: &[u8] = b"user:00000000:";
const USER_DIGITS: usize = 8;
const KEYS_PER_USER: u64 = 1000;

impl KeyShape {
    /// Fewest bytes that hold the shape.
    pub fn size_min(self) -> usize {
        match self {
            KeyShape::Int => 1,
            KeyShape::User => USER.len() + 3,
        }
    }

    /// Bytes when none are asked for.
    pub fn size_default(self) -> usize {
        match self {
            KeyShape::Int => 16,
            KeyShape::User => 24,
        }
    }

    /// How many different keys the shape has at this size.
    pub fn ids_max(self, size: usize) -> u64 {
        match self {
            KeyShape::Int if size >= 8 => u64::MAX,
            KeyShape::Int => 1 << (8 * size),
            KeyShape::User => 10u64.pow(USER_DIGITS as u32) * KEYS_PER_USER,
        }
    }
}

impl fmt::Display for KeyShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyShape::Int => "int",
            KeyShape::User => "user",
        })
    }
}

/// One key, rewritten in place: setting it touches only the bytes that change.
#[derive(Debug, Clone)]
pub struct Key {
    shape: KeyShape,
    bytes: Vec<u8>,
}

impl Key {
    /// The key of number 0.
    pub fn new(shape: KeyShape, size: usize) -> Key {
        let mut bytes = vec![b'0'; size];
        if shape == KeyShape::User {
            bytes[..USER.len()].copy_from_slice(USER);
        }
        let mut key = Key { shape, bytes };
        key.set(0);
        key
    }

    /// Makes it the key of this number.
    #[inline]
    pub fn set(&mut self, id: u64) -> &[u8] {
        match self.shape {
            KeyShape::Int => {
                let filled = self.bytes.len().min(8);
                self.bytes[..filled].copy_from_slice(&id.to_be_bytes()[8 - filled..]);
            }
            KeyShape::User => {
                write_digits(
                    &mut self.bytes[USER.len() - 1 - USER_DIGITS..USER.len() - 1],
                    id / KEYS_PER_USER,
                );
                let end = self.bytes.len();
                write_digits(&mut self.bytes[end - 3..], id % KEYS_PER_USER);
            }
        }
        &self.bytes
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Visits `0..n` in an order that looks random, each number once.
///
/// A four-round Feistel network over the next even number of bits, walked until it lands inside the range (Black and
/// Rogaway, "Ciphers with arbitrary finite domains", 2002). Needs no memory, unlike a shuffled list.
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; 4],
}

impl Permutation {
    /// A permutation of `0..n` chosen by `seed`.
    pub fn new(n: u64, seed: u64) -> Permutation {
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        let keys = [1u64, 2, 3, 4].map(|round| mix(seed ^ round.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        Permutation { n, half_bits: bits.div_ceil(2).max(1), keys }
    }

    /// The number at this place of the order; `index` must be below `n`.
    pub fn at(&self, index: u64) -> u64 {
        let mut value = self.round_trip(index);
        while value >= self.n {
            value = self.round_trip(value);
        }
        value
    }

    fn round_trip(&self, value: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

/// The finalizer of SplitMix64.
fn mix(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

/// The skew of YCSB: the k-th most popular of n items is chosen with probability proportional to 1 / k^0.99.
const YCSB_SKEW: f64 = 0.99;

/// Chooses ranks `0..n` by Zipf's law with YCSB's skew; rank 0 is the most popular.
#[derive(Debug, Clone, Copy)]
pub struct Zipfian {
    n: u64,
    law: Zipf<f64>,
}

impl Zipfian {
    /// Over `n` items, at least one.
    pub fn new(n: u64) -> Result<Zipfian> {
        Ok(Zipfian { n, law: Zipf::new(n as f64, YCSB_SKEW)? })
    }

    /// A rank.
    #[inline]
    pub fn rank(&self, rng: &mut SmallRng) -> u64 {
        (self.law.sample(rng) as u64).saturating_sub(1).min(self.n - 1)
    }

    /// An item: popular ones are scattered over the whole range by a hash of their rank, as in YCSB.
    #[inline]
    pub fn scattered(&self, rng: &mut SmallRng) -> u64 {
        fnv1a(self.rank(rng)) % self.n
    }
}

fn fnv1a(value: u64) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    value.to_le_bytes().iter().fold(0xCBF2_9CE4_8422_2325, step)
}

/// A number below `n`, all equally likely.
#[inline]
pub fn uniform(rng: &mut SmallRng, n: u64) -> u64 {
    rng.random_range(0..n.max(1))
}

#[cfg(test)]
mod tests;
