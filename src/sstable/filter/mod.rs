//! Filters: a small summary of a table's user keys that answers "certainly not here" for most absent keys.
//!
//! A filter that wrongly says "not here" loses data, so the bytes and the hash they rest on are part of the format and
//! held by golden vectors. Every filter is asked with [`key_hash`](crate::base::checksum::key_hash) of the user key.

mod blocked;
mod standard;
#[cfg(test)]
mod tests;

use super::FilterKind;
use super::bytes::Malformed;
use super::frame::RAW_BYTES_MAX;
pub(super) use blocked::BlockedFilter;
pub(super) use standard::StandardFilter;

/// Fewest and most bits per key that are used, whatever is asked for.
const BITS_PER_KEY_MIN: u32 = 1;
const BITS_PER_KEY_MAX: u32 = 40;

/// A table's filter in memory.
#[derive(Debug)]
pub(super) enum Filter {
    /// No filter: any key may be here.
    None,
    /// Kind 1.
    Standard(StandardFilter),
    /// Kind 2.
    Blocked(BlockedFilter),
}

impl Filter {
    /// Takes the bytes of a filter block of this kind.
    pub(super) fn decode(kind: FilterKind, bytes: &[u8]) -> Result<Filter, Malformed> {
        match kind {
            FilterKind::None => Ok(Filter::None),
            FilterKind::Standard => Ok(Filter::Standard(StandardFilter::decode(bytes)?)),
            FilterKind::Blocked => Ok(Filter::Blocked(BlockedFilter::decode(bytes)?)),
        }
    }

    /// Whether a key of this hash may be in the table.
    #[inline]
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        match self {
            Filter::None => true,
            Filter::Standard(filter) => filter.may_contain(hash),
            Filter::Blocked(filter) => filter.may_contain(hash),
        }
    }

    /// Memory that it holds.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Filter::None => 0,
            Filter::Standard(filter) => filter.memory_bytes(),
            Filter::Blocked(filter) => filter.memory_bytes(),
        }
    }
}

/// The filter block over these hashes; `None` when none is wanted, or when it would outgrow a block.
pub(super) fn build(kind: FilterKind, bits_per_key: u32, hashes: &[u64]) -> Option<Vec<u8>> {
    let bits_per_key = bits_per_key.min(BITS_PER_KEY_MAX);
    let bytes = hashes.len().saturating_mul(bits_per_key as usize) / 8;
    if bits_per_key < BITS_PER_KEY_MIN || hashes.is_empty() || bytes > RAW_BYTES_MAX / 2 {
        return None;
    }
    match kind {
        FilterKind::None => None,
        FilterKind::Standard => standard::build(bits_per_key, hashes),
        FilterKind::Blocked => Some(blocked::build(bits_per_key, hashes)),
    }
}
