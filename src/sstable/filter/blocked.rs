//! Filter kind 2: a Bloom filter of cache lines. A key's bits all lie in one line of 64 bytes, so that a check
//! costs one cache miss at most. After Putze, Sanders and Singler, "Cache-, Hash- and Space-Efficient Bloom
//! Filters" (2007).
//!
//! ```text
//! lines × 64 bytes   the bits: bit b of a line is bit b % 8 of its byte b / 8
//! u8  probes         bits set per key, 1..=24
//! u8  layout         1
//! u16 zero
//! u32 lines          number of lines, at least 1
//! ```
//!
//! For a key of hash h (64 bits, unsigned, wrapping arithmetic):
//!
//! * line = ((h >> 32) × lines) >> 32
//! * m = h × 0x9e3779b97f4a7c15; the first seven bits are the seven groups of nine bits of m from the highest down:
//!   (m >> 55) & 511, (m >> 46) & 511, …, (m >> 1) & 511; for every further seven bits m is replaced by
//!   (m rotated left by 32) × 0x9e3779b97f4a7c15 first.
//!
//! Valid iff: the length is lines × 64 + 8, probes and layout are as above. Never change.

use super::super::bytes::Malformed;
use crate::base::coding::Reader;

const LINE_BYTES: usize = 64;
const TAIL_BYTES: usize = 8;
const LAYOUT: u8 = 1;
const PROBES_MAX: u32 = 24;
const PROBES_PER_WORD: u32 = 7;
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A filter in memory, its lines at addresses that are multiples of their size.
#[derive(Debug)]
pub(crate) struct BlockedFilter {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    probes: u32,
}

impl BlockedFilter {
    /// Takes the bytes of a filter block.
    pub(crate) fn decode(block: &[u8]) -> Result<BlockedFilter, Malformed> {
        let (lines, probes) = parse(block)?;
        let mut bytes = vec![0u8; lines.as_flattened().len().saturating_add(LINE_BYTES)];
        let start = bytes.as_ptr().align_offset(LINE_BYTES).min(LINE_BYTES);
        let end = start.saturating_add(lines.as_flattened().len());
        if let Some(aligned) = bytes.get_mut(start..end) {
            aligned.copy_from_slice(lines.as_flattened());
        }
        Ok(BlockedFilter { bytes, start, end, probes })
    }

    /// Whether a key of this hash may have been added.
    #[inline]
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        let (lines, _) = self.bytes.get(self.start..self.end).unwrap_or_default().as_chunks();
        may_contain(lines, self.probes, hash)
    }

    /// Address of the first line.
    #[cfg(test)]
    pub(super) fn first_line(&self) -> usize {
        self.bytes.as_ptr().addr().wrapping_add(self.start)
    }

    /// Memory that it holds.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Splits a filter block into its lines and the number of probes.
fn parse(block: &[u8]) -> Result<(&[[u8; LINE_BYTES]], u32), Malformed> {
    let short = Malformed("a filter shorter than its tail");
    let (body, tail) = block.split_last_chunk::<TAIL_BYTES>().ok_or(short)?;
    let mut tail = Reader::new(tail);
    let probes = u32::from(tail.u8().ok_or(short)?);
    let layout = tail.u8().ok_or(short)?;
    let reserved = tail.u16().ok_or(short)?;
    let count = tail.u32().ok_or(short)?;
    let (lines, rest) = body.as_chunks::<LINE_BYTES>();
    if layout != LAYOUT || reserved != 0 {
        return Err(Malformed("a filter of unknown layout"));
    }
    if lines.is_empty() || !rest.is_empty() || lines.len() as u64 != u64::from(count) {
        return Err(Malformed("a filter whose length is not that of its lines"));
    }
    if !(1..=PROBES_MAX).contains(&probes) {
        return Err(Malformed("a filter with an impossible number of probes"));
    }
    Ok((lines, probes))
}

/// The line of a hash. Both factors are below 2^32.
#[inline]
fn line_of(hash: u64, lines: usize) -> usize {
    ((hash >> 32).wrapping_mul(lines as u64) >> 32) as usize
}

/// Calls with (byte, bit mask) for each probe, in order.
#[inline]
fn probe(hash: u64, probes: u32, mut visit: impl FnMut(usize, u8)) {
    let mut mixed = hash.wrapping_mul(MULTIPLIER);
    let mut left = probes;
    loop {
        let mut window = mixed;
        for _ in 0..left.min(PROBES_PER_WORD) {
            let bit = (window >> 55) as usize;
            window <<= 9;
            visit(bit >> 3, 1 << (bit & 7));
        }
        if left <= PROBES_PER_WORD {
            return;
        }
        left = left.wrapping_sub(PROBES_PER_WORD);
        mixed = mixed.rotate_left(32).wrapping_mul(MULTIPLIER);
    }
}

/// The check itself, over borrowed lines. All probes are made: in one cache line that costs less than a branch that
/// is taken half of the time.
#[inline]
fn may_contain(lines: &[[u8; LINE_BYTES]], probes: u32, hash: u64) -> bool {
    let Some(line) = lines.get(line_of(hash, lines.len())) else { return true };
    let mut missing = 0u8;
    probe(hash, probes, |byte, mask| missing |= !line.get(byte & 63).copied().unwrap_or_default() & mask);
    missing == 0
}

/// Probes that serve this many bits per key best; fewer than a filter without lines would want, because lines fill
/// unevenly.
fn probes_for(bits_per_key: u32) -> u32 {
    (bits_per_key.saturating_mul(6).saturating_add(5) / 10).clamp(1, PROBES_MAX)
}

/// The filter block over these hashes.
pub(super) fn build(bits_per_key: u32, hashes: &[u64]) -> Vec<u8> {
    let bits = (hashes.len() as u64).saturating_mul(u64::from(bits_per_key));
    let count = u32::try_from(bits.div_ceil(512).max(1)).unwrap_or(u32::MAX);
    let probes = probes_for(bits_per_key);
    let mut block = vec![0u8; (count as usize).saturating_mul(LINE_BYTES)];
    let (lines, _) = block.as_chunks_mut::<LINE_BYTES>();
    let len = lines.len();
    for hash in hashes {
        let Some(line) = lines.get_mut(line_of(*hash, len)) else { continue };
        probe(*hash, probes, |byte, mask| {
            if let Some(bits) = line.get_mut(byte & 63) {
                *bits |= mask;
            }
        });
    }
    block.push(u8::try_from(probes).unwrap_or(u8::MAX));
    block.extend_from_slice(&[LAYOUT, 0, 0]);
    block.extend_from_slice(&count.to_le_bytes());
    block
}
