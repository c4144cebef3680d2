//! What every engine can do here, and which engines there are. Workloads see nothing else of an engine.
//!
//! Calls go through `dyn`, which costs each engine the same few nanoseconds and keeps one list of them.

mod esker;
mod fjall;
#[cfg(feature = "rocksdb")]
mod rocksdb;

use anyhow::Result;
use std::fmt;
use std::path::Path;

/// Bytes of a memtable, in every engine.
pub const WRITE_BUFFER_BYTES: usize = 64 << 20;
/// Bytes of the block cache, in every engine.
pub const CACHE_BYTES: usize = 256 << 20;
/// Filter bits a key, in every engine.
pub const FILTER_BITS: u32 = 10;
/// Uncompressed bytes of a block, in every engine.
pub const BLOCK_BYTES: u32 = 4096;
/// Threads for flush and compaction, in every engine.
pub const BACKGROUND_THREADS: usize = 2;

/// Why an operation in a transaction did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// Another transaction was in the way: the same one tried again may succeed.
    Conflict,
    /// Anything else.
    Broken(anyhow::Error),
}

/// What an operation in a transaction answers.
pub type Attempt<T> = Result<T, Failure>;

/// An open transaction; dropped without a commit it leaves nothing.
pub trait Transaction {
    /// Reads an entry into `value`; answers whether there is one.
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Attempt<bool>;
    /// The same of a key that is written next.
    fn get_for_update(&mut self, key: &[u8], value: &mut Vec<u8>) -> Attempt<bool>;
    /// Writes an entry.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Attempt<()>;
    /// Makes its writes visible, and safe from the end of the process.
    fn commit(self: Box<Self>) -> Attempt<()>;
}

/// An open database.
pub trait Engine: Sync {
    /// Begins a transaction.
    fn begin(&self) -> Attempt<Box<dyn Transaction + '_>>;
    /// Reads an entry into `value` outside of transactions; answers whether there is one.
    fn read(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool>;
    /// Writes the memtable to tables.
    fn flush(&self) -> Result<()>;
}

/// Copies what was read to where the workload wants it.
fn copy(found: Option<impl AsRef<[u8]>>, value: &mut Vec<u8>) -> bool {
    value.clear();
    found.inspect(|found| value.extend_from_slice(found.as_ref())).is_some()
}

/// Whose transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Product {
    /// This project's.
    Esker,
    /// fjall's optimistic transactions.
    Fjall,
    /// RocksDB's TransactionDB and OptimisticTransactionDB.
    #[cfg(feature = "rocksdb")]
    Rocksdb,
}

const PRODUCTS: &[Product] = &[
    Product::Esker,
    Product::Fjall,
    #[cfg(feature = "rocksdb")]
    Product::Rocksdb,
];

/// What the reads of a transaction are promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What was read still holds at the commit.
    Serializable,
    /// All reads see one snapshot, and nothing written has changed since.
    RepeatableRead,
}

/// One way to run transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variant {
    /// Whose.
    pub product: Product,
    /// Promise to reads.
    pub level: Level,
    /// Whether conflicts are found at the commit only, instead of by locks.
    pub optimistic: bool,
}

impl Variant {
    /// All that the engines offer.
    pub fn all() -> Vec<Variant> {
        let mut all = Vec::new();
        for &product in PRODUCTS {
            for level in [Level::Serializable, Level::RepeatableRead] {
                all.extend([false, true].map(|optimistic| Variant { product, level, optimistic }));
            }
        }
        all.retain(|variant| variant.exists());
        all
    }

    fn exists(self) -> bool {
        self.product != Product::Fjall || (self.level == Level::Serializable && self.optimistic)
    }

    /// What it is compared with: esker's transactions that promise the same in the same way.
    pub fn counterpart(self) -> Variant {
        Variant { product: Product::Esker, ..self }
    }

    /// Creates a database in the empty directory `path`.
    pub fn create(self, path: &Path) -> Result<Box<dyn Engine>> {
        Ok(match self.product {
            Product::Esker => Box::new(esker::Esker::create(path, self.level, self.optimistic)?),
            Product::Fjall => Box::new(fjall::Fjall::create(path)?),
            #[cfg(feature = "rocksdb")]
            Product::Rocksdb if self.optimistic => Box::new(rocksdb::Optimistic::create(path, self.level)?),
            #[cfg(feature = "rocksdb")]
            Product::Rocksdb => Box::new(rocksdb::Pessimistic::create(path, self.level)?),
        })
    }
}

impl Product {
    /// How it is run, where that differs between engines.
    pub fn setting(self) -> &'static str {
        match self {
            Product::Esker => esker::SETTING,
            Product::Fjall => fjall::SETTING,
            #[cfg(feature = "rocksdb")]
            Product::Rocksdb => rocksdb::SETTING,
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.product {
            Product::Esker => "esker",
            Product::Fjall => "fjall",
            #[cfg(feature = "rocksdb")]
            Product::Rocksdb => "RocksDB",
        })?;
        f.write_str(match self.level {
            Level::Serializable => " SERIALIZABLE",
            Level::RepeatableRead => " REPEATABLE READ",
        })?;
        f.write_str(if self.optimistic { " (optimistic)" } else { " (locks)" })
    }
}
