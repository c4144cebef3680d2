//! Two-phase commit: a transaction that is prepared can be committed or rolled back later, also after a crash.
//!
//! `prepared` stores what that takes. Here is what it means while the database is open: the locks stay, the writes stay
//! visible to READ UNCOMMITTED, SERIALIZABLE transactions take it into account, and it is never the victim of a
//! deadlock. At open all of that is made again from the records.

use super::committing::committing;
use super::error::serialization;
use super::locks::{Mode, Owner, OwnerInfo, Wait};
use super::prepared::{self, PreparedLock, PreparedRecord, PreparedScope, PreparedStore};
use super::ssi::{ExportedKeyspace, ExportedReads, RecoveredReads, WriteKeys};
use super::txn::{Fate, Shared, Txn, TxnId};
use super::write_set::WriteSet;
use super::{Isolation, Transactions};
use crate::base::coding::{Reader, put_bytes, put_varint};
use crate::base::deadlock::{LockDescription, LockSpan};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Mutex, Rank};
use crate::base::types::{EntryKind, KeyspaceId, SeqNo};
use crate::engine::{Durability, VersionedStore};
use crate::wal::{BatchBuilder, ops};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

/// A prepared transaction, for the coordinator. See [`Db::prepared_transactions`](crate::Db::prepared_transactions).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PreparedTransaction {
    /// Name that it was prepared under.
    pub xid: String,
    /// What it was called.
    pub label: Option<String>,
    /// Its level.
    pub isolation: Isolation,
    /// When it was prepared.
    pub prepared_at: SystemTime,
    /// Keys it writes.
    pub writes: usize,
}

/// What is kept of a prepared transaction while the database is open.
pub(super) struct PreparedTxn {
    shared: Arc<Shared>,
    unix_micros: u64,
    /// Its share of the memory of all write sets.
    charged_bytes: usize,
}

impl Txn {
    /// Makes the writes durable without committing them, under a name of the coordinator.
    pub(crate) fn prepare(self: Box<Self>, xid: &str) -> Result<()> {
        self.check_writable()?;
        if !self.shared.fate.settle() {
            return Err(super::error::expired(self.id()));
        }
        // After `OutcomeUnknown` it lets go of its locks like after any error: nobody writes any more before the next
        // open, which finds it prepared or not at all.
        self.try_prepare(xid).map_err(|error| self.failed(error))?;
        self.ended.set(true);
        Ok(())
    }

    fn try_prepare(&self, xid: &str) -> Result<()> {
        if self.options.optimistic {
            self.validate()?;
        }
        let record = self.record(xid)?;
        let keys = write_keys(&record.operations);
        let manager = &self.manager;
        manager
            .ssi
            .prepare(self.id(), self.tracker.borrow().as_ref(), keys)
            .map_err(|danger| serialization(&danger, self.id()))?;
        manager.locks.mark_prepared(&self.shared.owner);
        if let Err(error) = committing(|| manager.prepared.store(&manager.core, &record)) {
            if error.kind() != ErrorKind::OutcomeUnknown {
                manager.ssi.rollback_prepared(self.id());
            }
            return Err(error);
        }
        let prepared = PreparedTxn {
            shared: Arc::clone(&self.shared),
            unix_micros: record.unix_micros,
            charged_bytes: self.charged_bytes(),
        };
        manager.prepared_open.lock().insert(xid.to_string(), prepared);
        manager.no_longer_expiring(&self.shared);
        Ok(())
    }

    fn record(&self, xid: &str) -> Result<PreparedRecord> {
        let mut batch = BatchBuilder::new();
        self.shared.writes.lock().append_to(&mut batch)?;
        let reads = match &*self.tracker.borrow() {
            Some(tracker) => encode_reads(&tracker.export_reads()),
            None => Vec::new(),
        };
        let locks = self.manager.locks.held_by(&self.shared.owner);
        Ok(PreparedRecord {
            xid: xid.to_string(),
            transaction: self.id(),
            label: self.options.label.clone(),
            isolation: level_code(self.options.isolation),
            unix_micros: self.manager.core.env.clock.unix_micros(),
            operations: batch.bytes().to_vec(),
            count: batch.count(),
            locks: locks.into_iter().map(stored_lock).collect(),
            reads,
        })
    }
}

impl Transactions {
    /// All prepared transactions, by name.
    pub(crate) fn list_prepared(&self) -> Vec<PreparedTransaction> {
        let open = self.prepared_open.lock();
        let info = open.iter().map(|(xid, prepared)| PreparedTransaction {
            xid: xid.clone(),
            label: prepared.shared.label.as_deref().map(str::to_string),
            isolation: prepared.shared.isolation,
            prepared_at: SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_micros(prepared.unix_micros))
                .unwrap_or(SystemTime::UNIX_EPOCH),
            writes: usize::try_from(prepared.shared.owner.writes()).unwrap_or(usize::MAX),
        });
        info.collect()
    }

    /// Commits a prepared transaction: its writes and the removal of its record are one batch.
    pub(crate) fn commit_prepared(&self, xid: &str) -> Result<SeqNo> {
        let ending = self.prepared.ending(xid)?;
        let record = prepared::load(&self.core, xid)?;
        let batch = PreparedStore::commit_batch(&self.core, &record)?;
        let id = self.prepared_id(xid)?;
        let check = |seq: SeqNo| {
            self.ssi.commit_prepared(id, seq, self.core.visible_seq());
            Ok(())
        };
        let frozen = batch.freeze();
        let commit = || self.core.commit_batch(&frozen, batch.keyspaces(), Durability::Disk, &check);
        let seq = committing(commit).inspect_err(|_| self.ssi.withdraw_prepared(id))?;
        self.ssi.made_prepared(id, seq);
        self.counters.committed.add(1);
        // Before the name is free for another one.
        self.forget_prepared(xid);
        ending.ended();
        Ok(seq)
    }

    /// Rolls a prepared transaction back.
    pub(crate) fn rollback_prepared(&self, xid: &str) -> Result<()> {
        let ending = self.prepared.ending(xid)?;
        let id = self.prepared_id(xid)?;
        committing(|| prepared::remove(&self.core, xid))?;
        self.ssi.rollback_prepared(id);
        self.counters.rolled_back.add(1);
        // Before the name is free for another one.
        self.forget_prepared(xid);
        ending.ended();
        Ok(())
    }

    fn prepared_id(&self, xid: &str) -> Result<TxnId> {
        match self.prepared_open.lock().get(xid) {
            Some(prepared) => Ok(prepared.shared.id),
            None => Err(Error::new(ErrorKind::NotFound, format!("there is no prepared transaction {xid:?}"))),
        }
    }

    fn forget_prepared(&self, xid: &str) {
        let Some(prepared) = self.prepared_open.lock().remove(xid) else { return };
        *prepared.shared.writes.lock() = WriteSet::default();
        self.charge(prepared.charged_bytes, 0);
        self.locks.release_all(&prepared.shared.owner);
        self.open.lock().remove(&prepared.shared.id);
        self.gate.close();
    }

    /// Makes the prepared transactions found at open what they were: before any other transaction or write.
    pub(super) fn recover_prepared(&self, records: Vec<PreparedRecord>) -> Result<()> {
        // Also when they are more than options that were changed since would allow.
        self.locks.unbounded(|| records.into_iter().try_for_each(|record| self.recover_one(record)))
    }

    fn recover_one(&self, record: PreparedRecord) -> Result<()> {
        let id = self.new_id();
        let label: Option<Arc<str>> = record.label.as_deref().map(Arc::from);
        let isolation = level_of(record.isolation);
        let started = self.now();
        let owner = self.locks.register(OwnerInfo {
            id,
            label: label.clone(),
            level: isolation.name(),
            priority: 0,
            started,
        });
        self.recover_locks(&owner, &record.locks)?;
        let writes = recovered_writes(&record.operations);
        owner.set_writes(writes.len() as u64);
        self.locks.mark_prepared(&owner);
        self.ssi.recover_prepared(id, write_keys(&record.operations), &recovered_reads(&record));
        self.gate.open();
        let charged_bytes = writes.bytes();
        self.charge(0, charged_bytes);
        let fate = Fate::default();
        fate.settle();
        let shared = Arc::new(Shared {
            id,
            label,
            isolation,
            started,
            expires_at: None,
            is_hidden: AtomicBool::new(false),
            owner,
            writes: Mutex::new(Rank::Leaf, writes),
            fate,
        });
        self.open.lock().insert(id, Arc::clone(&shared));
        let prepared = PreparedTxn { shared, unix_micros: record.unix_micros, charged_bytes };
        self.prepared_open.lock().insert(record.xid, prepared);
        Ok(())
    }

    fn recover_locks(&self, owner: &Arc<Owner>, locks: &[PreparedLock]) -> Result<()> {
        for lock in locks {
            let mode = if lock.exclusive { Mode::Exclusive } else { Mode::Shared };
            match &lock.scope {
                PreparedScope::Key(key) => self.locks.acquire(owner, lock.keyspace, key, mode, Wait::No)?,
                PreparedScope::Range { start, end } => {
                    self.locks.acquire_range(owner, lock.keyspace, start, end.as_deref(), mode, Wait::No)?
                }
            };
        }
        Ok(())
    }
}

/// What a transaction has written, as its record tells it.
fn recovered_writes(operations: &[u8]) -> WriteSet {
    let mut writes = WriteSet::default();
    for op in ops(operations).into_iter().flatten().flatten() {
        let value = (op.kind == EntryKind::Put).then_some(op.value);
        writes.insert(op.keyspace, op.key, value);
    }
    writes
}

/// What a transaction has read, as its record tells it.
fn recovered_reads(record: &PreparedRecord) -> RecoveredReads {
    match level_of(record.isolation) {
        Isolation::Serializable => {
            decode_reads(&record.reads).map_or(RecoveredReads::Unknown, RecoveredReads::Known)
        }
        _ => RecoveredReads::Untracked,
    }
}

/// The keys that a payload writes.
fn write_keys(payload: &[u8]) -> WriteKeys {
    WriteKeys::collect(ops(payload).into_iter().flatten().flatten().map(|op| (op.keyspace, op.key)))
}

fn stored_lock(lock: LockDescription) -> PreparedLock {
    PreparedLock {
        keyspace: KeyspaceId(lock.keyspace),
        scope: match lock.span {
            LockSpan::Key(key) => PreparedScope::Key(key),
            LockSpan::Range { start, end } => PreparedScope::Range { start, end },
        },
        exclusive: lock.mode == Mode::Exclusive,
    }
}

/// Levels as they are stored. Never change.
const LEVELS: [(u8, Isolation); 4] = [
    (1, Isolation::ReadUncommitted),
    (2, Isolation::ReadCommitted),
    (3, Isolation::RepeatableRead),
    (4, Isolation::Serializable),
];

fn level_code(level: Isolation) -> u8 {
    LEVELS.iter().find(|(_, other)| *other == level).map_or(0, |(code, _)| *code)
}

/// The strictest for a number that is none: the record's decoding has refused it already.
fn level_of(code: u8) -> Isolation {
    LEVELS.iter().find(|(other, _)| *other == code).map_or(Isolation::Serializable, |(_, level)| *level)
}

/// Reads as they are stored, by keyspace: number, whether all of it, hashes of keys, ranges with an empty end for none.
fn encode_reads(reads: &ExportedReads) -> Vec<u8> {
    let mut out = Vec::new();
    for keyspace in &reads.keyspaces {
        put_varint(&mut out, u64::from(keyspace.keyspace.0));
        out.push(u8::from(keyspace.whole));
        put_varint(&mut out, keyspace.hashes.len() as u64);
        keyspace.hashes.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
        put_varint(&mut out, keyspace.ranges.len() as u64);
        for (start, end) in &keyspace.ranges {
            put_bytes(&mut out, start);
            put_bytes(&mut out, end.as_deref().unwrap_or_default());
        }
    }
    out
}

/// The other way; `None` for what this version did not write, which counts as having read everything.
fn decode_reads(bytes: &[u8]) -> Option<ExportedReads> {
    let mut reader = Reader::new(bytes);
    let mut keyspaces = Vec::new();
    while !reader.is_empty() {
        let keyspace = KeyspaceId(u32::try_from(reader.varint()?).ok()?);
        let whole = reader.u8()? != 0;
        let mut hashes = Vec::new();
        for _ in 0..reader.varint()? {
            hashes.push(reader.u64()?);
        }
        let mut ranges = Vec::new();
        for _ in 0..reader.varint()? {
            let start = reader.bytes()?.to_vec();
            let end = reader.bytes()?;
            ranges.push((start, (!end.is_empty()).then(|| end.to_vec())));
        }
        keyspaces.push(ExportedKeyspace { keyspace, whole, hashes, ranges });
    }
    Some(ExportedReads { keyspaces })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_come_back_as_they_were_or_not_at_all() {
        let reads = ExportedReads {
            keyspaces: vec![
                ExportedKeyspace {
                    keyspace: KeyspaceId(3),
                    whole: false,
                    hashes: vec![1, u64::MAX],
                    ranges: vec![(b"a".to_vec(), Some(b"b".to_vec())), (b"x".to_vec(), None)],
                },
                ExportedKeyspace {
                    keyspace: KeyspaceId(4),
                    whole: true,
                    hashes: Vec::new(),
                    ranges: Vec::new(),
                },
            ],
        };
        let bytes = encode_reads(&reads);
        assert_eq!(decode_reads(&bytes), Some(reads));
        for len in 1..bytes.len() {
            let cut = decode_reads(&bytes[..len]);
            assert!(cut.is_none_or(|cut| cut.keyspaces.len() < 2), "cut to {len}");
        }
        for code in 1..=4 {
            assert_eq!(level_code(level_of(code)), code);
        }
    }

    /// As for a commit: these two also run on the thread that holds the locks.
    #[test]
    fn a_listener_on_the_thread_of_a_prepare_or_rollback_waits_for_no_lock() {
        use crate::env::{Env, MemFs};
        use crate::{Db, Event, Options};
        use std::sync::mpsc;
        let mut found = Vec::new();
        for how in ["prepare", "rollback"] {
            let env = Env::simulated(Arc::new(MemFs::new()), 7);
            let seen: Arc<std::sync::Mutex<Option<Db>>> = Arc::default();
            let (sent, heard) = mpsc::channel();
            let (shared, clock) = (Arc::clone(&seen), Arc::clone(&env.clock));
            let listener = move |_: &Event| {
                let Some(db) = shared.lock().unwrap().take() else { return };
                let before = clock.now();
                let kind = db.put("x", "listener").err().map(|error| error.kind());
                let _ = sent.send((kind, clock.now().saturating_sub(before)));
            };
            let options = Options::tiny().wal_segment_bytes(4 << 10).wal_bytes_max(64 << 10);
            let options = options.background_threads(0).env(env.clone()).listener(Arc::new(listener));
            let db = options.open("/db").unwrap();
            let ks = db.default_keyspace();
            let of_commit = (0..3000).find_map(|n| {
                let mut txn = db.begin(Isolation::ReadCommitted).unwrap();
                txn.put(&ks, "x", [7; 6 << 10]).unwrap();
                let xid = format!("xid{n}");
                if how == "prepare" {
                    *seen.lock().unwrap() = Some(db.clone());
                    txn.prepare(&xid).unwrap();
                    seen.lock().unwrap().take();
                    db.rollback_prepared(&xid).unwrap();
                } else {
                    txn.prepare(&xid).unwrap();
                    *seen.lock().unwrap() = Some(db.clone());
                    db.rollback_prepared(&xid).unwrap();
                    seen.lock().unwrap().take();
                }
                heard.try_recv().ok()
            });
            found.push((how, of_commit));
        }
        let at_once = Some((Some(ErrorKind::LockTimeout), Duration::ZERO));
        assert_eq!(found, [("prepare", at_once), ("rollback", at_once)]);
    }
}
