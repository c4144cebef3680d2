//! The engine as the benchmark sees it. The only file that names the engine's types: a rename there is a line here.

use crate::args::{Args, CompactionArg, CompressionArg, DurabilityArg, FilterArg, IsolationArg, ReadModeArg};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// What a reader gets.
pub use esker::Slice;

/// An open database.
pub struct Store {
    db: esker::Db,
    keyspace: esker::Keyspace,
}

/// Settings in force: derived by the engine where nothing was asked for, and those of an existing database where they
/// were chosen when it was created.
#[derive(Debug, Clone, Serialize)]
pub struct InForce {
    /// Bytes of memory in all.
    pub memory_budget: u64,
    /// Bytes of the block cache.
    pub cache_size: u64,
    /// Bytes of a memtable.
    pub write_buffer_size: u64,
    /// Threads for flush and compaction.
    pub background_threads: usize,
    /// Compression of blocks.
    pub compression: CompressionArg,
    /// Kind of filter.
    pub filter: FilterArg,
    /// Filter bits per key.
    pub bloom_bits: u32,
    /// Uncompressed bytes of a block.
    pub block_size: u64,
    /// Shape in which compaction keeps the tree.
    pub compaction_style: CompactionArg,
}

fn options(args: &Args) -> Result<esker::Options> {
    let block_bytes = u32::try_from(args.block_size).context("--block_size is too large")?;
    let mut keyspace = esker::KeyspaceOptions::new()
        .compression(match args.compression_type {
            CompressionArg::None => esker::Compression::None,
            CompressionArg::Lz4 => esker::Compression::Lz4,
        })
        .filter(match args.filter {
            FilterArg::Blocked => esker::FilterKind::Blocked,
            FilterArg::Standard => esker::FilterKind::Standard,
            FilterArg::None => esker::FilterKind::None,
        })
        .bloom_bits(args.bloom_bits())
        .block_bytes(block_bytes)
        .compaction_style(match args.compaction_style {
            CompactionArg::Lazy => esker::CompactionStyle::LazyLeveling,
            CompactionArg::Leveled => esker::CompactionStyle::Leveled,
            CompactionArg::Tiered => esker::CompactionStyle::Tiered,
            CompactionArg::Fifo => esker::CompactionStyle::Fifo,
        });
    if let Some(bytes) = args.write_buffer_size {
        keyspace = keyspace.write_buffer_bytes(bytes);
    }
    let mut options = esker::Options::new()
        .default_keyspace(keyspace)
        .durability(durability(args.durability()))
        .read_mode(match args.read_mode {
            ReadModeArg::Mmap => esker::ReadMode::Mmap,
            ReadModeArg::Pread => esker::ReadMode::Pread,
        });
    if let Some(bytes) = args.memory_budget {
        options = options.memory_budget(bytes);
    }
    if let Some(bytes) = args.cache_size {
        options = options.block_cache_bytes(bytes);
    }
    if let Some(threads) = args.background_threads {
        options = options.background_threads(threads);
    }
    Ok(options)
}

fn durability(durability: DurabilityArg) -> esker::Durability {
    match durability {
        DurabilityArg::Disk => esker::Durability::Disk,
        DurabilityArg::Os => esker::Durability::Os,
        DurabilityArg::Memory => esker::Durability::Memory,
    }
}

/// An error if the engine would refuse these options: better known before anything is deleted.
pub fn check_options(args: &Args) -> Result<()> {
    Ok(options(args)?.validate()?)
}

/// How writes are made; cheap to copy into every thread.
#[derive(Clone, Copy)]
pub struct WriteMode(esker::WriteOptions);

impl WriteMode {
    /// Writes that survive this much.
    pub fn new(asked: DurabilityArg) -> WriteMode {
        WriteMode(esker::WriteOptions::new().durability(durability(asked)))
    }
}

/// How transactions begin; cheap to copy into every thread.
#[derive(Debug, Clone, Copy)]
pub struct TransactionMode {
    /// Level.
    pub isolation: IsolationArg,
    /// Whether no locks are taken before the commit.
    pub optimistic: bool,
}

impl TransactionMode {
    fn options(self) -> esker::TransactionOptions {
        let options = esker::TransactionOptions::new(match self.isolation {
            IsolationArg::ReadUncommitted => esker::Isolation::ReadUncommitted,
            IsolationArg::ReadCommitted => esker::Isolation::ReadCommitted,
            IsolationArg::RepeatableRead => esker::Isolation::RepeatableRead,
            IsolationArg::Serializable => esker::Isolation::Serializable,
        });
        if self.optimistic { options.optimistic() } else { options }
    }
}

/// What an operation inside a transaction answers: the error may be one to try again on.
pub type Attempt<T> = esker::Result<T>;

/// An open transaction.
pub struct Transaction<'a> {
    txn: esker::Transaction,
    keyspace: &'a esker::Keyspace,
}

impl Transaction<'_> {
    /// Reads one entry.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Attempt<Option<Slice>> {
        self.txn.get(self.keyspace, key)
    }

    /// Writes one entry.
    #[inline]
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Attempt<()> {
        self.txn.put(self.keyspace, key, value)
    }
}

impl Store {
    /// Runs `body` in transactions, without pauses between them, until one commits; answers how many attempts failed
    /// before because of other transactions.
    pub fn transact(
        &self,
        transactions: TransactionMode,
        mode: WriteMode,
        body: impl Fn(&mut Transaction<'_>) -> Attempt<()>,
    ) -> Result<u64> {
        let mut failed = 0;
        loop {
            let txn = self.db.begin_with(transactions.options()).context("begin")?;
            let mut txn = Transaction { txn, keyspace: &self.keyspace };
            match body(&mut txn).and_then(|()| txn.txn.commit_with(mode.0)) {
                Ok(_) => return Ok(failed),
                Err(error) if error.is_retryable() => failed += 1,
                Err(error) => return Err(error).context("transaction"),
            }
        }
    }
}

impl Store {
    /// Opens the database in `path`, creating it unless an existing one is asked for.
    pub fn open(args: &Args, path: &Path) -> Result<Store> {
        let options = options(args)?.create_if_missing(!args.use_existing_db);
        let db =
            options.open(path).with_context(|| format!("cannot open the database in {}", path.display()))?;
        let keyspace = db.default_keyspace();
        Ok(Store { db, keyspace })
    }

    /// The settings in force in it.
    pub fn in_force(&self) -> InForce {
        let (sizes, stored) = (self.db.options(), self.keyspace.options());
        InForce {
            memory_budget: sizes.memory_budget,
            cache_size: sizes.block_cache_bytes,
            write_buffer_size: sizes.write_buffer_bytes,
            background_threads: sizes.background_threads,
            compression: match stored.compression {
                esker::Compression::None => CompressionArg::None,
                esker::Compression::Lz4 => CompressionArg::Lz4,
            },
            filter: match stored.filter {
                esker::FilterKind::Blocked => FilterArg::Blocked,
                esker::FilterKind::Standard => FilterArg::Standard,
                esker::FilterKind::None => FilterArg::None,
            },
            bloom_bits: stored.bloom_bits,
            block_size: u64::from(stored.block_bytes),
            compaction_style: match stored.compaction_style {
                esker::CompactionStyle::LazyLeveling => CompactionArg::Lazy,
                esker::CompactionStyle::Leveled => CompactionArg::Leveled,
                esker::CompactionStyle::Tiered => CompactionArg::Tiered,
                esker::CompactionStyle::Fifo => CompactionArg::Fifo,
            },
        }
    }

    /// Closes it; every file of it is complete afterwards.
    pub fn close(self) -> Result<()> {
        self.db.close().context("cannot close the database")
    }

    /// Whether it holds no entry.
    pub fn is_empty(&self) -> Result<bool> {
        let mut scan = self.scan()?;
        scan.seek_to_first()?;
        Ok(!scan.valid())
    }

    /// Writes one entry.
    #[inline]
    pub fn put(&self, key: &[u8], value: &[u8], mode: WriteMode) -> Result<()> {
        self.db.put_with(key, value, mode.0).context("put")
    }

    /// Deletes one entry.
    #[inline]
    pub fn delete(&self, key: &[u8], mode: WriteMode) -> Result<()> {
        self.db.delete_with(key, mode.0).context("delete")
    }

    /// Reads one entry.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Result<Option<Slice>> {
        self.db.get(key).context("get")
    }

    /// Reads several entries.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Slice>>> {
        self.db.multi_get(keys).context("multi_get")
    }

    /// A cursor over all entries, at none yet.
    pub fn scan(&self) -> Result<Scan> {
        Ok(Scan(self.db.cursor().context("open a cursor")?))
    }

    /// An empty batch.
    pub fn batch(&self) -> Batch<'_> {
        Batch { batch: self.db.batch(), keyspace: &self.keyspace }
    }

    /// Writes the memtables to tables.
    pub fn flush(&self) -> Result<()> {
        self.db.flush().context("flush")
    }

    /// Compacts everything.
    pub fn compact(&self) -> Result<()> {
        self.db.compact().context("compact")
    }

    /// Waits until flush and compaction have nothing left to do.
    pub fn wait_for_background(&self) -> Result<()> {
        self.db.wait_for_background().context("wait for background work")
    }

    /// Reads and checks everything; says what was checked.
    pub fn verify(&self) -> Result<String> {
        Ok(self.db.verify().context("verify")?.to_string())
    }

    /// What the engine counted, and the shape of its tree.
    pub fn stats(&self) -> EngineStats {
        let stats = self.db.stats();
        let levels = stats.keyspaces.iter().flat_map(|keyspace| &keyspace.levels).map(|level| LevelShape {
            level: level.level,
            runs: level.runs,
            tables: level.tables,
            bytes: level.bytes,
            entries: level.entries,
        });
        EngineStats {
            levels: levels.collect(),
            user_bytes: stats.bytes_written_user,
            flushes: stats.flushes,
            flushed_bytes: stats.bytes_flushed,
            compactions: stats.compactions,
            compacted_in_bytes: stats.bytes_compacted_in,
            compacted_out_bytes: stats.bytes_compacted_out,
            write_amplification: stats.write_amplification(),
            stall_seconds: stats.stall.as_secs_f64(),
            wal_syncs: stats.wal_syncs,
            block_cache_hits: stats.block_cache_hits,
            block_cache_misses: stats.block_cache_misses,
            text: stats.to_string(),
        }
    }
}

/// A batch of writes that become visible together.
pub struct Batch<'a> {
    batch: esker::Batch,
    keyspace: &'a esker::Keyspace,
}

impl Batch<'_> {
    /// Adds a write.
    #[inline]
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.batch.put(self.keyspace, key, value).context("put into a batch")
    }

    /// Adds a deletion.
    #[inline]
    pub fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.batch.delete(self.keyspace, key).context("delete in a batch")
    }

    /// Applies it.
    pub fn commit(self, mode: WriteMode) -> Result<()> {
        self.batch.commit_with(mode.0).context("commit a batch")?;
        Ok(())
    }
}

/// A cursor.
pub struct Scan(esker::Cursor);

impl Scan {
    /// Moves to the first entry.
    pub fn seek_to_first(&mut self) -> Result<()> {
        self.0.seek_to_first().context("seek to the first entry")
    }

    /// Moves to the last entry.
    pub fn seek_to_last(&mut self) -> Result<()> {
        self.0.seek_to_last().context("seek to the last entry")
    }

    /// Moves to the first entry at or after `key`.
    pub fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.0.seek(key).context("seek")
    }

    /// Moves on by one entry.
    #[inline]
    pub fn next(&mut self) -> Result<()> {
        self.0.next().context("next")
    }

    /// Moves back by one entry.
    #[inline]
    pub fn prev(&mut self) -> Result<()> {
        self.0.prev().context("prev")
    }

    /// Whether it is at an entry.
    #[inline]
    pub fn valid(&self) -> bool {
        self.0.valid()
    }

    /// Key of the entry it is at.
    #[inline]
    pub fn key(&self) -> &[u8] {
        self.0.key()
    }

    /// Bytes of the entry it is at, key and value.
    #[inline]
    pub fn entry_bytes(&self) -> u64 {
        (self.0.key().len() + self.0.value().len()) as u64
    }
}

/// What the engine counted since it was opened.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EngineStats {
    /// The levels that hold tables, from the top.
    pub levels: Vec<LevelShape>,
    /// Encoded bytes of all commits.
    pub user_bytes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Bytes of tables that flushes wrote.
    pub flushed_bytes: u64,
    /// Compactions.
    pub compactions: u64,
    /// Bytes of tables that compactions read.
    pub compacted_in_bytes: u64,
    /// Bytes of tables that compactions wrote.
    pub compacted_out_bytes: u64,
    /// Bytes written to tables over bytes of commits.
    pub write_amplification: f64,
    /// Time that writes waited or were slowed.
    pub stall_seconds: f64,
    /// Syncs of the log for commits.
    pub wal_syncs: u64,
    /// Blocks found in the cache.
    pub block_cache_hits: u64,
    /// Blocks not found in the cache.
    pub block_cache_misses: u64,
    /// All of it as the engine prints it.
    pub text: String,
}

/// One level of the tree.
#[derive(Debug, Clone, Serialize)]
pub struct LevelShape {
    /// Number of the level, 0 at the top.
    pub level: usize,
    /// Sorted runs.
    pub runs: usize,
    /// Tables.
    pub tables: usize,
    /// Bytes of the tables.
    pub bytes: u64,
    /// Entries in them.
    pub entries: u64,
}

/// Removes the database in `path`, which must be closed.
///
/// Refuses, and removes nothing, when the directory holds anything that is not a file of the engine: a mistyped `--db`
/// must not cost anybody their files.
pub fn destroy(path: &Path) -> Result<()> {
    for file in database_files(path)? {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(())
}

/// An error unless a new database can be made in `path` without anything being lost.
pub fn check_vacant(path: &Path) -> Result<()> {
    // A lock alone is what remains of a creation that stopped early.
    if database_files(path)?.iter().all(|file| name(file) == "LOCK") {
        return Ok(());
    }
    bail!(
        "{} holds a database, and nothing was done to it: add --use_existing_db to run against it, or \
         --destroy_existing_db to delete it",
        path.display()
    )
}

/// The files of the database in `path`, none if there is no such directory; an error if anything else is there.
fn database_files(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", path.display())),
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", path.display()))?;
        if !is_engine_file(&entry.path()) || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            bail!(
                "{} holds {:?}, which is no file of the engine: nothing was removed; give --db an empty directory or \
                 --use_existing_db",
                path.display(),
                entry.file_name()
            );
        }
        files.push(entry.path());
    }
    let recognized = files.iter().any(|file| matches!(name(file), "MANIFEST-A" | "MANIFEST-B"));
    if !recognized && files.iter().any(|file| name(file) != "LOCK") {
        bail!("{} holds files but no manifest of the engine: nothing was removed", path.display());
    }
    Ok(files)
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn is_engine_file(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    matches!(name(path), "LOCK" | "MANIFEST-A" | "MANIFEST-B") || matches!(extension, "sst" | "wal" | "tmp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_of_engine_files_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        destroy(&dir.path().join("missing")).unwrap();
        check_vacant(dir.path()).unwrap();
        fs::write(dir.path().join("LOCK"), b"").unwrap();
        check_vacant(dir.path()).unwrap();
        for name in ["MANIFEST-A", "MANIFEST-B", "LOCK", "000001.wal", "000002.sst"] {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        let refusal = check_vacant(dir.path()).unwrap_err().to_string();
        assert!(
            refusal.contains("--use_existing_db") && refusal.contains("--destroy_existing_db"),
            "{refusal}"
        );
        fs::write(dir.path().join("thesis.txt"), b"x").unwrap();
        let error = destroy(dir.path()).unwrap_err().to_string();
        assert!(error.contains("thesis.txt"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 6);
        fs::remove_file(dir.path().join("thesis.txt")).unwrap();
        destroy(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(dir.path().join("scan.tmp"), b"x").unwrap();
        assert!(destroy(dir.path()).unwrap_err().to_string().contains("no manifest"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
