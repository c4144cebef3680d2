//! The header at the start of every log segment and manifest copy.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `eskerlog` |
//! | 8 | 4 | format version, little-endian |
//! | 12 | 1 | kind of file ([`FileTag`]) |
//! | 13 | 1 | transform of what follows: 0 = none (compression and encryption come later) |
//! | 14 | 2 | zero |
//! | 16 | 16 | database id |
//! | 32 | 8 | number of the file |
//! | 40 | 8 | bytes reserved: the file is never shorter, unless its last record is an end; 0 = says nothing |
//! | 48 | 8 | zero |
//! | 56 | 8 | xxh3-64 of the bytes before |
//!
//! Valid iff magic and checksum match. Magic, place and meaning of the version and of the checksum never change, so
//! that a newer file is told from a damaged one.

use crate::base::checksum::{FileTag, plain};
use crate::base::coding;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::DbId;
use std::path::Path;

/// Bytes of a file header. Never change.
pub(crate) const FILE_HEADER_BYTES: usize = 64;

/// Version that this code writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"eskerlog";
const CHECKSUM_OFFSET: usize = FILE_HEADER_BYTES - 8;

/// What a file says of itself before its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    /// Kind of file.
    pub(crate) tag: FileTag,
    /// Format version of the file.
    pub(crate) version: u32,
    /// Database it belongs to.
    pub(crate) db: DbId,
    /// Its number (of a segment, of a manifest copy).
    pub(crate) number: u64,
    /// Length that it was given before it was written; 0 for none.
    pub(crate) reserved: u64,
}

impl FileHeader {
    /// Header of a file of this version.
    pub(crate) fn new(tag: FileTag, db: DbId, number: u64) -> FileHeader {
        FileHeader { tag, version: FORMAT_VERSION, db, number, reserved: 0 }
    }

    /// The bytes on disk.
    pub(crate) fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0u8; FILE_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12] = self.tag as u8;
        bytes[16..32].copy_from_slice(&self.db.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.number.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.reserved.to_le_bytes());
        let sum = plain(&bytes[..CHECKSUM_OFFSET]);
        bytes[CHECKSUM_OFFSET..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads the header of a file that must be of this kind. Wrong magic or checksum is `Corruption`, a newer
    /// version or an unknown transform `VersionUnsupported`.
    pub(crate) fn decode(path: &Path, bytes: &[u8], tag: FileTag) -> Result<FileHeader> {
        let Some(bytes) = bytes.first_chunk::<FILE_HEADER_BYTES>() else {
            return Err(corrupt(path, "a file header of 64 bytes", format!("{} bytes", bytes.len())));
        };
        if bytes[0..8] != MAGIC {
            return Err(corrupt(path, "the magic `eskerlog`", format!("`{}`", bytes[0..8].escape_ascii())));
        }
        let (body, stored) = bytes.split_at(CHECKSUM_OFFSET);
        let sum = plain(body);
        if stored != sum.to_le_bytes() {
            return Err(corrupt(path, format!("header checksum {sum:016x}"), "another".to_string()));
        }
        decode_fields(path, body, tag)
            .unwrap_or_else(|| Err(corrupt(path, "a file header", "less".to_string())))
    }
}

/// Fields of a header whose checksum is right. `None` cannot happen for a body of the full length.
fn decode_fields(path: &Path, body: &[u8], tag: FileTag) -> Option<Result<FileHeader>> {
    let mut reader = coding::Reader::new(body);
    reader.take(MAGIC.len())?;
    let version = reader.u32()?;
    let kind = reader.u8()?;
    let transform = reader.u8()?;
    reader.u16()?;
    let (db, number, reserved) = (reader.u128()?, reader.u64()?, reader.u64()?);
    Some(if version > FORMAT_VERSION {
        Err(unsupported(path, format!("format version {version}, this code reads up to {FORMAT_VERSION}")))
    } else if transform != 0 {
        Err(unsupported(path, format!("transform {transform}, this code knows none")))
    } else if kind != tag as u8 || version == 0 {
        let expected = format!("kind of file {} of version 1 to {FORMAT_VERSION}", tag as u8);
        Err(corrupt(path, expected, format!("kind {kind}, version {version}")))
    } else {
        Ok(FileHeader { tag, version, db, number, reserved })
    })
}

fn corrupt(path: &Path, expected: impl Into<String>, found: String) -> Error {
    Error::corrupt(path, 0, expected, found)
}

fn unsupported(path: &Path, what: String) -> Error {
    Error::new(ErrorKind::VersionUnsupported, format!("{}: {what}", path.display()))
}
