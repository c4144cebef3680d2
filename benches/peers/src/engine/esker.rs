//! esker's transactions.

use super::{
    Attempt, BACKGROUND_THREADS, BLOCK_BYTES, CACHE_BYTES, Engine, FILTER_BITS, Failure, Level, Transaction,
    WRITE_BUFFER_BYTES, copy,
};
use anyhow::Result;
use esker::{
    Compression, Db, Durability, Isolation, Keyspace, KeyspaceOptions, Options, TransactionOptions,
    WriteOptions,
};
use std::path::Path;

/// How it is run.
pub const SETTING: &str = "esker: `Durability::Os`: the record is in the page cache (a mapped log) when the commit \
returns, no sync but of segments of the log that are full. Isolation levels as named, `get` and `get_for_update` as \
the workload says.";

/// A database whose transactions are all of one kind.
pub struct Esker {
    db: Db,
    keyspace: Keyspace,
    options: TransactionOptions,
}

impl Esker {
    /// Creates a database.
    pub fn create(path: &Path, level: Level, optimistic: bool) -> Result<Esker> {
        let keyspace = KeyspaceOptions::new()
            .compression(Compression::Lz4)
            .bloom_bits(FILTER_BITS)
            .block_bytes(BLOCK_BYTES)
            .write_buffer_bytes(WRITE_BUFFER_BYTES as u64);
        let db = Options::new()
            .default_keyspace(keyspace)
            .block_cache_bytes(CACHE_BYTES as u64)
            .background_threads(BACKGROUND_THREADS)
            .durability(Durability::Os)
            .open(path)?;
        let options = TransactionOptions::new(match level {
            Level::Serializable => Isolation::Serializable,
            Level::RepeatableRead => Isolation::RepeatableRead,
        });
        let options = if optimistic { options.optimistic() } else { options };
        Ok(Esker { keyspace: db.default_keyspace(), db, options })
    }
}

impl From<esker::Error> for Failure {
    fn from(error: esker::Error) -> Failure {
        if error.is_retryable() { Failure::Conflict } else { Failure::Broken(error.into()) }
    }
}

impl Engine for Esker {
    fn begin(&self) -> Attempt<Box<dyn Transaction + '_>> {
        let txn = self.db.begin_with(self.options.clone())?;
        Ok(Box::new(Txn { txn, keyspace: &self.keyspace }))
    }

    fn read(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        Ok(copy(self.db.get(key)?, value))
    }

    fn flush(&self) -> Result<()> {
        Ok(self.db.flush()?)
    }
}

struct Txn<'a> {
    txn: esker::Transaction,
    keyspace: &'a Keyspace,
}

impl Transaction for Txn<'_> {
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Attempt<bool> {
        Ok(copy(self.txn.get(self.keyspace, key)?, value))
    }

    fn get_for_update(&mut self, key: &[u8], value: &mut Vec<u8>) -> Attempt<bool> {
        Ok(copy(self.txn.get_for_update(self.keyspace, key)?, value))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Attempt<()> {
        Ok(self.txn.put(self.keyspace, key, value)?)
    }

    fn commit(self: Box<Self>) -> Attempt<()> {
        self.txn.commit_with(WriteOptions::new().durability(Durability::Os))?;
        Ok(())
    }
}
