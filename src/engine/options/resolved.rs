//! The values in force: what was chosen, and for the rest what follows from the memory budget.

use super::{Durability, KeyspaceOptions, MIB, Options, ReadMode, SnapshotAgePolicy, VictimPolicy};
use crate::base::error::{Error, ErrorKind, Result};
use std::fmt;
use std::time::Duration;

impl Options {
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
