//! Statistics: counters that cost next to nothing to keep, summed up when asked for, as a struct and as text.

use super::core::Core;
use super::keyspace::SYSTEM_NAME;
use crate::base::error::Result;
use crate::base::metrics::{Counter, Histogram};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// What the engine counts as it goes.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: Counter,
    pub(crate) gets: Counter,
    pub(crate) cursors: Counter,
    pub(crate) entries_skipped: Counter,
    pub(crate) bytes_written_user: Counter,
    pub(crate) flushes: Counter,
    pub(crate) bytes_flushed: Counter,
    pub(crate) compactions: Counter,
    pub(crate) bytes_compacted_in: Counter,
    pub(crate) bytes_compacted_out: Counter,
    pub(crate) entries_dropped: Counter,
    pub(crate) files_removed: Counter,
    pub(crate) stall_micros: Counter,
    pub(crate) wal_bytes_dropped: Counter,
    pub(crate) get_nanos: Histogram,
    pub(crate) write_nanos: Histogram,
    /// Syncs at the last look whether the log is idle.
    pub(crate) seen_syncs: AtomicU64,
}

/// One operation in this many is timed.
const SAMPLE_EVERY: u32 = 64;

thread_local! {
    static OPERATION: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Whether this operation is one of those that are timed.
#[inline]
fn is_sampled() -> bool {
    OPERATION.with(|count| {
        let next = count.get().wrapping_add(1);
        count.set(next);
        next % SAMPLE_EVERY == 0
    })
}

impl Core {
    /// Counts a read and times a sample of them.
    #[inline]
    pub(crate) fn timed_get<T>(&self, get: impl FnOnce() -> Result<T>) -> Result<T> {
        self.stats.gets.add(1);
        self.timed(&self.stats.get_nanos, get)
    }

    /// Times a sample of writes.
    #[inline]
    pub(crate) fn timed_write<T>(&self, write: impl FnOnce() -> Result<T>) -> Result<T> {
        self.timed(&self.stats.write_nanos, write)
    }

    #[inline]
    fn timed<T>(&self, histogram: &Histogram, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if !is_sampled() {
            return work();
        }
        let start = self.env.clock.now();
        let result = work();
        let took = self.env.clock.now().saturating_sub(start);
        histogram.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        result
    }

    /// Everything at once.
    pub(crate) fn statistics(&self) -> Stats {
        let keyspaces = self.shown_keyspaces();
        let system = self.keyspace_named(SYSTEM_NAME);
        let (memtable_bytes, wal_bytes) = {
            let commit = self.commit.lock();
            (self.memtable_bytes_locked(&commit), commit.log.live_bytes())
        };
        let (readers, oldest_reader_seq) = self.registry.summary();
        let counters = &self.stats;
        let blocks = self.tables.blocks();
        Stats {
            keyspaces: keyspaces.iter().map(|keyspace| KeyspaceStats::of(keyspace)).collect(),
            system: system
                .map(|keyspace| KeyspaceStats { name: "(system)".into(), ..KeyspaceStats::of(&keyspace) }),
            commits: counters.commits.get(),
            gets: counters.gets.get(),
            cursors: counters.cursors.get(),
            entries_skipped: counters.entries_skipped.get(),
            bytes_written_user: counters.bytes_written_user.get(),
            flushes: counters.flushes.get(),
            bytes_flushed: counters.bytes_flushed.get(),
            compactions: counters.compactions.get(),
            bytes_compacted_in: counters.bytes_compacted_in.get(),
            bytes_compacted_out: counters.bytes_compacted_out.get(),
            entries_dropped: counters.entries_dropped.get(),
            files_removed: counters.files_removed.get(),
            stall: Duration::from_micros(counters.stall_micros.get()),
            stall_reason: self.stall.reason().map(super::stall::Reason::text),
            wal_bytes,
            wal_bytes_dropped: counters.wal_bytes_dropped.get(),
            wal_syncs: self.pipeline.syncs(),
            memtable_bytes,
            block_cache_bytes: blocks.used_bytes(),
            block_cache_hits: blocks.hits(),
            block_cache_misses: blocks.misses(),
            table_cache_bytes: self.tables.memory_bytes(),
            open_tables: self.tables.len() as u64,
            readers: readers as u64,
            oldest_reader_seq,
            latest_seq: self.pipeline.visible(),
            durable_seq: self.pipeline.durable(),
            get: Latency::of(&counters.get_nanos),
            write: Latency::of(&counters.write_nanos),
        }
    }
}

/// Percentiles of a sample of operations (one in 64), in nanoseconds; each is an upper bound within 7 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Latency {
    /// Operations timed.
    pub samples: u64,
    /// Half of them took at most this.
    pub p50: u64,
    /// 99 % took at most this.
    pub p99: u64,
    /// 99.9 % took at most this.
    pub p999: u64,
    /// All took at most this.
    pub max: u64,
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { samples, p50, p99, p999, max } = self;
        if *samples == 0 {
            return write!(f, "too few to time (1 in {SAMPLE_EVERY} is)");
        }
        write!(f, "p50 {p50}  p99 {p99}  p99.9 {p999}  max {max}  ({samples} samples)")
    }
}

impl Latency {
    fn of(histogram: &Histogram) -> Latency {
        let counts = histogram.snapshot();
        Latency {
            samples: counts.total(),
            p50: counts.quantile(0.5),
            p99: counts.quantile(0.99),
            p999: counts.quantile(0.999),
            max: counts.quantile(1.0),
        }
    }
}

/// Tables of one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelStats {
    /// Level, 0 is the newest.
    pub level: usize,
    /// Sorted runs.
    pub runs: usize,
    /// Tables.
    pub tables: usize,
    /// Bytes on disk.
    pub bytes: u64,
    /// Entries, shadowed versions and tombstones included.
    pub entries: u64,
}

/// State of one keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyspaceStats {
    /// Name.
    pub name: String,
    /// Levels that hold tables.
    pub levels: Vec<LevelStats>,
    /// Bytes of keys and values in the tables, before compression, shadowed versions included.
    pub raw_bytes: u64,
    /// Memtables waiting for a flush.
    pub memtables_waiting: usize,
    /// Sources that a read may have to look at: memtables and runs.
    pub read_amplification: usize,
}

impl KeyspaceStats {
    fn of(keyspace: &super::keyspace::KeyspaceCore) -> KeyspaceStats {
        let view = keyspace.view();
        let levels: Vec<_> = view
            .tree
            .levels
            .iter()
            .enumerate()
            .filter(|(_, level)| !level.runs.is_empty())
            .map(|(index, level)| LevelStats {
                level: index,
                runs: level.runs.len(),
                tables: level.runs.iter().map(|run| run.tables.len()).sum(),
                bytes: level.runs.iter().map(|run| run.bytes()).sum(),
                entries: level.runs.iter().map(|run| run.entries()).sum(),
            })
            .collect();
        let runs: usize = levels.iter().map(|level| level.runs).sum();
        KeyspaceStats {
            name: keyspace.name.clone(),
            raw_bytes: view.tree.tables().map(|table| table.raw_bytes).sum(),
            memtables_waiting: view.frozen.len(),
            read_amplification: runs.saturating_add(view.frozen.len()).saturating_add(1),
            levels,
        }
    }

    /// Bytes of all tables.
    pub fn bytes(&self) -> u64 {
        self.levels.iter().map(|level| level.bytes).sum()
    }

    /// Bytes of all tables over bytes of the deepest level, which holds each key about once.
    pub fn space_amplification(&self) -> f64 {
        let deepest = self.levels.last().map_or(0, |level| level.bytes);
        if deepest == 0 { 1.0 } else { self.bytes() as f64 / deepest as f64 }
    }
}

/// A picture of the engine at one moment. `Display` gives readable text.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stats {
    /// Keyspaces, in order of creation.
    pub keyspaces: Vec<KeyspaceStats>,
    /// The hidden keyspace of sessions and prepared transactions, once there is one.
    pub system: Option<KeyspaceStats>,
    /// Commits since the open.
    pub commits: u64,
    /// Point reads since the open.
    pub gets: u64,
    /// Cursors made since the open.
    pub cursors: u64,
    /// Versions and tombstones that cursors stepped over.
    pub entries_skipped: u64,
    /// Encoded bytes of all commits.
    pub bytes_written_user: u64,
    /// Flushes.
    pub flushes: u64,
    /// Bytes of tables that flushes wrote.
    pub bytes_flushed: u64,
    /// Compactions.
    pub compactions: u64,
    /// Bytes of tables that compactions read.
    pub bytes_compacted_in: u64,
    /// Bytes of tables that compactions wrote.
    pub bytes_compacted_out: u64,
    /// Entries that compactions dropped.
    pub entries_dropped: u64,
    /// Obsolete files removed.
    pub files_removed: u64,
    /// Time that writes waited or were slowed.
    pub stall: Duration,
    /// Why writes are slowed now.
    pub stall_reason: Option<&'static str>,
    /// Bytes of log segments that are still needed.
    pub wal_bytes: u64,
    /// Bytes of torn tail that the recovery of this open dropped.
    pub wal_bytes_dropped: u64,
    /// Syncs of the log for commits.
    pub wal_syncs: u64,
    /// Bytes of memtables.
    pub memtable_bytes: u64,
    /// Bytes of cached blocks.
    pub block_cache_bytes: u64,
    /// Blocks found in the cache.
    pub block_cache_hits: u64,
    /// Blocks not found in the cache.
    pub block_cache_misses: u64,
    /// Bytes of indexes and filters of open tables.
    pub table_cache_bytes: u64,
    /// Open tables.
    pub open_tables: u64,
    /// Snapshots and cursors in use.
    pub readers: u64,
    /// Oldest sequence number that one of them reads at.
    pub oldest_reader_seq: Option<u64>,
    /// Sequence number of the newest published commit.
    pub latest_seq: u64,
    /// Everything logged up to here survives a power cut.
    pub durable_seq: u64,
    /// Latency of point reads.
    pub get: Latency,
    /// Latency of writes.
    pub write: Latency,
}

impl Stats {
    /// Bytes written to tables over bytes of commits; the log adds one more.
    pub fn write_amplification(&self) -> f64 {
        if self.bytes_written_user == 0 {
            return 0.0;
        }
        (self.bytes_flushed.saturating_add(self.bytes_compacted_out)) as f64 / self.bytes_written_user as f64
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for keyspace in self.keyspaces.iter().chain(&self.system) {
            writeln!(
                f,
                "keyspace {:?}: {} bytes in tables ({} raw), {} memtables waiting, read amp {}, space amp {:.2}",
                keyspace.name,
                keyspace.bytes(),
                keyspace.raw_bytes,
                keyspace.memtables_waiting,
                keyspace.read_amplification,
                keyspace.space_amplification()
            )?;
            for level in &keyspace.levels {
                writeln!(
                    f,
                    "  level {}  {:>3} runs  {:>5} tables  {:>14} bytes  {:>12} entries",
                    level.level, level.runs, level.tables, level.bytes, level.entries
                )?;
            }
        }
        writeln!(f, "commits {}  gets {}  cursors {}", self.commits, self.gets, self.cursors)?;
        writeln!(
            f,
            "written: user {}  flush {} in {}  compaction {} in {} (read {}, {} entries dropped)  write amp {:.2}",
            self.bytes_written_user,
            self.bytes_flushed,
            self.flushes,
            self.bytes_compacted_out,
            self.compactions,
            self.bytes_compacted_in,
            self.entries_dropped,
            self.write_amplification()
        )?;
        writeln!(
            f,
            "log: {} bytes live, {} syncs, {} bytes of torn tail dropped",
            self.wal_bytes, self.wal_syncs, self.wal_bytes_dropped
        )?;
        writeln!(
            f,
            "memory: memtables {}  block cache {} ({} hits, {} misses)  {} tables open with {}",
            self.memtable_bytes,
            self.block_cache_bytes,
            self.block_cache_hits,
            self.block_cache_misses,
            self.open_tables,
            self.table_cache_bytes
        )?;
        writeln!(f, "stall: {:?} in all, now: {}", self.stall, self.stall_reason.unwrap_or("none"))?;
        writeln!(
            f,
            "sequence: latest {}  durable {}  readers {}  oldest {}",
            self.latest_seq,
            self.durable_seq,
            self.readers,
            self.oldest_reader_seq.map_or_else(|| "none".to_string(), |seq| seq.to_string())
        )?;
        for (name, latency) in [("get", &self.get), ("write", &self.write)] {
            writeln!(f, "{name} ns: {latency}")?;
        }
        Ok(())
    }
}
