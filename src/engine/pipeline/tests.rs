//! The pipeline alone, with a stand-in for the log.

use super::*;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Mutex, Rank};
use crate::base::types::SeqNo;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Default)]
struct FakeLog {
    appended: AtomicU64,
    fails: AtomicBool,
    syncs: AtomicU64,
}

impl SyncTarget for FakeLog {
    fn sync(&self) -> Result<SeqNo> {
        let seq = self.appended.load(Ordering::SeqCst);
        self.syncs.fetch_add(1, Ordering::SeqCst);
        std::thread::yield_now();
        if self.fails.load(Ordering::SeqCst) {
            return Err(Error::io("sync", Path::new("log"), std::io::Error::from_raw_os_error(5)));
        }
        Ok(seq)
    }
}

struct Rig {
    pipeline: Pipeline,
    log: Arc<FakeLog>,
    target: Arc<dyn SyncTarget>,
    next: Mutex<SeqNo>,
}

impl Rig {
    fn new() -> Rig {
        let log = Arc::new(FakeLog::default());
        Rig { pipeline: Pipeline::new(0), target: log.clone(), log, next: Mutex::new(Rank::Commit, 0) }
    }

    /// What the commit path does under its lock.
    fn enter(&self, needs_sync: bool) -> Ticket {
        let mut next = self.next.lock();
        *next += 1;
        self.log.appended.store(*next, Ordering::SeqCst);
        self.pipeline.enter(*next, Some(&self.target), needs_sync)
    }
}

#[test]
fn a_lone_os_commit_is_published_without_a_sync() {
    let rig = Rig::new();
    rig.pipeline.complete(rig.enter(false)).unwrap();
    assert_eq!(
        (rig.pipeline.visible(), rig.pipeline.durable(), rig.log.syncs.load(Ordering::SeqCst)),
        (1, 0, 0)
    );
    rig.pipeline.sync_to(1).unwrap();
    assert_eq!((rig.pipeline.durable(), rig.log.syncs.load(Ordering::SeqCst)), (1, 1));
}

#[test]
fn a_disk_commit_is_invisible_until_its_sync_succeeded() {
    let rig = Rig::new();
    let ticket = rig.enter(true);
    assert_eq!(rig.pipeline.visible(), 0);
    rig.pipeline.complete(ticket).unwrap();
    assert_eq!((rig.pipeline.visible(), rig.pipeline.durable()), (1, 1));
}

#[test]
fn a_later_commit_waits_for_an_earlier_one() {
    let rig = Rig::new();
    let first = rig.enter(false);
    let second = rig.enter(false);
    std::thread::scope(|scope| {
        let late = scope.spawn(|| rig.pipeline.complete(second));
        while rig.pipeline.pending().1 == 0 {
            std::thread::yield_now();
        }
        assert_eq!(rig.pipeline.visible(), 0, "the second may not be visible before the first");
        rig.pipeline.complete(first).unwrap();
        late.join().unwrap().unwrap();
    });
    assert_eq!(rig.pipeline.visible(), 2);
}

#[test]
fn after_a_failed_sync_nothing_is_published_and_every_waiter_is_answered() {
    let rig = Rig::new();
    rig.pipeline.complete(rig.enter(false)).unwrap();
    rig.log.fails.store(true, Ordering::SeqCst);
    let failed = rig.pipeline.complete(rig.enter(true)).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::OutcomeUnknown);
    rig.log.fails.store(false, Ordering::SeqCst);
    let later = rig.pipeline.complete(rig.enter(false)).unwrap_err();
    assert_eq!(later.kind(), ErrorKind::OutcomeUnknown);
    assert!(rig.pipeline.sync_to(3).is_err());
    assert!(rig.pipeline.wait_published(3).is_err());
    assert_eq!(rig.pipeline.visible(), 1);
}

#[test]
fn many_threads_share_syncs_and_each_sees_its_own_commit() {
    let rig = Rig::new();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let rig = &rig;
            scope.spawn(move || {
                for round in 0..500 {
                    let disk = (thread + round) % 3 != 0;
                    let ticket = rig.enter(disk);
                    rig.pipeline.complete(ticket).unwrap();
                    assert!(rig.pipeline.visible() >= ticket.last_seq());
                    if disk {
                        assert!(rig.pipeline.durable() >= ticket.last_seq());
                    }
                }
            });
        }
    });
    assert_eq!(rig.pipeline.visible(), 4000);
    assert_eq!(rig.pipeline.pending(), (0, 0));
}
