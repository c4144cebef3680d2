//! Reading records from the bytes of a whole file, and telling a torn tail from damage.
//!
//! Reading stops at the first record that is not valid. What that means is decided by what follows:
//!
//! * nothing but zeros (the reserved tail of a file, or its end): the **clean end**;
//! * a valid fragment, anywhere later, which says that the file was durable beyond the bad record's start: the bad
//!   record had been synced, so it is **damage**, and reading answers `Corruption`;
//! * otherwise the bad record and all after it were never known durable: a **torn tail**, dropped and counted.
//!
//! The search for that proof tries every offset, not only block starts: most logs are smaller than a block, and
//! seeded checksums make a chance hit impossible. A candidate's durable offset, which must lie between the bad
//! record and the candidate, is looked at first, so the search costs about a nanosecond a byte.
//!
//! A fragment with the right checksum in the wrong place of its record cannot come from a torn write, because each
//! offset of a file is written once; that is damage at once.

use super::frame::{
    FRAGMENT_HEADER_BYTES, Fragment, GROUP_TRAILER_BYTES, Part, RecordKind, RecordMeta, group_trailer,
    next_start, parse,
};
use crate::base::checksum::Origin;
use crate::base::error::{Error, ErrorKind, Result};
use std::borrow::Cow;
use std::path::Path;

/// A record read from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// What the framing says of it.
    pub(crate) meta: RecordMeta,
    /// Its content. Borrowed when the record is one fragment: then it is the last bytes before `end`.
    pub(crate) payload: Cow<'a, [u8]>,
    /// Offset of its first fragment.
    pub(crate) offset: u64,
    /// Offset of the first byte after it.
    pub(crate) end: u64,
}

/// Where the valid records end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    /// End of the last valid record.
    pub(crate) valid_len: u64,
    /// Bytes after it up to the last one that is not zero.
    pub(crate) dropped_bytes: u64,
}

/// Reads the records of one file in order.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    path: &'a Path,
    origin: Origin,
    bytes: &'a [u8],
    valid_len: usize,
    ended: bool,
    /// Whether `bytes` are all of the file.
    is_whole: bool,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, the whole file, from the end of its header on. The path is only for errors.
    pub(crate) fn new(path: &'a Path, origin: Origin, bytes: &'a [u8], start: usize) -> Reader<'a> {
        Reader { path, origin, bytes, valid_len: start, ended: false, is_whole: true }
    }

    /// Reads records while the file is being read: `bytes` is its beginning. Where they end nothing is said of what
    /// follows; another reader goes on from [`tail`](Self::tail) when there is more.
    pub(crate) fn of_beginning(path: &'a Path, origin: Origin, bytes: &'a [u8], start: usize) -> Reader<'a> {
        Reader { is_whole: false, ..Reader::new(path, origin, bytes, start) }
    }

    /// The next record; `None` at the clean end and at a torn tail ([`tail`](Self::tail) tells them apart).
    ///
    /// Damage is `Corruption`; a record kind of a later version is `VersionUnsupported`.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Record<'a>>> {
        if self.ended {
            return Ok(None);
        }
        let start = next_start(self.valid_len as u64) as usize;
        match parse(self.origin, self.bytes, start) {
            Ok(fragment) if fragment.part == Some(Part::Full) => {
                self.accept(start, fragment, Cow::Borrowed(fragment.body), fragment.end).map(Some)
            }
            Ok(fragment) if fragment.part == Some(Part::First) => self.group(start, fragment),
            Ok(_) => Err(self.damage(start, "the first fragment of a record", "another fragment")),
            Err(found) => self.stop(start, start, found),
        }
    }

    /// Where the valid records end; final once [`next`](Self::next) has answered `None`.
    pub(crate) fn tail(&self) -> Tail {
        let rest = self.bytes.get(self.valid_len..).unwrap_or_default();
        Tail { valid_len: self.valid_len as u64, dropped_bytes: used_len(rest) as u64 }
    }

    /// The rest of a record of which this is the first fragment.
    fn group(&mut self, start: usize, first: Fragment<'a>) -> Result<Option<Record<'a>>> {
        let mut body = first.body.to_vec();
        let (mut end, mut fragments) = (first.end, 1usize);
        loop {
            let fragment = match parse(self.origin, self.bytes, end) {
                Ok(fragment) => fragment,
                Err(found) => return self.stop(start, end, found),
            };
            let is_later_part = matches!(fragment.part, Some(Part::Middle | Part::Last));
            if !is_later_part || !fragment.is_of_same_record(&first) {
                return Err(self.damage(end, "the next fragment of a record", "another fragment"));
            }
            body.extend_from_slice(fragment.body);
            (end, fragments) = (fragment.end, fragments.saturating_add(1));
            if fragment.part == Some(Part::Last) {
                break;
            }
        }
        let Some((payload, trailer)) = body.split_last_chunk::<GROUP_TRAILER_BYTES>() else {
            return Err(self.damage(start, "a record with a group checksum", "fewer bytes"));
        };
        if *trailer != group_trailer(self.origin, start as u64, payload, fragments) {
            return Err(self.damage(start, "a record that matches its group checksum", "another record"));
        }
        let payload_bytes = payload.len();
        body.truncate(payload_bytes);
        self.accept(start, first, Cow::Owned(body), end).map(Some)
    }

    #[inline]
    fn accept(
        &mut self,
        start: usize,
        fragment: Fragment<'a>,
        payload: Cow<'a, [u8]>,
        end: usize,
    ) -> Result<Record<'a>> {
        let kind = RecordKind::from_byte(fragment.kind)
            .map_err(|reserved| self.unknown_kind(start, fragment.kind, reserved))?;
        let Fragment { first_seq, count, synced_upto, .. } = fragment;
        self.valid_len = end;
        Ok(Record {
            meta: RecordMeta { kind, first_seq, count, synced_upto },
            payload,
            offset: start as u64,
            end: end as u64,
        })
    }

    /// Decides what it means that the record which starts at `start` is not valid at `bad`.
    #[cold]
    fn stop(&mut self, start: usize, bad: usize, found: &'static str) -> Result<Option<Record<'a>>> {
        if self.is_whole
            && let Some((at, synced_upto)) = self.find_proof(start)
        {
            let expected = format!(
                "a valid record, because the one at {at} was written after a sync up to {synced_upto}"
            );
            return Err(self.damage(bad, expected, found));
        }
        self.ended = true;
        Ok(None)
    }

    /// Offset and durable offset of a later valid fragment that was built when `start` was already durable.
    fn find_proof(&self, start: usize) -> Option<(usize, u64)> {
        let after = start.checked_add(1)?;
        let used = used_len(self.bytes.get(after..)?);
        let end = after.saturating_add(used).saturating_add(FRAGMENT_HEADER_BYTES).min(self.bytes.len());
        let claims = self.bytes.get(after.checked_add(FRAGMENT_HEADER_BYTES.wrapping_sub(8))?..end)?;
        for (index, window) in claims.windows(8).enumerate() {
            let at = after.saturating_add(index);
            let claim = u64::from_le_bytes(window.try_into().ok()?);
            if claim > start as u64 && claim <= at as u64 && parse(self.origin, self.bytes, at).is_ok() {
                return Some((at, claim));
            }
        }
        None
    }

    #[cold]
    fn damage(&self, offset: usize, expected: impl Into<String>, found: &'static str) -> Error {
        Error::corrupt(self.path, offset as u64, expected, found)
    }

    #[cold]
    fn unknown_kind(&self, offset: usize, kind: u8, reserved: Option<&'static str>) -> Error {
        match reserved {
            Some(name) => Error::new(
                ErrorKind::VersionUnsupported,
                format!("{} at offset {offset}: a record of kind \"{name}\"", self.path.display()),
            ),
            None => {
                Error::corrupt(self.path, offset as u64, "a known kind of record", format!("kind {kind}"))
            }
        }
    }
}

/// Bytes looked at together for zeros: small enough for the cache, large enough for vector instructions.
const ZERO_CHUNK_BYTES: usize = 1024;

/// Whether there is no byte other than zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZERO_CHUNK_BYTES).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

/// Length without the zeros at the end.
pub(crate) fn used_len(bytes: &[u8]) -> usize {
    let mut used = bytes.len();
    for chunk in bytes.rchunks(ZERO_CHUNK_BYTES) {
        if !is_zero(chunk) {
            let trailing = chunk.iter().rev().take_while(|byte| **byte == 0).count();
            return used.saturating_sub(trailing);
        }
        used = used.saturating_sub(chunk.len());
    }
    0
}
