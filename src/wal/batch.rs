//! What a commit looks like as bytes: header fields, then operations in the order of their sequence numbers.
//!
//! ```text
//! payload   = field* 0 operation*
//! field     = tag:varint length:varint bytes
//! operation = kind:u8 keyspace:varint length:varint key [length:varint value]     a value only for Put
//! ```
//!
//! Tags 1 session id, 2 session serial, 3 commit time (microseconds since 1970), 4 transaction id are reserved and
//! carry only information. Of other tags, an even one from 16 up may be skipped by a reader that does not know it;
//! any other must be refused. Never change these rules.
//!
//! Knows nothing of records, files or memtables. Decoding trusts nothing.

use crate::base::coding::{self, Reader, put_bytes, put_varint};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::{EntryKind, KEY_BYTES_MAX, KeyspaceId, UnknownKind, VALUE_BYTES_MAX};
use std::path::Path;
use std::sync::Arc;

/// Ends the header fields. Never change.
const END_TAG: u64 = 0;

/// Tags with a meaning that reading operations does not need. Never change.
const KNOWN_TAGS: std::ops::RangeInclusive<u64> = 1..=4;

/// From here on, even tags may be skipped. Never change.
const FIRST_SKIPPABLE_TAG: u64 = 16;

/// Largest batch: what a shared slice can address.
const BATCH_BYTES_MAX: usize = u32::MAX as usize;

/// Most bytes of an operation beside key and value.
const OP_OVERHEAD_BYTES_MAX: usize = 1 + 3 * coding::VARINT_BYTES_MAX;

/// Collects the operations of one commit in their encoded form.
#[derive(Debug, Clone)]
pub(crate) struct BatchBuilder {
    bytes: Vec<u8>,
    count: u32,
    keyspaces: Vec<KeyspaceId>,
}

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder::new()
    }
}

impl BatchBuilder {
    /// A batch without operations.
    pub(crate) fn new() -> BatchBuilder {
        let mut batch = BatchBuilder { bytes: Vec::new(), count: 0, keyspaces: Vec::new() };
        batch.clear();
        batch
    }

    /// Forgets all operations, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        put_varint(&mut self.bytes, END_TAG);
        self.count = 0;
        self.keyspaces.clear();
    }

    /// Gives a key a value. An empty key is `InvalidArgument`; a key, value or batch beyond its limit is
    /// `LimitExceeded`, and the batch stays as it was.
    pub(crate) fn put(&mut self, keyspace: KeyspaceId, key: &[u8], value: &[u8]) -> Result<()> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(too_long("value", value.len(), VALUE_BYTES_MAX));
        }
        self.start_op(EntryKind::Put, keyspace, key, value.len())?;
        put_bytes(&mut self.bytes, value);
        Ok(())
    }

    /// Removes a key. Errors as for [`put`](Self::put).
    pub(crate) fn delete(&mut self, keyspace: KeyspaceId, key: &[u8]) -> Result<()> {
        self.start_op(EntryKind::Delete, keyspace, key, 0)
    }

    fn start_op(
        &mut self,
        kind: EntryKind,
        keyspace: KeyspaceId,
        key: &[u8],
        value_bytes: usize,
    ) -> Result<()> {
        if key.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "a key has at least one byte"));
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(too_long("key", key.len(), KEY_BYTES_MAX));
        }
        let added = key.len().saturating_add(value_bytes).saturating_add(OP_OVERHEAD_BYTES_MAX);
        let bytes = self.bytes.len().saturating_add(added);
        let count = self.count.checked_add(1).filter(|_| bytes <= BATCH_BYTES_MAX);
        self.count = count.ok_or_else(|| too_long("batch", bytes, BATCH_BYTES_MAX))?;
        self.bytes.reserve(added);
        self.bytes.push(kind as u8);
        put_varint(&mut self.bytes, u64::from(keyspace.0));
        put_bytes(&mut self.bytes, key);
        self.note_keyspace(keyspace);
        Ok(())
    }

    fn note_keyspace(&mut self, keyspace: KeyspaceId) {
        if self.keyspaces.last() != Some(&keyspace) && !self.keyspaces.contains(&keyspace) {
            self.keyspaces.push(keyspace);
        }
    }

    /// Adds the operations of another batch's encoded form. On an error the batch stays as it was.
    pub(crate) fn append_payload(&mut self, payload: &[u8]) -> Result<(), BatchError> {
        const TOO_LARGE: BatchError = BatchError::Malformed("operations that fit into one batch");
        let all = ops(payload)?;
        let operations = all.reader.rest();
        let mut count = self.count;
        let mut keyspaces = Vec::new();
        for op in all {
            let op = op?;
            count = count.checked_add(1).ok_or(TOO_LARGE)?;
            if keyspaces.last() != Some(&op.keyspace) && !keyspaces.contains(&op.keyspace) {
                keyspaces.push(op.keyspace);
            }
        }
        if self.bytes.len().saturating_add(operations.len()) > BATCH_BYTES_MAX {
            return Err(TOO_LARGE);
        }
        self.bytes.extend_from_slice(operations);
        self.count = count;
        keyspaces.into_iter().for_each(|keyspace| self.note_keyspace(keyspace));
        Ok(())
    }

    /// Operations in it.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the encoded form.
    pub(crate) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// The encoded form.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The keyspaces it touches, each once, in the order of their first operation.
    pub(crate) fn keyspaces(&self) -> &[KeyspaceId] {
        &self.keyspaces
    }

    /// A shared copy of the encoded form.
    pub(crate) fn freeze(&self) -> FrozenBatch {
        FrozenBatch { bytes: Arc::from(self.bytes.as_slice()), count: self.count }
    }
}

/// The operations of one commit, ready to be logged and applied.
#[derive(Debug, Clone)]
pub(crate) struct FrozenBatch {
    /// The encoded form: the payload of its record.
    pub(crate) bytes: Arc<[u8]>,
    /// Operations in it.
    pub(crate) count: u32,
}

/// One operation, borrowed from the payload it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpRef<'a> {
    /// What is done to the key.
    pub(crate) kind: EntryKind,
    /// Where the key lives.
    pub(crate) keyspace: KeyspaceId,
    /// The key.
    pub(crate) key: &'a [u8],
    /// The value; empty for a kind without one.
    pub(crate) value: &'a [u8],
    /// Offset of the key in the payload.
    pub(crate) key_start: usize,
    /// Offset of the value in the payload.
    pub(crate) value_start: usize,
}

/// Why a payload cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BatchError {
    /// No version writes this; names what should have been there.
    Malformed(&'static str),
    /// A later version wrote it; names what it uses.
    Unsupported(String),
}

impl BatchError {
    /// The error of the batch whose record is at this offset of a file.
    pub(crate) fn into_error(self, file: &Path, offset: u64) -> Error {
        match self {
            BatchError::Malformed(expected) => {
                Error::corrupt(file, offset, format!("a batch with {expected}"), "something else")
            }
            BatchError::Unsupported(what) => Error::new(
                ErrorKind::VersionUnsupported,
                format!("{} at offset {offset}: a batch with {what}", file.display()),
            ),
        }
    }
}

/// The operations of a payload, in order.
pub(crate) fn ops(payload: &[u8]) -> Result<OpIter<'_>, BatchError> {
    let mut reader = Reader::new(payload);
    skip_fields(&mut reader)?;
    Ok(OpIter { reader, payload_bytes: payload.len() })
}

fn skip_fields(reader: &mut Reader<'_>) -> Result<(), BatchError> {
    loop {
        let tag = reader.varint().ok_or(BatchError::Malformed("a header field's tag"))?;
        if tag == END_TAG {
            return Ok(());
        }
        reader.bytes().ok_or(BatchError::Malformed("a header field's bytes"))?;
        let may_be_skipped = tag >= FIRST_SKIPPABLE_TAG && tag & 1 == 0;
        if !KNOWN_TAGS.contains(&tag) && !may_be_skipped {
            return Err(BatchError::Unsupported(format!("header field {tag}")));
        }
    }
}

/// Iterates over the operations of a payload. Ends after the first error.
#[derive(Debug, Clone)]
pub(crate) struct OpIter<'a> {
    reader: Reader<'a>,
    payload_bytes: usize,
}

impl<'a> OpIter<'a> {
    #[inline]
    fn read(&mut self) -> Result<OpRef<'a>, BatchError> {
        use BatchError::Malformed;
        let reader = &mut self.reader;
        let kind = reader.u8().ok_or(Malformed("an operation's kind"))?;
        let kind = EntryKind::from_byte(kind).map_err(unknown_kind)?;
        let keyspace = reader.varint().and_then(|number| u32::try_from(number).ok());
        let keyspace = KeyspaceId(keyspace.ok_or(Malformed("an operation's keyspace"))?);
        let key = reader.bytes().filter(|key| !key.is_empty() && key.len() <= KEY_BYTES_MAX);
        let key = key.ok_or(Malformed("a key of 1 to 65535 bytes"))?;
        let key_end = self.payload_bytes.saturating_sub(reader.remaining());
        let value = match kind {
            EntryKind::Put => reader.bytes().filter(|value| value.len() <= VALUE_BYTES_MAX),
            EntryKind::Delete => Some(&[][..]),
        };
        let value = value.ok_or(Malformed("a value of at most 1 GiB"))?;
        let value_end = self.payload_bytes.saturating_sub(reader.remaining());
        Ok(OpRef {
            kind,
            keyspace,
            key,
            value,
            key_start: key_end.saturating_sub(key.len()),
            value_start: value_end.saturating_sub(value.len()),
        })
    }
}

impl<'a> Iterator for OpIter<'a> {
    type Item = Result<OpRef<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let op = self.read();
        if op.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(op)
    }
}

fn unknown_kind(kind: UnknownKind) -> BatchError {
    match kind {
        UnknownKind::Reserved(name) => BatchError::Unsupported(format!("an operation \"{name}\"")),
        UnknownKind::Invalid(_) => BatchError::Malformed("a known kind of operation"),
    }
}

fn too_long(what: &str, bytes: usize, limit: usize) -> Error {
    Error::new(ErrorKind::LimitExceeded, format!("a {what} of {bytes} bytes; at most {limit} are possible"))
}
