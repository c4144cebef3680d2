//! Ids and small enumerations shared by every layer, and the limits of what may be stored.

use std::time::Duration;

/// Position of an operation in the total order of commits: 56 bits, every operation its own.
pub(crate) type SeqNo = u64;

/// Largest sequence number: the trailer of an internal key leaves 56 bits for it. Never change.
pub(crate) const SEQ_MAX: SeqNo = (1 << 56) - 1;

/// Number of a table file; never reused within a database.
pub(crate) type FileNo = u64;

/// Number of a log segment; a series of its own, consecutive, never reused within a database.
pub(crate) type SegmentNo = u64;

/// Random identity of a database, written into the header of each of its files.
pub(crate) type DbId = u128;

/// Number of a keyspace; never reused within a database. The default keyspace is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyspaceId(pub(crate) u32);

impl KeyspaceId {
    /// The keyspace that every database has.
    pub(crate) const DEFAULT: KeyspaceId = KeyspaceId(0);
}

/// What an entry says about its key. The numbers are on disk: never change them.
///
/// Kinds above `Delete` are reserved for later versions; reading one answers `VersionUnsupported`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum EntryKind {
    /// The key has this value.
    Put = 1,
    /// The key is absent.
    Delete = 2,
}

/// Kinds that the format reserves: (number, name). Never change.
pub(crate) const RESERVED_KINDS: [(u8, &str); 5] = [
    (3, "range delete"),
    (4, "merge operand"),
    (5, "put with expiry"),
    (6, "blob reference"),
    (7, "transaction-tagged run"),
];

impl EntryKind {
    /// The kind a byte from disk stands for, or the reason why it is none.
    pub(crate) fn from_byte(byte: u8) -> Result<EntryKind, UnknownKind> {
        match byte {
            1 => Ok(EntryKind::Put),
            2 => Ok(EntryKind::Delete),
            other => Err(match RESERVED_KINDS.iter().find(|(number, _)| *number == other) {
                Some((_, name)) => UnknownKind::Reserved(name),
                None => UnknownKind::Invalid(other),
            }),
        }
    }
}

/// Why a byte is not an entry kind of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnknownKind {
    /// A later version writes it: the answer is `VersionUnsupported`.
    Reserved(&'static str),
    /// No version writes it: the answer is `Corruption`.
    Invalid(u8),
}

/// Largest key, in bytes. A key has at least one byte.
pub(crate) const KEY_BYTES_MAX: usize = 64 * 1024 - 1;

/// Largest value, in bytes.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 30;

/// A length of time in microseconds, as statistics and events tell it.
#[inline]
pub(crate) fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_round_trip_and_reserved_ones_are_named() {
        assert_eq!(EntryKind::from_byte(1), Ok(EntryKind::Put));
        assert_eq!(EntryKind::from_byte(2), Ok(EntryKind::Delete));
        assert_eq!(EntryKind::from_byte(3), Err(UnknownKind::Reserved("range delete")));
        assert_eq!(EntryKind::from_byte(0), Err(UnknownKind::Invalid(0)));
        assert_eq!(EntryKind::from_byte(200), Err(UnknownKind::Invalid(200)));
    }
}
