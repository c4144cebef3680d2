//! Hashing for tables in memory: XXH3 with a seed of the table's own.
//!
//! A fraction of the price of the standard library's SipHash for the short keys of a lock table. The seed is random, so
//! that nobody who only chooses keys can choose those that collide.

use super::checksum;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes the hashers of one table.
#[derive(Debug, Clone)]
pub(crate) struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Seeded {
        Seeded(RandomState::new().build_hasher().finish())
    }
}

impl BuildHasher for Seeded {
    type Hasher = SeededHasher;

    #[inline]
    fn build_hasher(&self) -> SeededHasher {
        SeededHasher(self.0)
    }
}

/// See [`Seeded`].
#[derive(Debug)]
pub(crate) struct SeededHasher(u64);

impl Hasher for SeededHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0 = checksum::seeded_hash(bytes, self.0);
    }

    /// A number, the length of bytes to come among them: spread over all bits (Fibonacci hashing, Knuth vol. 3), the
    /// upper ones folded onto those that choose the place.
    #[inline]
    fn write_u64(&mut self, number: u64) {
        let spread = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Keys of a counter, as applications have them, and plain numbers fill the places of a table evenly.
    #[test]
    fn places_and_tags_are_filled_evenly() {
        for seeded in (0..20).map(|_| Seeded::default()) {
            let numbers = (0..4096u64).map(|number| seeded.hash_one(number));
            let keys = (0..4096u64).map(|number| seeded.hash_one(number.to_be_bytes().as_slice()));
            for hashes in [numbers.collect::<Vec<_>>(), keys.collect()] {
                let places: HashSet<u64> = hashes.iter().map(|hash| hash & 4095).collect();
                let tags: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
                // At random 63 % of the places have a key.
                assert!(
                    places.len() > 2300 && tags.len() == 128,
                    "{seeded:?}: {}, {}",
                    places.len(),
                    tags.len()
                );
            }
        }
    }

    #[test]
    fn tables_hash_differently_and_each_always_the_same() {
        let (a, b) = (Seeded::default(), Seeded::default());
        let key = b"user:1".as_slice();
        assert_eq!(a.hash_one(key), a.clone().hash_one(key));
        assert_ne!(a.hash_one(key), b.hash_one(key));
        assert_ne!(a.hash_one(1u64), b.hash_one(1u64));
    }
}
