//! Moving through one data block in both directions.
//!
//! Forwards, a key is made from the one before it in a reused buffer. Backwards, a whole restart interval is decoded
//! once into another reused buffer and then walked from its end, so that a step back costs no more than a step
//! forth. Nothing is allocated per step.

use super::super::bytes::Malformed;
use super::{Block, Shape};
use crate::base::key::{KeyRef, Trailer};
use crate::base::slice::Slice;
use std::sync::Arc;

/// A value at least this part of its block shares the block's memory; a smaller one is copied, because it would
/// keep many times its own size alive.
const SHARED_VALUE_PART: usize = 4;

/// A value of a block as bytes of their own, or shared with the block where that wastes little.
pub(crate) fn value_slice(block: &Arc<[u8]>, start: usize, end: usize) -> Slice {
    let len = end.saturating_sub(start);
    if len.saturating_mul(SHARED_VALUE_PART) >= block.len()
        && let Some(shared) = Slice::part(block, start, len)
    {
        return shared;
    }
    Slice::copy_from(block.get(start..end).unwrap_or_default())
}

/// Keys of one restart interval, from its first entry on.
#[derive(Debug, Default)]
struct Interval {
    /// Index of the first entry.
    first: usize,
    keys: Vec<u8>,
    /// Per entry: end of its key in `keys`, and where the entry after it begins in the block.
    ends: Vec<(usize, usize)>,
}

impl Interval {
    fn clear(&mut self) {
        self.keys.clear();
        self.ends.clear();
    }

    /// The entry's key and the position of the entry after it.
    fn get(&self, index: usize) -> Option<(&[u8], usize)> {
        let slot = index.checked_sub(self.first)?;
        let (end, next) = *self.ends.get(slot)?;
        let start = match slot.checked_sub(1) {
            Some(before) => self.ends.get(before)?.0,
            None => 0,
        };
        Some((self.keys.get(start..end)?, next))
    }
}

/// A position in a block that it keeps alive.
#[derive(Debug)]
pub(crate) struct BlockCursor {
    bytes: Arc<[u8]>,
    shape: Shape,
    valid: bool,
    index: usize,
    /// Position of the key entry after this one.
    next: usize,
    key: Vec<u8>,
    trailer: Trailer,
    value_start: usize,
    value_end: usize,
    interval: Interval,
}

impl BlockCursor {
    /// A cursor on no block.
    pub(crate) fn new() -> BlockCursor {
        BlockCursor {
            bytes: Arc::from([]),
            shape: Shape::default(),
            valid: false,
            index: 0,
            next: 0,
            key: Vec::new(),
            trailer: Trailer::LAST,
            value_start: 0,
            value_end: 0,
            interval: Interval::default(),
        }
    }

    /// Takes another block. The cursor is not valid until it is positioned.
    pub(crate) fn enter(&mut self, bytes: Arc<[u8]>) -> Result<(), Malformed> {
        self.valid = false;
        self.interval.clear();
        self.shape = Shape::parse(&bytes)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Whether it stands on an entry.
    #[inline]
    pub(crate) fn valid(&self) -> bool {
        self.valid
    }

    /// Leaves the entry it stands on.
    pub(crate) fn invalidate(&mut self) {
        self.valid = false;
    }

    /// The entry's key; empty when not valid.
    #[inline]
    pub(crate) fn key(&self) -> KeyRef<'_> {
        if self.valid { KeyRef::new(&self.key, self.trailer) } else { KeyRef::new(&[], Trailer::LAST) }
    }

    /// The entry's value; empty when not valid.
    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        let range = if self.valid { self.value_start..self.value_end } else { 0..0 };
        self.bytes.get(range).unwrap_or_default()
    }

    /// The entry's value, shared with the block when it is a large part of it.
    pub(crate) fn value_slice(&self) -> Slice {
        if !self.valid {
            return Slice::copy_from(&[]);
        }
        value_slice(&self.bytes, self.value_start, self.value_end)
    }

    /// To the first entry.
    pub(crate) fn first(&mut self) -> Result<(), Malformed> {
        self.valid = false;
        let entry = self.block().restart_entry(0)?;
        let (suffix, next) = (entry.suffix.len(), entry.next);
        self.key.clear();
        self.push_suffix(suffix, next);
        self.stand_on(0, next)
    }

    /// To the last entry.
    pub(crate) fn last(&mut self) -> Result<(), Malformed> {
        self.step_back_to(self.shape.entries.wrapping_sub(1))
    }

    /// To the first entry at or after the target; not valid when there is none in this block.
    pub(crate) fn seek(&mut self, target: KeyRef<'_>) -> Result<(), Malformed> {
        self.seek_exact(target).map(|_| ())
    }

    /// To the last entry at or before the target; not valid when there is none in this block.
    pub(crate) fn seek_for_prev(&mut self, target: KeyRef<'_>) -> Result<(), Malformed> {
        let exact = self.seek_exact(target)?;
        if !self.valid {
            return self.last();
        }
        if exact { Ok(()) } else { self.prev() }
    }

    /// Seeks and says whether the entry is the target itself.
    fn seek_exact(&mut self, target: KeyRef<'_>) -> Result<bool, Malformed> {
        self.valid = false;
        let Some(found) = self.block().search(target)? else { return Ok(false) };
        let (index, next, suffix) = (found.index, found.next, found.suffix.len());
        let (shared, same_user_key) = (found.shared, found.same_user_key);
        self.key.clear();
        self.key.extend_from_slice(target.user.get(..shared).unwrap_or_default());
        self.push_suffix(suffix, next);
        self.stand_on(index, next)?;
        Ok(same_user_key && self.trailer == target.trailer)
    }

    /// To the next entry; not valid after the last one.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<(), Malformed> {
        let index = self.index.wrapping_add(1);
        if !self.valid || index >= self.shape.entries {
            self.valid = false;
            return Ok(());
        }
        self.valid = false;
        let block = Block { bytes: &self.bytes, shape: self.shape };
        let entry = block.key_entry(self.next)?;
        if entry.shared > self.key.len() {
            return Err(Malformed("a key that shares more than the key before it has"));
        }
        self.key.truncate(entry.shared);
        self.key.extend_from_slice(entry.suffix);
        let end = block.value_end(index)?;
        if end < self.value_end {
            return Err(Malformed("a value that ends before it begins"));
        }
        self.trailer = block.trailer(index)?;
        self.value_start = self.value_end;
        self.value_end = end;
        self.next = entry.next;
        self.index = index;
        self.valid = true;
        Ok(())
    }

    /// To the entry before; not valid before the first one.
    pub(crate) fn prev(&mut self) -> Result<(), Malformed> {
        match self.index.checked_sub(1) {
            Some(before) if self.valid => self.step_back_to(before),
            _ => {
                self.valid = false;
                Ok(())
            }
        }
    }

    fn step_back_to(&mut self, index: usize) -> Result<(), Malformed> {
        self.valid = false;
        if self.interval.get(index).is_none() {
            self.decode_interval(index)?;
        }
        let outside = Malformed("an entry outside its restart interval");
        let (key, next) = self.interval.get(index).ok_or(outside)?;
        self.key.clear();
        self.key.extend_from_slice(key);
        self.stand_on(index, next)
    }

    /// Decodes the keys from the restart before `index` up to it.
    fn decode_interval(&mut self, index: usize) -> Result<(), Malformed> {
        self.interval.clear();
        let block = Block { bytes: &self.bytes, shape: self.shape };
        let restart = index.checked_div(self.shape.interval).unwrap_or_default();
        self.interval.first = restart.saturating_mul(self.shape.interval);
        let mut entry = block.restart_entry(restart)?;
        let mut start = 0usize;
        for current in self.interval.first..=index {
            let end = start.wrapping_add(entry.shared);
            let keys = &mut self.interval.keys;
            if end > keys.len() {
                return Err(Malformed("a key that shares more than the key before it has"));
            }
            let before = keys.len();
            keys.extend_from_within(start..end);
            keys.extend_from_slice(entry.suffix);
            self.interval.ends.push((keys.len(), entry.next));
            start = before;
            if current < index {
                entry = block.key_entry(entry.next)?;
            }
        }
        Ok(())
    }

    fn block(&self) -> Block<'_> {
        Block { bytes: &self.bytes, shape: self.shape }
    }

    /// Appends to the key the suffix that ends where the next entry begins.
    fn push_suffix(&mut self, len: usize, next: usize) {
        let suffix = self.bytes.get(next.saturating_sub(len)..next).unwrap_or_default();
        self.key.extend_from_slice(suffix);
    }

    /// Reads trailer and value of the entry whose key is in place.
    fn stand_on(&mut self, index: usize, next: usize) -> Result<(), Malformed> {
        let block = self.block();
        let (trailer, value) = (block.trailer(index)?, block.value_range(index)?);
        self.trailer = trailer;
        self.value_start = value.start;
        self.value_end = value.end;
        self.index = index;
        self.next = next;
        self.valid = true;
        Ok(())
    }
}
