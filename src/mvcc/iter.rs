//! Iteration inside a transaction: committed entries with uncommitted writes laid over them, from both ends.
//!
//! Each end remembers the key it yielded last and looks for the next one on both sides, in the store and in the
//! writes; where both have it the write wins. SERIALIZABLE transactions note how far they have looked, gaps included,
//! as they go.

use super::ssi::RangeEnd;
use super::txn::Txn;
use super::write_set::Value;
use crate::base::error::Result;
use crate::base::slice::Slice;
use crate::base::types::SeqNo;
use crate::engine::{Bounds, Cursor, KeyspaceCore, VersionedStore};
use std::ops::Bound;
use std::sync::Arc;

/// An entry.
type Item = (Slice, Slice);

/// An iterator inside a transaction. See the module's doc.
pub(crate) struct TxnIter<'t> {
    txn: &'t Txn,
    keyspace: Arc<KeyspaceCore>,
    bounds: Bounds,
    /// Where the front goes on.
    lower: Bound<Vec<u8>>,
    /// Where the back goes on.
    upper: Bound<Vec<u8>>,
    front: Cursor,
    back: Option<Cursor>,
    /// What is visible to the cursors of a transaction without a snapshot.
    cursors_seq: SeqNo,
    ended: bool,
}

impl<'t> TxnIter<'t> {
    /// Over the keys of a keyspace within bounds, in one state for the whole iteration, as of now.
    pub(crate) fn new(txn: &'t Txn, keyspace: Arc<KeyspaceCore>, bounds: Bounds) -> Result<TxnIter<'t>> {
        let lower = bounds.lower.clone().map_or(Bound::Unbounded, Bound::Included);
        let upper = bounds.upper.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let (front, cursors_seq) = front_cursor(txn, &keyspace, &bounds, &lower)?;
        Ok(TxnIter { txn, keyspace, bounds, lower, upper, front, back: None, cursors_seq, ended: false })
    }

    /// READ UNCOMMITTED promises no snapshot but no missing rows either: what was uncommitted a moment ago may be
    /// committed by now. To be called after a look at the writes: what has left them by then is visible.
    fn refresh(&mut self) -> Result<()> {
        if self.txn.reads_uncommitted() && self.txn.store().visible_seq() != self.cursors_seq {
            self.back = None;
            (self.front, self.cursors_seq) =
                front_cursor(self.txn, &self.keyspace, &self.bounds, &self.lower)?;
        }
        Ok(())
    }

    /// Makes the front go on at the first key at or after this one, within what is left. An iterator that has ended
    /// stays ended. An error ends the iterator, and the transaction as far as that of a read does.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let sought = self.txn.check_usable().and_then(|()| self.seek_usable(key));
        sought.map_err(|error| {
            self.ended = true;
            self.txn.failed(error)
        })
    }

    fn seek_usable(&mut self, key: &[u8]) -> Result<()> {
        let start = self.bounds.lower.as_deref().map_or(key, |lower| key.max(lower));
        self.lower = Bound::Included(start.to_vec());
        seek_front(&mut self.front, &self.lower)
    }

    fn step_front(&mut self) -> Result<Option<Item>> {
        self.txn.check_usable()?;
        loop {
            let written = self.txn.overlay_first(self.keyspace.id, borrow(&self.lower), borrow(&self.upper));
            self.refresh()?;
            let front = &mut self.front;
            let stored = front.valid() && is_below(front.key(), &self.upper);
            let order = match (&written, stored) {
                (None, false) => {
                    self.note_rest();
                    return Ok(None);
                }
                (None, true) => std::cmp::Ordering::Greater,
                (Some(_), false) => std::cmp::Ordering::Less,
                (Some((key, _)), true) => key.as_slice().cmp(front.key()),
            };
            let (key, value) = match written {
                Some((key, value)) if order.is_le() => (key, value),
                _ => (front.key().to_vec(), Some(front.value_slice())),
            };
            if order.is_ge() {
                front.next()?;
            }
            self.txn.note_range(self.keyspace.id, start_of(&self.lower), RangeEnd::Through(&key));
            self.lower = Bound::Excluded(key.clone());
            if let Some(value) = value {
                self.txn.check_reader()?;
                return Ok(Some((Slice::from(key), value)));
            }
        }
    }

    fn step_back(&mut self) -> Result<Option<Item>> {
        self.txn.check_usable()?;
        loop {
            let written = self.txn.overlay_last(self.keyspace.id, borrow(&self.lower), borrow(&self.upper));
            self.refresh()?;
            if self.back.is_none() {
                let mut back = self.front.fork();
                seek_back(&mut back, &self.upper)?;
                self.back = Some(back);
            }
            let Some(back) = self.back.as_mut() else { return Ok(None) };
            let stored = back.valid() && is_above(back.key(), &self.lower);
            let order = match (&written, stored) {
                (None, false) => {
                    self.note_rest();
                    return Ok(None);
                }
                (None, true) => std::cmp::Ordering::Less,
                (Some(_), false) => std::cmp::Ordering::Greater,
                (Some((key, _)), true) => key.as_slice().cmp(back.key()),
            };
            let (key, value) = match written {
                Some((key, value)) if order.is_ge() => (key, value),
                _ => (back.key().to_vec(), Some(back.value_slice())),
            };
            if order.is_le() {
                back.prev()?;
            }
            self.txn.note_range(self.keyspace.id, &key, end_of(&self.upper));
            self.upper = Bound::Excluded(key.clone());
            if let Some(value) = value {
                self.txn.check_reader()?;
                return Ok(Some((Slice::from(key), value)));
            }
        }
    }

    /// All that was left has been looked at.
    fn note_rest(&self) {
        self.txn.note_range(self.keyspace.id, start_of(&self.lower), end_of(&self.upper));
    }

    fn yielded(&mut self, step: Result<Option<Item>>) -> Option<Result<Item>> {
        if !matches!(step, Ok(Some(_))) {
            self.ended = true;
        }
        step.map_err(|error| self.txn.failed(error)).transpose()
    }
}

impl Iterator for TxnIter<'_> {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        if self.ended {
            return None;
        }
        let step = self.step_front();
        self.yielded(step)
    }
}

impl DoubleEndedIterator for TxnIter<'_> {
    fn next_back(&mut self) -> Option<Result<Item>> {
        if self.ended {
            return None;
        }
        let step = self.step_back();
        self.yielded(step)
    }
}

/// A cursor over what the transaction sees now, where the front goes on, and the number of what is visible to it.
fn front_cursor(
    txn: &Txn,
    keyspace: &Arc<KeyspaceCore>,
    bounds: &Bounds,
    lower: &Bound<Vec<u8>>,
) -> Result<(Cursor, SeqNo)> {
    let reader = txn.reader()?;
    let seq = reader.seq();
    let mut cursor = txn.store().cursor_at(keyspace, reader, bounds.clone())?;
    seek_front(&mut cursor, lower)?;
    Ok((cursor, seq))
}

/// A key with its uncommitted value.
pub(crate) type Written = (Vec<u8>, Value);

fn borrow(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

fn seek_front(cursor: &mut Cursor, lower: &Bound<Vec<u8>>) -> Result<()> {
    match lower {
        Bound::Unbounded => cursor.seek_to_first(),
        Bound::Included(key) => cursor.seek(key),
        Bound::Excluded(key) => {
            cursor.seek(key)?;
            if cursor.valid() && cursor.key() == key.as_slice() { cursor.next() } else { Ok(()) }
        }
    }
}

fn seek_back(cursor: &mut Cursor, upper: &Bound<Vec<u8>>) -> Result<()> {
    match upper {
        Bound::Unbounded => cursor.seek_to_last(),
        Bound::Included(key) => cursor.seek_for_prev(key),
        Bound::Excluded(key) => {
            cursor.seek_for_prev(key)?;
            if cursor.valid() && cursor.key() == key.as_slice() { cursor.prev() } else { Ok(()) }
        }
    }
}

fn is_below(key: &[u8], upper: &Bound<Vec<u8>>) -> bool {
    match upper {
        Bound::Unbounded => true,
        Bound::Included(upper) => key <= upper.as_slice(),
        Bound::Excluded(upper) => key < upper.as_slice(),
    }
}

fn is_above(key: &[u8], lower: &Bound<Vec<u8>>) -> bool {
    match lower {
        Bound::Unbounded => true,
        Bound::Included(lower) => key >= lower.as_slice(),
        Bound::Excluded(lower) => key > lower.as_slice(),
    }
}

/// The first key that a range from here can have. The key that was excluded was looked at, so it may be in.
fn start_of(lower: &Bound<Vec<u8>>) -> &[u8] {
    match lower {
        Bound::Unbounded => &[],
        Bound::Included(key) | Bound::Excluded(key) => key,
    }
}

/// Where a range up to here ends.
fn end_of(upper: &Bound<Vec<u8>>) -> RangeEnd<'_> {
    match upper {
        Bound::Unbounded => RangeEnd::Unbounded,
        Bound::Excluded(key) => RangeEnd::Before(key),
        Bound::Included(key) => RangeEnd::Through(key),
    }
}
