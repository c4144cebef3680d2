//! Garbage: files that no version names and memtables that were flushed, kept until their last reader is gone.
//!
//! A table's file may be removed when the edit that dropped it is durable in both manifest copies (it is, before it
//! gets here) and no view holds its metadata any more: the count of references to its `TableMeta` says so. A flushed
//! memtable is dropped here, on a background thread, because freeing half a million nodes takes tens of milliseconds.

use super::core::Core;
use super::keyspace::Frozen;
use super::tables::table_path;
use crate::base::error::{Error, Result};
use crate::base::sync::{Mutex, Rank};
use crate::manifest::TableMeta;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What waits to be removed.
pub(crate) struct Garbage {
    bins: Mutex<Bins>,
    waiting: AtomicBool,
}

#[derive(Default)]
struct Bins {
    tables: Vec<(PathBuf, u64, Weak<TableMeta>)>,
    memtables: Vec<Arc<Frozen>>,
    files: Vec<PathBuf>,
    /// Orphans that an open found and must leave alone until the session has written to the manifest.
    held: Vec<PathBuf>,
    /// When to look again at what was still in use, and how long to wait after that.
    look_at: Duration,
    pause: Duration,
}

/// Pauses between looks at garbage that is still in use.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(10);
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(2);

impl Garbage {
    /// Nothing waits.
    pub(crate) fn new() -> Garbage {
        Garbage { bins: Mutex::new(Rank::Leaf, Bins::default()), waiting: AtomicBool::new(false) }
    }

    /// Whether anything waits.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    fn add(&self, fill: impl FnOnce(&mut Bins)) {
        let mut bins = self.bins.lock();
        fill(&mut bins);
        bins.look_at = Duration::ZERO;
        bins.pause = LOOK_PAUSE_MIN;
        self.waiting.store(true, Ordering::Release);
    }

    /// Tables that an installed edit dropped.
    pub(crate) fn add_tables(&self, core: &Core, tables: impl Iterator<Item = Arc<TableMeta>>) {
        self.add(|bins| {
            bins.tables.extend(
                tables.map(|meta| (table_path(&core.dir, meta.number), meta.number, Arc::downgrade(&meta))),
            );
        });
    }

    /// Memtables that were flushed.
    pub(crate) fn add_memtables(&self, memtables: Vec<Arc<Frozen>>) {
        self.add(|bins| bins.memtables.extend(memtables));
    }

    /// Files that nothing needs: old log segments, orphans.
    pub(crate) fn add_files(&self, files: Vec<PathBuf>) {
        if !files.is_empty() {
            self.add(|bins| bins.files.extend(files));
        }
    }

    /// Files that nothing names, to be removed once the session writes.
    pub(crate) fn hold_files(&self, files: Vec<PathBuf>) {
        self.bins.lock().held = files;
    }

    /// The session writes.
    pub(crate) fn release_held(&self) {
        let held = std::mem::take(&mut self.bins.lock().held);
        self.add_files(held);
    }

    /// Gives up waiting for readers of tables: nobody can open a table any more, and open ones stay readable.
    pub(crate) fn stop_waiting(&self) {
        let mut bins = self.bins.lock();
        let tables = std::mem::take(&mut bins.tables);
        bins.files.extend(tables.into_iter().map(|(path, _, _)| path));
    }

    /// Whether a look is due.
    pub(crate) fn ready(&self, now: Duration) -> bool {
        self.is_waiting() && now >= self.bins.lock().look_at
    }

    /// When the next look is due.
    pub(crate) fn next_look(&self) -> Option<Duration> {
        self.is_waiting().then(|| self.bins.lock().look_at)
    }

    /// Takes what is free now and leaves the rest for a later look.
    fn take_free(&self, now: Duration) -> Bins {
        let mut bins = self.bins.lock();
        let (free, used) =
            std::mem::take(&mut bins.tables).into_iter().partition(|(_, _, meta)| meta.strong_count() == 0);
        bins.tables = used;
        let (unread, read) = std::mem::take(&mut bins.memtables)
            .into_iter()
            .partition(|frozen| Arc::strong_count(frozen) == 1);
        bins.memtables = read;
        let files = std::mem::take(&mut bins.files);
        bins.pause = bins.pause.saturating_mul(2).clamp(LOOK_PAUSE_MIN, LOOK_PAUSE_MAX);
        bins.look_at = now.saturating_add(bins.pause);
        let rest = !bins.tables.is_empty() || !bins.memtables.is_empty();
        self.waiting.store(rest, Ordering::Release);
        Bins { tables: free, memtables: unread, files, ..Bins::default() }
    }
}

impl Core {
    /// Removes what nobody reads any more. A file that cannot be removed is left for the next open to find.
    pub(crate) fn collect(&self) -> Result<()> {
        // Views replaced a moment ago are freed by the epochs; help them along.
        for _ in 0..4 {
            crossbeam_epoch::pin().flush();
        }
        let free = self.garbage.take_free(self.env.clock.now());
        drop(free.memtables);
        if self.health.is_poisoned() {
            return Ok(());
        }
        let mut first_error = None;
        let tables = free.tables.into_iter().map(|(path, number, _)| {
            self.tables.evict(number);
            path
        });
        for path in tables.chain(free.files) {
            match self.env.fs.remove(&path) {
                Ok(()) => self.stats.files_removed.add(1),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    first_error.get_or_insert_with(|| Error::io("remove", &path, error));
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}
