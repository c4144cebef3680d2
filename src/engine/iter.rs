//! `Iter`: a double-ended iterator of owned entries, built from two cursors over the same state.

use super::cursor::{Bounds, Cursor};
use crate::base::error::{Error, Result};
use crate::base::key::prefix_end;
use crate::base::slice::Slice;
use std::ops::{Bound, RangeBounds};

/// Iterates over a range of a keyspace in key order, from both ends, over one consistent state.
///
/// Items are `Result<(key, value)>`; after an error the iterator ends. It is owned and `Send`.
///
/// Adapters that do not look at the items swallow an error with them: `count` takes it for an entry, `nth` skips it.
/// To count, look: `iter.try_fold(0, |count, item| item.map(|_| count + 1))?`.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = esker::Db::open(dir.path())?;
/// for key in ["a", "b", "c"] { db.put(key, "value")?; }
/// let keys = db.range("a".."c").rev().map(|item| Ok(item?.0)).collect::<esker::Result<Vec<_>>>()?;
/// assert_eq!(keys, ["b", "a"]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Iter {
    front: Option<Cursor>,
    back: Option<Cursor>,
    error: Option<Error>,
    front_moved: bool,
    /// The next `next` yields where the front cursor stands already.
    front_fresh: bool,
}

impl Iter {
    /// Over what this cursor may stand on; an error is yielded as the first item.
    pub(crate) fn new(cursor: Result<Cursor>) -> Iter {
        let (front, error) = match cursor {
            Ok(cursor) => (Some(cursor), None),
            Err(error) => (None, Some(error)),
        };
        Iter { front, back: None, error, front_moved: false, front_fresh: false }
    }

    /// Makes `next` yield the first entry whose key is at or after this one, within the iterator's range and before
    /// what `next_back` has yielded. An iterator that has ended stays ended.
    ///
    /// # Errors
    /// `Corruption`, `Io`.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let Some(front) = self.front.as_mut() else { return Ok(()) };
        self.front_moved = true;
        self.front_fresh = true;
        let result = front.seek(key);
        if result.is_err() {
            self.front = None;
        }
        result
    }

    fn step_front(&mut self) -> Result<Option<(Slice, Slice)>> {
        let Some(front) = self.front.as_mut() else { return Ok(None) };
        if !self.front_moved {
            front.seek_to_first()?;
        } else if !self.front_fresh {
            front.next()?;
        }
        self.front_moved = true;
        self.front_fresh = false;
        if !front.valid() || self.back.as_ref().is_some_and(|back| !back.valid() || front.key() >= back.key())
        {
            self.front = None;
            return Ok(None);
        }
        Ok(Some((Slice::copy_from(front.key()), front.value_slice())))
    }

    fn step_back(&mut self) -> Result<Option<(Slice, Slice)>> {
        let Some(front) = self.front.as_ref() else { return Ok(None) };
        match self.back.as_mut() {
            Some(back) => back.prev()?,
            None => {
                let mut back = front.fork();
                back.seek_to_last()?;
                self.back = Some(back);
            }
        }
        let (Some(front), Some(back)) = (self.front.as_ref(), self.back.as_ref()) else { return Ok(None) };
        let met = front.valid()
            && if self.front_fresh { back.key() < front.key() } else { back.key() <= front.key() };
        if !back.valid() || met || (self.front_moved && !front.valid()) {
            self.front = None;
            return Ok(None);
        }
        Ok(Some((Slice::copy_from(back.key()), back.value_slice())))
    }

    fn yielded(&mut self, step: Result<Option<(Slice, Slice)>>) -> Option<Result<(Slice, Slice)>> {
        if step.is_err() {
            self.front = None;
        }
        step.transpose()
    }
}

impl Iterator for Iter {
    type Item = Result<(Slice, Slice)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.error.take() {
            return Some(Err(error));
        }
        let step = self.step_front();
        self.yielded(step)
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.error.take() {
            return Some(Err(error));
        }
        let step = self.step_back();
        self.yielded(step)
    }
}

impl std::iter::FusedIterator for Iter {}

impl Bounds {
    /// The keys of a range.
    pub(crate) fn range<K: AsRef<[u8]>>(range: &impl RangeBounds<K>) -> Bounds {
        let lower = match range.start_bound() {
            Bound::Unbounded => None,
            Bound::Included(key) => Some(key.as_ref().to_vec()),
            Bound::Excluded(key) => Some(successor(key.as_ref())),
        };
        let upper = match range.end_bound() {
            Bound::Unbounded => None,
            Bound::Excluded(key) => Some(key.as_ref().to_vec()),
            Bound::Included(key) => Some(successor(key.as_ref())),
        };
        Bounds { lower, upper }
    }

    /// The keys that start with these bytes.
    pub(crate) fn prefix(prefix: &[u8]) -> Bounds {
        Bounds { lower: Some(prefix.to_vec()), upper: prefix_end(prefix) }
    }
}

/// The next key in byte order.
fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}
