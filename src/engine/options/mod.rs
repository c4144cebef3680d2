//! Options: what a caller may choose, what is derived from it, and the check of all of it before anything is touched.
//!
//! Few numbers are asked for; most follow from [`Options::memory_budget`] (`resolved`). [`Options::resolved`] prints
//! every value in force. Options of a keyspace that shape its files (`keyspace`) are stored in the database and win
//! over what a later open asks. The alternatives to choose from are in `choices`.

mod choices;
mod keyspace;
mod resolved;
mod write;

pub use choices::{
    CompactionStyle, Compression, Durability, FilterKind, ReadMode, SnapshotAgePolicy, VictimPolicy,
};
pub use keyspace::KeyspaceOptions;
pub(crate) use keyspace::{reserved, validate_keyspace};
pub use resolved::ResolvedOptions;
pub use write::{LockWait, WriteOptions};

use super::events::EventListener;
use crate::base::error::{Error, ErrorKind, Result};
use crate::env::Env;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Options of a database. Build with [`Options::new`], chain what you want changed, then [`Options::open`].
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = esker::Options::new().memory_budget(256 << 20).open(dir.path())?;
/// db.put("answer", "42")?;
/// assert_eq!(db.get("answer")?.unwrap(), "42");
/// # db.close()
/// # }
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) env: Option<Env>,
    pub(crate) create_if_missing: bool,
    pub(crate) memory_budget: u64,
    pub(crate) block_cache_bytes: Option<u64>,
    pub(crate) durability: Durability,
    pub(crate) sync_interval: Option<Duration>,
    pub(crate) wal_bytes_max: Option<u64>,
    pub(crate) wal_segment_bytes: Option<u64>,
    pub(crate) wal_mapped: bool,
    pub(crate) read_mode: ReadMode,
    pub(crate) background_threads: usize,
    pub(crate) stall_timeout: Duration,
    pub(crate) rate_limit: u64,
    pub(crate) max_open_files: usize,
    pub(crate) free_space_min: u64,
    pub(crate) prepared_bytes_max: Option<u64>,
    pub(crate) file_mode: u32,
    pub(crate) directory_mode: u32,
    pub(crate) max_snapshot_age: Option<Duration>,
    pub(crate) snapshot_age_policy: SnapshotAgePolicy,
    pub(crate) retention: Option<Duration>,
    pub(crate) lock_timeout: Duration,
    pub(crate) lock_bytes_max: Option<u64>,
    pub(crate) transaction_bytes_max: Option<u64>,
    pub(crate) transactions_bytes_max: Option<u64>,
    pub(crate) deadlock_victim: VictimPolicy,
    pub(crate) deadlock_reports: usize,
    pub(crate) listener: Option<Arc<dyn EventListener>>,
    pub(crate) keyspace: KeyspaceOptions,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("resolved", &self.resolved()).finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            env: None,
            create_if_missing: true,
            memory_budget: 512 * MIB,
            block_cache_bytes: None,
            durability: Durability::default(),
            sync_interval: None,
            wal_bytes_max: None,
            wal_segment_bytes: None,
            wal_mapped: true,
            read_mode: ReadMode::default(),
            background_threads: 2,
            stall_timeout: Duration::from_secs(30),
            rate_limit: 0,
            max_open_files: 1000,
            free_space_min: 16 * MIB,
            prepared_bytes_max: None,
            file_mode: 0o600,
            directory_mode: 0o700,
            max_snapshot_age: None,
            snapshot_age_policy: SnapshotAgePolicy::default(),
            retention: None,
            lock_timeout: Duration::from_secs(10),
            lock_bytes_max: None,
            transaction_bytes_max: None,
            transactions_bytes_max: None,
            deadlock_victim: VictimPolicy::default(),
            deadlock_reports: 16,
            listener: None,
            keyspace: KeyspaceOptions::default(),
        }
    }
}

impl Options {
    /// Safe defaults.
    pub fn new() -> Options {
        Options::default()
    }

    /// A preset for tests, with limits so small that hundreds of operations reach all of them: 16 KiB write buffers,
    /// 4 KiB tables, two runs in level 0, tiny log segments.
    pub fn tiny() -> Options {
        let keyspace = KeyspaceOptions::new()
            .write_buffer_bytes(16 << 10)
            .target_table_bytes(4 << 10)
            .level_base_bytes(16 << 10)
            .block_bytes(512)
            .restart_interval(4)
            .size_ratio(3)
            .l0_runs(2);
        Options {
            memory_budget: 2 * MIB,
            block_cache_bytes: Some(64 << 10),
            wal_bytes_max: Some(64 << 10),
            wal_segment_bytes: Some(16 << 10),
            max_open_files: 16,
            free_space_min: 0,
            keyspace,
            ..Options::default()
        }
    }

    /// The world the database lives in: files, clock, threads. Default: the operating system.
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Whether to create the database when the directory is missing or empty. Default: yes.
    pub fn create_if_missing(mut self, create: bool) -> Self {
        self.create_if_missing = create;
        self
    }

    /// Bytes of memory that caches and write buffers share, at least 1 MiB. Default 512 MiB. Half goes to the block
    /// cache, three eighths to write buffers, an eighth to indexes and filters of open tables. One write or batch may
    /// have half of the write buffers' share, or one write buffer if that is more: by default 96 MiB.
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.memory_budget = bytes;
        self
    }

    /// Bytes of the cache of decompressed blocks. Default: half of the memory budget.
    pub fn block_cache_bytes(mut self, bytes: u64) -> Self {
        self.block_cache_bytes = Some(bytes);
        self
    }

    /// Bytes of one write buffer (memtable) of the default keyspace, and of keyspaces that did not choose. Default:
    /// from the memory budget, at most 64 MiB. What was chosen when the database was created is kept for good; if
    /// nothing was, every open may choose.
    pub fn write_buffer_bytes(mut self, bytes: u64) -> Self {
        self.keyspace = self.keyspace.write_buffer_bytes(bytes);
        self
    }

    /// Settings of the default keyspace, used when the database is created; an existing one keeps its own.
    pub fn default_keyspace(mut self, options: KeyspaceOptions) -> Self {
        self.keyspace = options;
        self
    }

    /// Compression of the default keyspace. See [`KeyspaceOptions::compression`](KeyspaceOptions::compression()).
    /// Used when the database is created; an existing one keeps its own.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.keyspace = self.keyspace.compression(compression);
        self
    }

    /// Bits of filter per key in the default keyspace. See
    /// [`KeyspaceOptions::bloom_bits`](KeyspaceOptions::bloom_bits()). Used when the database is created; an existing
    /// one keeps its own.
    pub fn bloom_bits(mut self, bits: u32) -> Self {
        self.keyspace = self.keyspace.bloom_bits(bits);
        self
    }

    /// Filter of the default keyspace. See [`KeyspaceOptions::filter`](KeyspaceOptions::filter()).
    /// Used when the database is created; an existing one keeps its own.
    pub fn filter(mut self, filter: FilterKind) -> Self {
        self.keyspace = self.keyspace.filter(filter);
        self
    }

    /// Compaction style of the default keyspace. See
    /// [`KeyspaceOptions::compaction_style`](KeyspaceOptions::compaction_style()). Used when the database is created;
    /// an existing one keeps its own.
    pub fn compaction_style(mut self, style: CompactionStyle) -> Self {
        self.keyspace = self.keyspace.compaction_style(style);
        self
    }

    /// Durability of writes that do not choose their own. Default: [`Durability::Disk`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// With [`Durability::Os`]: sync the log at least this often while there is something to sync, which bounds what
    /// a power cut can take. Default: off.
    pub fn sync_interval(mut self, interval: Duration) -> Self {
        self.sync_interval = Some(interval);
        self
    }

    /// Bytes of log above which the keyspace that holds back the oldest segment is flushed, and the bound of what a
    /// recovery has to read. Default: four write buffers.
    pub fn wal_bytes_max(mut self, bytes: u64) -> Self {
        self.wal_bytes_max = Some(bytes);
        self
    }

    /// Bytes of one log segment. Default: a quarter of the write buffer, 1 MiB to 32 MiB.
    pub fn wal_segment_bytes(mut self, bytes: u64) -> Self {
        self.wal_segment_bytes = Some(bytes);
        self
    }

    /// Whether the log is written through a memory map where the file system allows it, without a system call per
    /// write. Default: yes. The durability is the same either way.
    pub fn wal_mapped(mut self, mapped: bool) -> Self {
        self.wal_mapped = mapped;
        self
    }

    /// How table blocks are read. Default: mapped.
    pub fn read_mode(mut self, mode: ReadMode) -> Self {
        self.read_mode = mode;
        self
    }

    /// Threads for flush and compaction; of several, one flushes only, and a single one flushes in the middle of a
    /// compaction. 0: none, queued work runs when [`Db::run_background_job`](crate::Db::run_background_job) is called
    /// or a write has to wait for it. Default 2.
    pub fn background_threads(mut self, threads: usize) -> Self {
        self.background_threads = threads;
        self
    }

    /// How long a write may wait for background work before it fails with `Stalled`. Default 30 s.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// Bytes a second that compaction may write; 0 for no limit. Default 0. Flushes are not limited.
    pub fn rate_limit(mut self, bytes_per_second: u64) -> Self {
        self.rate_limit = bytes_per_second;
        self
    }

    /// Table files held open at a time, at least 8. Default 1000.
    pub fn max_open_files(mut self, files: usize) -> Self {
        self.max_open_files = files;
        self
    }

    /// Free bytes of the file system below which compaction pauses, so that the last space is left to flushes.
    /// Default 16 MiB.
    pub fn free_space_min(mut self, bytes: u64) -> Self {
        self.free_space_min = bytes;
        self
    }

    /// Bytes of all prepared transactions together, as stored; a prepare beyond it fails with `LimitExceeded`. Default:
    /// an eighth of the memory budget, of which they take little: it bounds what may wait for a decision.
    pub fn prepared_bytes_max(mut self, bytes: u64) -> Self {
        self.prepared_bytes_max = Some(bytes);
        self
    }

    /// Permission bits of created files and directories on Unix. Default 0600 and 0700. Used with the default
    /// environment only.
    pub fn permissions(mut self, file_mode: u32, directory_mode: u32) -> Self {
        self.file_mode = file_mode;
        self.directory_mode = directory_mode;
        self
    }

    /// Age above which snapshots, iterators, cursors and transactions count as forgotten, since the versions they hold
    /// cannot be dropped; see [`snapshot_age_policy`](Options::snapshot_age_policy). An iterator over a snapshot is as
    /// old as the snapshot. Default: none.
    pub fn max_snapshot_age(mut self, age: Duration) -> Self {
        self.max_snapshot_age = Some(age);
        self
    }

    /// What becomes of readers older than [`max_snapshot_age`](Options::max_snapshot_age). Default:
    /// [`SnapshotAgePolicy::Warn`].
    ///
    /// ```
    /// # fn main() -> esker::Result<()> {
    /// use esker::{ErrorKind, Options, SnapshotAgePolicy};
    /// use std::time::Duration;
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Options::new()
    ///     .max_snapshot_age(Duration::from_millis(20))
    ///     .snapshot_age_policy(SnapshotAgePolicy::Fail)
    ///     .open(dir.path())?;
    /// let snapshot = db.snapshot();
    /// # std::thread::sleep(Duration::from_millis(30));
    /// // ... 30 ms later:
    /// assert_eq!(snapshot.get("k").unwrap_err().kind(), ErrorKind::SnapshotTooOld);
    /// # Ok(()) }
    /// ```
    pub fn snapshot_age_policy(mut self, policy: SnapshotAgePolicy) -> Self {
        self.snapshot_age_policy = policy;
        self
    }

    /// How long overwritten and deleted values stay readable through [`Db::snapshot_at`](crate::Db::snapshot_at) and
    /// [`Db::snapshot_at_time`](crate::Db::snapshot_at_time), by the calendar clock. They take space as long. Default:
    /// none; they go as soon as no reader needs them.
    ///
    /// The window begins when the database is first opened with retention, and goes on through reopening as long as
    /// every open asks for it. Keyspaces with [`CompactionStyle::Fifo`] drop their oldest tables nevertheless.
    pub fn retention(mut self, window: Duration) -> Self {
        self.retention = Some(window);
        self
    }

    /// The longest wait for a lock, where a transaction or write does not say otherwise. Default 10 s.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Memory for locks, and as much again for what SERIALIZABLE transactions have read. Beyond it locks are refused
    /// with `LimitExceeded`, and reads are remembered more coarsely. Default: an eighth of the budget.
    pub fn lock_bytes_max(mut self, bytes: u64) -> Self {
        self.lock_bytes_max = Some(bytes);
        self
    }

    /// Memory for the uncommitted writes of one transaction; more is refused with `LimitExceeded`, before any effect.
    /// Default: as much as a batch may have.
    pub fn transaction_bytes_max(mut self, bytes: u64) -> Self {
        self.transaction_bytes_max = Some(bytes);
        self
    }

    /// Memory for the uncommitted writes of all open transactions together. Default: a quarter of the budget.
    pub fn transactions_bytes_max(mut self, bytes: u64) -> Self {
        self.transactions_bytes_max = Some(bytes);
        self
    }

    /// Which member of a deadlock is rolled back. Default: the one that began last.
    pub fn deadlock_victim(mut self, policy: VictimPolicy) -> Self {
        self.deadlock_victim = policy;
        self
    }

    /// Reports of deadlocks that are kept for [`Db::deadlocks`](crate::Db::deadlocks). Default 16.
    pub fn deadlock_reports(mut self, count: usize) -> Self {
        self.deadlock_reports = count;
        self
    }

    /// Is told about flushes, compactions, stalls, damage and healing.
    pub fn listener(mut self, listener: Arc<dyn EventListener>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Checks everything and reports all problems at once.
    ///
    /// # Errors
    /// `InvalidArgument` with one line per problem.
    pub fn validate(&self) -> Result<()> {
        let mut problems = Vec::new();
        if self.memory_budget < MIB {
            problems.push(format!("memory_budget must be at least {MIB}, is {}", self.memory_budget));
        }
        if self.max_open_files < 8 {
            problems.push(format!("max_open_files must be at least 8, is {}", self.max_open_files));
        }
        if self.background_threads > 64 {
            problems.push(format!("background_threads must be at most 64, is {}", self.background_threads));
        }
        if let Some(bytes) = self.wal_segment_bytes.filter(|bytes| !(4096..=1 << 32).contains(bytes)) {
            problems.push(format!("wal_segment_bytes must be 4096 to 4294967296, is {bytes}"));
        }
        if self.sync_interval == Some(Duration::ZERO) {
            problems.push("sync_interval must not be zero; use Durability::Disk".to_string());
        }
        if self.max_snapshot_age == Some(Duration::ZERO) {
            problems.push("max_snapshot_age must not be zero".to_string());
        }
        if self.retention == Some(Duration::ZERO) {
            problems.push("retention must not be zero; leave it out for none".to_string());
        }
        self.keyspace.problems(&mut problems);
        report(problems)
    }
}

fn report(problems: Vec<String>) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidArgument, problems.join("\n")))
}
