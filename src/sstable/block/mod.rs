//! Data block, layout kind 1: keys and values apart, columns for what is searched by number.
//!
//! ```text
//! values             all values, one after the other
//! keys               per entry: varint shared, varint unshared, then the unshared bytes of the user key
//! value ends         per entry: end of its value within `values`, fixed width
//! trailers           per entry: trailer - smallest trailer of the block, fixed width
//! restart prefixes   per restart: 8 bytes of the restart's user key after the block's common prefix, zero padded
//! restart offsets    per restart: u32, where its entry begins within `keys`
//! tail, 28 bytes     u32 entries, u32 bytes of values, u32 bytes of keys, u64 smallest trailer,
//!                    u16 restart interval, u16 common prefix length, u8 width of value ends,
//!                    u8 width of trailers, u16 zero
//! ```
//!
//! All integers are little-endian. `shared` counts the bytes that a user key has in common with the one before it
//! and is **as long as possible**, except that every `interval`-th entry is a restart and shares nothing: the
//! search relies on both. The common prefix is shared by all user keys of the block. Values stand first so that a
//! block is built in the buffer that collects them, whatever their size.
//!
//! Valid iff: the parts add up to the block's length, widths are 1..=8, reserved bytes are zero, every restart
//! shares nothing, value ends never decrease, keys ascend.
//!
//! This file and its children see one block's bytes; they know no files, checksums or caches.

use super::bytes::{Malformed, common_prefix_len, get_uint, prefix_of, width_mask};
use crate::base::coding::Reader;
use crate::base::key::{KeyRef, Trailer};
use std::cmp::Ordering;
use std::ops::Range;

mod build;
mod check;
mod cursor;
#[cfg(test)]
mod tests;

pub(super) use build::BlockBuilder;
pub(super) use check::check;
pub(super) use cursor::{BlockCursor, value_slice};

/// Number of this layout in the footer. Never change.
pub(super) const LAYOUT_COLUMNS: u8 = 1;

/// Bytes of the fixed part at the end. Never change.
const TAIL_BYTES: usize = 28;

/// Bytes per restart in the two restart columns. Never change.
const RESTART_BYTES: usize = 12;

/// Where the parts of one block are.
#[derive(Debug, Clone, Copy, Default)]
struct Shape {
    entries: usize,
    interval: usize,
    common: usize,
    keys: usize,
    ends: usize,
    trailers: usize,
    prefixes: usize,
    offsets: usize,
    end_width: usize,
    trailer_width: usize,
    end_mask: u64,
    trailer_mask: u64,
    trailer_base: u64,
}

impl Shape {
    /// Reads the tail and checks that the parts add up to the block.
    fn parse(bytes: &[u8]) -> Result<Shape, Malformed> {
        touch_columns(bytes);
        let short = Malformed("a block shorter than its tail");
        let (body, tail) = bytes.split_last_chunk::<TAIL_BYTES>().ok_or(short)?;
        let mut tail = Reader::new(tail);
        let entries = u64::from(tail.u32().ok_or(short)?);
        let values_len = u64::from(tail.u32().ok_or(short)?);
        let keys_len = u64::from(tail.u32().ok_or(short)?);
        let trailer_base = tail.u64().ok_or(short)?;
        let interval = u64::from(tail.u16().ok_or(short)?);
        let common = usize::from(tail.u16().ok_or(short)?);
        let end_width = u64::from(tail.u8().ok_or(short)?);
        let trailer_width = u64::from(tail.u8().ok_or(short)?);
        let reserved = tail.u16().ok_or(short)?;
        if entries == 0 || interval == 0 {
            return Err(Malformed("a block without entries or restarts"));
        }
        if !(1..=8).contains(&end_width) || !(1..=8).contains(&trailer_width) || reserved != 0 {
            return Err(Malformed("an impossible column width or a reserved byte in use"));
        }
        // Factors are below 2^32 and 2^4: nothing here can overflow 64 bits.
        let restarts = entries.div_ceil(interval);
        let ends = values_len.wrapping_add(keys_len);
        let trailers = ends.wrapping_add(entries.wrapping_mul(end_width));
        let prefixes = trailers.wrapping_add(entries.wrapping_mul(trailer_width));
        let offsets = prefixes.wrapping_add(restarts.wrapping_mul(8));
        let total = prefixes.wrapping_add(restarts.wrapping_mul(RESTART_BYTES as u64));
        if total != body.len() as u64 {
            return Err(Malformed("parts that do not add up to the block"));
        }
        // Each is at most `total`, which is a length in memory.
        Ok(Shape {
            entries: entries as usize,
            interval: interval as usize,
            common,
            keys: values_len as usize,
            ends: ends as usize,
            trailers: trailers as usize,
            prefixes: prefixes as usize,
            offsets: offsets as usize,
            end_width: end_width as usize,
            trailer_width: trailer_width as usize,
            end_mask: width_mask(end_width as usize),
            trailer_mask: width_mask(trailer_width as usize),
            trailer_base,
        })
    }
}

/// Cache lines at the end of a block that are asked for at once.
const TOUCHED_LINES: usize = 12;

/// Reads a byte of each of the block's last cache lines, where keys and columns are. A search hops through them, and
/// each hop depends on the one before: asked for together, the misses overlap. Measured on blocks outside the
/// processor's caches: a point read in a block takes 15 to 20 % less.
#[inline]
fn touch_columns(bytes: &[u8]) {
    let lines = bytes.rchunks(64).take(TOUCHED_LINES);
    std::hint::black_box(lines.fold(0u8, |sum, line| sum ^ line.first().copied().unwrap_or_default()));
}

/// One decoded key entry.
#[derive(Debug, Clone, Copy)]
struct KeyEntry<'a> {
    shared: usize,
    suffix: &'a [u8],
    /// Where the next entry begins.
    next: usize,
}

/// What a search met: the first entry at or after the target.
#[derive(Debug, Clone, Copy)]
struct Found<'a> {
    index: usize,
    /// Bytes that its user key shares with the **target**; the suffix follows them.
    shared: usize,
    suffix: &'a [u8],
    next: usize,
    /// Whether its user key is the target's.
    same_user_key: bool,
}

/// A block being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    bytes: &'a [u8],
    shape: Shape,
}

impl<'a> Block<'a> {
    /// Reads the block's tail.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Block<'a>, Malformed> {
        Ok(Block { bytes, shape: Shape::parse(bytes)? })
    }

    /// The newest entry of this user key at or after the target's trailer, as trailer and place of its value.
    pub(super) fn get(&self, target: KeyRef<'_>) -> Result<Option<(Trailer, Range<usize>)>, Malformed> {
        match self.search(target)? {
            Some(found) if found.same_user_key => {
                Ok(Some((self.trailer(found.index)?, self.value_range(found.index)?)))
            }
            _ => Ok(None),
        }
    }

    #[inline]
    fn trailer(&self, index: usize) -> Result<Trailer, Malformed> {
        let position = self.shape.trailers.wrapping_add(index.wrapping_mul(self.shape.trailer_width));
        let delta = get_uint(self.bytes, position, self.shape.trailer_mask);
        Ok(Trailer(
            self.shape.trailer_base.wrapping_add(delta.ok_or(Malformed("a trailer outside the block"))?),
        ))
    }

    #[inline]
    fn value_end(&self, index: usize) -> Result<usize, Malformed> {
        let position = self.shape.ends.wrapping_add(index.wrapping_mul(self.shape.end_width));
        let end = get_uint(self.bytes, position, self.shape.end_mask).map(usize::try_from);
        match end {
            Some(Ok(end)) if end <= self.shape.keys => Ok(end),
            _ => Err(Malformed("a value that ends outside the values")),
        }
    }

    #[inline]
    fn value_range(&self, index: usize) -> Result<Range<usize>, Malformed> {
        let start = match index.checked_sub(1) {
            Some(before) => self.value_end(before)?,
            None => 0,
        };
        let end = self.value_end(index)?;
        if start > end {
            return Err(Malformed("a value that ends before it begins"));
        }
        Ok(start..end)
    }

    /// Decodes the key entry at this position of the block.
    #[inline]
    fn key_entry(&self, position: usize) -> Result<KeyEntry<'a>, Malformed> {
        let outside = Malformed("a key entry outside the keys");
        let keys = self.bytes.get(position..self.shape.ends).ok_or(outside)?;
        if let Some(([shared, unshared], rest)) = keys.split_first_chunk::<2>()
            && (*shared | *unshared) < 0x80
        {
            let len = usize::from(*unshared);
            let suffix = rest.get(..len).ok_or(outside)?;
            return Ok(KeyEntry {
                shared: usize::from(*shared),
                suffix,
                next: position.wrapping_add(2).wrapping_add(len),
            });
        }
        self.long_key_entry(keys).ok_or(outside)
    }

    fn long_key_entry(&self, keys: &'a [u8]) -> Option<KeyEntry<'a>> {
        let mut reader = Reader::new(keys);
        let shared = reader.varint_usize()?;
        let suffix = reader.bytes()?;
        let next = self.shape.ends.checked_sub(reader.remaining())?;
        Some(KeyEntry { shared, suffix, next })
    }

    /// Position of a restart's entry.
    fn restart(&self, restart: usize) -> Result<usize, Malformed> {
        let position = self.shape.offsets.wrapping_add(restart.wrapping_mul(4));
        let chunk = self.bytes.get(position..).and_then(|rest| rest.first_chunk::<4>());
        let offset = u32::from_le_bytes(*chunk.ok_or(Malformed("a restart outside the block"))?);
        Ok(self.shape.keys.wrapping_add(offset as usize))
    }

    /// The key entry of a restart: its suffix is the whole user key.
    fn restart_entry(&self, restart: usize) -> Result<KeyEntry<'a>, Malformed> {
        let entry = self.key_entry(self.restart(restart)?)?;
        if entry.shared != 0 {
            return Err(Malformed("a restart that shares bytes"));
        }
        Ok(entry)
    }

    /// The last restart whose key is before the target, or the first one; right only if the target has the block's
    /// common prefix, which is not looked at here.
    fn restart_before(&self, target: KeyRef<'_>) -> Result<usize, Malformed> {
        let column = self.bytes.get(self.shape.prefixes..self.shape.offsets).unwrap_or_default();
        let (prefixes, _) = column.as_chunks::<8>();
        let wanted = prefix_of(target.user.get(self.shape.common..).unwrap_or_default());
        let mut low = prefixes.partition_point(|prefix| u64::from_be_bytes(*prefix) < wanted);
        let ties = prefixes.get(low..).unwrap_or_default();
        let ties = ties.partition_point(|prefix| u64::from_be_bytes(*prefix) == wanted);
        let mut high = low.wrapping_add(ties);
        while low < high {
            let middle = low.midpoint(high);
            let trailer = self.trailer(middle.wrapping_mul(self.shape.interval))?;
            if KeyRef::new(self.restart_entry(middle)?.suffix, trailer) < target {
                low = middle.wrapping_add(1);
            } else {
                high = middle;
            }
        }
        Ok(low.saturating_sub(1))
    }

    /// The first entry at or after the target; `None` when all are before it.
    ///
    /// The restart to begin at is chosen as if the target had the common prefix of the block's keys. If it is below
    /// that prefix, already that restart is beyond it, and the answer is the first entry. If it is above, the scan
    /// runs to the end, as it must.
    fn search(&self, target: KeyRef<'_>) -> Result<Option<Found<'a>>, Malformed> {
        let restart = self.restart_before(target)?;
        match self.scan(restart, target)? {
            Some(found) if restart > 0 && found.index <= restart.wrapping_mul(self.shape.interval) => {
                self.scan(0, target)
            }
            found => Ok(found),
        }
    }

    /// The first entry from this restart on that is at or after the target.
    ///
    /// Keys are never put together on the way: `matched` counts the target's leading bytes that the entry before
    /// has, and whatever shares more or fewer bytes than that with it is decided without looking.
    fn scan(&self, restart: usize, target: KeyRef<'_>) -> Result<Option<Found<'a>>, Malformed> {
        let mut index = restart.wrapping_mul(self.shape.interval);
        let mut entry = self.restart_entry(restart)?;
        let mut stop = index.wrapping_add(self.shape.interval).min(self.shape.entries);
        let mut matched = 0usize;
        loop {
            if entry.shared <= matched {
                let (ordering, now_matched) = weigh(&entry, matched, target.user);
                let same_user_key = ordering == Ordering::Equal;
                let reached = match ordering {
                    Ordering::Less => false,
                    Ordering::Greater => true,
                    Ordering::Equal => self.trailer(index)? <= target.trailer,
                };
                if reached {
                    let KeyEntry { shared, suffix, next } = entry;
                    return Ok(Some(Found { index, shared, suffix, next, same_user_key }));
                }
                matched = now_matched;
            }
            index = index.wrapping_add(1);
            if index < stop {
                entry = self.key_entry(entry.next)?;
                continue;
            }
            if index >= self.shape.entries {
                return Ok(None);
            }
            // The next restart shares nothing: it is looked at in full, its user key may be the target's.
            entry = self.key_entry(entry.next)?;
            if entry.shared != 0 {
                return Err(Malformed("a restart that shares bytes"));
            }
            matched = 0;
            stop = index.wrapping_add(self.shape.interval).min(self.shape.entries);
        }
    }
}

/// How an entry that shares at most `matched` bytes with its predecessor stands to the target, of whose bytes the
/// predecessor had exactly `matched`; and how many the entry has, if it is not greater.
#[inline]
fn weigh(entry: &KeyEntry<'_>, matched: usize, target: &[u8]) -> (Ordering, usize) {
    if entry.shared < matched {
        return (Ordering::Greater, matched);
    }
    let rest = target.get(matched..).unwrap_or_default();
    let common = common_prefix_len(entry.suffix, rest);
    let ordering = entry.suffix.get(common).cmp(&rest.get(common));
    (ordering, matched.wrapping_add(common))
}
