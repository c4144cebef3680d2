//! The pipeline under a model checker: the kernel's source once more, over parts whose every access is a point where
//! another thread may go on (shuttle: random and probabilistic concurrency testing, Burckhardt et al. 2010).

/// The same kernel, in this module over the checker's parts.
#[path = "kernel.rs"]
#[expect(clippy::duplicate_mod, reason = "a second time, over other parts")]
mod kernel;

mod parts {
    pub(super) use crate::base::model::{AtomicU64, Mutex, MutexGuard, Rank, Waiter};
}

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::model::explore;
use crate::base::types::SeqNo;
use kernel::{Pipeline, SyncTarget, Ticket};
use parts::{Mutex, Rank};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

/// A log whose syncs after the first few fail.
struct Log {
    appended: AtomicU64,
    syncs_left: AtomicU64,
    /// What the syncs have made durable.
    durable: AtomicU64,
}

impl SyncTarget for Log {
    fn sync(&self) -> Result<SeqNo> {
        let covered = self.appended.load(SeqCst);
        shuttle::thread::yield_now();
        let take = |left: u64| left.checked_sub(1);
        if self.syncs_left.fetch_update(SeqCst, SeqCst, take).is_err() {
            return Err(failure());
        }
        self.durable.fetch_max(covered, SeqCst);
        Ok(covered)
    }
}

fn failure() -> Error {
    Error::io("sync", Path::new("log"), std::io::Error::from_raw_os_error(5))
}

struct World {
    pipeline: Pipeline,
    log: Arc<Log>,
    target: Arc<dyn SyncTarget>,
    /// The commit lock, around the last sequence number, the sequence numbers whose entries are in the memtables, and
    /// whether a commit must be synced.
    commit: Mutex<SeqNo>,
    applied: std::sync::Mutex<Vec<SeqNo>>,
    needs_sync: std::sync::Mutex<Vec<SeqNo>>,
}

impl World {
    fn new(syncs: u64) -> World {
        let zero = || AtomicU64::new(0);
        let log = Arc::new(Log { appended: zero(), syncs_left: AtomicU64::new(syncs), durable: zero() });
        World {
            pipeline: Pipeline::new(0),
            target: log.clone(),
            log,
            commit: Mutex::new(Rank::Commit, 0),
            applied: std::sync::Mutex::default(),
            needs_sync: std::sync::Mutex::default(),
        }
    }

    /// What the commit path does under its lock.
    fn enter(&self, needs_sync: bool) -> Ticket {
        let mut last = self.commit.lock();
        *last += 1;
        self.log.appended.store(*last, SeqCst);
        if needs_sync {
            self.needs_sync.lock().unwrap().push(*last);
        }
        self.pipeline.enter(*last, Some(&self.target), needs_sync)
    }

    /// What is visible is applied without a hole, and durable where that was asked for.
    fn look(&self) -> SeqNo {
        let said = self.pipeline.durable();
        let visible = self.pipeline.visible();
        // Not a point where the checker switches: as of the same moment.
        let durable = self.log.durable.load(SeqCst);
        let applied = self.applied.lock().unwrap().clone();
        for seq in 1..=visible {
            assert!(applied.contains(&seq), "{seq} of {visible} is visible and not applied");
            let is_promised = self.needs_sync.lock().unwrap().contains(&seq);
            assert!(!is_promised || seq <= durable, "{seq} is visible and not durable");
        }
        assert!(said <= durable, "{said} is said to be durable, {durable} is");
        visible
    }

    fn commit(&self, needs_sync: bool) -> bool {
        let ticket = self.enter(needs_sync);
        shuttle::thread::yield_now();
        self.applied.lock().unwrap().push(ticket.last_seq());
        let done = self.pipeline.complete(ticket);
        let visible = self.look();
        match done {
            Ok(()) => assert!(visible >= ticket.last_seq(), "it does not see its own commit"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::OutcomeUnknown),
        }
        visible >= ticket.last_seq()
    }

    /// One operation of a script.
    fn run(&self, what: &str) {
        match what {
            "os" => drop(self.commit(false)),
            "disk" => drop(self.commit(true)),
            "sync" => {
                let seq = *self.commit.lock();
                if self.pipeline.sync_to(seq).is_ok() {
                    assert!(self.log.durable.load(SeqCst) >= seq, "not synced");
                }
            }
            "wait" => {
                let seq = *self.commit.lock();
                if self.pipeline.wait_published(seq).is_ok() {
                    assert!(self.look() >= seq, "not published");
                }
            }
            "fail" => self.pipeline.fail(&failure()),
            _ => {
                self.look();
            }
        }
    }
}

/// Runs each script on a thread of its own. All end: a wake-up that is lost is a deadlock, which the checker reports.
fn check(scripts: &'static [&'static [&'static str]], syncs: u64) {
    explore(move || {
        let world = Arc::new(World::new(syncs));
        let run = |script: &'static &'static [&'static str]| {
            let world = Arc::clone(&world);
            shuttle::thread::spawn(move || script.iter().for_each(|what| world.run(what)))
        };
        let threads: Vec<_> = scripts.iter().map(run).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let (last, visible) = (*world.commit.lock(), world.look());
        let fails = syncs < u64::MAX || scripts.concat().contains(&"fail");
        if !fails {
            assert_eq!((visible, world.pipeline.pending()), (last, (0, 0)), "all is published");
        }
        let is_synced = scripts.concat().contains(&"disk");
        assert!(fails || (world.pipeline.syncs() > 0) == is_synced || scripts.concat().contains(&"sync"));
        world.pipeline.let_go();
    });
}

const ALWAYS: u64 = u64::MAX;

#[test]
fn commits_are_published_in_order_and_nobody_sleeps_for_ever() {
    for scripts in [
        &[&["os", "os"] as &[&str], &["os", "os"], &["look", "look", "look"]] as &[&[&str]],
        &[&["disk"], &["disk"], &["disk"], &["look", "look"]],
        &[&["disk", "os"], &["os", "disk"], &["disk", "disk"]],
        &[&["os"], &["disk"], &["wait", "look"], &["sync", "wait"]],
        &[&["disk", "disk"], &["sync", "os", "sync"], &["os", "wait"]],
    ] {
        check(scripts, ALWAYS);
    }
}

#[test]
fn after_a_failure_everybody_is_answered() {
    for syncs in 0..2 {
        for scripts in [
            &[&["disk"] as &[&str], &["disk"], &["os", "disk"]] as &[&[&str]],
            &[&["disk", "os"], &["sync"], &["wait"], &["look", "look"]],
        ] {
            check(scripts, syncs);
        }
    }
    check(&[&["os", "wait"], &["disk", "disk"], &["fail"]], ALWAYS);
}
