//! The writer of the log: where the next record goes, and when a new segment begins.
//!
//! Used under the commit lock. The order at a change of segments is what keeps the chain whole: the old segment is
//! synced to its end, the new one exists durably with its header, then the link that names the old one is written,
//! then records. After a failed append a segment is never appended to again: its valid length is that before the
//! failure, and the next link says so. What became of the bytes of that append is not known, so that link is written,
//! durably, before the commit is said to have failed (see [`Log::append`]).
//!
//! Every record carries the offset known durable when it was built (see `record`). When a log falls idle, and at
//! close, a record that says nothing else is added, so that only the last sync group is without such proof.
//!
//! The header of a segment says how long its file was made, and that length is durable before any record is. A file
//! that is shorter without a record that ends it was cut by somebody else, even if the cut is between two records.

use super::link::{self, LINK_BYTES, Predecessor};
use super::segment::{LogOptions, Prepared, Segment, poisoned, prepare, segment_path};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::{DbId, SEQ_MAX, SegmentNo, SeqNo};
use crate::env::Env;
use crate::record::{RecordKind, RecordMeta, encode, encoded_len};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest payload of a record: what a shared slice can address.
const PAYLOAD_BYTES_MAX: usize = u32::MAX as usize;

/// Memory for building records that is kept; more is given back after a huge one.
const SCRATCH_BYTES_KEPT: usize = 1 << 20;

/// New segments tried in a row when their numbers turn out to be taken.
const CREATE_ATTEMPTS_MAX: u32 = 16;

/// Where a log goes on after replay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogStart {
    /// Number of the next segment: above every number seen.
    pub(crate) next: SegmentNo,
    /// The last segment with records.
    pub(crate) predecessor: Option<Predecessor>,
    /// Older segments still needed, with their bytes, oldest first.
    pub(crate) live: Vec<(SegmentNo, u64)>,
}

/// Whether a segment takes more records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The next append goes into a new segment.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests seal by hand"))]
    Sealed,
    /// As `Sealed`, because the record that ends it is written.
    Ended,
    /// As `Sealed`, and the file has undefined bytes after its valid length.
    Torn,
}

/// The segment that is being written.
#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    state: State,
    /// Length with only the link.
    empty_len: u64,
    /// End of the last record with content: link or batch.
    content_end: u64,
    /// Largest durable offset that a record in it tells.
    proven: u64,
}

/// The log, from the writer's side.
#[derive(Debug)]
pub(crate) struct Log {
    env: Env,
    dir: PathBuf,
    db: DbId,
    options: LogOptions,
    next: SegmentNo,
    prepared: Option<Prepared>,
    active: Option<Active>,
    /// The segment before the active one, or before the next when there is no active one.
    predecessor: Option<Predecessor>,
    last_seq: SeqNo,
    live: Vec<(SegmentNo, u64)>,
    /// Files that hold nothing, to be removed.
    garbage: Vec<PathBuf>,
    scratch: Vec<u8>,
    /// The failure after which nothing is written any more.
    failure: Option<Error>,
    is_closed: bool,
}

impl Log {
    /// A log that goes on after what replay found. Creates nothing.
    pub(crate) fn new(env: &Env, dir: &Path, db: DbId, options: LogOptions, start: LogStart) -> Log {
        Log {
            env: env.clone(),
            dir: dir.to_path_buf(),
            db,
            options,
            next: start.next,
            prepared: None,
            active: None,
            predecessor: start.predecessor,
            last_seq: start.predecessor.map_or(0, |predecessor| predecessor.last_seq),
            live: start.live,
            garbage: Vec::new(),
            scratch: Vec::new(),
            failure: None,
            is_closed: false,
        }
    }

    /// Appends the operations of one commit, which have the `count` sequence numbers from `first_seq` on, and
    /// answers the segment they are in. Sequence numbers must rise; they may have gaps.
    ///
    /// After `OutcomeUnknown` the commit is in the log or it is not, and nothing can be logged any more. After any
    /// other error it is not there and never will be, whatever crashes. `Poisoned` means that a sync or a mapped
    /// store failed: nothing can be logged any more. Otherwise the same commit, or another one, may be tried again:
    /// it goes into a new segment.
    pub(crate) fn append(
        &mut self,
        kind: RecordKind,
        first_seq: SeqNo,
        count: u32,
        payload: &[u8],
    ) -> Result<SegmentNo> {
        self.check_usable()?;
        let last_seq = self.check_batch(kind, first_seq, count, payload)?;
        if !self.has_room_for(payload.len()) {
            self.rotate()?;
        }
        let Some(active) = &mut self.active else {
            return Err(Error::new(ErrorKind::Poisoned, "the log has no segment"));
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = active.write(kind, (first_seq, count), last_seq, payload, &mut scratch);
        let is_whole_when_cut = active.segment.is_whole_when_cut(&scratch);
        if scratch.capacity() > SCRATCH_BYTES_KEPT {
            scratch = Vec::new();
        }
        self.scratch = scratch;
        let number = active.segment.number();
        if let Err(error) = result {
            return Err(self.append_failed(error, is_whole_when_cut));
        }
        self.last_seq = last_seq;
        Ok(number)
    }

    /// What to answer for a commit whose append failed. Refused for want of space, or of the right to write, it was
    /// written in part at most, which no reader takes for a commit unless it `is_whole_when_cut`. After any other failure
    /// it may be there whole: then a new segment is begun at once, whose link says that the old one ends before it.
    #[cold]
    fn append_failed(&mut self, error: Error, is_whole_when_cut: bool) -> Error {
        if matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::ReadOnly) && !is_whole_when_cut {
            return error;
        }
        if self.rotate().and_then(|()| self.sync_active()).is_ok() {
            return error;
        }
        let what = "the log reported a failure, and the commit may be in it all the same";
        let unknown = Error::caused(ErrorKind::OutcomeUnknown, what, error);
        self.failure.get_or_insert_with(|| poisoned(unknown.clone()));
        unknown
    }

    /// The segment to sync for durability of what was appended: segments before it are durable. `None` when there
    /// is nothing to sync.
    pub(crate) fn active(&self) -> Option<Arc<Segment>> {
        self.active.as_ref().map(|active| Arc::clone(&active.segment))
    }

    /// Number of the segment that should be prepared, unless one is.
    pub(crate) fn wants_prepared(&self) -> Option<SegmentNo> {
        let is_wanted = self.prepared.is_none() && self.failure.is_none() && !self.is_closed;
        is_wanted.then_some(self.next)
    }

    /// Hands over a segment made by [`prepare`]. One that comes too late is among the files that
    /// [`forget_before`](Self::forget_before) or [`close`](Self::close) dispose of.
    pub(crate) fn offer_prepared(&mut self, prepared: Prepared) {
        if self.prepared.is_some() || prepared.number() < self.next || self.is_closed {
            self.garbage.push(prepared.path().to_path_buf());
        } else {
            self.next = prepared.number();
            self.prepared = Some(prepared);
        }
    }

    /// Adds a record that tells how far the log is durable, if no record tells it yet, and says whether it did;
    /// then the caller syncs. To be called when the log falls idle after a sync.
    pub(crate) fn write_proof(&mut self) -> Result<bool> {
        self.check_usable()?;
        let last_seq = self.last_seq;
        let Some(active) = &mut self.active else { return Ok(false) };
        let synced = active.segment.synced_upto();
        if active.state != State::Open || active.content_end <= active.proven || synced <= active.proven {
            return Ok(false);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = active.write(RecordKind::SyncProof, (0, 0), last_seq, &[], &mut scratch);
        self.scratch = scratch;
        self.remember(result)?;
        Ok(true)
    }

    /// Bytes of all segments that are still needed.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.bytes_from(0)
    }

    /// Bytes of the segments from this number on.
    pub(crate) fn bytes_from(&self, first: SegmentNo) -> u64 {
        let active = self.active.as_ref().map_or(0, |active| active.segment.len());
        let live = self.live.iter().filter(|(number, _)| *number >= first);
        live.fold(active, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// The oldest segment that is still needed.
    #[cfg(test)]
    pub(crate) fn oldest_live(&self) -> Option<SegmentNo> {
        let active = self.active.as_ref().map(|active| active.segment.number());
        self.live.first().map(|(number, _)| *number).or(active)
    }

    /// Number that the next new segment gets at least.
    pub(crate) fn next_number(&self) -> SegmentNo {
        self.next
    }

    /// Forgets segments below this number, never the one being written. Answers files to be removed, which must
    /// wait until the manifest durably says that they are not needed.
    pub(crate) fn forget_before(&mut self, first_needed: SegmentNo) -> Vec<PathBuf> {
        let mut files = std::mem::take(&mut self.garbage);
        let dir = &self.dir;
        let forgotten = self.live.extract_if(.., |(number, _)| *number < first_needed);
        files.extend(forgotten.map(|(number, _)| segment_path(dir, number)));
        files
    }

    /// Makes the next append go into a new segment.
    #[cfg(test)]
    pub(crate) fn seal(&mut self) {
        if let Some(active) = &mut self.active
            && active.state == State::Open
        {
            active.state = State::Sealed;
        }
    }

    /// Ends the log: everything durable and proven so, reserved space given back, files without use removed.
    /// Answers the number from which a later log has to count. Nothing can be appended afterwards.
    pub(crate) fn close(&mut self) -> Result<SegmentNo> {
        if self.is_closed {
            return Ok(self.next);
        }
        self.check_usable()?;
        if self.active.as_ref().is_some_and(|active| active.state == State::Torn) {
            // Only a link can tell where the records end.
            self.rotate()?;
        }
        self.sync_active()?;
        if self.write_end()? || self.write_proof()? {
            self.sync_active()?;
        }
        self.retire()?;
        self.is_closed = true;
        self.remove_garbage()?;
        Ok(self.next)
    }

    fn check_usable(&self) -> Result<()> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        if self.is_closed {
            return Err(Error::new(ErrorKind::Closed, "the log is closed"));
        }
        match &self.active {
            Some(active) => active.segment.check(),
            None => Ok(()),
        }
    }

    /// Last sequence number of a batch that may be appended.
    fn check_batch(&self, kind: RecordKind, first_seq: SeqNo, count: u32, payload: &[u8]) -> Result<SeqNo> {
        let last_seq = first_seq.checked_add(u64::from(count)).and_then(|end| end.checked_sub(1));
        let last_seq = last_seq.filter(|last| *last <= SEQ_MAX).unwrap_or_default();
        if kind != RecordKind::Batch || count == 0 || first_seq <= self.last_seq || last_seq < first_seq {
            let what = format!("{kind:?} of {count} from {first_seq} after {}", self.last_seq);
            return Err(Error::new(ErrorKind::InvalidArgument, format!("the log cannot take a {what}")));
        }
        if payload.len() > PAYLOAD_BYTES_MAX {
            let what = format!("a commit of {} bytes; at most {PAYLOAD_BYTES_MAX} fit", payload.len());
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
        Ok(last_seq)
    }

    /// Whether the active segment takes a record of this payload. A fresh one takes any.
    #[inline]
    fn has_room_for(&self, payload_bytes: usize) -> bool {
        let Some(active) = &self.active else { return false };
        let len = active.segment.len();
        let end = len.saturating_add(encoded_len(len, payload_bytes));
        // The record that ends the segment is to find its room reserved, even on a full disk.
        let end = end.saturating_add(encoded_len(end, 0));
        active.state == State::Open && (end <= self.options.segment_bytes || len == active.empty_len)
    }

    /// Adds the record that ends the active segment, where its file is to be cut: without it a reader takes a file
    /// shorter than its header says for one that lost commits. Says whether it did; then the caller syncs.
    fn write_end(&mut self) -> Result<bool> {
        let last_seq = self.last_seq;
        let Some(active) = &mut self.active else { return Ok(false) };
        let is_due = !matches!(active.state, State::Ended | State::Torn) && active.segment.is_cut_by_finish();
        if !is_due {
            return Ok(false);
        }
        let result = active.write(RecordKind::End, (0, 0), last_seq, &[], &mut Vec::new());
        if result.is_ok() {
            active.state = State::Ended;
        }
        self.remember(result)?;
        Ok(true)
    }

    /// Goes on in a new segment.
    fn rotate(&mut self) -> Result<()> {
        self.write_end()?;
        self.sync_active()?;
        self.retire()?;
        let segment = self.new_segment()?.into_segment(self.last_seq);
        let path = segment.path().to_path_buf();
        let mut active = Active { segment, state: State::Open, empty_len: 0, content_end: 0, proven: 0 };
        let mut payload = Vec::with_capacity(LINK_BYTES);
        link::encode(self.predecessor, &mut payload);
        let result = active.write(RecordKind::Link, (0, 0), self.last_seq, &payload, &mut Vec::new());
        if result.is_err() {
            // Without its link the file is not part of the chain; the next link will skip it.
            self.garbage.push(path);
        } else {
            active.empty_len = active.segment.len();
            self.active = Some(active);
        }
        self.remember(result)
    }

    fn sync_active(&mut self) -> Result<()> {
        let result = match &self.active {
            Some(active) => active.segment.sync().map(|_| ()),
            None => Ok(()),
        };
        self.remember(result)
    }

    /// Makes the active segment, durable to its end, the predecessor of the next.
    fn retire(&mut self) -> Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        if active.state != State::Torn {
            let result = active.segment.finish();
            self.remember(result)?;
        }
        if let Some(Active { segment, .. }) = self.active.take() {
            let (number, valid_len) = (segment.number(), segment.len());
            self.live.push((number, valid_len));
            self.predecessor = Some(Predecessor { number, valid_len, last_seq: self.last_seq });
        }
        Ok(())
    }

    /// The prepared segment, or a new one. A number is used up even by a failure.
    fn new_segment(&mut self) -> Result<Prepared> {
        let mut attempts = 0u32;
        loop {
            let prepared = self.prepared.take();
            let number = self.next;
            self.next = number.saturating_add(1);
            if let Some(prepared) = prepared {
                return Ok(prepared);
            }
            attempts = attempts.saturating_add(1);
            match prepare(&self.env, &self.dir, self.db, number, &self.options) {
                Err(error) if is_taken(&error) && attempts < CREATE_ATTEMPTS_MAX => {}
                result => return self.remember(result),
            }
        }
    }

    /// Passes a result on, keeping a failure after which nothing may be written.
    fn remember<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && error.kind() == ErrorKind::Poisoned
        {
            self.failure.get_or_insert_with(|| error.clone());
        }
        result
    }

    fn remove_garbage(&mut self) -> Result<()> {
        if let Some(prepared) = self.prepared.take() {
            self.next = prepared.number().saturating_add(1);
            self.garbage.push(prepared.path().to_path_buf());
        }
        while let Some(path) = self.garbage.pop() {
            match self.env.fs.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Active {
    /// Frames a record and appends it in one call.
    #[inline]
    fn write(
        &mut self,
        kind: RecordKind,
        (first_seq, count): (SeqNo, u32),
        last_seq: SeqNo,
        payload: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let synced_upto = self.segment.synced_upto();
        let meta = RecordMeta { kind, first_seq, count, synced_upto };
        scratch.clear();
        encode(self.segment.origin(), self.segment.len(), &meta, payload, scratch);
        if let Err(error) = self.segment.append(scratch, last_seq) {
            self.state = State::Torn;
            return Err(error);
        }
        self.proven = synced_upto;
        if !matches!(kind, RecordKind::SyncProof | RecordKind::End) {
            self.content_end = self.segment.len();
        }
        Ok(())
    }
}

fn is_taken(error: &Error) -> bool {
    error.io_fault().is_some_and(|fault| fault.error.kind() == io::ErrorKind::AlreadyExists)
}
