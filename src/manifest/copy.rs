//! The form of one manifest copy, pure: bytes in, history out.
//!
//! A copy is a file header (its number is the generation of the first record) and records of kind `Edit`. The first
//! is a snapshot, the others are edits, each one generation after the one before. Both copies of a manifest have
//! the same bytes unless a crash or damage came between.
//!
//! | bytes | field of a payload |
//! | --- | --- |
//! | 8 | generation |
//! | 8 | xxh3-64 of the payload of the generation before; 0 for the first of a database |
//! | 1 | role: 1 snapshot, 2 edit |
//! | | of a snapshot: name of the key order, after its length as a varint |
//! | | edit (see `edit`): of a snapshot, what leads from nothing to the version |
//!
//! Valid iff the header is, the first record is a whole snapshot, generations and hashes form a chain, every edit
//! applies, and the resulting version obeys all rules. Each record says that the file was durable up to its start,
//! so damage before the last record is told from a torn tail; a torn tail ends the history.

use super::edit::Edit;
use super::version::Version;
use crate::base::checksum::{FileTag, Origin, plain};
use crate::base::coding::{Reader, put_bytes};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::fields::DecodeError;
use crate::base::types::DbId;
use crate::record::{self, FILE_HEADER_BYTES, FileHeader, RecordKind, RecordMeta, Tail};
use std::path::Path;

/// Name of the order of keys. Never change.
const KEY_ORDER: &[u8] = b"esker.bytewise";

/// Roles of a payload. Never change.
const SNAPSHOT: u8 = 1;
const EDIT: u8 = 2;

/// Longest copy that is read or written, so that a damaged length cannot ask for all memory.
pub(super) const COPY_BYTES_MAX: u64 = 1 << 30;

/// Origin of a copy that starts with this generation.
pub(super) fn origin(db: DbId, first_generation: u64) -> Origin {
    Origin::new(db, FileTag::Manifest, first_generation)
}

/// The hash by which the next payload names this one.
pub(super) fn hash(payload: &[u8]) -> u64 {
    plain(payload)
}

/// Payload of an edit that leads to this generation.
pub(super) fn edit_payload(generation: u64, before: u64, edit: &Edit) -> Vec<u8> {
    let mut out = payload_start(generation, before, EDIT);
    edit.encode_into(&mut out);
    out
}

/// Payload that holds all of a version.
pub(super) fn snapshot_payload(version: &Version, before: u64) -> Vec<u8> {
    let mut out = payload_start(version.generation, before, SNAPSHOT);
    put_bytes(&mut out, KEY_ORDER);
    version.snapshot().encode_into(&mut out);
    out
}

fn payload_start(generation: u64, before: u64, role: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&generation.to_le_bytes());
    out.extend_from_slice(&before.to_le_bytes());
    out.push(role);
    out
}

/// Appends the framed form of a payload that will stand at `offset`, where everything before is durable.
pub(super) fn frame(origin: Origin, offset: u64, payload: &[u8], out: &mut Vec<u8>) {
    let meta = RecordMeta { kind: RecordKind::Edit, first_seq: 0, count: 0, synced_upto: offset };
    record::encode(origin, offset, &meta, payload, out);
}

/// Bytes of a new copy that starts with this snapshot.
pub(super) fn new_copy(db: DbId, generation: u64, snapshot: &[u8]) -> Vec<u8> {
    let header = FileHeader::new(FileTag::Manifest, db, generation);
    let mut bytes = header.encode().to_vec();
    frame(origin(db, generation), FILE_HEADER_BYTES as u64, snapshot, &mut bytes);
    bytes
}

/// What a usable copy tells.
#[derive(Debug)]
pub(super) struct History {
    /// Newest version in it.
    pub(super) version: Version,
    /// Generation of its snapshot.
    pub(super) first: u64,
    /// Hash that its snapshot gives for the payload before.
    pub(super) before: u64,
    /// Hashes of its payloads, one for each generation from `first` on.
    pub(super) hashes: Vec<u64>,
    /// Where the valid records end, and what was dropped behind.
    pub(super) tail: Tail,
}

impl History {
    /// Generation of its newest record.
    pub(super) fn last(&self) -> u64 {
        self.version.generation
    }

    /// Hash of its newest payload.
    pub(super) fn last_hash(&self) -> u64 {
        self.hashes.last().copied().unwrap_or_default()
    }

    /// Hash of the payload of this generation, as far as this copy knows it.
    pub(super) fn hash_of(&self, generation: u64) -> Option<u64> {
        if generation.checked_add(1)? == self.first {
            return Some(self.before);
        }
        self.hashes.get(usize::try_from(generation.checked_sub(self.first)?).ok()?).copied()
    }
}

/// Why a copy cannot be used.
#[derive(Debug)]
pub(super) struct Damage {
    /// What is wrong with it.
    pub(super) error: Error,
    /// A generation that both copies held for sure; 0 when none is known.
    pub(super) seen: u64,
}

impl From<Error> for Damage {
    fn from(error: Error) -> Damage {
        Damage { error, seen: 0 }
    }
}

/// Reads a whole copy. Damage of kind `VersionUnsupported` means a later version's file, not a damaged one.
pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<History, Damage> {
    let header = FileHeader::decode(path, bytes, FileTag::Manifest)?;
    let origin = origin(header.db, header.number);
    let mut reader = record::Reader::new(path, origin, bytes, FILE_HEADER_BYTES);
    let mut history: Option<History> = None;
    loop {
        let seen = history.as_ref().map_or(0, History::last);
        let damage = |error| Damage { error, seen };
        // A bad record is damage because something was written after it was synced: then the other copy had it too.
        let proven = history.as_ref().map_or(header.number, |history| history.last().saturating_add(1));
        let Some(record) = reader.next().map_err(|error| Damage { error, seen: proven })? else { break };
        let place = Place { path, offset: record.offset };
        if record.meta.kind != RecordKind::Edit {
            return Err(damage(place.corrupt("an edit", format!("a record of kind {:?}", record.meta.kind))));
        }
        match &mut history {
            None => history = Some(place.start(&header, &record.payload).map_err(damage)?),
            Some(history) => place.step(history, &record.payload).map_err(damage)?,
        }
    }
    let tail = reader.tail();
    let Some(mut history) = history else {
        let place = Place { path, offset: FILE_HEADER_BYTES as u64 };
        return Err(place
            .corrupt("a snapshot", format!("{} bytes that are none", tail.dropped_bytes))
            .into());
    };
    history.tail = tail;
    match history.version.check() {
        Ok(()) => Ok(history),
        Err(broken) => Err(Error::corrupt(path, None, "a consistent version", broken.0).into()),
    }
}

/// Where a record stands, for errors.
struct Place<'a> {
    path: &'a Path,
    offset: u64,
}

/// A payload without its edit's meaning.
struct Payload<'a> {
    generation: u64,
    before: u64,
    edit: &'a [u8],
}

impl Place<'_> {
    fn corrupt(&self, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::corrupt(self.path, self.offset, expected, found)
    }

    fn unsupported(&self, what: String) -> Error {
        let message = format!("{} at offset {}: {what} of a later version", self.path.display(), self.offset);
        Error::new(ErrorKind::VersionUnsupported, message)
    }

    /// The first record: from nothing to a version.
    fn start(&self, header: &FileHeader, payload: &[u8]) -> Result<History> {
        let parts = self.split(payload, SNAPSHOT)?;
        if parts.generation != header.number || parts.generation == 0 {
            let expected = format!("generation {} as in the header", header.number);
            return Err(self.corrupt(expected, format!("generation {}", parts.generation)));
        }
        let mut version = Version::empty(header.db);
        version.generation = parts.generation.saturating_sub(1);
        self.apply(&mut version, parts.edit)?;
        Ok(History {
            version,
            first: parts.generation,
            before: parts.before,
            hashes: vec![hash(payload)],
            tail: Tail { valid_len: 0, dropped_bytes: 0 },
        })
    }

    /// A later record: one generation on.
    fn step(&self, history: &mut History, payload: &[u8]) -> Result<()> {
        let parts = self.split(payload, EDIT)?;
        let expected = (history.last().saturating_add(1), history.last_hash());
        if (parts.generation, parts.before) != expected {
            return Err(self.corrupt(
                format!("generation {} after payload {:016x}", expected.0, expected.1),
                format!("generation {} after payload {:016x}", parts.generation, parts.before),
            ));
        }
        self.apply(&mut history.version, parts.edit)?;
        history.hashes.push(hash(payload));
        Ok(())
    }

    fn split<'p>(&self, payload: &'p [u8], role: u8) -> Result<Payload<'p>> {
        let mut reader = Reader::new(payload);
        let (Some(generation), Some(before), Some(found)) = (reader.u64(), reader.u64(), reader.u8()) else {
            return Err(self.corrupt("generation, hash and role", format!("{} bytes", payload.len())));
        };
        if found > EDIT {
            return Err(self.unsupported(format!("a record of role {found}")));
        }
        if found != role {
            return Err(self.corrupt(format!("a record of role {role}"), format!("role {found}")));
        }
        if role == SNAPSHOT {
            let order = reader.bytes().ok_or_else(|| self.corrupt("the name of the key order", "less"))?;
            if order != KEY_ORDER {
                return Err(self.unsupported(format!("the key order `{}`", order.escape_ascii())));
            }
        }
        Ok(Payload { generation, before, edit: reader.rest() })
    }

    fn apply(&self, version: &mut Version, bytes: &[u8]) -> Result<()> {
        let edit = Edit::decode(bytes).map_err(|error| match error {
            DecodeError::Malformed(what) => self.corrupt("an edit", what),
            DecodeError::Unsupported(what) => self.unsupported(what),
        })?;
        version.apply_in_place(&edit).map_err(|broken| self.corrupt("an edit that applies", broken.0))
    }
}
