//! Error states: whether writes are accepted, and if not, why.
//!
//! `Poisoned` is for good (until reopen): after a failed sync nothing may be assumed of what was written, so the first
//! cause is kept and every later write is refused with it. A full disk is a state that ends by itself.

use super::events::Event;
use super::events::EventListener;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Mutex, Rank};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// State of writes and the listener that hears of changes.
pub(crate) struct Health {
    poisoned: AtomicBool,
    no_space: AtomicBool,
    closed: AtomicBool,
    /// The listener has not been told yet that writes were stopped.
    unannounced: AtomicBool,
    cause: Mutex<Causes>,
    listener: Option<Arc<dyn EventListener>>,
}

#[derive(Default)]
struct Causes {
    poison: Option<Error>,
    no_space: Option<Error>,
}

impl Health {
    /// Everything is fine.
    pub(crate) fn new(listener: Option<Arc<dyn EventListener>>) -> Health {
        Health {
            poisoned: AtomicBool::new(false),
            no_space: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            unannounced: AtomicBool::new(false),
            cause: Mutex::new(Rank::Leaf, Causes::default()),
            listener,
        }
    }

    /// Tells the listener. A panic in it poisons the engine.
    pub(crate) fn emit(&self, event: &Event) {
        let Some(listener) = &self.listener else { return };
        if catch_unwind(AssertUnwindSafe(|| listener.on_event(event))).is_err() {
            let error = Error::new(ErrorKind::Poisoned, "the event listener panicked");
            self.cause.lock().poison.get_or_insert(error);
            self.poisoned.store(true, Ordering::Release);
        }
    }

    /// An error unless writes are accepted. One load when all is well.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        if !self.poisoned.load(Ordering::Acquire) && !self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(self.refusal())
    }

    /// An error if writes were stopped for good.
    pub(crate) fn check_not_poisoned(&self) -> Result<()> {
        if self.is_poisoned() { Err(self.poison_error()) } else { Ok(()) }
    }

    /// An error once the database was closed.
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }

    fn refusal(&self) -> Error {
        if self.closed.load(Ordering::Acquire) { closed() } else { self.poison_error() }
    }

    fn poison_error(&self) -> Error {
        match self.cause.lock().poison.clone() {
            Some(cause) => {
                Error::caused(ErrorKind::Poisoned, "writes are stopped until the database is reopened", cause)
            }
            None => Error::new(ErrorKind::Poisoned, "writes are stopped until the database is reopened"),
        }
    }

    /// Stops writes for good. The first cause is kept. The listener is told by [`announce`](Self::announce), for the
    /// locks of the engine may be held here.
    pub(crate) fn poison(&self, cause: &Error) {
        let mut causes = self.cause.lock();
        if causes.poison.is_none() {
            causes.poison = Some(cause.clone());
            self.unannounced.store(true, Ordering::Release);
        }
        self.poisoned.store(true, Ordering::Release);
    }

    /// Tells the listener if writes were stopped and it does not know. No engine lock may be held.
    pub(crate) fn announce(&self) {
        if !self.unannounced.swap(false, Ordering::AcqRel) {
            return;
        }
        let cause = self.cause.lock().poison.clone();
        if let Some(error) = cause {
            self.emit(&Event::Poisoned { error });
        }
    }

    /// Whether writes were stopped for good.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Marks the database closed.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Notes that the disk is full.
    pub(crate) fn set_no_space(&self, cause: &Error) {
        self.cause.lock().no_space = Some(cause.clone());
        if !self.no_space.swap(true, Ordering::AcqRel) {
            self.emit(&Event::NoSpace { error: cause.clone() });
        }
    }

    /// Notes that a write of background work went through again.
    pub(crate) fn clear_no_space(&self) {
        if self.no_space.load(Ordering::Acquire) && self.no_space.swap(false, Ordering::AcqRel) {
            self.emit(&Event::SpaceRestored);
        }
    }

    /// The reason, while the disk is full.
    pub(crate) fn no_space(&self) -> Option<Error> {
        if !self.no_space.load(Ordering::Acquire) {
            return None;
        }
        let cause = self.cause.lock().no_space.clone()?;
        Some(Error::caused(ErrorKind::NoSpace, "the disk is full and the log budget is used up", cause))
    }
}

/// The answer to everything asked of a closed database.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database is closed")
}
