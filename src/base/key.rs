//! Internal keys: a user key and an 8-byte trailer of sequence number and kind.
//!
//! Order: user key ascending by bytes, then trailer **descending**, so that the newest version of a key comes
//! first. On disk an internal key is the user key followed by the trailer as a little-endian `u64`.

use super::types::{EntryKind, SEQ_MAX, SeqNo, UnknownKind};
use std::cmp::Ordering;

/// Bytes of a trailer. Never change.
pub(crate) const TRAILER_BYTES: usize = 8;

/// Sequence number (upper 56 bits) and kind (lower 8 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Trailer(pub(crate) u64);

impl Trailer {
    /// Trailer of an entry.
    pub(crate) fn new(seq: SeqNo, kind: EntryKind) -> Trailer {
        Trailer((seq.min(SEQ_MAX) << 8) | kind as u64)
    }

    /// The trailer that sorts before every entry of a key visible at `seq`: where a search starts.
    pub(crate) fn search(seq: SeqNo) -> Trailer {
        Trailer((seq.min(SEQ_MAX) << 8) | 0xff)
    }

    /// Sorts before every entry of its key.
    pub(crate) const FIRST: Trailer = Trailer(u64::MAX);

    /// Sorts after every entry of its key.
    pub(crate) const LAST: Trailer = Trailer(0);

    /// Sequence number.
    pub(crate) fn seq(self) -> SeqNo {
        self.0 >> 8
    }

    /// The byte that holds the kind.
    pub(crate) fn kind_byte(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    /// Kind, if this version knows it.
    pub(crate) fn kind(self) -> Result<EntryKind, UnknownKind> {
        EntryKind::from_byte(self.kind_byte())
    }
}

/// A borrowed internal key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyRef<'a> {
    /// The key as its user wrote it.
    pub(crate) user: &'a [u8],
    /// Version and kind.
    pub(crate) trailer: Trailer,
}

impl<'a> KeyRef<'a> {
    /// Puts the parts together.
    pub(crate) fn new(user: &'a [u8], trailer: Trailer) -> KeyRef<'a> {
        KeyRef { user, trailer }
    }

    /// Splits an encoded internal key; `None` when it is too short to have a trailer.
    pub(crate) fn decode(encoded: &'a [u8]) -> Option<KeyRef<'a>> {
        let (user, trailer) = encoded.split_last_chunk::<TRAILER_BYTES>()?;
        Some(KeyRef { user, trailer: Trailer(u64::from_le_bytes(*trailer)) })
    }

    /// Appends the encoded form to `out`.
    pub(crate) fn encode_into(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.user);
        out.extend_from_slice(&self.trailer.0.to_le_bytes());
    }

    /// An owned copy.
    pub(crate) fn to_owned(self) -> InternalKey {
        InternalKey { user: self.user.into(), trailer: self.trailer }
    }
}

impl Ord for KeyRef<'_> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.user.cmp(other.user).then_with(|| other.trailer.cmp(&self.trailer))
    }
}

impl PartialOrd for KeyRef<'_> {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// An owned internal key: bounds of tables in metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InternalKey {
    /// The key as its user wrote it.
    pub(crate) user: Box<[u8]>,
    /// Version and kind.
    pub(crate) trailer: Trailer,
}

impl InternalKey {
    /// Borrows it.
    pub(crate) fn as_ref(&self) -> KeyRef<'_> {
        KeyRef { user: &self.user, trailer: self.trailer }
    }
}

impl Ord for InternalKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_ref().cmp(&other.as_ref())
    }
}

impl PartialOrd for InternalKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The smallest key that is greater than every key with this prefix; `None` when there is none (all bytes 0xff).
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix.get(..=last)?.to_vec();
    if let Some(byte) = end.last_mut() {
        *byte = byte.wrapping_add(1);
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_version_sorts_first() {
        let old = KeyRef::new(b"k", Trailer::new(1, EntryKind::Put));
        let new = KeyRef::new(b"k", Trailer::new(2, EntryKind::Delete));
        assert!(new < old);
        assert!(KeyRef::new(b"k", Trailer::FIRST) < new);
        assert!(old < KeyRef::new(b"k", Trailer::LAST));
        assert!(old < KeyRef::new(b"k\0", Trailer::FIRST));
        assert!(KeyRef::new(b"k", Trailer::search(1)) < old);
        assert!(new < KeyRef::new(b"k", Trailer::search(1)));
    }

    #[test]
    fn encoding_round_trips_and_short_input_is_refused() {
        let key = KeyRef::new(b"abc", Trailer::new(77, EntryKind::Delete));
        let mut bytes = Vec::new();
        key.encode_into(&mut bytes);
        assert_eq!(KeyRef::decode(&bytes), Some(key));
        assert_eq!(KeyRef::decode(&bytes[..7]), None);
    }

    #[test]
    fn prefix_end_skips_trailing_ff() {
        assert_eq!(prefix_end(b"a"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
