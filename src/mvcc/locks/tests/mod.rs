//! Tests of the lock table: threads that wait, in an order that the tests decide by looking at who waits.

use super::*;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::KeyspaceId;
use crate::env::OsClock;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

mod deadlock;
mod kernel;
mod locks;
mod model;
mod queue;
mod search;
mod storm;

const KS: KeyspaceId = KeyspaceId(3);

/// Long enough that a test which needs it has failed.
const LONG: Wait = Wait::Upto(Duration::from_secs(60));

fn options() -> LockOptions {
    LockOptions { victim: VictimPolicy::Youngest, reports_kept: 8, bytes_max: 1 << 30 }
}

fn table_with(options: LockOptions) -> Arc<LockTable> {
    Arc::new(LockTable::new(Arc::new(OsClock::new()), options))
}

fn table() -> Arc<LockTable> {
    table_with(options())
}

fn info(id: TxnId) -> OwnerInfo {
    // Higher numbers are younger.
    OwnerInfo { id, label: None, level: "repeatable read", priority: 0, started: Duration::from_nanos(id) }
}

fn owner(table: &LockTable, id: TxnId) -> Arc<Owner> {
    table.register(info(id))
}

/// A lock to take: `x a`, `s a`, `x a..c`, `s a..`.
fn take(table: &LockTable, owner: &Arc<Owner>, what: &str, wait: Wait) -> Result<Grant> {
    let (mode, span) = what.split_once(' ').unwrap();
    let mode = if mode == "x" { Mode::Exclusive } else { Mode::Shared };
    match span.split_once("..") {
        None => table.acquire(owner, KS, span.as_bytes(), mode, wait),
        Some((start, end)) => {
            let end = (!end.is_empty()).then_some(end.as_bytes());
            table.acquire_range(owner, KS, start.as_bytes(), end, mode, wait)
        }
    }
}

fn take_now(table: &LockTable, owner: &Arc<Owner>, what: &str) {
    let grant = take(table, owner, what, Wait::No).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(!grant.waited);
}

fn refused(table: &LockTable, owner: &Arc<Owner>, what: &str) -> Error {
    let error = take(table, owner, what, Wait::No).expect_err(what);
    assert_eq!(error.kind(), ErrorKind::LockTimeout);
    error
}

type Waiting = JoinHandle<Result<Grant>>;

/// Starts to wait on a thread of its own; returns when the wait has begun, or is over.
fn start(table: &Arc<LockTable>, owner: &Arc<Owner>, what: &str, wait: Wait) -> Waiting {
    let (of_thread, of_owner, what) = (Arc::clone(table), Arc::clone(owner), what.to_string());
    let thread = thread::spawn(move || take(&of_thread, &of_owner, &what, wait));
    while table.waiting_for(owner).is_none() && !thread.is_finished() {
        thread::yield_now();
    }
    thread
}

fn granted(thread: Waiting) {
    assert!(thread.join().unwrap().unwrap().waited);
}

fn assert_waits(table: &LockTable, owner: &Owner) {
    assert!(table.waiting_for(owner).is_some(), "{} does not wait", owner.id());
}

fn assert_empty(table: &LockTable) {
    let stats = table.stats();
    assert_eq!((stats.held, stats.waiting, stats.bytes), (0, 0, 0), "{stats:?}");
    assert_eq!(table.wait_graph(), WaitGraph::default());
}
