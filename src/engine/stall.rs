//! Back-pressure: writes are slowed smoothly by how far background work is behind, and wait only when memory or the
//! log budget is used up.
//!
//! Pressure is a number computed from plain figures by [`pressure`]; from 0 to 1 it lowers the admitted bytes per
//! second from twice the measured drain rate to a twentieth of it, as a token bucket handed out in slices of at most
//! a millisecond (research on RocksDB's stepwise delays: their cliffs are what users see as stalls). Compare SILK
//! (Balmau et al. 2019).

use super::core::{CommitState, Core, State};
use super::events::Event;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Mutex, Rank};
use crate::base::types::{KeyspaceId, SegmentNo, micros};
use crate::compaction::debt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// Whether a batch finds room in the memtables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// It does.
    Ready,
    /// It has to wait, for this reason.
    Full(Reason),
}

/// Why writes wait or are slowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    /// Full memtables use up their share of memory until they are flushed.
    Memtables = 1,
    /// The log has reached its bound and the flush that would shorten it is not done.
    Log = 2,
    /// Level 0 has many runs.
    LevelZero = 3,
    /// Compaction is behind.
    Debt = 4,
}

impl Reason {
    /// The reason in words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Reason::Memtables => "memtables wait to be flushed",
            Reason::Log => "the log is full until a flush is done",
            Reason::LevelZero => "level 0 has many runs",
            Reason::Debt => "compaction is behind",
        }
    }

    fn from_byte(byte: u8) -> Option<Reason> {
        [Reason::Memtables, Reason::Log, Reason::LevelZero, Reason::Debt]
            .into_iter()
            .find(|reason| *reason as u8 == byte)
    }
}

/// Figures of one keyspace from which pressure follows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backlog {
    /// Bytes of full memtables, and how many are allowed.
    pub(crate) frozen_bytes: u64,
    pub(crate) frozen_bytes_max: u64,
    /// Runs in level 0, and at how many a compaction starts.
    pub(crate) l0_runs: u32,
    pub(crate) l0_trigger: u32,
    /// Bytes to rewrite until the tree is in shape, and how many are usual.
    pub(crate) debt_bytes: u64,
    pub(crate) debt_bytes_usual: u64,
}

/// Runs in level 0 at which slowing starts and at which it is strongest, in multiples of the trigger.
const L0_SOFT: u32 = 4;
const L0_HARD: u32 = 12;

/// How hard writes must be slowed: 0 not at all, 1 as much as possible; and the main reason.
pub(crate) fn pressure(backlog: &Backlog) -> (f64, Option<Reason>) {
    let part = |value: f64, soft: f64, hard: f64| ((value - soft) / (hard - soft).max(1.0)).clamp(0.0, 1.0);
    let memory = backlog.frozen_bytes_max as f64;
    let trigger = f64::from(backlog.l0_trigger);
    let usual = backlog.debt_bytes_usual as f64;
    let parts = [
        (part(backlog.frozen_bytes as f64, memory * 0.7, memory), Reason::Memtables),
        (
            part(f64::from(backlog.l0_runs), trigger * f64::from(L0_SOFT), trigger * f64::from(L0_HARD)),
            Reason::LevelZero,
        ),
        (part(backlog.debt_bytes as f64, usual, usual * 4.0), Reason::Debt),
    ];
    let worst =
        parts.into_iter().fold(
            (0.0, None),
            |worst: (f64, Option<Reason>), (value, reason)| {
                if value > worst.0 { (value, Some(reason)) } else { worst }
            },
        );
    (worst.0, worst.1)
}

/// Admitted bytes a second under this pressure; `None` for no limit.
pub(crate) fn admitted(pressure: f64, drain_bytes_per_second: u64) -> Option<u64> {
    if pressure <= 0.0 {
        return None;
    }
    let drain = drain_bytes_per_second.max(DRAIN_MIN) as f64;
    let ease = 1.0 - pressure.min(1.0);
    // Twice the drain rate where pressure begins, falling with the square to a twentieth.
    Some((drain * (0.05 + 1.95 * ease * ease)) as u64)
}

/// Least drain rate assumed before anything was measured, bytes a second.
const DRAIN_MIN: u64 = 16 << 20;

/// How often all memtables are looked at while as much is written as they may hold together.
const LOOKS_PER_BUDGET: u64 = 16;

/// Longest single pause of a slowed write.
const SLICE: Duration = Duration::from_millis(1);

/// State of admission.
pub(crate) struct Stall {
    /// Admitted bytes a second; `u64::MAX` for no limit.
    rate: AtomicU64,
    reason: AtomicU8,
    /// Bytes a second that flushes got through lately.
    drain: AtomicU64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Bytes that may still be admitted; negative after a batch larger than the rest.
    tokens: i64,
    refilled: Duration,
}

impl Stall {
    /// No limit.
    pub(crate) fn new() -> Stall {
        Stall {
            rate: AtomicU64::new(u64::MAX),
            reason: AtomicU8::new(0),
            drain: AtomicU64::new(DRAIN_MIN),
            bucket: Mutex::new(Rank::Leaf, Bucket::default()),
        }
    }

    /// Why writes are slowed now.
    pub(crate) fn reason(&self) -> Option<Reason> {
        Reason::from_byte(self.reason.load(Ordering::Relaxed))
    }

    /// Notes that a flush wrote so much in such a time.
    pub(crate) fn drained(&self, bytes: u64, took: Duration) {
        let micros = micros(took);
        let rate = bytes.saturating_mul(1_000_000).checked_div(micros).unwrap_or(u64::MAX);
        let old = self.drain.load(Ordering::Relaxed);
        self.drain.store(old.saturating_mul(3).saturating_add(rate) / 4, Ordering::Relaxed);
    }

    /// Takes tokens for these bytes, or says how long to pause first.
    fn take(&self, bytes: u64, rate: u64, now: Duration) -> Option<Duration> {
        let mut bucket = self.bucket.lock();
        let elapsed = now.saturating_sub(bucket.refilled).min(SLICE.saturating_mul(10));
        bucket.refilled = now;
        let fresh = (rate as f64 * elapsed.as_secs_f64()) as i64;
        let burst = (rate as f64 * SLICE.as_secs_f64() * 10.0) as i64;
        bucket.tokens = bucket.tokens.saturating_add(fresh).min(burst.max(1));
        if bucket.tokens > 0 {
            bucket.tokens = bucket.tokens.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
            return None;
        }
        let missing = bucket.tokens.saturating_neg().saturating_add(1) as f64;
        Some(Duration::from_secs_f64(missing / (rate.max(1) as f64)).min(SLICE))
    }
}

impl Core {
    /// Slows a write down to the admitted rate. One load when there is no pressure.
    #[inline]
    pub(crate) fn admit(&self, bytes: u64) -> Result<()> {
        if self.stall.rate.load(Ordering::Relaxed) == u64::MAX {
            return Ok(());
        }
        self.admit_slowly(bytes)
    }

    #[cold]
    fn admit_slowly(&self, bytes: u64) -> Result<()> {
        let start = self.env.clock.now();
        loop {
            self.health.check_writable()?;
            let rate = self.stall.rate.load(Ordering::Relaxed);
            let now = self.env.clock.now();
            if rate == u64::MAX {
                break;
            }
            let Some(pause) = self.stall.take(bytes, rate, now) else { break };
            if now.saturating_sub(start) > self.options.stall_timeout {
                let reason = self.stall.reason().map_or("background work is behind", Reason::text);
                return Err(Error::new(
                    ErrorKind::Stalled,
                    format!("the write was not admitted in time: {reason}"),
                ));
            }
            if !self.has_threads() && !self.run_one_job() {
                break;
            }
            self.env.clock.sleep(pause);
        }
        let waited = self.env.clock.now().saturating_sub(start);
        self.stats.stall_micros.add(micros(waited));
        Ok(())
    }

    /// Recomputes the admitted rate. Called when a view changed, under the engine state lock.
    pub(crate) fn update_stall_locked(&self, state: &State) {
        let mut worst: (f64, Option<Reason>) = (0.0, None);
        for keyspace in state.keyspaces.values() {
            let view = keyspace.view();
            let owed = debt(&view.tree, &keyspace.shape);
            let buffer = keyspace.write_buffer_bytes as u64;
            let backlog = Backlog {
                frozen_bytes: view.frozen_bytes(),
                frozen_bytes_max: self.options.write_buffers_bytes_max.saturating_sub(buffer),
                l0_runs: owed.l0_runs,
                l0_trigger: keyspace.shape.l0_runs,
                debt_bytes: owed.bytes,
                debt_bytes_usual: buffer.saturating_mul(64).max(view.tree.bytes() / 2),
            };
            let found = pressure(&backlog);
            if found.0 > worst.0 {
                worst = found;
            }
        }
        let rate = admitted(worst.0, self.stall.drain.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        self.stall.rate.store(rate, Ordering::Relaxed);
        self.stall.reason.store(worst.1.map_or(0, |reason| reason as u8), Ordering::Relaxed);
    }

    /// Under the commit lock: makes sure that the memtables of these keyspaces can take the batch, freezing full ones.
    pub(crate) fn make_room_locked(
        &self,
        commit: &mut CommitState,
        keyspaces: &[KeyspaceId],
        bytes: usize,
    ) -> Result<Room> {
        for id in keyspaces {
            let Some(active) = commit.active.get(id) else {
                return Err(Error::new(ErrorKind::NotFound, "the keyspace was dropped"));
            };
            let buffer = active.keyspace.write_buffer_bytes;
            let filled = active.memtable.bytes();
            let needed = active.keyspace.needed_bytes(bytes, keyspaces.len());
            if !active.used || filled.saturating_add(needed) <= buffer {
                continue;
            }
            if self.memtable_bytes_locked(commit) >= self.options.write_buffers_bytes_max
                && self.free_memory_locked(commit)
            {
                return Ok(Room::Full(Reason::Memtables));
            }
            self.freeze_locked(commit, *id);
        }
        match self.bound_memory_locked(commit, bytes) {
            Room::Ready => self.bound_log_locked(commit),
            full => Ok(full),
        }
    }

    /// Sees to it that a flush is on its way: if none is, the memory is in memtables that are still filling. Answers
    /// false when there is nothing to flush, and so nothing to wait for.
    fn free_memory_locked(&self, commit: &mut CommitState) -> bool {
        if commit.active.values().any(|active| !active.keyspace.view().frozen.is_empty()) {
            return true;
        }
        let used = commit.active.iter().filter(|(_, active)| active.used);
        let largest = used.max_by_key(|(_, active)| active.memtable.bytes()).map(|(id, _)| *id);
        largest.is_some_and(|id| self.freeze_locked(commit, id))
    }

    /// Keeps the memtables of many keyspaces within their common budget, though each is far from full: the largest is
    /// frozen when they come near it. Looks at all of them only now and then.
    fn bound_memory_locked(&self, commit: &mut CommitState, bytes: usize) -> Room {
        let budget = self.options.write_buffers_bytes_max;
        commit.unchecked_bytes = commit.unchecked_bytes.saturating_add(bytes as u64);
        if commit.unchecked_bytes.saturating_mul(LOOKS_PER_BUDGET) < budget {
            return Room::Ready;
        }
        let total = self.memtable_bytes_locked(commit);
        let is_near = total >= budget.saturating_mul(3) / 4;
        if is_near && self.free_memory_locked(commit) && total >= budget {
            return Room::Full(Reason::Memtables);
        }
        commit.unchecked_bytes = 0;
        Room::Ready
    }

    /// Keeps the log within its budget by freezing what pins its oldest segment, however idle that keyspace is.
    fn bound_log_locked(&self, commit: &mut CommitState) -> Result<Room> {
        let budget = self.options.wal_bytes_max.max(self.options.wal_segment_bytes.saturating_mul(2));
        if commit.log.live_bytes() <= budget {
            return Ok(Room::Ready);
        }
        // Only what is not flushed yet counts: to wait for segments that the next flush lets go of anyway, or for the
        // one that is being written, would be to wait for nothing.
        let Some(oldest) = self.oldest_unflushed_locked(commit) else { return Ok(Room::Ready) };
        let needed = commit.log.bytes_from(oldest);
        if needed <= budget {
            return Ok(Room::Ready);
        }
        let owner = commit.active.iter().find(|(_, active)| active.first_segment == Some(oldest));
        if let Some(id) = owner.map(|(id, _)| *id) {
            self.freeze_locked(commit, id);
        }
        if needed > budget.saturating_mul(2) {
            return Ok(Room::Full(Reason::Log));
        }
        Ok(Room::Ready)
    }

    /// The oldest log segment that holds an entry which is in no table.
    fn oldest_unflushed_locked(&self, commit: &CommitState) -> Option<SegmentNo> {
        let segments = commit.active.values().flat_map(|active| {
            let view = active.keyspace.view();
            let frozen = view.frozen.iter().filter_map(|frozen| frozen.first_segment).min();
            frozen.into_iter().chain(active.first_segment)
        });
        segments.min()
    }

    /// Bytes of all memtables.
    pub(crate) fn memtable_bytes_locked(&self, commit: &CommitState) -> u64 {
        commit.active.values().fold(0u64, |sum, active| {
            let view = active.keyspace.view();
            sum.saturating_add(active.memtable.bytes() as u64).saturating_add(view.frozen_bytes())
        })
    }

    /// Waits until background work made some progress. `since`: when the write began to wait; it does so for the
    /// stall timeout at most, however often background work tries and fails meanwhile.
    #[cold]
    pub(crate) fn wait_for_room(&self, reason: Reason, since: &mut Option<Duration>) -> Result<()> {
        // Without threads nobody else would find out that there is space again.
        if self.has_threads()
            && let Some(full) = self.health.no_space()
        {
            return Err(full);
        }
        let start = self.env.clock.now();
        let since = *since.get_or_insert(start);
        self.emit(&Event::Stall { reason: Some(reason.text()) });
        let result = self.wait_for_progress(reason, since);
        let waited = self.env.clock.now().saturating_sub(start);
        self.stats.stall_micros.add(micros(waited));
        self.emit(&Event::Stall { reason: None });
        result
    }

    fn wait_for_progress(&self, reason: Reason, since: Duration) -> Result<()> {
        let stalled = || {
            Error::new(
                ErrorKind::Stalled,
                format!("the write could not be accepted in time: {}", reason.text()),
            )
        };
        if !self.has_threads() {
            if self.run_one_job() {
                return Ok(());
            }
            return Err(self.health.no_space().unwrap_or_else(stalled));
        }
        let mut state = self.state.lock();
        // Under the lock: whoever stops writes notifies under it, and does so once.
        self.health.check_writable()?;
        let pending =
            state.running > 0 || state.keyspaces.values().any(|keyspace| !keyspace.view().frozen.is_empty());
        if !pending {
            // It was done between the check under the commit lock and now.
            return Ok(());
        }
        self.work.notify_all();
        let waited = self.env.clock.now().saturating_sub(since);
        let patience = self.options.stall_timeout.saturating_sub(waited);
        let timed_out = patience.is_zero() || self.progress.wait_for(&mut state, patience);
        drop(state);
        self.health.check_writable()?;
        if timed_out { Err(self.health.no_space().unwrap_or_else(stalled)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
