//! fjall's optimistic transactions, which are serializable and have no other level.

use super::{
    Attempt, BACKGROUND_THREADS, BLOCK_BYTES, CACHE_BYTES, Engine, FILTER_BITS, Failure, Transaction,
    WRITE_BUFFER_BYTES, copy,
};
use anyhow::Result;
use fjall::config::{
    BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry,
};
use fjall::{
    CompressionType, KeyspaceCreateOptions, OptimisticTxDatabase, OptimisticTxKeyspace, OptimisticWriteTx,
    PersistMode, Readable,
};
use std::path::Path;

/// How it is run.
pub const SETTING: &str = "fjall: `PersistMode::Buffer`: each commit writes its journal records to the page cache \
(`write`), no sync. All reads are checked at the commit; it has no `get_for_update`.";

/// A database with one keyspace.
pub struct Fjall {
    db: OptimisticTxDatabase,
    keyspace: OptimisticTxKeyspace,
}

impl Fjall {
    /// Creates a database.
    pub fn create(path: &Path) -> Result<Fjall> {
        let db = OptimisticTxDatabase::builder(path)
            .cache_size(CACHE_BYTES as u64)
            .worker_threads(BACKGROUND_THREADS)
            .journal_compression(CompressionType::None)
            .open()?;
        let filter = BloomConstructionPolicy::BitsPerKey(FILTER_BITS as f32);
        let keyspace = db.keyspace("bench", || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(WRITE_BUFFER_BYTES as u64)
                .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
                .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(filter)))
        })?;
        Ok(Fjall { db, keyspace })
    }
}

impl From<fjall::Error> for Failure {
    fn from(error: fjall::Error) -> Failure {
        Failure::Broken(error.into())
    }
}

impl Engine for Fjall {
    fn begin(&self) -> Attempt<Box<dyn Transaction + '_>> {
        let txn = self.db.write_tx()?.durability(Some(PersistMode::Buffer));
        Ok(Box::new(Txn { txn, keyspace: &self.keyspace }))
    }

    fn read(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        Ok(copy(self.keyspace.get(key)?, value))
    }

    fn flush(&self) -> Result<()> {
        Ok(self.keyspace.inner().rotate_memtable_and_wait()?)
    }
}

struct Txn<'a> {
    txn: OptimisticWriteTx,
    keyspace: &'a OptimisticTxKeyspace,
}

impl Transaction for Txn<'_> {
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Attempt<bool> {
        Ok(copy(self.txn.get(self.keyspace, key)?, value))
    }

    fn get_for_update(&mut self, key: &[u8], value: &mut Vec<u8>) -> Attempt<bool> {
        self.get(key, value)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Attempt<()> {
        self.txn.insert(self.keyspace, key, value);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Attempt<()> {
        self.txn.commit()?.map_err(|fjall::Conflict| Failure::Conflict)
    }
}
