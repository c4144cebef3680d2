//! Keys and values: the number of a key as 8 bytes big-endian and eight zeros, as in RocksDB's `db_bench`; values of
//! which one half is random and the other zeros.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt};

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;

/// The key of this number.
pub fn key(id: u64) -> [u8; KEY_BYTES] {
    let mut key = [b'0'; KEY_BYTES];
    key[..8].copy_from_slice(&id.to_be_bytes());
    key
}

/// The number in a value of eight bytes.
pub fn number(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(value.try_into().ok()?))
}

/// Values cut from one random buffer.
pub struct Values {
    pool: Vec<u8>,
    value_bytes: usize,
}

const POOL_VALUES: usize = 1000;

impl Values {
    /// Values of this size.
    pub fn new(value_bytes: usize, rng: &mut SmallRng) -> Values {
        let mut pool = vec![0; value_bytes * POOL_VALUES];
        for value in pool.chunks_mut(value_bytes.max(1)) {
            let half = value.len().div_ceil(2);
            rng.fill_bytes(&mut value[..half]);
        }
        Values { pool, value_bytes }
    }

    /// One of them.
    pub fn next(&self, rng: &mut SmallRng) -> &[u8] {
        let at = rng.random_range(0..POOL_VALUES) * self.value_bytes;
        &self.pool[at..at + self.value_bytes]
    }
}
