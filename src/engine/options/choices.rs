//! The alternatives that options choose from.

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
/// [`Options::max_snapshot_age`](crate::Options::max_snapshot_age).
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
