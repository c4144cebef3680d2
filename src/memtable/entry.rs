//! One node of the list: an internal key, and where its value is.
//!
//! What a search spends is cache misses, one for each node it compares with. So the key's bytes are inside the
//! node, next to the tower that crossbeam-skiplist puts behind them: 32 bytes of which the last is the key's
//! length. Zero padding and the length byte together order as the keys do (`"a"` before `"a\0"`), so two short
//! keys are compared as four big-endian words. A key over 31 bytes keeps its first 24 there, followed by its place
//! in the owner buffer; only when those 24 are equal are the buffers looked at.

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::key::{KeyRef, Trailer};
use crate::base::slice::Slice;
use crate::base::types::KEY_BYTES_MAX;
use std::cmp::Ordering;
use std::sync::Arc;

/// Longest key whose bytes are all inside the node.
const INLINE_BYTES_MAX: usize = 31;

/// Length byte of a longer key; greater than that of every inline key.
const LONG: u8 = 32;

/// Where an entry's key and value stand in the buffer that owns their bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Offset of the user key.
    pub(crate) key_start: usize,
    /// Length of the user key, at most `KEY_BYTES_MAX`.
    pub(crate) key_len: usize,
    /// Offset of the value.
    pub(crate) value_start: usize,
    /// Length of the value; 0 for kinds without one.
    pub(crate) value_len: usize,
}

/// Key and value of the list's nodes. `repr(C)`: the key bytes come last, beside the node's tower.
#[repr(C)]
pub(super) struct Entry {
    /// Holds the value and the bytes of a long key; `None` only in probes for short keys.
    owner: Option<Arc<[u8]>>,
    value_start: u32,
    value_len: u32,
    trailer: Trailer,
    key: [[u8; 8]; 4],
}

impl Entry {
    /// An entry whose bytes are in `owner`; an error when the place is not inside it.
    pub(super) fn new(owner: &Arc<[u8]>, place: Place, trailer: Trailer) -> Result<Entry> {
        Entry::checked(owner, place, trailer).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "an entry reaches outside of its buffer or limits")
        })
    }

    fn checked(owner: &Arc<[u8]>, place: Place, trailer: Trailer) -> Option<Entry> {
        let key = owner.get(place.key_start..place.key_start.checked_add(place.key_len)?)?;
        if key.len() > KEY_BYTES_MAX || place.value_start.checked_add(place.value_len)? > owner.len() {
            return None;
        }
        Some(Entry {
            owner: Some(Arc::clone(owner)),
            value_start: u32::try_from(place.value_start).ok()?,
            value_len: u32::try_from(place.value_len).ok()?,
            trailer,
            key: pack(key, u32::try_from(place.key_start).ok()?),
        })
    }

    /// A key to search for. Allocates only for a key that does not fit into a node.
    #[inline]
    pub(super) fn probe(key: KeyRef<'_>) -> Entry {
        // No stored key is longer than this, so that the cut key still sorts as the whole one does.
        let user = key.user.get(..KEY_BYTES_MAX.saturating_add(1)).unwrap_or(key.user);
        let owner = (user.len() > INLINE_BYTES_MAX).then(|| Arc::from(user));
        Entry { owner, value_start: 0, value_len: 0, trailer: key.trailer, key: pack(user, 0) }
    }

    /// The internal key.
    #[inline]
    pub(super) fn key(&self) -> KeyRef<'_> {
        KeyRef::new(self.user(), self.trailer)
    }

    /// The trailer.
    #[inline]
    pub(super) fn trailer(&self) -> Trailer {
        self.trailer
    }

    #[inline]
    fn length_byte(&self) -> u8 {
        let [.., [.., length]] = self.key;
        length
    }

    #[inline]
    fn user(&self) -> &[u8] {
        match self.length_byte() {
            LONG => self.long_user(),
            length => self.key.as_flattened().get(..usize::from(length)).unwrap_or_default(),
        }
    }

    fn long_user(&self) -> &[u8] {
        let [.., [a, b, c, d, e, f, g, _]] = self.key;
        let start = u32::from_le_bytes([a, b, c, d]) as usize;
        let len = u32::from_le_bytes([e, f, g, 0]) as usize;
        self.owner_bytes().get(start..start.wrapping_add(len)).unwrap_or_default()
    }

    fn owner_bytes(&self) -> &[u8] {
        self.owner.as_deref().unwrap_or_default()
    }

    /// The value's bytes.
    #[inline]
    pub(super) fn value(&self) -> &[u8] {
        let start = self.value_start as usize;
        self.owner_bytes().get(start..start.wrapping_add(self.value_len as usize)).unwrap_or_default()
    }

    /// The value, sharing the owner buffer.
    #[inline]
    pub(super) fn value_slice(&self) -> Slice {
        self.owner
            .as_ref()
            .and_then(|owner| Slice::part(owner, self.value_start as usize, self.value_len as usize))
            .unwrap_or_else(|| Slice::copy_from(&[]))
    }

    /// Whether both are versions of one user key.
    #[inline]
    pub(super) fn same_user(&self, other: &Entry) -> bool {
        if (self.length_byte() == LONG) | (other.length_byte() == LONG) {
            return self.user() == other.user();
        }
        self.key == other.key
    }

    /// Order of the user keys.
    #[inline]
    fn cmp_user(&self, other: &Entry) -> Ordering {
        let [a0, a1, a2, a3] = self.key.map(u64::from_be_bytes);
        let [b0, b1, b2, b3] = other.key.map(u64::from_be_bytes);
        if a0 != b0 {
            return a0.cmp(&b0);
        }
        if a1 != b1 {
            return a1.cmp(&b1);
        }
        if a2 != b2 {
            return a2.cmp(&b2);
        }
        if (self.length_byte() == LONG) | (other.length_byte() == LONG) {
            return self.user().cmp(other.user());
        }
        a3.cmp(&b3)
    }
}

/// The 32 bytes of a key in a node; `start` is the place of a long key in its owner.
#[inline]
fn pack(user: &[u8], start: u32) -> [[u8; 8]; 4] {
    let mut key = [[0u8; 8]; 4];
    if user.len() <= INLINE_BYTES_MAX {
        if let Some(head) = key.as_flattened_mut().get_mut(..user.len()) {
            head.copy_from_slice(user);
        }
        let [.., [.., length]] = &mut key;
        *length = user.len() as u8;
        return key;
    }
    let [first, second, third, place] = &mut key;
    let [a, b, c, d] = start.to_le_bytes();
    let [e, f, g, _] = (user.len() as u32).to_le_bytes();
    *place = [a, b, c, d, e, f, g, LONG];
    for (word, bytes) in [first, second, third].into_iter().zip(user.as_chunks::<8>().0) {
        *word = *bytes;
    }
    key
}

impl Ord for Entry {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.cmp_user(other).then_with(|| other.trailer.cmp(&self.trailer))
    }
}

impl PartialOrd for Entry {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    /// Trailers first: they nearly always differ, and the list compares neighbours at every level it builds.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.trailer == other.trailer && self.same_user(other)
    }
}

impl Eq for Entry {}
