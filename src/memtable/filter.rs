//! Which user keys a memtable may hold: a Bloom filter blocked by cache line (Putze, Sanders, Singler: "Cache-,
//! Hash- and Space-Efficient Bloom Filters", 2007) that grows no more once made and takes no lock.
//!
//! A key has one 64-byte block; in it, three bits in each of two different words. So a question is one cache miss
//! and an addition at most two atomic operations, none when the bits are there already.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of the filter for each expected key: under 1 % of absent keys pass.
const BITS_PER_KEY: usize = 12;

const BLOCK_BITS: usize = 512;

/// Largest filter, 16 MiB: a memtable may be allowed to grow to any size, but the filter is made for
/// all of it with the first entry.
const BLOCKS_MAX: usize = 1 << 18;

/// One cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Block([AtomicU64; 8]);

/// The filter. Never denies a key that was added.
#[derive(Debug)]
pub(super) struct Filter {
    blocks: Box<[Block]>,
}

/// The two words of a key's block and the bits it has in each.
struct Probe<'a> {
    words: [(&'a AtomicU64, u64); 2],
}

impl Filter {
    /// A filter for about this many keys. More may be added; then more absent keys pass.
    pub(super) fn new(keys: usize) -> Filter {
        let blocks = keys.saturating_mul(BITS_PER_KEY).div_ceil(BLOCK_BITS).clamp(1, BLOCKS_MAX);
        Filter { blocks: (0..blocks).map(|_| Block::default()).collect() }
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.blocks)
    }

    /// Adds the key with this hash.
    ///
    /// Relaxed is enough: whoever learns of the key from the writer, by the publication of its sequence number or
    /// otherwise, learns of what the writer did before, and that includes these bits.
    #[inline]
    pub(super) fn add(&self, hash: u64) {
        let Some(probe) = self.probe(hash) else { return };
        for (word, bits) in probe.words {
            if word.load(Ordering::Relaxed) & bits != bits {
                word.fetch_or(bits, Ordering::Relaxed);
            }
        }
    }

    /// Whether the key with this hash may have been added.
    #[inline]
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        let Some(probe) = self.probe(hash) else { return true };
        probe.words.iter().all(|(word, bits)| word.load(Ordering::Relaxed) & bits == *bits)
    }

    #[inline]
    fn probe(&self, hash: u64) -> Option<Probe<'_>> {
        let scaled = (hash >> 32).wrapping_mul(self.blocks.len() as u64) >> 32;
        let Block(words) = self.blocks.get(scaled as usize)?;
        // The upper bits of the product depend on every bit of the hash.
        let mix = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bit = |shift: u32| 1u64 << ((mix >> shift) & 63);
        let first = (mix >> 61) & 7;
        let second = first ^ ((mix >> 58) & 6) ^ 1;
        Some(Probe {
            words: [
                (words.get(first as usize)?, bit(53) | bit(47) | bit(41)),
                (words.get(second as usize)?, bit(35) | bit(29) | bit(23)),
            ],
        })
    }
}
