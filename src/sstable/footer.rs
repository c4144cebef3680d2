//! The end of a table file, read first: what the file is and where its parts are.
//!
//! ```text
//! u128 database id          u64 origin: the file's number at birth
//! u64 length of the file    u64 index start     u64 index end      (frame of the top-level or only index block)
//! u64 metaindex start       u64 metaindex end   (frame)
//! u8 transform (0)          u8 data block layout (1)   u8 filter kind   u8 index levels (1 or 2)
//! -- the rest is the same in every format version --
//! u32 format version        u32 length of the footer, all included
//! u64 checksum              xxh3-64 of the footer before it
//! 8 bytes magic             "eskersst"
//! ```
//!
//! Valid iff: magic and checksum hold, the version is known, database and origin are the expected ones, the file is as
//! long as it says, transform is 0, layout and levels are known, and the frames lie before the footer, index before
//! metaindex. A filter kind that is not known is no error: reads go without.

use super::bytes::Extent;
use super::{FilterKind, block};
use crate::base::checksum;
use crate::base::coding::Reader;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::{DbId, FileNo};
use std::path::Path;

/// Never change.
const MAGIC: [u8; 8] = *b"eskersst";

/// Version of the table format that is written.
const VERSION: u32 = 1;

/// Bytes of a footer of version 1.
pub(super) const FOOTER_BYTES: usize = 92;

/// Bytes at the very end that are the same in every version.
const ENVELOPE_BYTES: usize = 24;

/// What the footer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) db: DbId,
    pub(super) origin: FileNo,
    pub(super) file_bytes: u64,
    pub(super) index: Extent,
    pub(super) metaindex: Extent,
    /// Byte of the filter kind; perhaps of a later version.
    pub(super) filter: u8,
    pub(super) index_levels: u8,
}

impl Footer {
    /// The bytes that end the file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(&self.db.to_le_bytes());
        for word in [
            self.origin,
            self.file_bytes,
            self.index.start,
            self.index.end,
            self.metaindex.start,
            self.metaindex.end,
        ] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&[0, block::LAYOUT_COLUMNS, self.filter, self.index_levels]);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(FOOTER_BYTES as u32).to_le_bytes());
        let sum = checksum::plain(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        out
    }

    /// Reads the last bytes of a file that should be this table.
    pub(super) fn decode(
        path: &Path,
        end: &[u8],
        file_bytes: u64,
        db: DbId,
        origin: FileNo,
    ) -> Result<Footer> {
        let damage = Damage { path, offset: file_bytes.saturating_sub(FOOTER_BYTES as u64) };
        let body = envelope(&damage, end)?;
        let footer = parse(body, &damage)?;
        footer.check(&damage, file_bytes, db, origin)?;
        Ok(footer)
    }

    fn check(&self, damage: &Damage<'_>, file_bytes: u64, db: DbId, origin: FileNo) -> Result<()> {
        if self.db != db || self.origin != origin {
            let expected = format!("table {origin} of database {db:032x}");
            return damage.is(expected, format!("table {} of database {:032x}", self.origin, self.db));
        }
        if self.file_bytes != file_bytes {
            return damage.is(format!("a file of {} bytes", self.file_bytes), format!("{file_bytes} bytes"));
        }
        let limit = file_bytes.saturating_sub(FOOTER_BYTES as u64);
        let ordered = self.index.start < self.index.end
            && self.index.end <= self.metaindex.start
            && self.metaindex.start < self.metaindex.end
            && self.metaindex.end <= limit;
        if !ordered {
            let found = format!("index {:?} and metaindex {:?}", self.index, self.metaindex);
            return damage.is(format!("blocks in order before offset {limit}"), found);
        }
        Ok(())
    }

    /// The filter kind, if this version knows it.
    pub(super) fn filter_kind(&self) -> Option<FilterKind> {
        FilterKind::from_byte(self.filter)
    }
}

struct Damage<'a> {
    path: &'a Path,
    offset: u64,
}

impl Damage<'_> {
    fn is<T>(&self, expected: impl Into<String>, found: impl Into<String>) -> Result<T> {
        Err(Error::corrupt(self.path, self.offset, expected, found))
    }

    fn unsupported<T>(&self, what: String) -> Result<T> {
        let message = format!("{}: {what} was written by a later version", self.path.display());
        Err(Error::new(ErrorKind::VersionUnsupported, message))
    }
}

/// Checks what is the same in every version; answers the footer's body.
fn envelope<'a>(damage: &Damage<'_>, end: &'a [u8]) -> Result<&'a [u8]> {
    let Some((before_magic, magic)) = end.split_last_chunk::<8>() else {
        return damage.is("a table's footer", format!("{} bytes", end.len()));
    };
    if *magic != MAGIC {
        return damage.is("the magic of a table", format!("{}", magic.escape_ascii()));
    }
    let Some((version, len, stored_sum)) = end.last_chunk::<ENVELOPE_BYTES>().and_then(|envelope| {
        let mut reader = Reader::new(envelope);
        Some((reader.u32()?, reader.u32()? as usize, reader.u64()?))
    }) else {
        return damage.is("a table's footer", format!("{} bytes", end.len()));
    };
    let start = end.len().checked_sub(len);
    let covered_end = before_magic.len().saturating_sub(8);
    let Some(covered) = start.and_then(|start| end.get(start..covered_end)) else {
        return damage.is("a footer that fits the file", format!("a length of {len}"));
    };
    let sum = checksum::plain(covered);
    if sum != stored_sum {
        return damage.is(format!("footer checksum {sum:016x}"), format!("{stored_sum:016x}"));
    }
    if version > VERSION {
        return damage.unsupported(format!("table format {version}"));
    }
    match covered.len().checked_sub(8).and_then(|body| covered.get(..body)) {
        Some(body) if len == FOOTER_BYTES && version == VERSION => Ok(body),
        _ => damage
            .is(format!("a footer of {FOOTER_BYTES} bytes, version {VERSION}"), format!("{len}, {version}")),
    }
}

fn parse(body: &[u8], damage: &Damage<'_>) -> Result<Footer> {
    let mut reader = Reader::new(body);
    let parsed = (|| {
        let db = reader.u128()?;
        let (origin, file_bytes) = (reader.u64()?, reader.u64()?);
        let index = Extent { start: reader.u64()?, end: reader.u64()? };
        let metaindex = Extent { start: reader.u64()?, end: reader.u64()? };
        let (transform, layout) = (reader.u8()?, reader.u8()?);
        let (filter, index_levels) = (reader.u8()?, reader.u8()?);
        let footer = Footer { db, origin, file_bytes, index, metaindex, filter, index_levels };
        Some((footer, transform, layout))
    })();
    let Some((footer, transform, layout)) = parsed else {
        return damage.is("a table's footer", format!("{} bytes", body.len()));
    };
    if transform != 0 {
        return damage.unsupported(format!("file transform {transform}"));
    }
    if layout != block::LAYOUT_COLUMNS {
        return damage.unsupported(format!("data block layout {layout}"));
    }
    if !(1..=2).contains(&footer.index_levels) {
        return damage.unsupported(format!("an index of {} levels", footer.index_levels));
    }
    Ok(footer)
}
