//! The write path: admission, a sequence number and a place in the log under one short lock, then memtables and
//! publication outside of it.

use super::core::{CommitState, Core, SegmentTarget};
use super::options::Durability;
use super::pipeline::{SyncTarget, Ticket};
use super::stall::Room;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::key::Trailer;
use crate::base::types::{KeyspaceId, SEQ_MAX, SegmentNo, SeqNo};
use crate::memtable::{ActiveMemtable, Place};
use crate::record::RecordKind;
use crate::wal::{BatchError, FrozenBatch, OpRef, ops};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a commit got under the commit lock.
struct Reserved {
    ticket: Ticket,
    first_seq: SeqNo,
    memtables: Memtables,
}

/// The memtables of a batch's keyspaces; nearly always one.
enum Memtables {
    One(Arc<ActiveMemtable>),
    Many(Vec<Target>),
}

/// Where entries of one keyspace go.
struct Target {
    keyspace: KeyspaceId,
    memtable: Arc<ActiveMemtable>,
    /// Entries get buffers of their own instead of sharing the batch.
    copies: bool,
}

impl Memtables {
    /// The memtable of a keyspace, and whether entries are copied for it.
    fn of(&self, id: KeyspaceId) -> Option<(&ActiveMemtable, bool)> {
        match self {
            Memtables::One(memtable) => Some((memtable, false)),
            Memtables::Many(all) => {
                let target = all.iter().find(|target| target.keyspace == id)?;
                Some((&target.memtable, target.copies))
            }
        }
    }
}

impl Core {
    /// Commits a batch over these keyspaces: all of it or nothing. Answers the sequence number of its last operation.
    /// `check` is asked, under the commit lock, with that number; its error stops the commit.
    pub(crate) fn commit(
        &self,
        batch: &FrozenBatch,
        keyspaces: &[KeyspaceId],
        durability: Durability,
        check: &dyn Fn(SeqNo) -> Result<()>,
    ) -> Result<SeqNo> {
        self.announced(self.try_commit(batch, keyspaces, durability, check))
    }

    fn try_commit(
        &self,
        batch: &FrozenBatch,
        keyspaces: &[KeyspaceId],
        durability: Durability,
        check: &dyn Fn(SeqNo) -> Result<()>,
    ) -> Result<SeqNo> {
        let bytes = batch.bytes.len() as u64;
        self.options.check_batch(bytes)?;
        if durability == Durability::Memory && keyspaces.len() > 1 {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "a batch over several keyspaces cannot have durability Memory: they are flushed one by one",
            ));
        }
        self.health.check_writable()?;
        self.admit(bytes)?;
        let reserved = self.reserve(batch, keyspaces, durability, check)?;
        let applied = self.apply(batch, &reserved);
        let done = match applied {
            Ok(()) => self.pipeline.complete(reserved.ticket),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            self.poison(&error);
            return Err(error);
        }
        self.registry.committed(reserved.ticket.last_seq());
        match durability {
            Durability::Disk => self.arm_proof(),
            Durability::Os => self.arm_sync(),
            Durability::Memory => {}
        }
        self.stats.commits.add(1);
        self.stats.bytes_written_user.add(bytes);
        Ok(reserved.ticket.last_seq())
    }

    /// Under the commit lock: room in the memtables, sequence numbers, the log record, a place in the queue.
    fn reserve(
        &self,
        batch: &FrozenBatch,
        keyspaces: &[KeyspaceId],
        durability: Durability,
        check: &dyn Fn(SeqNo) -> Result<()>,
    ) -> Result<Reserved> {
        let bytes = batch.bytes.len();
        let mut waits_since = None;
        loop {
            let mut commit = self.commit.lock();
            self.health.check_writable()?;
            if let Room::Full(reason) = self.make_room_locked(&mut commit, keyspaces, bytes)? {
                drop(commit);
                self.wait_for_room(reason, &mut waits_since)?;
                continue;
            }
            let first_seq = commit.next_seq;
            let last_seq = first_seq.saturating_add(u64::from(batch.count)).saturating_sub(1);
            if last_seq > SEQ_MAX {
                return Err(Error::new(ErrorKind::LimitExceeded, "all 2^56 sequence numbers are used up"));
            }
            check(last_seq)?;
            let logged = match durability {
                Durability::Memory => None,
                _ => Some(self.log_locked(&mut commit, batch, first_seq)?),
            };
            commit.next_seq = last_seq.saturating_add(1);
            let memtables =
                note_use(&mut commit, keyspaces, logged.as_ref().map(|(segment, _)| *segment), bytes)?;
            let target = logged.as_ref().map(|(_, target)| target);
            let ticket = self.pipeline.enter(last_seq, target, durability == Durability::Disk);
            return Ok(Reserved { ticket, first_seq, memtables });
        }
    }

    /// Appends the batch to the log; answers its segment and what syncs it.
    fn log_locked(
        &self,
        commit: &mut CommitState,
        batch: &FrozenBatch,
        first_seq: SeqNo,
    ) -> Result<(SegmentNo, Arc<dyn SyncTarget>)> {
        let appended = commit.log.append(RecordKind::Batch, first_seq, batch.count, &batch.bytes);
        let segment = match appended {
            Ok(segment) => segment,
            Err(error) => {
                if matches!(error.kind(), ErrorKind::Poisoned | ErrorKind::OutcomeUnknown) {
                    self.poison(&error);
                }
                return Err(error);
            }
        };
        if let Some((number, target)) = &commit.target
            && *number == segment
        {
            return Ok((segment, Arc::clone(target)));
        }
        let active = commit
            .log
            .active()
            .ok_or_else(|| Error::new(ErrorKind::Poisoned, "the log has no active segment"))?;
        let target: Arc<dyn SyncTarget> = Arc::new(SegmentTarget(active));
        commit.target = Some((segment, Arc::clone(&target)));
        if let Some(next) = commit.log.wants_prepared() {
            self.prepare.store(next, Ordering::Release);
            self.signal_work();
        }
        Ok((segment, target))
    }

    /// Puts the batch's entries into their memtables. They are invisible until published.
    fn apply(&self, batch: &FrozenBatch, reserved: &Reserved) -> Result<()> {
        let malformed = |error: BatchError| error.into_error(Path::new("(batch in memory)"), 0);
        let mut seq = reserved.first_seq;
        for op in ops(&batch.bytes).map_err(malformed)? {
            let op = op.map_err(malformed)?;
            let (memtable, copies) = reserved
                .memtables
                .of(op.keyspace)
                .ok_or_else(|| malformed(BatchError::Malformed("an unlisted keyspace")))?;
            let place = Place {
                key_start: op.key_start,
                key_len: op.key.len(),
                value_start: op.value_start,
                value_len: op.value.len(),
            };
            let trailer = Trailer::new(seq, op.kind);
            if copies {
                insert_copy(memtable, &op, trailer)?;
            } else {
                memtable.insert(&batch.bytes, place, trailer)?;
            }
            seq = seq.saturating_add(1);
        }
        Ok(())
    }

    /// Makes everything committed so far durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.health.check_writable()?;
        match self.pipeline.sync_to(self.pipeline.visible()) {
            Ok(()) => {
                self.arm_proof();
                Ok(())
            }
            Err(error) => {
                self.poison(&error);
                self.announced(Err(error))
            }
        }
    }
}

/// Notes that the memtables of these keyspaces got entries in this segment.
fn note_use(
    commit: &mut CommitState,
    keyspaces: &[KeyspaceId],
    segment: Option<SegmentNo>,
    bytes: usize,
) -> Result<Memtables> {
    let mut all = Vec::new();
    for id in keyspaces {
        let active = commit
            .active
            .get_mut(id)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "the keyspace was dropped"))?;
        active.used = true;
        if active.first_segment.is_none() {
            active.first_segment = segment;
        }
        let copies = active.keyspace.copies_entries(keyspaces.len());
        if !copies {
            active.memtable.charge_owner(bytes);
        }
        if keyspaces.len() == 1 {
            return Ok(Memtables::One(Arc::clone(&active.memtable)));
        }
        all.push(Target { keyspace: *id, memtable: Arc::clone(&active.memtable), copies });
    }
    Ok(Memtables::Many(all))
}

/// Puts an entry into a memtable with a buffer of its own.
fn insert_copy(memtable: &ActiveMemtable, op: &OpRef<'_>, trailer: Trailer) -> Result<()> {
    let owner: Arc<[u8]> = [op.key, op.value].concat().into();
    let (key_len, value_len) = (op.key.len(), op.value.len());
    memtable.charge_owner(owner.len());
    memtable.insert(&owner, Place { key_start: 0, key_len, value_start: key_len, value_len }, trailer)
}
