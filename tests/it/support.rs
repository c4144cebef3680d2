//! What the tests share: a seeded generator, settings from the environment, the state of a database as a map.

use esker::{Keyspace, Result};
use std::collections::BTreeMap;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        // Half compressible: each random byte stands twice.
        (0..len.div_ceil(2)).flat_map(|_| [self.next() as u8; 2]).take(len).collect()
    }
}

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, is {text:?}")),
        Err(_) => default,
    }
}

/// The seed of a random test: from `ESKER_SEED`, or this one.
pub fn seed(default: u64) -> u64 {
    setting("ESKER_SEED", default)
}

pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Everything in a keyspace, read forward.
pub fn contents(keyspace: &Keyspace) -> Result<Map> {
    keyspace.iter().map(|item| item.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
}
