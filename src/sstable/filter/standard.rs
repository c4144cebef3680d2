//! Filter kind 1: the `bloomfilter` crate's whole-table Bloom filter, over key hashes.
//!
//! The block is the crate's serialized form, version 1: u8 version, u64 bytes of bits, u32 probes, 32 bytes of seed
//! (integers little-endian), then the bits. The crate hashes the eight little-endian bytes of the key hash with
//! SipHash-1-3 under each half of the seed and doubles from there. The seed is fixed, so that equal tables are equal
//! files, and its halves differ, without which both hashes would be one. The crate accepts lengths and counts that
//! make it divide by zero or loop for minutes: they are checked here first.

use super::super::bytes::Malformed;
use crate::base::coding::Reader;
use bloomfilter::Bloom;

/// Never change.
const SEED: [u8; 32] = *b"esker.filter.1/aesker.filter.1/b";

const HEADER_BYTES: usize = 45;
const VERSION: u8 = 1;
const PROBES_MAX: u32 = 30;

/// A filter in memory.
#[derive(Debug)]
pub(crate) struct StandardFilter {
    bloom: Bloom<u64>,
}

impl StandardFilter {
    /// Takes the bytes of a filter block.
    pub(crate) fn decode(block: &[u8]) -> Result<StandardFilter, Malformed> {
        validate(block)?;
        let bloom = Bloom::from_slice(block).map_err(Malformed)?;
        Ok(StandardFilter { bloom })
    }

    /// Whether a key of this hash may have been added.
    #[inline]
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        self.bloom.check(&hash)
    }

    /// Memory that it holds.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bloom.as_slice().len()
    }
}

fn validate(block: &[u8]) -> Result<(), Malformed> {
    let short = Malformed("a filter shorter than its header");
    let mut reader = Reader::new(block);
    let version = reader.u8().ok_or(short)?;
    let len = reader.u64().ok_or(short)?;
    let probes = reader.u32().ok_or(short)?;
    let seed = reader.take(SEED.len()).ok_or(short)?;
    if version != VERSION || seed != SEED {
        return Err(Malformed("a filter of another version or seed"));
    }
    if len == 0 || len != block.len().saturating_sub(HEADER_BYTES) as u64 {
        return Err(Malformed("a filter whose length is not that of its bits"));
    }
    if !(1..=PROBES_MAX).contains(&probes) {
        return Err(Malformed("a filter with an impossible number of probes"));
    }
    Ok(())
}

/// The filter block over these hashes, of which there is at least one.
pub(super) fn build(bits_per_key: u32, hashes: &[u64]) -> Option<Vec<u8>> {
    let bits = hashes.len().saturating_mul(bits_per_key as usize);
    let mut bloom = Bloom::new_with_seed(bits.div_ceil(8).max(1), hashes.len(), &SEED).ok()?;
    for hash in hashes {
        bloom.set(hash);
    }
    Some(bloom.into_bytes())
}
