//! The only door to the outside: files, time, threads, randomness.
//!
//! The engine reaches the operating system through an [`Env`] and through nothing else, so that the same code runs
//! on a real disk, in memory with simulated crashes, and under injected faults. Directory durability is explicit
//! ([`Fs::sync_dir`]), listings are sorted, and files are written once from front to back.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod fault;
mod mem;
mod os;
mod sim;

pub use fault::{Fault, FaultFs, FaultRule, Op, OpSet, When};
pub use mem::{CrashMode, HandleKind, MemFs, OpenHandle};
pub use os::{OsClock, OsFs, OsSpawner};
pub use sim::{SimClock, SimSpawner};

/// The outside world of one database.
#[derive(Clone)]
pub struct Env {
    /// Files.
    pub fs: Arc<dyn Fs>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Threads.
    pub spawner: Arc<dyn Spawner>,
    /// Seed of everything random: database ids, jitter. `None` takes it from the system.
    pub seed: Option<u64>,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Env {
    /// A number to start random sequences from: the seed, or one that differs from process to process.
    pub(crate) fn entropy(&self) -> u64 {
        // The standard library seeds each of these from the system.
        self.seed.unwrap_or_else(|| RandomState::new().hash_one(self.clock.unix_micros()))
    }
}

/// How a file for appending is created.
#[derive(Debug, Clone, Copy, Default)]
pub struct AppendOptions {
    /// Bytes to reserve on disk ahead of writing; 0 for none. The file's logical length stays 0.
    pub preallocate: u64,
    /// Write through a mapped window instead of a system call per append, where the file system allows it.
    pub mapped: bool,
    /// Keep the written pages out of the page cache where the system can (compaction output).
    pub uncached: bool,
}

/// What a listing says of one entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// File name without directory.
    pub name: String,
    /// Length in bytes (of a preallocated segment: with the reserved tail); 0 for a directory.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// A file system. All paths are as the engine was given them (absolute, or relative to the working directory).
pub trait Fs: Send + Sync {
    /// Creates a new file for appending. Fails with `AlreadyExists` if the name is taken.
    ///
    /// The file is readable by its owner only unless the file system was built otherwise.
    fn create(&self, path: &Path, options: AppendOptions) -> io::Result<Arc<dyn AppendFile>>;

    /// Opens an existing file for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>>;

    /// Creates a directory (owner-only) and those above it; no error if it exists. Answers the path of the topmost
    /// directory that already existed, whose listing changed if anything was created.
    fn create_dir_all(&self, path: &Path) -> io::Result<PathBuf>;

    /// Whether something of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Entries of a directory, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Gives a file another name, replacing what had it. Durable only after `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable only after `sync_dir`. Open files stay readable.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the entries of a directory durable: creations, renames, removals.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes the content of an existing file durable, whoever wrote it.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Asks the system to forget cached pages of a file, so that the next read comes from the device. Best effort.
    fn drop_cache(&self, path: &Path);

    /// Bytes that can still be written under this directory.
    fn free_space(&self, dir: &Path) -> io::Result<u64>;

    /// Takes an exclusive lock on a file, creating it if needed. Fails at once with `WouldBlock` if another process
    /// or another handle of this one holds it. The lock ends when the value is dropped.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>>;
}

/// A held lock on a file.
pub trait FileLock: Send + Sync + fmt::Debug {
    /// Whether the lock file is still the one that was locked (nobody removed or replaced it).
    fn is_intact(&self) -> bool;
}

/// A file being written, from front to back.
///
/// `append` is called by one thread at a time; `sync` may run on another thread meanwhile.
pub trait AppendFile: Send + Sync {
    /// Adds bytes at the end. After an error the file's tail is undefined and must not be appended to again.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Bytes appended so far.
    fn len(&self) -> u64;

    /// Whether nothing was appended yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes durable everything whose `append` returned before this call began. Does not cover the directory
    /// entry. After an error nothing may be assumed of the file, and a later success does not repair it.
    fn sync(&self) -> io::Result<()>;

    /// Length that the file was given when it was created; 0 if nothing was reserved. From the first successful sync
    /// on the file is at least so long, whatever crashes, until [`finish`](Self::finish) cuts it.
    fn reserved(&self) -> u64 {
        0
    }

    /// Starts writing appended bytes to the device without waiting. A hint.
    fn start_writeback(&self) {}

    /// Whether a store into the file's mapped window failed; then nothing appended may be acknowledged.
    fn is_poisoned(&self) -> bool {
        false
    }

    /// Gives back the reserved tail and checks that the file has exactly the appended length.
    fn finish(&self) -> io::Result<()>;
}

/// A file being read, at any position, by any number of threads.
pub trait ReadFile: Send + Sync {
    /// Length in bytes, asked of the system now.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills the buffer from this offset; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// A buffer of this many zeros to read into, made as the system likes it best for its size.
    fn buffer(&self, len: usize) -> Arc<[u8]> {
        std::iter::repeat_n(0u8, len).collect()
    }

    /// Like `read_exact_at`, leaving the page cache as it was where the system can: for compaction and scans.
    fn read_exact_at_uncached(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(offset, buf)
    }

    /// Maps the first `len` bytes for reading.
    fn map(&self, len: u64) -> io::Result<Arc<dyn MappedFile>>;
}

/// A file mapped for reading. Bytes are copied out, never lent: they can change or vanish under a reference.
pub trait MappedFile: Send + Sync {
    /// Copies bytes from this offset into the buffer. A page that cannot be read (truncated file, media error) is
    /// an error, once and for all later calls on this mapping.
    fn copy_out(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// Time, only ever used for pacing and reporting, never for correctness.
pub trait Clock: Send + Sync {
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;

    /// Waits. In simulation, moves the clock.
    fn sleep(&self, duration: Duration);

    /// Microseconds since the Unix epoch, for information fields; may jump.
    fn unix_micros(&self) -> u64;
}

/// Where background work runs.
pub trait Spawner: Send + Sync {
    /// Starts a thread with this name, or `None` if this world has no threads: then queued work runs on the thread
    /// of whoever waits for it, one job at a time.
    fn spawn(&self, name: String, body: Box<dyn FnOnce() + Send>) -> io::Result<Option<Box<dyn JoinHandle>>>;
}

/// A started thread.
pub trait JoinHandle: Send + Sync {
    /// Waits for its end. An error means that it panicked.
    fn join(self: Box<Self>) -> Result<(), String>;
}
