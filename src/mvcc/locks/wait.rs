//! A wait for a lock, on the thread of its owner, from the search for a deadlock to its end.
//!
//! Deadlines are of the table's clock, sleeping is real. A simulated clock stands still while a thread sleeps; then the
//! sleeper moves it, so that a wait ends even if nobody else is there to do anything. It moves it faster than real time
//! passes, and slowly enough for other threads to end the wait first.

use super::Grant;
use super::owner::Outcome;
use super::queue::Request;
use super::stripes;
use super::table::{LockTable, cost};
use crate::base::deadlock::LockDescription;
use crate::base::error::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Time until a waiter first looks again for a deadlock, if others began to wait, or no longer do. It doubles with each time.
pub(super) const RECHECK: Duration = Duration::from_millis(10);

/// Longest time between two looks.
const RECHECK_MAX: Duration = Duration::from_secs(1);

/// What a standing clock is moved by, and the real time that this takes.
const STANDING_STEP: Duration = Duration::from_millis(10);
const STANDING_SLEEP: Duration = Duration::from_millis(1);

impl LockTable {
    /// Waits for a request that is in the queue.
    #[cold]
    pub(super) fn wait(&self, request: &Arc<Request>, limit: Duration) -> Result<Grant> {
        self.counters.waits.fetch_add(1, Ordering::AcqRel);
        let outcome = self.wait_for_outcome(request, limit);
        let waited = self.clock.now().saturating_sub(request.since);
        let waited_nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.counters.wait_nanos.fetch_add(waited_nanos, Ordering::Relaxed);
        // The memory of a granted lock is given back with it.
        if !matches!(outcome, Outcome::Granted { fresh: true } | Outcome::Ended { granted: true }) {
            self.uncharge(cost(request.span.as_ref()));
        }
        let failed = match outcome {
            Outcome::Granted { fresh } => return Ok(Grant { waited: true, fresh }),
            Outcome::Doomed(report) => Error::deadlock_victim((*report).clone()),
            Outcome::Ended { .. } => {
                let message = format!("{} ended while it waited for a lock", request.owner.name());
                Error::new(ErrorKind::InvalidArgument, message)
            }
            // Before the request leaves the queue: it tells who is in its way.
            Outcome::Waiting => self.refusal(request),
        };
        let withdrawn = stripes::cancel(&self.stripes, request);
        self.counters.withdrawn.fetch_add(1, Ordering::AcqRel);
        withdrawn.woken.iter().for_each(|owner| owner.notify());
        Err(failed)
    }

    /// `Waiting` if the time is over.
    fn wait_for_outcome(&self, request: &Arc<Request>, limit: Duration) -> Outcome {
        let deadline = request.since.saturating_add(limit);
        let (mut seen, mut pause) = (self.changes(), RECHECK);
        let mut next_look = request.since.saturating_add(pause);
        let mut is_standing = false;
        self.break_deadlocks(&request.owner);
        loop {
            let before = self.clock.now();
            let due = self.alarm.get().and_then(|alarm| alarm(before)).unwrap_or(Duration::MAX);
            let ended = if before >= deadline { request.owner.give_up() } else { request.owner.outcome() };
            if before >= deadline || !matches!(ended, Outcome::Waiting) {
                return ended;
            }
            let step = deadline.min(next_look).min(due).saturating_sub(before).max(Duration::from_micros(1));
            let sleep = if is_standing { STANDING_SLEEP } else { step };
            let ended = request.owner.sleep(sleep);
            if !matches!(ended, Outcome::Waiting) {
                return ended;
            }
            is_standing |= self.clock.now() == before;
            if is_standing {
                self.clock.sleep(deadline.saturating_sub(before).min(STANDING_STEP));
            }
            let after = self.clock.now();
            if after >= next_look {
                let changes = self.changes();
                if changes != seen {
                    seen = changes;
                    self.break_deadlocks(&request.owner);
                }
                pause = pause.saturating_mul(2).min(RECHECK_MAX);
                next_look = after.saturating_add(pause);
            }
        }
    }

    /// The error of a request that could not wait, or not longer. Names who is in the way.
    #[cold]
    pub(super) fn refusal(&self, request: &Request) -> Error {
        self.counters.timeouts.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        let waited = now.saturating_sub(request.since);
        let wanted: LockDescription = self.named(request.describe());
        let edges = stripes::edges(&self.stripes, request);
        let holder = edges.iter().find(|edge| edge.granted()).or(edges.first());
        let reason = match holder {
            Some(edge) => {
                let age = now.saturating_sub(edge.owner.info().started);
                let verb = if edge.granted() { "holds" } else { "is ahead in the queue for" };
                format!("{} (age {age:?}) {verb} {}", edge.owner.name(), self.named(edge.describe()))
            }
            None => "it was given back just now".to_string(),
        };
        let message = format!("{} was not granted after {waited:?}: {reason}", wanted);
        Error::new(ErrorKind::LockTimeout, message)
    }
}
