//! A file being appended to: the writer, and around it what other threads may ask meanwhile.
//!
//! Errors stick. After a failed append nothing more is appended; after a failed sync every later sync fails too,
//! because the system reports a lost page once and then says all is well. The turn lock makes that hold between
//! threads: two syncs at once could otherwise split into one that sees the error and one that does not.

use std::fs::File;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::base::sync::{Mutex, Rank};
use crate::env::{AppendFile, AppendOptions};

use super::sys;
use super::writer::{Writer, length_changed};

/// Bytes between two rounds of writing back and forgetting, of a file that is to stay out of the page cache.
const FORGET_STEP_BYTES: u64 = 1024 * 1024;

/// Pages so far behind the end have most likely reached the device and can be forgotten without waiting for them.
const FORGET_LAG_BYTES: u64 = 8 * 1024 * 1024;

/// The first error of a kind, for those who come later.
struct Failure {
    kind: io::ErrorKind,
    message: String,
}

impl Failure {
    fn of(operation: &str, error: &io::Error) -> Failure {
        Failure {
            kind: error.kind(),
            message: format!("an earlier {operation} of this file failed: {error}"),
        }
    }

    fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.message.clone())
    }
}

/// Whether more can be appended.
enum State {
    Open,
    Failed(Failure),
    Finished,
}

struct Tail {
    writer: Writer,
    state: State,
    /// Up to where pages were asked to be forgotten.
    forgotten: u64,
}

/// See [`AppendFile`].
pub(super) struct OsAppendFile {
    file: File,
    uncached: bool,
    /// Length given at creation.
    reserved: u64,
    tail: Mutex<Tail>,
    /// Bytes appended, for those who do not hold the tail.
    len: AtomicU64,
    poisoned: AtomicBool,
    /// Up to where writing back was asked for.
    hinted: AtomicU64,
    /// Taken to sync; says whether the reserved length is durable.
    sync_turn: Mutex<bool>,
    sync_failure: OnceLock<Failure>,
}

impl OsAppendFile {
    /// Takes over a new, empty file.
    pub(super) fn new(file: File, options: AppendOptions) -> io::Result<OsAppendFile> {
        let writer = Writer::new(&file, options.preallocate, options.mapped)?;
        Ok(OsAppendFile {
            uncached: options.uncached && !writer.is_mapped(),
            reserved: writer.reserved(),
            file,
            tail: Mutex::new(Rank::Device, Tail { writer, state: State::Open, forgotten: 0 }),
            len: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
            hinted: AtomicU64::new(0),
            sync_turn: Mutex::new(Rank::Device, false),
            sync_failure: OnceLock::new(),
        })
    }

    /// Whether appends go through a mapped window at this moment.
    #[cfg(test)]
    pub(super) fn is_mapped(&self) -> bool {
        self.tail.lock().writer.is_mapped()
    }

    #[cold]
    fn append_failed(&self, tail: &mut Tail, error: io::Error) -> io::Error {
        self.poisoned.fetch_or(tail.writer.is_poisoned(), Ordering::Release);
        tail.state = State::Failed(Failure::of("append", &error));
        error
    }

    /// Lets go of the pages behind the end, once per step. Errors show at the next sync.
    fn forget_behind(&self, tail: &mut Tail) {
        let len = tail.writer.len();
        if len.saturating_sub(self.hinted.load(Ordering::Relaxed)) < FORGET_STEP_BYTES {
            return;
        }
        self.start_writeback();
        let bytes = len.saturating_sub(FORGET_LAG_BYTES).saturating_sub(tail.forgotten);
        if bytes >= FORGET_STEP_BYTES {
            sys::forget_pages(&self.file, tail.forgotten, bytes);
            tail.forgotten = tail.forgotten.saturating_add(bytes);
        }
    }

    fn check_unpoisoned(&self) -> io::Result<()> {
        if self.is_poisoned() {
            return Err(io::Error::other("a store into the file's mapped window failed earlier"));
        }
        Ok(())
    }

    fn sync_now(&self, is_length_durable: bool) -> io::Result<()> {
        self.check_unpoisoned()?;
        let len = self.len();
        // A length that was given by a reservation is what some kernels' fdatasync forgot (Linux before 4.11, ext4).
        match self.reserved > 0 && !is_length_durable {
            true => self.file.sync_all()?,
            false => self.file.sync_data()?,
        }
        // A file cut short by somebody else syncs happily.
        let found = self.file.metadata()?.len();
        if found < len {
            return Err(length_changed(len, found));
        }
        self.check_unpoisoned()
    }
}

impl AppendFile for OsAppendFile {
    #[inline]
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut tail = self.tail.lock();
        match &tail.state {
            State::Open => {}
            State::Failed(failure) => return Err(failure.error()),
            State::Finished => return Err(io::Error::other("append to a finished file")),
        }
        if let Some(failure) = self.sync_failure.get() {
            return Err(failure.error());
        }
        if let Err(error) = tail.writer.append(&self.file, bytes) {
            return Err(self.append_failed(&mut tail, error));
        }
        self.len.store(tail.writer.len(), Ordering::Release);
        if self.uncached {
            self.forget_behind(&mut tail);
        }
        Ok(())
    }

    #[inline]
    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn reserved(&self) -> u64 {
        self.reserved
    }

    fn sync(&self) -> io::Result<()> {
        let mut is_length_durable = self.sync_turn.lock();
        if let Some(failure) = self.sync_failure.get() {
            return Err(failure.error());
        }
        if let Err(error) = self.sync_now(*is_length_durable) {
            self.sync_failure.get_or_init(|| Failure::of("sync", &error));
            return Err(error);
        }
        *is_length_durable = true;
        // Somebody's hint may have met the error that this sync then no longer saw.
        if let Some(failure) = self.sync_failure.get() {
            return Err(failure.error());
        }
        if self.uncached {
            sys::forget_pages(&self.file, 0, 0);
        }
        Ok(())
    }

    fn start_writeback(&self) {
        // Not the page that is still being filled: it would go to the device twice.
        let whole_pages = self.len() & !(sys::page_bytes() as u64).wrapping_sub(1);
        let from = self.hinted.fetch_max(whole_pages, Ordering::Relaxed);
        let bytes = whole_pages.saturating_sub(from);
        if bytes == 0 {
            return;
        }
        if let Err(error) = sys::start_writeback(&self.file, from, bytes) {
            self.sync_failure.get_or_init(|| Failure::of("write-back", &error));
        }
    }

    #[inline]
    fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    fn finish(&self) -> io::Result<()> {
        let mut tail = self.tail.lock();
        let finished = tail.writer.finish(&self.file);
        if !matches!(tail.state, State::Failed(_)) {
            tail.state = State::Finished;
        }
        self.check_unpoisoned()?;
        finished
    }
}
