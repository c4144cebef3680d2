//! The commit pipeline: publishes commits in commit order and lets all that wait share one sync.
//!
//! A commit enters the queue under the commit lock (so queue order = sequence order = log order), applies itself to
//! its memtables without any lock, and then completes: the completed prefix of the queue becomes visible, a `Disk`
//! commit only once the log is synced through it. There is no leader and no log thread: the first waiter that finds
//! no sync running syncs inline and publishes for everybody it covered, then hands the next sync to one waiter
//! (after Pebble's commit pipeline, with the sync done by a committer). A lone writer pays no thread hop.
//!
//! After a failed sync nothing more is published: commits in flight answer `OutcomeUnknown` and stay invisible.

use super::parts::{AtomicU64, Mutex, MutexGuard, Rank, Waiter};
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::SeqNo;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the pipeline syncs: the log's active segment, or a stand-in in tests.
pub(crate) trait SyncTarget: Send + Sync {
    /// Makes everything appended before the call durable; answers the last sequence number it covers.
    fn sync(&self) -> Result<SeqNo>;
}

/// Place of a commit in the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    index: u64,
    last_seq: SeqNo,
    needs_sync: bool,
}

impl Ticket {
    /// Last sequence number of the commit.
    pub(crate) fn last_seq(self) -> SeqNo {
        self.last_seq
    }
}

struct Pending {
    last_seq: SeqNo,
    needs_sync: bool,
    applied: bool,
    waiter: Option<Arc<Waiter>>,
}

struct State {
    /// Commits not yet published, in commit order.
    queue: VecDeque<Pending>,
    /// Index of the queue's front.
    front: u64,
    /// Everything logged up to here is durable.
    synced: SeqNo,
    /// Last sequence number handed to the log.
    logged: SeqNo,
    /// A thread is syncing.
    syncing: bool,
    /// What a sync covers.
    target: Option<Arc<dyn SyncTarget>>,
    /// Threads of `sync_to` and `wait_published`.
    others: Vec<Arc<Waiter>>,
    failed: Option<Error>,
}

/// The pipeline. See the module's doc.
pub(crate) struct Pipeline {
    state: Mutex<State>,
    visible: AtomicU64,
    durable: AtomicU64,
    syncs: AtomicU64,
}

impl Pipeline {
    /// A pipeline in which everything up to `last_seq` is published and durable.
    pub(crate) fn new(last_seq: SeqNo) -> Pipeline {
        let state = State {
            queue: VecDeque::new(),
            front: 0,
            synced: last_seq,
            logged: last_seq,
            syncing: false,
            target: None,
            others: Vec::new(),
            failed: None,
        };
        Pipeline {
            state: Mutex::new(Rank::Publish, state),
            visible: AtomicU64::new(last_seq),
            durable: AtomicU64::new(last_seq),
            syncs: AtomicU64::new(0),
        }
    }

    /// Largest published sequence number: what a new reader sees.
    #[inline]
    pub(crate) fn visible(&self) -> SeqNo {
        self.visible.load(Ordering::Acquire)
    }

    /// Everything logged up to here survives a power cut.
    pub(crate) fn durable(&self) -> SeqNo {
        self.durable.load(Ordering::Acquire)
    }

    /// Syncs done so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Enters a commit. Called under the commit lock, after its record (if any) was appended to `target`.
    pub(crate) fn enter(
        &self,
        last_seq: SeqNo,
        target: Option<&Arc<dyn SyncTarget>>,
        needs_sync: bool,
    ) -> Ticket {
        let mut state = self.state.lock();
        if let Some(target) = target {
            state.logged = last_seq;
            if !state.target.as_ref().is_some_and(|current| Arc::ptr_eq(current, target)) {
                state.target = Some(Arc::clone(target));
            }
        }
        let index = state.front.wrapping_add(state.queue.len() as u64);
        let applied = cfg!(plant_publish_early); // Planted fault, in builds that ask for it only: visible too early.
        state.queue.push_back(Pending { last_seq, needs_sync, applied, waiter: None });
        Ticket { index, last_seq, needs_sync }
    }

    /// Completes a commit whose entries are in their memtables: returns when it is published.
    ///
    /// # Errors
    /// `OutcomeUnknown` when a sync failed before it could be published.
    pub(crate) fn complete(&self, ticket: Ticket) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(pending) = state.pending_mut(ticket.index) {
            pending.applied = true;
        }
        let mut waiter = None;
        loop {
            self.publish(&mut state);
            if state.front > ticket.index {
                return Ok(());
            }
            if let Some(cause) = &state.failed {
                return Err(outcome_unknown(cause));
            }
            if ticket.needs_sync && ticket.last_seq > state.synced && !state.syncing {
                state = self.sync_locked(state);
                continue;
            }
            let waiter = Arc::clone(waiter.get_or_insert_with(|| Arc::new(Waiter::new())));
            waiter.reset();
            if let Some(pending) = state.pending_mut(ticket.index) {
                pending.waiter = Some(Arc::clone(&waiter));
            }
            drop(state);
            waiter.wait();
            state = self.state.lock();
        }
    }

    /// Returns when everything logged up to `seq` is durable.
    ///
    /// # Errors
    /// The failed sync, then and ever after.
    pub(crate) fn sync_to(&self, seq: SeqNo) -> Result<()> {
        let mut state = self.state.lock();
        loop {
            if state.synced >= seq.min(state.logged) {
                return Ok(());
            }
            if let Some(cause) = &state.failed {
                return Err(cause.clone());
            }
            if state.syncing {
                state = self.wait_other(state);
            } else {
                state = self.sync_locked(state);
                self.publish(&mut state);
            }
        }
    }

    /// Returns when everything up to `seq` is published.
    ///
    /// # Errors
    /// `Poisoned` when that can no longer happen.
    pub(crate) fn wait_published(&self, seq: SeqNo) -> Result<()> {
        let mut state = self.state.lock();
        loop {
            if self.visible() >= seq {
                return Ok(());
            }
            if let Some(cause) = &state.failed {
                return Err(Error::caused(
                    ErrorKind::Poisoned,
                    "a commit was never published",
                    cause.clone(),
                ));
            }
            state = self.wait_other(state);
        }
    }

    /// Stops publication for good.
    pub(crate) fn fail(&self, cause: &Error) {
        let mut state = self.state.lock();
        state.failed.get_or_insert_with(|| cause.clone());
        state.wake_all();
    }

    /// Lets go of what it syncs, after the last commit.
    pub(crate) fn let_go(&self) {
        self.state.lock().target = None;
    }

    /// Commits that are not published, and how many of them have a thread that waits.
    #[cfg(test)]
    pub(super) fn pending(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.queue.len(), state.queue.iter().filter(|pending| pending.waiter.is_some()).count())
    }

    /// Advances over the completed prefix of the queue and wakes what it published.
    fn publish(&self, state: &mut State) {
        if state.failed.is_some() {
            return;
        }
        let mut visible = None;
        while let Some(first) = state.queue.front() {
            if !first.applied || (first.needs_sync && first.last_seq > state.synced) {
                break;
            }
            visible = Some(first.last_seq);
            // Stored before the waiter wakes: it must see its own write.
            self.visible.store(first.last_seq, Ordering::Release);
            if let Some(waiter) = state.queue.pop_front().and_then(|pending| pending.waiter) {
                waiter.wake();
            }
            state.front = state.front.wrapping_add(1);
        }
        if visible.is_some() {
            state.wake_others();
        }
    }

    /// Syncs with the lock released, then publishes and hands on to the next syncer.
    fn sync_locked<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let Some(target) = state.target.clone() else {
            // Nothing was logged since the open: all of it is durable.
            state.synced = state.logged;
            return state;
        };
        state.syncing = true;
        drop(state);
        let result = target.sync();
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.syncing = false;
        match result {
            Ok(seq) if state.failed.is_none() => {
                state.synced = state.synced.max(seq);
                self.durable.store(state.synced, Ordering::Release);
                self.publish(&mut state);
                state.wake_next_syncer();
                state.wake_others();
            }
            Ok(_) => {}
            Err(error) => {
                state.failed.get_or_insert(error);
                state.wake_all();
            }
        }
        state
    }

    fn wait_other<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waiter = Arc::new(Waiter::new());
        state.others.push(Arc::clone(&waiter));
        drop(state);
        waiter.wait();
        self.state.lock()
    }
}

impl State {
    fn pending_mut(&mut self, index: u64) -> Option<&mut Pending> {
        let position = usize::try_from(index.checked_sub(self.front)?).ok()?;
        self.queue.get_mut(position)
    }

    /// One waiter that still needs a sync does the next one.
    fn wake_next_syncer(&mut self) {
        let synced = self.synced;
        let next = self.queue.iter().find(|pending| {
            pending.applied && pending.needs_sync && pending.last_seq > synced && pending.waiter.is_some()
        });
        if let Some(waiter) = next.and_then(|pending| pending.waiter.as_ref()) {
            waiter.wake();
        }
    }

    fn wake_others(&mut self) {
        for waiter in self.others.drain(..) {
            waiter.wake();
        }
    }

    fn wake_all(&mut self) {
        for waiter in self.queue.iter().filter_map(|pending| pending.waiter.as_ref()) {
            waiter.wake();
        }
        self.wake_others();
    }
}

fn outcome_unknown(cause: &Error) -> Error {
    Error::caused(
        ErrorKind::OutcomeUnknown,
        "the log could not be synced; after reopening the commit is there whole or not at all",
        cause.clone(),
    )
}
