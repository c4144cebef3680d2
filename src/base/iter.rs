//! The cursor over internal keys that memtables, tables and merges share.

use super::error::Result;
use super::key::KeyRef;
use super::slice::Slice;

/// A position in a sorted sequence of internal keys, movable both ways.
///
/// A new cursor is not valid. The positioning calls make it valid when there is an entry there, and leave it
/// invalid past either end. `next` and `prev` may only be called on a valid cursor; on an invalid one they do
/// nothing. An error leaves the cursor invalid, and **an error is never an end**: it is returned by the call that
/// met it.
pub(crate) trait InternalIter: Send {
    /// Whether the cursor stands on an entry.
    fn valid(&self) -> bool;

    /// The entry's key; an empty key when not valid.
    fn key(&self) -> KeyRef<'_>;

    /// The entry's value; empty when not valid or for a kind without value.
    fn value(&self) -> &[u8];

    /// The value as an owned slice, shared where possible.
    fn value_slice(&self) -> Slice {
        Slice::copy_from(self.value())
    }

    /// To the first entry whose internal key is at or after `target`.
    fn seek(&mut self, target: KeyRef<'_>) -> Result<()>;

    /// To the last entry whose internal key is at or before `target`.
    fn seek_for_prev(&mut self, target: KeyRef<'_>) -> Result<()>;

    /// To the first entry.
    fn seek_to_first(&mut self) -> Result<()>;

    /// To the last entry.
    fn seek_to_last(&mut self) -> Result<()>;

    /// To the entry after this one.
    fn next(&mut self) -> Result<()>;

    /// To the entry before this one.
    fn prev(&mut self) -> Result<()>;
}

impl<I: InternalIter + ?Sized> InternalIter for Box<I> {
    fn valid(&self) -> bool {
        (**self).valid()
    }
    fn key(&self) -> KeyRef<'_> {
        (**self).key()
    }
    fn value(&self) -> &[u8] {
        (**self).value()
    }
    fn value_slice(&self) -> Slice {
        (**self).value_slice()
    }
    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        (**self).seek(target)
    }
    fn seek_for_prev(&mut self, target: KeyRef<'_>) -> Result<()> {
        (**self).seek_for_prev(target)
    }
    fn seek_to_first(&mut self) -> Result<()> {
        (**self).seek_to_first()
    }
    fn seek_to_last(&mut self) -> Result<()> {
        (**self).seek_to_last()
    }
    fn next(&mut self) -> Result<()> {
        (**self).next()
    }
    fn prev(&mut self) -> Result<()> {
        (**self).prev()
    }
}
