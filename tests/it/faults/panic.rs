//! A listener that panics: the engine is poisoned, everybody who waits is answered, nothing acknowledged is lost.

use super::world::{DIR, Ledger, World};
use esker::env::{Fault, FaultRule, Op};
use esker::{Db, Durability, ErrorKind, Event, EventListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Panics at the `n`th event that it is asked about.
struct Fragile {
    countdown: AtomicU64,
    applies: fn(&Event) -> bool,
}

impl Fragile {
    fn new(n: u64, applies: fn(&Event) -> bool) -> Arc<Fragile> {
        Arc::new(Fragile { countdown: AtomicU64::new(n), applies })
    }

    fn has_panicked(&self) -> bool {
        self.countdown.load(Ordering::Relaxed) == 0
    }
}

impl EventListener for Fragile {
    fn on_event(&self, event: &Event) {
        if !(self.applies)(event) || self.has_panicked() {
            return;
        }
        if self.countdown.fetch_sub(1, Ordering::Relaxed) == 1 {
            // Without the message and backtrace of a panic that is expected.
            std::panic::resume_unwind(Box::new("a listener that panics"));
        }
    }
}

/// Writes and flushes; answers the first refusal.
fn work(db: &Db, ledger: &mut Ledger) -> Option<ErrorKind> {
    for n in 0..60 {
        let durability = if n % 3 == 0 { Durability::Disk } else { Durability::Os };
        if let Err(error) = ledger.put(db, &format!("key{:02}", n * 7 % 40), durability) {
            return Some(error.kind());
        }
        db.run_background_job();
    }
    None
}

#[test]
fn a_panic_at_any_event_poisons() {
    let mut panics = 0;
    for n in 1.. {
        let world = World::new();
        let listener = Fragile::new(n, |_| true);
        let mut ledger = Ledger::default();
        let db = world.options().listener(listener.clone()).open(DIR).expect("create");
        let refused = work(&db, &mut ledger);
        ledger.check_reads(&db, "after the panic");
        if !listener.has_panicked() {
            assert_eq!(refused, None);
            break;
        }
        panics += 1;
        assert_eq!(db.put("key", "value").expect_err("poisoned").kind(), ErrorKind::Poisoned);
        assert_eq!(db.flush().expect_err("poisoned").kind(), ErrorKind::Poisoned);
        assert_eq!(db.wait_for_background().expect_err("poisoned").kind(), ErrorKind::Poisoned);
        drop(db);
        assert_eq!(world.disk.open_handles(), []);
        let db = world.open().expect("reopen");
        ledger.check_reads(&db, "reopened");
        world.check_nothing_left(db, "reopened");
    }
    assert!(panics > 3, "only {panics} events were heard");
}

/// Fails the test instead of waiting for ever.
fn within_reason<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || done.send(work()).ok());
    wait.recv_timeout(Duration::from_secs(120)).unwrap_or_else(|_| panic!("{what}: it hangs, or it panicked"))
}

/// Writers wait for flushes on background threads when the listener panics there.
#[test]
fn waiting_writers_are_answered_when_the_listener_panics() {
    type Applies = fn(&Event) -> bool;
    let flushed: Applies = |event| matches!(event, Event::Flushed { .. });
    let compacted: Applies = |event| matches!(event, Event::Compacted { .. });
    let failed: Applies = |event| matches!(event, Event::BackgroundError { .. });
    let no_space: Applies = |event| matches!(event, Event::NoSpace { .. });
    let (error, full) = (Some(Fault::Errno(5)), Some(Fault::Errno(28)));
    let cases = [
        ("flushed", 1, flushed, None),
        ("flushed", 5, flushed, None),
        ("compacted", 1, compacted, None),
        ("compacted", 3, compacted, None),
        ("flush failed", 1, failed, error),
        ("flush failed", 2, failed, error),
        ("flush failed", 4, failed, error),
        ("no space", 1, no_space, full),
        ("no space, failed", 3, failed, full),
    ];
    for (what, n, applies, fault) in cases {
        within_reason(what, move || {
            let world = World::with_threads();
            let listener = Fragile::new(n, applies);
            let options = world.options().background_threads(2).stall_timeout(Duration::from_secs(100_000));
            let db = options.listener(listener.clone()).open(DIR).expect("create");
            if let Some(fault) = fault {
                world.faults.add(FaultRule::new(Op::Create, fault).path("*.sst"));
            }
            let write = |thread: u64| {
                for n in 0u64.. {
                    match db.put(format!("{thread}-{:03}", n % 500), vec![0; 100]) {
                        Ok(()) => {}
                        Err(error) if error.kind() == ErrorKind::Poisoned => return n,
                        Err(error) if error.kind() == ErrorKind::OutcomeUnknown => return n,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}"),
                    }
                }
                0
            };
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    scope.spawn(move || write(thread));
                }
            });
            assert!(listener.has_panicked());
            assert!(db.get("0-000").is_ok());
            assert_eq!(db.wait_for_background().expect_err("poisoned").kind(), ErrorKind::Poisoned);
            drop(db);
            assert_eq!(world.disk.open_handles(), []);
            world.faults.heal();
            drop(World::on(world.disk.clone()).open().expect("reopen"));
        });
    }
}
