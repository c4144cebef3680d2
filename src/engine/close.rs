//! Close: flush what is in memory, mark the database clean, stop the threads, leave nothing behind.

use super::core::Core;
use crate::base::error::{Error, ErrorKind, Result};
use crate::env::JoinHandle;
use crate::manifest::{Edit, EditOp};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Core {
    /// Ends the session. With writes refused or the disk full, memory cannot be flushed: what the log holds is
    /// recovered by the next open, and the reason is returned.
    pub(crate) fn close(self: &Arc<Self>, threads: Vec<Box<dyn JoinHandle>>) -> Result<()> {
        // From here on nothing is accepted; what is under way finishes and is flushed with the rest.
        self.health.close();
        let flushed = self.flush_all_for_close();
        let panics = stop_threads(self, threads);
        let marked = match &flushed {
            Ok(()) => self.mark_clean(),
            Err(_) => self.commit.lock().log.close().map(|_| ()),
        };
        self.tables.close();
        self.garbage.stop_waiting();
        let collected = self.collect();
        self.let_go();
        self.announced(flushed.and(marked).and(collected).and(panics))
    }

    /// Gives back what handles that outlive the close would keep: the log's last segment, and the directory itself,
    /// which can be opened again from here on.
    fn let_go(&self) {
        self.commit.lock().target = None;
        self.pipeline.let_go();
        self.manifest.lock().lock = None;
    }

    fn flush_all_for_close(self: &Arc<Self>) -> Result<()> {
        self.health.check_not_poisoned()?;
        let keyspaces: Vec<_> = self.state.lock().keyspaces.values().cloned().collect();
        for keyspace in keyspaces {
            match self.flush_keyspace(&keyspace) {
                Err(_) if keyspace.is_dropped() => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Writes the clean marker, unless the session changed nothing.
    fn mark_clean(&self) -> Result<()> {
        let (next, last_seq) = {
            let mut commit = self.commit.lock();
            let next = match commit.log.close() {
                Ok(next) => next,
                Err(error) => {
                    drop(commit);
                    self.poison(&error);
                    return Err(error);
                }
            };
            (next, commit.next_seq.saturating_sub(1))
        };
        let mut manifest = self.manifest.lock();
        if manifest.version.clean_next_log == Some(next) {
            return Ok(());
        }
        let ops = vec![EditOp::LastSeq(last_seq), EditOp::LogNumber(next), EditOp::Clean { next_log: next }];
        let mut edit = Edit(ops);
        self.add_moments(&manifest.version, &mut edit);
        self.append_edit_locked(&mut manifest, &edit)?;
        manifest.manifest.close()?;
        drop(manifest);
        let files = self.commit.lock().log.forget_before(next);
        self.garbage.add_files(files);
        Ok(())
    }
}

/// Asks the threads to stop, running compactions included, and waits for them.
pub(crate) fn stop_threads(core: &Core, threads: Vec<Box<dyn JoinHandle>>) -> Result<()> {
    core.cancel.store(true, Ordering::Release);
    {
        let mut state = core.state.lock();
        state.closing = true;
        core.work.notify_all();
        core.progress.notify_all();
    }
    let mut result = Ok(());
    for thread in threads {
        if let Err(panic) = thread.join() {
            result = Err(Error::new(ErrorKind::Poisoned, format!("a background thread panicked: {panic}")));
        }
    }
    result
}
