//! Index block: for each of a run of adjacent blocks, a key that no entry of the block exceeds, and where it is.
//!
//! ```text
//! keys               the separators' common prefix, then each separator without it
//! key ends           per separator: u32, end within `keys`; the highest bit says that the last 8 bytes are a trailer
//! offsets            (entries + 1) × u64: where the blocks begin in the file, and where the last one ends
//! prefixes           per separator: its first 8 bytes after the common prefix, zero padded
//! tail, 12 bytes     u32 entries, u32 bytes of keys, u16 common prefix length, u16 zero
//! ```
//!
//! A separator without trailer is **exclusive**: all user keys of its block are below it, those of the next are not.
//! It is the shortest such prefix of the next block's first user key. Where one user key has versions on both sides,
//! and at the end of the table, the separator is the last internal key of its block, with trailer, inclusive. The
//! search looks at eight bytes per step, right after what all separators share, so that keys with long shared
//! prefixes are told apart as cheaply as short ones.
//!
//! One layout serves both levels: an index over data blocks, and the top level over index partitions.
//!
//! Valid iff: the parts add up to the block's length, key ends and offsets ascend, separators ascend.

use super::bytes::{Extent, Malformed, common_prefix_len, compare, prefix_of};
use crate::base::coding::Reader;
use crate::base::key::{KeyRef, TRAILER_BYTES, Trailer};
use std::cmp::Ordering;

/// Bytes of the fixed part at the end. Never change.
const TAIL_BYTES: usize = 12;

/// The bit of a key end that says that the separator carries a trailer. Never change.
const TRAILER_BIT: u32 = 1 << 31;

/// Bytes of the columns per separator. Never change.
const ENTRY_BYTES: usize = 20;

/// A separator being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Separator<'a> {
    /// User key or prefix of one.
    pub(super) user: &'a [u8],
    /// Present: inclusive. Absent: exclusive.
    pub(super) trailer: Option<Trailer>,
}

impl<'a> Separator<'a> {
    /// The shortest separator between the last key of a block and the first of the next.
    pub(super) fn between(last: KeyRef<'a>, next: &'a [u8]) -> Separator<'a> {
        let shared = common_prefix_len(last.user, next);
        match next.get(..shared.saturating_add(1)) {
            Some(user) if last.user != next => Separator { user, trailer: None },
            _ => Separator::after(last),
        }
    }

    /// The separator after the last key of the table.
    pub(super) fn after(last: KeyRef<'a>) -> Separator<'a> {
        Separator { user: last.user, trailer: Some(last.trailer) }
    }

    /// Whether everything at or below the separator is before the target.
    fn is_before(&self, target: KeyRef<'_>) -> bool {
        match compare(self.user, target.user) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => self.trailer.is_none_or(|trailer| trailer > target.trailer),
        }
    }

    /// Whether no entry of the block may be this key.
    pub(super) fn excludes(&self, key: KeyRef<'_>) -> bool {
        self.is_before(key)
    }
}

/// Separators and block places as they are collected.
#[derive(Debug, Default, Clone)]
pub(super) struct IndexEntries {
    keys: Vec<u8>,
    ends: Vec<usize>,
    trailers: Vec<Option<Trailer>>,
    places: Vec<Extent>,
}

impl IndexEntries {
    /// Adds a block; its place must begin where the one before ended.
    pub(super) fn push(&mut self, separator: Separator<'_>, place: Extent) {
        self.keys.extend_from_slice(separator.user);
        self.ends.push(self.keys.len());
        self.trailers.push(separator.trailer);
        self.places.push(place);
    }

    /// Number of blocks.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Length of an index block over all of them, if they share no prefix.
    pub(super) fn estimated_bytes(&self) -> usize {
        let columns = self.len().saturating_mul(ENTRY_BYTES);
        self.keys.len().saturating_add(columns).saturating_add(TAIL_BYTES)
    }

    fn separator(&self, index: usize) -> Separator<'_> {
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(index).copied().unwrap_or(start);
        let trailer = self.trailers.get(index).copied().flatten();
        Separator { user: self.keys.get(start..end).unwrap_or_default(), trailer }
    }

    /// The separator of the last block among the first `end`.
    pub(super) fn last_before(&self, end: usize) -> Separator<'_> {
        self.separator(end.saturating_sub(1))
    }

    /// Cuts into ranges of blocks whose index blocks are about `bytes` long.
    pub(super) fn partitions(&self, bytes: usize) -> Vec<std::ops::Range<usize>> {
        let mut ranges = Vec::new();
        let (mut start, mut size) = (0usize, TAIL_BYTES);
        for index in 0..self.len() {
            let entry = self.separator(index).user.len().saturating_add(ENTRY_BYTES);
            if size.saturating_add(entry) > bytes && index > start {
                ranges.push(start..index);
                (start, size) = (index, TAIL_BYTES);
            }
            size = size.saturating_add(entry);
        }
        ranges.push(start..self.len());
        ranges
    }

    /// The index block over a range of the blocks.
    pub(super) fn encode(&self, range: std::ops::Range<usize>) -> Vec<u8> {
        let first = self.separator(range.start).user;
        let last = self.last_before(range.end).user;
        // Separators ascend, so what first and last share, all share; but a trailer's bytes are not shared.
        let common = common_prefix_len(first, last).min(usize::from(u16::MAX));
        let mut keys = first.get(..common).unwrap_or_default().to_vec();
        let mut ends = Vec::new();
        let mut prefixes = Vec::new();
        for index in range.clone() {
            let separator = self.separator(index);
            let rest = separator.user.get(common..).unwrap_or_default();
            keys.extend_from_slice(rest);
            let mut mark = 0;
            if let Some(trailer) = separator.trailer {
                keys.extend_from_slice(&trailer.0.to_le_bytes());
                mark = TRAILER_BIT;
            }
            ends.extend_from_slice(&(len_u32(keys.len()) | mark).to_le_bytes());
            prefixes.extend_from_slice(&prefix_of(rest).to_be_bytes());
        }
        let keys_len = len_u32(keys.len());
        let mut out = keys;
        out.extend_from_slice(&ends);
        for place in self.places.get(range.clone()).unwrap_or_default() {
            out.extend_from_slice(&place.start.to_le_bytes());
        }
        let end = self.places.get(range.end.saturating_sub(1)).map_or(0, |place| place.end);
        out.extend_from_slice(&end.to_le_bytes());
        out.extend_from_slice(&prefixes);
        out.extend_from_slice(&len_u32(range.len()).to_le_bytes());
        out.extend_from_slice(&keys_len.to_le_bytes());
        out.extend_from_slice(&u16::try_from(common).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out
    }
}

/// Length as the 31 bits a key end has: an index of 2 GiB would stand for a table of terabytes.
fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX).min(!TRAILER_BIT)
}

/// Where the parts of an index block are.
#[derive(Debug, Clone, Copy)]
pub(super) struct IndexShape {
    entries: usize,
    common: usize,
    ends: usize,
    offsets: usize,
    prefixes: usize,
}

impl IndexShape {
    /// Reads the tail and checks that the parts add up to the block.
    pub(super) fn parse(bytes: &[u8]) -> Result<IndexShape, Malformed> {
        let short = Malformed("an index block shorter than its tail");
        let (body, tail) = bytes.split_last_chunk::<TAIL_BYTES>().ok_or(short)?;
        let mut tail = Reader::new(tail);
        let entries = u64::from(tail.u32().ok_or(short)?);
        let keys_len = u64::from(tail.u32().ok_or(short)?);
        let common = tail.u16().ok_or(short)?;
        let reserved = tail.u16().ok_or(short)?;
        if entries == 0 || reserved != 0 || u64::from(common) > keys_len {
            return Err(Malformed("an index block without entries or with an impossible prefix"));
        }
        // Counts are below 2^32: nothing here can overflow 64 bits.
        let offsets = keys_len.wrapping_add(entries.wrapping_mul(4));
        let prefixes = offsets.wrapping_add(entries.wrapping_add(1).wrapping_mul(8));
        let total = prefixes.wrapping_add(entries.wrapping_mul(8));
        if total != body.len() as u64 {
            return Err(Malformed("parts that do not add up to the index block"));
        }
        // Each is at most `total`, which is a length in memory.
        Ok(IndexShape {
            entries: entries as usize,
            common: usize::from(common),
            ends: keys_len as usize,
            offsets: offsets as usize,
            prefixes: prefixes as usize,
        })
    }

    /// Reads the block that this is the shape of.
    pub(super) fn of(self, bytes: &[u8]) -> Index<'_> {
        Index { bytes, shape: self }
    }

    /// Number of blocks that the index names.
    pub(super) fn entries(self) -> usize {
        self.entries
    }
}

/// An index block being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Index<'a> {
    bytes: &'a [u8],
    shape: IndexShape,
}

impl<'a> Index<'a> {
    /// Number of blocks that the index names.
    pub(super) fn entries(&self) -> usize {
        self.shape.entries
    }

    /// Where a block is. Its end is checked against `limit`, the end of what the index may name.
    #[inline]
    pub(super) fn place(&self, index: usize, limit: u64) -> Result<Extent, Malformed> {
        let position = self.shape.offsets.wrapping_add(index.wrapping_mul(8));
        let pair = self.bytes.get(position..self.shape.prefixes).and_then(|rest| rest.first_chunk::<16>());
        let pair = pair.ok_or(Malformed("a block number outside the index"))?;
        let (start, end) = pair.split_at(8);
        let read = |half: &[u8]| half.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let place = Extent { start: read(start), end: read(end) };
        if place.start >= place.end || place.end > limit {
            return Err(Malformed("a block that is empty or outside its part of the file"));
        }
        Ok(place)
    }

    /// A separator as (user key after the common prefix, trailer).
    fn rest(&self, index: usize) -> Result<Separator<'a>, Malformed> {
        let outside = Malformed("a separator outside the index");
        let end = self.key_end(index).ok_or(outside)?;
        let start = match index.checked_sub(1) {
            Some(before) => (self.key_end(before).ok_or(outside)? & !TRAILER_BIT) as usize,
            None => self.shape.common,
        };
        let bytes = self.bytes.get(start..(end & !TRAILER_BIT) as usize).ok_or(outside)?;
        if end & TRAILER_BIT == 0 {
            return Ok(Separator { user: bytes, trailer: None });
        }
        let key = KeyRef::decode(bytes).ok_or(Malformed("a separator shorter than its trailer"))?;
        Ok(Separator { user: key.user, trailer: Some(key.trailer) })
    }

    fn key_end(&self, index: usize) -> Option<u32> {
        let position = self.shape.ends.wrapping_add(index.wrapping_mul(4));
        let chunk = self.bytes.get(position..self.shape.offsets)?.first_chunk::<4>()?;
        let end = u32::from_le_bytes(*chunk);
        ((end & !TRAILER_BIT) as usize <= self.shape.ends).then_some(end)
    }

    /// The separator of a block as an owned user key, with its trailer if it is inclusive.
    pub(super) fn separator(&self, index: usize) -> Result<(Vec<u8>, Option<Trailer>), Malformed> {
        let rest = self.rest(index)?;
        let common = self.bytes.get(..self.shape.common).unwrap_or_default();
        Ok(([common, rest.user].concat(), rest.trailer))
    }

    /// Number of the first block that may hold the target or something after it; the number of blocks if none does.
    #[inline]
    pub(super) fn search(&self, target: KeyRef<'_>) -> Result<usize, Malformed> {
        let common = self.bytes.get(..self.shape.common).unwrap_or_default();
        let head = target.user.get(..self.shape.common).unwrap_or(target.user);
        match compare(head, common) {
            Ordering::Less => return Ok(0),
            Ordering::Greater => return Ok(self.shape.entries),
            Ordering::Equal => {}
        }
        let target = KeyRef::new(target.user.get(self.shape.common..).unwrap_or_default(), target.trailer);
        let end = self.shape.prefixes.wrapping_add(self.shape.entries.wrapping_mul(8));
        let (prefixes, _) = self.bytes.get(self.shape.prefixes..end).unwrap_or_default().as_chunks::<8>();
        let wanted = prefix_of(target.user);
        let mut low = prefixes.partition_point(|prefix| u64::from_be_bytes(*prefix) < wanted);
        let ties = prefixes.get(low..).unwrap_or_default();
        if ties.first().is_none_or(|prefix| u64::from_be_bytes(*prefix) != wanted) {
            return Ok(low);
        }
        let ties = ties.partition_point(|prefix| u64::from_be_bytes(*prefix) == wanted);
        let mut high = low.wrapping_add(ties);
        while low < high {
            let middle = low.midpoint(high);
            if self.rest(middle)?.is_before(target) {
                low = middle.wrapping_add(1);
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Checks everything that searches rely on without looking; answers where the first block begins and the last
    /// one ends.
    pub(super) fn check(&self, limit: u64) -> Result<Extent, Malformed> {
        let mut before: Option<(Vec<u8>, Option<Trailer>)> = None;
        for index in 0..self.shape.entries {
            self.place(index, limit)?;
            let (user, trailer) = self.separator(index)?;
            if let Some((last, last_trailer)) = &before {
                let last = Separator { user: last, trailer: *last_trailer };
                let this = KeyRef::new(&user, trailer.unwrap_or(Trailer::FIRST));
                if !last.is_before(this) {
                    return Err(Malformed("separators that do not ascend"));
                }
            }
            let position = self.shape.prefixes.wrapping_add(index.wrapping_mul(8));
            let stored = self.bytes.get(position..).and_then(|rest| rest.first_chunk::<8>());
            let prefix = prefix_of(user.get(self.shape.common..).unwrap_or_default());
            if stored != Some(&prefix.to_be_bytes()) {
                return Err(Malformed("a prefix that does not match its separator"));
            }
            before = Some((user, trailer));
        }
        let first = self.place(0, limit)?;
        let last = self.place(self.shape.entries.saturating_sub(1), limit)?;
        Ok(Extent { start: first.start, end: last.end })
    }
}

const _: () = assert!(TRAILER_BYTES == 8, "separators store trailers as u64");
