//! RocksDB's `TransactionDB` (locks) and `OptimisticTransactionDB`.
//!
//! RocksDB has no isolation levels; they are what a transaction asks for. SERIALIZABLE: every read is a
//! `GetForUpdate`, which locks the key (shared if it is not written) or has the commit check it. REPEATABLE READ: the
//! transaction sets a snapshot and plain reads use it; writes are checked against it.

use super::{
    Attempt, BACKGROUND_THREADS, BLOCK_BYTES, CACHE_BYTES, Engine, FILTER_BITS, Failure, Level, Transaction,
    WRITE_BUFFER_BYTES, copy,
};
use anyhow::Result;
use rocksdb::{
    BlockBasedOptions, Cache, DBAccess, DBCompressionType, ErrorKind, OptimisticTransactionDB,
    OptimisticTransactionOptions, Options, ReadOptions, SnapshotWithThreadMode, TransactionDB,
    TransactionDBOptions, TransactionOptions, WriteOptions,
};
use std::path::Path;

/// How it is run.
pub const SETTING: &str = "RocksDB: `sync=false` with the WAL on: each commit writes its record to the page cache \
(`write`), no sync. SERIALIZABLE: all reads by `GetForUpdate` (keys that are not written: shared); REPEATABLE READ: a \
snapshot set at the begin, plain reads in it. `TransactionDB` with deadlock detection, which esker always has.";

fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_size(BLOCK_BYTES as usize);
    table.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    table.set_bloom_filter(f64::from(FILTER_BITS), false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_background_jobs(BACKGROUND_THREADS as i32);
    options.set_block_based_table_factory(&table);
    options
}

impl From<rocksdb::Error> for Failure {
    fn from(error: rocksdb::Error) -> Failure {
        match error.kind() {
            ErrorKind::Busy | ErrorKind::TryAgain | ErrorKind::TimedOut => Failure::Conflict,
            _ => Failure::Broken(error.into()),
        }
    }
}

/// A `TransactionDB`.
pub struct Pessimistic {
    db: TransactionDB,
    level: Level,
    write: WriteOptions,
    read: ReadOptions,
    begin: TransactionOptions,
}

impl Pessimistic {
    /// Creates a database.
    pub fn create(path: &Path, level: Level) -> Result<Pessimistic> {
        let db = TransactionDB::open(&options(), &TransactionDBOptions::default(), path)?;
        let mut begin = TransactionOptions::default();
        begin.set_deadlock_detect(true);
        begin.set_snapshot(level == Level::RepeatableRead);
        let (write, read) = (WriteOptions::default(), ReadOptions::default());
        Ok(Pessimistic { db, level, write, read, begin })
    }
}

impl Engine for Pessimistic {
    fn begin(&self) -> Attempt<Box<dyn Transaction + '_>> {
        let txn = self.db.transaction_opt(&self.write, &self.begin);
        Ok(Box::new(Txn { txn, level: self.level, read: &self.read }))
    }

    fn read(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        Ok(copy(self.db.get_pinned(key)?, value))
    }

    fn flush(&self) -> Result<()> {
        Ok(self.db.flush()?)
    }
}

/// An `OptimisticTransactionDB`.
pub struct Optimistic {
    db: OptimisticTransactionDB,
    level: Level,
    write: WriteOptions,
    read: ReadOptions,
    begin: OptimisticTransactionOptions,
}

impl Optimistic {
    /// Creates a database.
    pub fn create(path: &Path, level: Level) -> Result<Optimistic> {
        let db = OptimisticTransactionDB::open(&options(), path)?;
        let mut begin = OptimisticTransactionOptions::default();
        begin.set_snapshot(level == Level::RepeatableRead);
        let (write, read) = (WriteOptions::default(), ReadOptions::default());
        Ok(Optimistic { db, level, write, read, begin })
    }
}

impl Engine for Optimistic {
    fn begin(&self) -> Attempt<Box<dyn Transaction + '_>> {
        let txn = self.db.transaction_opt(&self.write, &self.begin);
        Ok(Box::new(Txn { txn, level: self.level, read: &self.read }))
    }

    fn read(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        Ok(copy(self.db.get_pinned(key)?, value))
    }

    fn flush(&self) -> Result<()> {
        Ok(self.db.flush()?)
    }
}

struct Txn<'a, D> {
    txn: rocksdb::Transaction<'a, D>,
    level: Level,
    read: &'a ReadOptions,
}

impl<'a, D: 'a> Transaction for Txn<'a, D>
where
    rocksdb::Transaction<'a, D>: DBAccess,
{
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Attempt<bool> {
        Ok(match self.level {
            Level::Serializable => copy(self.txn.get_pinned_for_update_opt(key, false, self.read)?, value),
            Level::RepeatableRead => copy(SnapshotWithThreadMode::new(&self.txn).get_pinned(key)?, value),
        })
    }

    fn get_for_update(&mut self, key: &[u8], value: &mut Vec<u8>) -> Attempt<bool> {
        Ok(copy(self.txn.get_pinned_for_update_opt(key, true, self.read)?, value))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Attempt<()> {
        Ok(self.txn.put(key, value)?)
    }

    fn commit(self: Box<Self>) -> Attempt<()> {
        Ok(self.txn.commit()?)
    }
}
