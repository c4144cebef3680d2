//! What the public handles of one open database share, and its end when the last of them goes.

use crate::base::error::{Error, Result};
use crate::base::sync::{Mutex, Rank};
use crate::engine::{Core, Event, Threads, is_background_thread, waits_for_itself};
use crate::mvcc::{Sessions, Transactions};
use std::sync::Arc;

/// What all handles of an open database share; the last one to go closes it.
pub(super) struct Handle {
    core: Arc<Core>,
    txns: Arc<Transactions>,
    /// Which sessions are open.
    pub(super) sessions: Arc<Sessions>,
    /// Background threads; taken by the close.
    threads: Mutex<Option<Threads>>,
}

impl Handle {
    pub(super) fn new(core: Arc<Core>, threads: Threads) -> Result<Handle> {
        let txns = match Transactions::new(Arc::clone(&core)) {
            Ok(txns) => Arc::new(txns),
            Err(error) => {
                close_unasked(&core, threads);
                return Err(error);
            }
        };
        let threads = Mutex::new(Rank::Leaf, Some(threads));
        Ok(Handle { core, txns, sessions: Sessions::new(), threads })
    }

    #[inline]
    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    #[inline]
    pub(super) fn txns(&self) -> &Arc<Transactions> {
        &self.txns
    }

    pub(super) fn close(&self) -> Result<()> {
        if is_background_thread() {
            return Err(waits_for_itself());
        }
        let threads = self.threads.lock().take();
        match threads {
            Some(threads) => self.core.close(threads),
            None => Ok(()),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Some(threads) = self.threads.lock().take() else { return };
        if !is_background_thread() {
            return close_unasked(&self.core, threads);
        }
        // A listener held the last handle: a thread cannot wait for its own end.
        let core = Arc::clone(&self.core);
        let closing = Box::new(move || close_unasked(&core, threads));
        if let Err(error) = self.core.env.spawner.spawn("esker-close".to_string(), closing) {
            report(&self.core, Error::io("start a thread", &self.core.dir, error));
        }
    }
}

fn close_unasked(core: &Arc<Core>, threads: Threads) {
    if let Err(error) = core.close(threads) {
        report(core, error);
    }
}

fn report(core: &Core, error: Error) {
    core.emit(&Event::BackgroundError { job: "closing the database on drop", error });
}
