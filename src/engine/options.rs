//! Options: what a caller may choose, what is derived from it, and the check of all of it before anything is touched.
//!
//! Few numbers are asked for; most follow from [`Options::memory_budget`]. [`Options::resolved`] prints every value in
//! force. Options of a keyspace that shape its files are stored in the database and win over what a later open asks.

use super::events::EventListener;
use super::keyspace::is_reserved;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::types::KeyspaceId;
use crate::compaction::{Shape, Style};
use crate::env::Env;
use crate::manifest::{EditOp, KeyspaceSettings};
use crate::sstable::TableOptions;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// How safe a write is when the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Durability {
    /// Not logged: lost with the process, unless its memtable was flushed by then. Refused for batches that span
    /// keyspaces.
    Memory,
    /// Logged in the page cache: survives the process being killed; a power cut takes what was not yet synced.
    Os,
    /// Synced to the device before the call returns, together with all commits that wait for it at that moment.
    #[default]
    Disk,
}

/// How blocks of a table are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Stored as they are.
    None,
    /// LZ4 per block, kept where it saves at least an eighth.
    #[default]
    Lz4,
}

/// Which filter answers "this key is not in this table" without reading the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FilterKind {
    /// None.
    None,
    /// A classic Bloom filter (Bloom 1970): fewest false answers for its size, several cache misses a check.
    Standard,
    /// A Bloom filter whose bits for one key share a cache line (Putze, Sanders, Singler 2007): one miss a check.
    #[default]
    Blocked,
}

/// In which shape compaction keeps a keyspace's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CompactionStyle {
    /// Several runs in the upper levels, one in the last (Dostoevsky, Dayan and Idreos 2018): cheap writes, reads and
    /// space close to leveled.
    #[default]
    LazyLeveling,
    /// One run in every level: fewest runs to read, most rewriting.
    Leveled,
    /// Several runs in every level: least rewriting, most space.
    Tiered,
    /// No merging: the oldest tables are dropped above a size. For data that ages out, such as caches and logs.
    Fifo,
}

/// How table blocks come into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ReadMode {
    /// Copied out of a memory map, guarded against files that shrink or fail under it.
    #[default]
    Mmap,
    /// Read by system calls. Same results.
    Pread,
}

/// What becomes of readers (snapshots, iterators, cursors, transactions) older than
/// [`Options::max_snapshot_age`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SnapshotAgePolicy {
    /// The listener is told, once for each.
    #[default]
    Warn,
    /// As `Warn`, and they are given up: each of their reads fails with
    /// [`SnapshotTooOld`](crate::ErrorKind::SnapshotTooOld) from then on, and what they held may be dropped.
    Fail,
}

/// Settings of one keyspace, stored in the database when the keyspace is created. An existing keyspace keeps what it
/// was created with, whatever is asked for later.
///
/// Build with [`KeyspaceOptions::new`] and chain what you want changed; the fields are for reading, such as those of
/// [`Keyspace::options`](crate::Keyspace::options).
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = esker::Db::open(dir.path())?;
/// let logs = db.keyspace_with("logs", &esker::KeyspaceOptions::new().bloom_bits(0).block_bytes(16 << 10))?;
/// assert_eq!(logs.options().bloom_bits, 0);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyspaceOptions {
    /// See [`compression`](KeyspaceOptions::compression()).
    pub compression: Compression,
    /// See [`filter`](KeyspaceOptions::filter()).
    pub filter: FilterKind,
    /// See [`bloom_bits`](KeyspaceOptions::bloom_bits()).
    pub bloom_bits: u32,
    /// See [`block_bytes`](KeyspaceOptions::block_bytes()).
    pub block_bytes: u32,
    /// See [`restart_interval`](KeyspaceOptions::restart_interval()).
    pub restart_interval: u32,
    /// See [`compaction_style`](KeyspaceOptions::compaction_style()).
    pub compaction_style: CompactionStyle,
    /// See [`size_ratio`](KeyspaceOptions::size_ratio()).
    pub size_ratio: u32,
    /// See [`l0_runs`](KeyspaceOptions::l0_runs()).
    pub l0_runs: u32,
    /// See [`level_base_bytes`](KeyspaceOptions::level_base_bytes()).
    pub level_base_bytes: u64,
    /// See [`target_table_bytes`](KeyspaceOptions::target_table_bytes()).
    pub target_table_bytes: u64,
    /// See [`fifo_bytes_max`](KeyspaceOptions::fifo_bytes_max()).
    pub fifo_bytes_max: u64,
    /// See [`write_buffer_bytes`](KeyspaceOptions::write_buffer_bytes()). 0: not chosen, every open takes that of the
    /// database, [`ResolvedOptions::write_buffer_bytes`].
    pub write_buffer_bytes: u64,
}

impl Default for KeyspaceOptions {
    fn default() -> Self {
        KeyspaceOptions {
            compression: Compression::default(),
            filter: FilterKind::default(),
            bloom_bits: 10,
            block_bytes: 4096,
            restart_interval: 16,
            compaction_style: CompactionStyle::default(),
            size_ratio: 8,
            l0_runs: 4,
            level_base_bytes: 256 * MIB,
            target_table_bytes: 64 * MIB,
            fifo_bytes_max: 0,
            write_buffer_bytes: 0,
        }
    }
}

impl KeyspaceOptions {
    /// The defaults.
    pub fn new() -> KeyspaceOptions {
        KeyspaceOptions::default()
    }

    /// Compression of data blocks. Default: LZ4.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Kind of filter. Default: blocked.
    pub fn filter(mut self, filter: FilterKind) -> Self {
        self.filter = filter;
        self
    }

    /// Bits of filter per key, 0 (no filter) to 64. Default 10, about 1 % false answers.
    pub fn bloom_bits(mut self, bits: u32) -> Self {
        self.bloom_bits = bits;
        self
    }

    /// Uncompressed bytes of a data block, 256 to 1 MiB. Default 4096. Larger blocks compress better and cost more
    /// per point read.
    pub fn block_bytes(mut self, bytes: u32) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// Entries between keys stored whole, 1 to 1024. Default 16.
    pub fn restart_interval(mut self, entries: u32) -> Self {
        self.restart_interval = entries;
        self
    }

    /// Compaction style. Default: lazy leveling.
    pub fn compaction_style(mut self, style: CompactionStyle) -> Self {
        self.compaction_style = style;
        self
    }

    /// How many times larger a level is than the one above, 2 to 100. Default 8.
    pub fn size_ratio(mut self, ratio: u32) -> Self {
        self.size_ratio = ratio;
        self
    }

    /// Runs in level 0 that start a compaction, 1 to 64. Default 4.
    pub fn l0_runs(mut self, runs: u32) -> Self {
        self.l0_runs = runs;
        self
    }

    /// Bytes that the first level below level 0 holds before it counts as full. Default 256 MiB.
    pub fn level_base_bytes(mut self, bytes: u64) -> Self {
        self.level_base_bytes = bytes;
        self
    }

    /// Bytes at which compaction starts a new output table. Default 64 MiB.
    pub fn target_table_bytes(mut self, bytes: u64) -> Self {
        self.target_table_bytes = bytes;
        self
    }

    /// With [`CompactionStyle::Fifo`]: bytes above which the oldest tables are dropped; 0 for never. Default 0.
    pub fn fifo_bytes_max(mut self, bytes: u64) -> Self {
        self.fifo_bytes_max = bytes;
        self
    }

    /// Bytes of memory in which writes gather before they are flushed into a table. Default, or 0: that of the
    /// database at each open, from the memory budget and at most 64 MiB; any other value is kept for good.
    pub fn write_buffer_bytes(mut self, bytes: u64) -> Self {
        self.write_buffer_bytes = bytes;
        self
    }

    fn problems(&self, problems: &mut Vec<String>) {
        let mut range = |name: &str, value: u64, low: u64, high: u64| {
            if value < low || value > high {
                problems.push(format!("{name} must be {low} to {high}, is {value}"));
            }
        };
        range("bloom_bits", u64::from(self.bloom_bits), 0, 64);
        range("block_bytes", u64::from(self.block_bytes), 256, MIB);
        range("restart_interval", u64::from(self.restart_interval), 1, 1024);
        range("size_ratio", u64::from(self.size_ratio), 2, 100);
        range("l0_runs", u64::from(self.l0_runs), 1, 64);
        range("level_base_bytes", self.level_base_bytes, 1024, 1 << 50);
        range("target_table_bytes", self.target_table_bytes, 1024, 1 << 40);
        if self.write_buffer_bytes != 0 {
            range("write_buffer_bytes", self.write_buffer_bytes, 1024, 1 << 40);
        }
    }

    pub(crate) fn to_settings(&self) -> KeyspaceSettings {
        KeyspaceSettings {
            compaction: match self.compaction_style {
                CompactionStyle::LazyLeveling => 0,
                CompactionStyle::Leveled => 1,
                CompactionStyle::Tiered => 2,
                CompactionStyle::Fifo => 3,
            },
            compression: match self.compression {
                Compression::None => 0,
                Compression::Lz4 => 1,
            },
            filter: match self.filter {
                FilterKind::None => 0,
                FilterKind::Standard => 1,
                FilterKind::Blocked => 2,
            },
            bits_per_key: self.bloom_bits,
            block_bytes: self.block_bytes,
            restart_interval: self.restart_interval,
            write_buffer_bytes: self.write_buffer_bytes,
            target_table_bytes: self.target_table_bytes,
            size_ratio: self.size_ratio,
            l0_runs: self.l0_runs,
            fifo_bytes_max: self.fifo_bytes_max,
            level_base_bytes: self.level_base_bytes,
        }
    }

    /// What a stored record means; an error when a later version wrote it.
    pub(crate) fn from_settings(settings: &KeyspaceSettings) -> Result<KeyspaceOptions> {
        let unknown = |what: &str, byte: u8| {
            Err(Error::new(
                ErrorKind::VersionUnsupported,
                format!("a keyspace uses {what} {byte}, unknown to this version"),
            ))
        };
        Ok(KeyspaceOptions {
            compaction_style: match settings.compaction {
                0 => CompactionStyle::LazyLeveling,
                1 => CompactionStyle::Leveled,
                2 => CompactionStyle::Tiered,
                3 => CompactionStyle::Fifo,
                other => return unknown("compaction style", other),
            },
            compression: match settings.compression {
                0 => Compression::None,
                1 => Compression::Lz4,
                other => return unknown("compression", other),
            },
            filter: match settings.filter {
                0 => FilterKind::None,
                1 => FilterKind::Standard,
                2 => FilterKind::Blocked,
                other => return unknown("filter kind", other),
            },
            bloom_bits: settings.bits_per_key,
            block_bytes: settings.block_bytes,
            restart_interval: settings.restart_interval,
            size_ratio: settings.size_ratio,
            l0_runs: settings.l0_runs,
            level_base_bytes: settings.level_base_bytes,
            target_table_bytes: settings.target_table_bytes,
            fifo_bytes_max: settings.fifo_bytes_max,
            write_buffer_bytes: settings.write_buffer_bytes,
        })
    }

    pub(crate) fn table_options(&self) -> TableOptions {
        TableOptions {
            block_bytes: self.block_bytes as usize,
            restart_interval: self.restart_interval as usize,
            compression: match self.compression {
                Compression::None => crate::sstable::Compression::None,
                Compression::Lz4 => crate::sstable::Compression::Lz4,
            },
            filter: match self.filter {
                _ if self.bloom_bits == 0 => crate::sstable::FilterKind::None,
                FilterKind::None => crate::sstable::FilterKind::None,
                FilterKind::Standard => crate::sstable::FilterKind::Standard,
                FilterKind::Blocked => crate::sstable::FilterKind::Blocked,
            },
            bits_per_key: self.bloom_bits,
            index_block_bytes: 1 << 20,
        }
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape {
            style: match self.compaction_style {
                CompactionStyle::LazyLeveling => Style::LazyLeveling,
                CompactionStyle::Leveled => Style::Leveled,
                CompactionStyle::Tiered => Style::Tiered,
                CompactionStyle::Fifo => Style::Fifo,
            },
            size_ratio: self.size_ratio,
            l0_runs: self.l0_runs,
            level_base_bytes: self.level_base_bytes,
            target_table_bytes: self.target_table_bytes,
            max_compaction_bytes: self.target_table_bytes.saturating_mul(25),
            fifo_bytes_max: self.fifo_bytes_max,
        }
    }

    pub(crate) fn creation(&self, id: KeyspaceId, name: &str) -> EditOp {
        EditOp::CreateKeyspace { id, name: name.to_string(), settings: self.to_settings() }
    }
}

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

    /// Bits of filter per key in the default keyspace. See [`KeyspaceOptions::bloom_bits`](KeyspaceOptions::bloom_bits()).
    /// Used when the database is created; an existing one keeps its own.
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

    /// Compaction style of the default keyspace. See [`KeyspaceOptions::compaction_style`](KeyspaceOptions::compaction_style()).
    /// Used when the database is created; an existing one keeps its own.
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

    /// Threads for flush and compaction; one of them flushes only. 0: none, queued work runs when
    /// [`Db::run_background_job`](crate::Db::run_background_job) is called or a write has to wait for it. Default 2.
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

    /// Every value that creating a database with these options puts in force, the derived ones included. For those in
    /// force in an open one see [`Db::options`](crate::Db::options).
    pub fn resolved(&self) -> ResolvedOptions {
        let write_buffers = self.memory_budget.saturating_mul(3) / 8;
        let write_buffer_bytes = match self.keyspace.write_buffer_bytes {
            0 => (write_buffers / 3).clamp(64 << 10, 64 * MIB),
            bytes => bytes,
        };
        let batch_bytes_max = (write_buffers / 2).max(write_buffer_bytes);
        ResolvedOptions {
            memory_budget: self.memory_budget,
            block_cache_bytes: self.block_cache_bytes.unwrap_or(self.memory_budget / 2),
            table_cache_bytes: self.memory_budget / 8,
            write_buffer_bytes,
            write_buffers_bytes_max: write_buffers.max(write_buffer_bytes.saturating_mul(3)),
            batch_bytes_max,
            wal_bytes_max: self.wal_bytes_max.unwrap_or(write_buffer_bytes.saturating_mul(4)),
            wal_segment_bytes: self
                .wal_segment_bytes
                .unwrap_or((write_buffer_bytes / 4).clamp(MIB, 32 * MIB)),
            wal_mapped: self.wal_mapped,
            durability: self.durability,
            sync_interval: self.sync_interval,
            read_mode: self.read_mode,
            background_threads: self.background_threads,
            stall_timeout: self.stall_timeout,
            rate_limit: self.rate_limit,
            max_open_files: self.max_open_files,
            free_space_min: self.free_space_min,
            max_snapshot_age: self.max_snapshot_age,
            snapshot_age_policy: self.snapshot_age_policy,
            retention: self.retention,
            lock_timeout: self.lock_timeout,
            lock_bytes_max: self.lock_bytes_max.unwrap_or(self.memory_budget / 8),
            transaction_bytes_max: self.transaction_bytes_max.unwrap_or(batch_bytes_max),
            transactions_bytes_max: self
                .transactions_bytes_max
                .unwrap_or((self.memory_budget / 4).max(batch_bytes_max)),
            prepared_bytes_max: self.prepared_bytes_max.unwrap_or(self.memory_budget / 8),
            deadlock_victim: self.deadlock_victim,
            deadlock_reports: self.deadlock_reports,
        }
    }
}

impl Options {
    /// What is in force in a database whose default keyspace has these stored options.
    pub(crate) fn resolved_with(&self, stored: &KeyspaceOptions) -> ResolvedOptions {
        match stored.write_buffer_bytes {
            // Not chosen when the database was created: every open may.
            0 => self.resolved(),
            bytes => self.clone().write_buffer_bytes(bytes).resolved(),
        }
    }
}

/// The values in force after derivation. `Display` prints one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResolvedOptions {
    /// See [`Options::memory_budget`].
    pub memory_budget: u64,
    /// See [`Options::block_cache_bytes`].
    pub block_cache_bytes: u64,
    /// Bytes of indexes and filters of open tables.
    pub table_cache_bytes: u64,
    /// See [`Options::write_buffer_bytes`].
    pub write_buffer_bytes: u64,
    /// Bytes of all write buffers, full and filling, above which writes wait for a flush.
    pub write_buffers_bytes_max: u64,
    /// Largest write or batch, in encoded bytes. See [`Options::memory_budget`].
    pub batch_bytes_max: u64,
    /// See [`Options::wal_bytes_max`].
    pub wal_bytes_max: u64,
    /// See [`Options::wal_segment_bytes`].
    pub wal_segment_bytes: u64,
    /// See [`Options::wal_mapped`].
    pub wal_mapped: bool,
    /// See [`Options::durability`].
    pub durability: Durability,
    /// See [`Options::sync_interval`].
    pub sync_interval: Option<Duration>,
    /// See [`Options::read_mode`].
    pub read_mode: ReadMode,
    /// See [`Options::background_threads`].
    pub background_threads: usize,
    /// See [`Options::stall_timeout`].
    pub stall_timeout: Duration,
    /// See [`Options::rate_limit`].
    pub rate_limit: u64,
    /// See [`Options::max_open_files`].
    pub max_open_files: usize,
    /// See [`Options::free_space_min`].
    pub free_space_min: u64,
    /// See [`Options::max_snapshot_age`].
    pub max_snapshot_age: Option<Duration>,
    /// See [`Options::snapshot_age_policy`].
    pub snapshot_age_policy: SnapshotAgePolicy,
    /// See [`Options::retention`].
    pub retention: Option<Duration>,
    /// See [`Options::lock_timeout`].
    pub lock_timeout: Duration,
    /// See [`Options::lock_bytes_max`].
    pub lock_bytes_max: u64,
    /// See [`Options::transaction_bytes_max`].
    pub transaction_bytes_max: u64,
    /// See [`Options::transactions_bytes_max`].
    pub transactions_bytes_max: u64,
    /// See [`Options::prepared_bytes_max`].
    pub prepared_bytes_max: u64,
    /// See [`Options::deadlock_victim`].
    pub deadlock_victim: VictimPolicy,
    /// See [`Options::deadlock_reports`].
    pub deadlock_reports: usize,
}

impl ResolvedOptions {
    /// Refuses a write or batch of more bytes than one may have.
    pub(crate) fn check_batch(&self, bytes: u64) -> Result<()> {
        let limit = self.batch_bytes_max;
        if bytes <= limit {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::LimitExceeded,
            format!(
                "a write or batch may take {limit} bytes here, and this one takes {bytes}: raise \
                 Options::memory_budget, of which it may take 3/16, or split the batch"
            ),
        ))
    }
}

impl fmt::Display for ResolvedOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "memory_budget            {}", self.memory_budget)?;
        writeln!(f, "block_cache_bytes        {}", self.block_cache_bytes)?;
        writeln!(f, "table_cache_bytes        {}", self.table_cache_bytes)?;
        writeln!(f, "write_buffer_bytes       {}", self.write_buffer_bytes)?;
        writeln!(f, "write_buffers_bytes_max  {}", self.write_buffers_bytes_max)?;
        writeln!(f, "batch_bytes_max          {}", self.batch_bytes_max)?;
        writeln!(f, "wal_bytes_max            {}", self.wal_bytes_max)?;
        writeln!(f, "wal_segment_bytes        {}", self.wal_segment_bytes)?;
        writeln!(f, "wal_mapped               {}", self.wal_mapped)?;
        writeln!(f, "durability               {:?}", self.durability)?;
        writeln!(f, "sync_interval            {:?}", self.sync_interval)?;
        writeln!(f, "read_mode                {:?}", self.read_mode)?;
        writeln!(f, "background_threads       {}", self.background_threads)?;
        writeln!(f, "stall_timeout            {:?}", self.stall_timeout)?;
        writeln!(f, "rate_limit               {}", self.rate_limit)?;
        writeln!(f, "max_open_files           {}", self.max_open_files)?;
        writeln!(f, "free_space_min           {}", self.free_space_min)?;
        writeln!(f, "max_snapshot_age         {:?}", self.max_snapshot_age)?;
        writeln!(f, "snapshot_age_policy      {:?}", self.snapshot_age_policy)?;
        writeln!(f, "retention                {:?}", self.retention)?;
        writeln!(f, "lock_timeout             {:?}", self.lock_timeout)?;
        writeln!(f, "lock_bytes_max           {}", self.lock_bytes_max)?;
        writeln!(f, "transaction_bytes_max    {}", self.transaction_bytes_max)?;
        writeln!(f, "transactions_bytes_max   {}", self.transactions_bytes_max)?;
        writeln!(f, "deadlock_victim          {:?}", self.deadlock_victim)?;
        writeln!(f, "prepared_bytes_max       {}", self.prepared_bytes_max)?;
        write!(f, "deadlock_reports         {}", self.deadlock_reports)
    }
}

/// Choices of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteOptions {
    pub(crate) durability: Option<Durability>,
    pub(crate) lock_wait: LockWait,
}

impl WriteOptions {
    /// The database's defaults.
    pub fn new() -> WriteOptions {
        WriteOptions::default()
    }

    /// Durability of this write.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// What a write outside of transactions does when a transaction holds the lock of its key. Default: wait as long
    /// as [`Options::lock_timeout`].
    pub fn lock_wait(mut self, wait: LockWait) -> Self {
        self.lock_wait = wait;
        self
    }
}

/// What to do when a lock is held by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LockWait {
    /// Wait as long as [`Options::lock_timeout`](crate::Options::lock_timeout) says.
    #[default]
    Default,
    /// Do not wait: `LockTimeout` at once.
    NoWait,
    /// Wait at most this long, then `LockTimeout`.
    Timeout(Duration),
}

/// Which member of a deadlock is rolled back. A lower [`priority`](crate::TransactionOptions::priority) goes first,
/// whatever the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum VictimPolicy {
    /// The one that began last: it has done the least.
    #[default]
    Youngest,
    /// The one that has written the fewest keys.
    FewestWrites,
    /// The one whose request closed the cycle.
    Requester,
}

/// Checks the settings of a keyspace and the name that a user gives it.
pub(crate) fn validate_keyspace(name: &str, options: &KeyspaceOptions) -> Result<()> {
    let mut problems = Vec::new();
    if name.is_empty() || name.len() > 255 {
        problems.push(format!("a keyspace name has 1 to 255 bytes, this one has {}", name.len()));
    }
    if is_reserved(name) {
        problems.push(reserved(name));
    }
    options.problems(&mut problems);
    report(problems.into_iter().map(|problem| format!("keyspace {name:?}: {problem}")).collect())
}

/// What is wrong with a reserved name.
pub(crate) fn reserved(name: &str) -> String {
    format!("names of keyspaces that begin with \\0 are reserved: {name:?}")
}

fn report(problems: Vec<String>) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidArgument, problems.join("\n")))
}
