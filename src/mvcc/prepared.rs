//! Prepared transactions, stored: what phase one of a two-phase commit leaves behind for phase two, across crashes.
//!
//! A prepared transaction is one record of the system keyspace under its xid: its operations as the batch that they
//! will be, and its locks. To prepare is one durable put of the record. To commit is one batch: the operations and the
//! removal of the record. To roll back is the removal alone. So after any crash a transaction is prepared, or it is
//! committed, or it is nothing, and recovery has nothing to do about it.
//!
//! An index in memory keeps xids unique, bounds what is prepared, and protects the keyspaces that records name. It
//! holds no operations: those are read back when they are committed.
//!
//! Knows nothing of locks or isolation beyond carrying them.

use super::record::{SystemRecord, seal, unseal};
use crate::base::coding::{Reader, put_bytes, put_varint};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::fields::{DecodeError, FieldMap, malformed, put_field, put_number};
use crate::base::sync::{Mutex, Rank};
use crate::base::types::{KEY_BYTES_MAX, KeyspaceId, SeqNo};
use crate::engine::{Core, Durability, VersionedStore};
use crate::wal::{BatchBuilder, BatchError, ops};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Fields of a record. Never change the numbers.
const TRANSACTION: u64 = 1;
const ISOLATION: u64 = 2;
const PREPARE_TIME: u64 = 3;
const LABEL: u64 = 4;
const COUNT: u64 = 5;
const OPERATIONS: u64 = 6;
const LOCKS: u64 = 7;
const READS: u64 = 8;

/// Bits of a lock's first byte. Never change.
const LOCK_EXCLUSIVE: u8 = 0b001;
const LOCK_RANGE: u8 = 0b010;
const LOCK_BOUNDED: u8 = 0b100;

/// A prepared transaction as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PreparedRecord {
    /// Name that the coordinator gave it.
    pub(crate) xid: String,
    /// Number it had when it was prepared.
    pub(crate) transaction: u64,
    /// Label, if it had one.
    pub(crate) label: Option<String>,
    /// Isolation level: 1 read uncommitted, 2 read committed, 3 repeatable read, 4 serializable.
    pub(crate) isolation: u8,
    /// When it was prepared, in microseconds since 1970.
    pub(crate) unix_micros: u64,
    /// Its writes: the payload of the batch that they will be.
    pub(crate) operations: Vec<u8>,
    /// Operations in it.
    pub(crate) count: u32,
    /// What it has locked.
    pub(crate) locks: Vec<PreparedLock>,
    /// What it has read, in a form of its own; empty below serializable.
    pub(crate) reads: Vec<u8>,
}

/// One lock of a prepared transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PreparedLock {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) scope: PreparedScope,
    /// Exclusive or shared.
    pub(crate) exclusive: bool,
}

/// What a lock covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PreparedScope {
    /// One key.
    Key(Vec<u8>),
    /// All keys from `start` on and before `end`, if there is one.
    Range { start: Vec<u8>, end: Option<Vec<u8>> },
}

impl PreparedRecord {
    pub(super) fn encode(&self, key: &[u8]) -> Vec<u8> {
        seal(key, |out| {
            put_number(out, TRANSACTION, self.transaction);
            put_number(out, ISOLATION, u64::from(self.isolation));
            put_number(out, PREPARE_TIME, self.unix_micros);
            if let Some(label) = &self.label {
                put_field(out, LABEL, label.as_bytes());
            }
            put_number(out, COUNT, u64::from(self.count));
            put_field(out, OPERATIONS, &self.operations);
            let mut locks = Vec::new();
            self.locks.iter().for_each(|lock| lock.encode(&mut locks));
            put_field(out, LOCKS, &locks);
            if !self.reads.is_empty() {
                put_field(out, READS, &self.reads);
            }
        })
    }

    pub(super) fn decode(xid: &str, key: &[u8], value: &[u8]) -> Result<PreparedRecord, DecodeError> {
        let fields = FieldMap::decode("prepared transaction", READS, unseal(key, value)?)?;
        let label = fields.get(LABEL).map(|label| String::from_utf8(label.to_vec()));
        let isolation: u8 = fields.number(ISOLATION)?;
        if !(1..=4).contains(&isolation) {
            return Err(DecodeError::Unsupported(format!("isolation level {isolation}")));
        }
        let record = PreparedRecord {
            xid: xid.to_string(),
            transaction: fields.number(TRANSACTION)?,
            label: label.transpose().map_err(|_| malformed("a label that is not UTF-8"))?,
            isolation,
            unix_micros: fields.number(PREPARE_TIME)?,
            operations: fields.bytes(OPERATIONS)?.to_vec(),
            count: fields.number(COUNT)?,
            locks: decode_locks(fields.bytes(LOCKS)?)?,
            reads: fields.get(READS).unwrap_or_default().to_vec(),
        };
        record.keyspaces()?;
        Ok(record)
    }

    /// The keyspaces that its operations and locks name. Reads all operations, and counts them.
    pub(crate) fn keyspaces(&self) -> Result<BTreeSet<KeyspaceId>, DecodeError> {
        let mut keyspaces: BTreeSet<_> = self.locks.iter().map(|lock| lock.keyspace).collect();
        let mut count = 0u32;
        for op in ops(&self.operations).map_err(undecodable)? {
            keyspaces.insert(op.map_err(undecodable)?.keyspace);
            count = count.saturating_add(1);
        }
        if count != self.count {
            return Err(malformed(format!("{count} operations instead of {}", self.count)));
        }
        Ok(keyspaces)
    }
}

fn undecodable(error: BatchError) -> DecodeError {
    match error {
        BatchError::Malformed(expected) => malformed(format!("a batch without {expected}")),
        BatchError::Unsupported(what) => DecodeError::Unsupported(format!("a batch with {what}")),
    }
}

impl PreparedLock {
    fn encode(&self, out: &mut Vec<u8>) {
        let (start, end, mut bits) = match &self.scope {
            PreparedScope::Key(key) => (key, None, 0),
            PreparedScope::Range { start, end } => (start, end.as_ref(), LOCK_RANGE),
        };
        if self.exclusive {
            bits |= LOCK_EXCLUSIVE;
        }
        if end.is_some() {
            bits |= LOCK_BOUNDED;
        }
        out.push(bits);
        put_varint(out, u64::from(self.keyspace.0));
        put_bytes(out, start);
        if let Some(end) = end {
            put_bytes(out, end);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Option<PreparedLock> {
        let bits = reader.u8()?;
        let keyspace = KeyspaceId(u32::try_from(reader.varint()?).ok()?);
        let start = bounded(reader)?;
        let scope = match bits & !LOCK_EXCLUSIVE {
            0 if !start.is_empty() => PreparedScope::Key(start),
            LOCK_RANGE => PreparedScope::Range { start, end: None },
            bits if bits == LOCK_RANGE | LOCK_BOUNDED => {
                PreparedScope::Range { start, end: Some(bounded(reader)?) }
            }
            _ => return None,
        };
        Some(PreparedLock { keyspace, scope, exclusive: bits & LOCK_EXCLUSIVE != 0 })
    }
}

/// A key, or the bound of a range, which may be one byte longer (the first key after the longest).
fn bounded(reader: &mut Reader<'_>) -> Option<Vec<u8>> {
    let bytes = reader.bytes()?;
    (bytes.len() <= KEY_BYTES_MAX.saturating_add(1)).then(|| bytes.to_vec())
}

fn decode_locks(bytes: &[u8]) -> Result<Vec<PreparedLock>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut locks = Vec::new();
    while !reader.is_empty() {
        locks.push(PreparedLock::decode(&mut reader).ok_or_else(|| malformed("a broken lock"))?);
    }
    Ok(locks)
}

/// The prepared transactions of a database.
#[derive(Debug)]
pub(crate) struct PreparedStore {
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    entries: BTreeMap<String, Entry>,
    /// Bytes of all of them.
    bytes: u64,
    /// Keyspaces that are being dropped.
    dropping: BTreeSet<KeyspaceId>,
}

#[derive(Debug)]
struct Entry {
    bytes: u64,
    keyspaces: BTreeSet<KeyspaceId>,
    /// Being stored, committed or rolled back.
    is_busy: bool,
}

impl Index {
    fn insert(&mut self, xid: &str, entry: Entry) {
        self.bytes = self.bytes.saturating_add(entry.bytes);
        self.entries.insert(xid.to_string(), entry);
    }

    fn remove(&mut self, xid: &str) {
        if let Some(entry) = self.entries.remove(xid) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }

    /// Refuses a record that may not be stored beside the others.
    fn admit(&self, xid: &str, entry: &Entry, bytes_max: u64) -> Result<()> {
        if self.entries.contains_key(xid) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("there is a prepared transaction {xid:?} already"),
            ));
        }
        if entry.keyspaces.iter().any(|keyspace| self.dropping.contains(keyspace)) {
            return Err(dropped(xid));
        }
        let bytes = self.bytes.saturating_add(entry.bytes);
        if bytes > bytes_max {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "prepared transactions have at most {bytes_max} bytes together (prepared_bytes_max); \
                     with {xid:?} they would have {bytes}"
                ),
            ));
        }
        Ok(())
    }
}

fn dropped(xid: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("a keyspace of prepared transaction {xid:?} was dropped"))
}

/// The right to end a prepared transaction, which only one can have; given back when dropped.
#[derive(Debug)]
pub(crate) struct Ending<'a> {
    store: &'a PreparedStore,
    xid: &'a str,
    is_ended: bool,
}

impl Ending<'_> {
    /// The record is removed.
    pub(crate) fn ended(mut self) {
        self.is_ended = true;
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut index = self.store.index.lock();
        if self.is_ended {
            index.remove(self.xid);
        } else if let Some(entry) = index.entries.get_mut(self.xid) {
            entry.is_busy = false;
        }
    }
}

/// What protects a keyspace that is being dropped from being prepared over.
#[derive(Debug)]
pub(crate) struct Dropping<'a> {
    store: &'a PreparedStore,
    keyspace: KeyspaceId,
}

impl Drop for Dropping<'_> {
    fn drop(&mut self) {
        self.store.index.lock().dropping.remove(&self.keyspace);
    }
}

impl PreparedStore {
    /// The prepared transactions of a database that was just opened, and their records.
    pub(crate) fn load(core: &Arc<Core>) -> Result<(PreparedStore, Vec<PreparedRecord>)> {
        let mut index = Index::default();
        let records = load_all(core, |record, bytes| {
            let keyspaces = record.keyspaces()?;
            index.insert(&record.xid, Entry { bytes, keyspaces, is_busy: false });
            Ok(())
        })?;
        Ok((PreparedStore { index: Mutex::new(Rank::Leaf, index) }, records))
    }

    /// Stores a record; it is on the disk when this returns.
    pub(crate) fn store(&self, core: &Arc<Core>, record: &PreparedRecord) -> Result<SeqNo> {
        let kind = SystemRecord::Prepared;
        let xid = record.xid.as_str();
        kind.check_name(xid)?;
        let key = kind.key(xid);
        let value = record.encode(&key);
        let keyspaces = record.keyspaces().map_err(|why| kind.damaged(core, xid, why))?;
        let entry =
            Entry { bytes: size_of_record(&key, &value), keyspaces: keyspaces.clone(), is_busy: true };
        {
            let mut index = self.index.lock();
            index.admit(xid, &entry, core.options.prepared_bytes_max)?;
            index.insert(xid, entry);
        }
        // From here on its keyspaces are not dropped; they may have been.
        let exist = keyspaces.iter().all(|keyspace| core.keyspace_by_id(*keyspace).is_some());
        let stored = if exist { put(core, &key, &value) } else { Err(dropped(xid)) };
        let mut index = self.index.lock();
        match &stored {
            Err(error) if error.kind() != ErrorKind::OutcomeUnknown => index.remove(xid),
            _ => {
                if let Some(entry) = index.entries.get_mut(xid) {
                    entry.is_busy = false;
                }
            }
        }
        stored
    }

    /// The right to commit or roll back a prepared transaction.
    pub(crate) fn ending<'a>(&'a self, xid: &'a str) -> Result<Ending<'a>> {
        match self.index.lock().entries.get_mut(xid) {
            Some(entry) if entry.is_busy => Err(Error::new(
                ErrorKind::Locked,
                format!("prepared transaction {xid:?} is being prepared, committed or rolled back"),
            )),
            Some(entry) => {
                entry.is_busy = true;
                Ok(Ending { store: self, xid, is_ended: false })
            }
            None => Err(Error::new(ErrorKind::NotFound, format!("there is no prepared transaction {xid:?}"))),
        }
    }

    /// The batch that commits a prepared transaction: its operations and the removal of its record.
    pub(crate) fn commit_batch(core: &Arc<Core>, record: &PreparedRecord) -> Result<BatchBuilder> {
        let mut batch = BatchBuilder::new();
        batch
            .append_payload(&record.operations)
            .map_err(|error| SystemRecord::Prepared.damaged(core, &record.xid, undecodable(error)))?;
        removal(core, &mut batch, &record.xid)?;
        Ok(batch)
    }

    /// To be held while a keyspace is dropped. `InvalidArgument` if a prepared transaction names it.
    pub(crate) fn dropping(&self, keyspace: KeyspaceId) -> Result<Dropping<'_>> {
        let mut index = self.index.lock();
        if let Some((xid, _)) = index.entries.iter().find(|(_, entry)| entry.keyspaces.contains(&keyspace)) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("prepared transaction {xid:?} needs the keyspace: commit it or roll it back first"),
            ));
        }
        index.dropping.insert(keyspace);
        Ok(Dropping { store: self, keyspace })
    }

    /// Bytes of all records.
    pub(crate) fn bytes(&self) -> u64 {
        self.index.lock().bytes
    }
}

fn size_of_record(key: &[u8], value: &[u8]) -> u64 {
    key.len().saturating_add(value.len()) as u64
}

fn put(core: &Arc<Core>, key: &[u8], value: &[u8]) -> Result<SeqNo> {
    let Some(keyspace) = core.system_keyspace(true)? else { return Err(no_keyspace(core)) };
    let mut batch = BatchBuilder::new();
    batch.put(keyspace.id, key, value)?;
    core.commit_batch(&batch.freeze(), batch.keyspaces(), Durability::Disk, &|_| Ok(()))
}

fn no_keyspace(core: &Core) -> Error {
    Error::corrupt(&core.dir, None, "the system keyspace", "none")
}

/// Adds the removal of a record to the batch that ends its transaction.
pub(crate) fn removal(core: &Arc<Core>, batch: &mut BatchBuilder, xid: &str) -> Result<()> {
    let Some(keyspace) = core.system_keyspace(false)? else { return Err(no_keyspace(core)) };
    batch.delete(keyspace.id, &SystemRecord::Prepared.key(xid))
}

/// Removes a record, durably.
pub(crate) fn remove(core: &Arc<Core>, xid: &str) -> Result<SeqNo> {
    let mut batch = BatchBuilder::new();
    removal(core, &mut batch, xid)?;
    core.commit_batch(&batch.freeze(), batch.keyspaces(), Durability::Disk, &|_| Ok(()))
}

/// The record of a prepared transaction.
pub(crate) fn load(core: &Arc<Core>, xid: &str) -> Result<PreparedRecord> {
    let kind = SystemRecord::Prepared;
    let key = kind.key(xid);
    let found = match core.system_keyspace(false)? {
        Some(keyspace) => core.read_newest(&keyspace, &key)?,
        None => None,
    };
    let Some(value) = found else {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no prepared transaction {xid:?}")));
    };
    PreparedRecord::decode(xid, &key, &value).map_err(|why| kind.damaged(core, xid, why))
}

/// All records, in the order of xids, each shown to `note` with its size.
fn load_all(
    core: &Arc<Core>,
    mut note: impl FnMut(&PreparedRecord, u64) -> Result<(), DecodeError>,
) -> Result<Vec<PreparedRecord>> {
    let kind = SystemRecord::Prepared;
    let mut records = Vec::new();
    kind.for_each(core, |xid, value| {
        let key = kind.key(xid);
        let mut read = || -> Result<PreparedRecord, DecodeError> {
            let record = PreparedRecord::decode(xid, &key, value)?;
            for keyspace in record.keyspaces()? {
                if core.keyspace_by_id(keyspace).is_none() {
                    return Err(malformed(format!("keyspace {}, which does not exist", keyspace.0)));
                }
            }
            note(&record, size_of_record(&key, value))?;
            Ok(record)
        };
        records.push(read().map_err(|why| kind.damaged(core, xid, why))?);
        Ok(())
    })?;
    Ok(records)
}

#[cfg(test)]
mod tests;
