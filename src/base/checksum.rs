//! Checksums: xxh3-64, seeded with where the bytes belong, so that a misplaced or stale block fails.

use super::types::DbId;
use xxhash_rust::xxh3;

/// Where checksummed bytes belong: the file they were born in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    seed: u64,
}

impl Origin {
    /// Origin of a file: database id, file number at birth, and a tag per kind of file.
    pub(crate) fn new(db: DbId, tag: FileTag, number: u64) -> Origin {
        let mut bytes = [0u8; 25];
        let (id, rest) = bytes.split_at_mut(16);
        id.copy_from_slice(&db.to_le_bytes());
        let (no, kind) = rest.split_at_mut(8);
        no.copy_from_slice(&number.to_le_bytes());
        kind.fill(tag as u8);
        Origin { seed: xxh3::xxh3_64(&bytes) }
    }

    /// Checksum of bytes that stand at `offset` of this file.
    #[inline]
    pub(crate) fn checksum(self, offset: u64, bytes: &[u8]) -> u64 {
        xxh3::xxh3_64_with_seed(bytes, self.seed ^ offset.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// Kind of file, part of the checksum seed. Never change the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FileTag {
    /// Log segment.
    Log = 1,
    /// Manifest copy.
    Manifest = 2,
    /// Table.
    Table = 3,
}

/// Checksum of self-contained bytes (headers that are read before an origin is known).
pub(crate) fn plain(bytes: &[u8]) -> u64 {
    xxh3::xxh3_64(bytes)
}

/// Checksum of a value that belongs to this key and no other.
pub(crate) fn keyed(key: &[u8], value: &[u8]) -> u64 {
    xxh3::xxh3_64_with_seed(value, xxh3::xxh3_64(key))
}

/// Hash of bytes for a table in memory.
#[inline]
pub(crate) fn seeded_hash(bytes: &[u8], seed: u64) -> u64 {
    xxh3::xxh3_64_with_seed(bytes, seed)
}

/// Hash of a user key, for filters and sharding.
#[inline]
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    xxh3::xxh3_64(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash is part of the file format: these values must never change.
    #[test]
    fn golden_values() {
        assert_eq!(plain(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(key_hash(b"esker"), plain(b"esker"));
        assert_eq!(keyed(b"", b"esker"), Origin { seed: plain(b"") }.checksum(0, b"esker"));
        assert_ne!(keyed(b"a", b"esker"), keyed(b"b", b"esker"));
    }

    #[test]
    fn place_changes_the_checksum() {
        let here = Origin::new(1, FileTag::Table, 7);
        let sum = here.checksum(0, b"block");
        assert_ne!(sum, here.checksum(4096, b"block"));
        assert_ne!(sum, Origin::new(1, FileTag::Table, 8).checksum(0, b"block"));
        assert_ne!(sum, Origin::new(2, FileTag::Table, 7).checksum(0, b"block"));
        assert_ne!(sum, Origin::new(1, FileTag::Log, 7).checksum(0, b"block"));
    }
}
