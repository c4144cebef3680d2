//! esker: an embedded key-value storage engine. A log-structured merge tree with multi-version snapshots, in a
//! directory, in your process.
//!
//! ```
//! use esker::{Durability, Options, WriteOptions};
//!
//! # fn main() -> esker::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path();
//! let db = Options::new().memory_budget(256 << 20).open(path)?; // or Db::open(path)
//!
//! db.put("user:1", "ada")?; // on the disk when this returns
//! assert_eq!(db.get("user:1")?.unwrap(), "ada");
//! db.put_with("seen:1", "today", WriteOptions::new().durability(Durability::Os))?;
//!
//! let emails = db.keyspace("emails")?; // a tree of its own, sharing the log
//! let mut batch = db.batch();
//! batch.put(&db.default_keyspace(), "user:2", "grace")?;
//! batch.put(&emails, "grace@example.org", "2")?;
//! batch.commit()?; // both or neither
//!
//! let snapshot = db.snapshot();
//! db.delete("user:1")?;
//! for item in snapshot.prefix("user:") {
//!     let (key, value) = item?;
//!     println!("{key:?} = {value:?}");
//! }
//! db.close()
//! # }
//! ```
//!
//! # Where to start
//!
//! | type | what it is for |
//! | --- | --- |
//! | [`Options`], [`KeyspaceOptions`] | open a database, create a keyspace; [`ResolvedOptions`] is what is in force |
//! | [`Db`] | the open database; its own reads and writes are those of the default keyspace |
//! | [`Keyspace`] | a tree of its own with its own settings, in the same log and order of commits |
//! | [`Batch`] | several writes, over any keyspaces, that happen together or not at all |
//! | [`Transaction`], [`Isolation`] | reads and writes that take effect together, at one of four levels; [`Db::transact`] tries again |
//! | [`Snapshot`] | the state of everything at one moment, also [of the past](Db::snapshot_at) |
//! | [`Session`] | a producer's numbered operations: after a crash it knows which of them survived |
//! | [`Iter`], [`Cursor`] | ranges and prefixes in both directions: owned entries, or lent ones with seeks |
//! | [`Slice`] | the keys and values that reads return |
//! | [`WriteOptions`], [`Durability`] | how safe a write is when it returns |
//! | [`Error`], [`ErrorKind`] | one error type; the kind says what can be done about it |
//! | [`EventListener`], [`Stats`] | what the engine does, as it happens and summed up |
//! | [`mod@env`] | another world of files, time and threads, for tests |
//!
//! All handles are cheap to clone, are used from many threads at once, and keep the database open until the last one
//! is gone or one of them is [closed](Db::close). One process at a time opens a database, also to read it.
//!
//! # Transactions
//!
//! ```
//! # fn main() -> esker::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let db = esker::Db::open(dir.path())?;
//! let stock = db.keyspace("stock")?;
//! stock.put("pens", [3])?;
//! let left = db.transact(esker::Isolation::Serializable, |txn| {
//!     let left = txn.get(&stock, "pens")?.map_or(0, |value| value[0]);
//!     if left == 0 {
//!         return Err(esker::Error::aborted("sold out"));
//!     }
//!     txn.put(&stock, "pens", [left - 1])?;
//!     Ok(left - 1)
//! })?;
//! assert_eq!(left, 2);
//! # Ok(()) }
//! ```
//!
//! [`Db::begin`] gives a [`Transaction`] to hold in hand. The levels, their anomalies, locks, deadlocks, prepared
//! transactions and sessions are explained in `docs/isolation.md`.
//!
//! # Durability
//!
//! A write that returned is on the disk, unless it asked for less: [`Durability::Os`] survives the process only, and
//! of [`Durability::Memory`] only that survives which was flushed by then. After a crash the state is a prefix of the
//! order of commits, each batch whole, with every acknowledged durable commit in it.
//!
//! # Limits
//!
//! Keys have 1 to 65,535 bytes. One write or batch may take 3/16 of [`Options::memory_budget`], by default 96 MiB.
#![deny(unsafe_code, missing_docs, unreachable_pub)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::arithmetic_side_effects,
        clippy::unreachable,
        clippy::disallowed_methods,
        // Kernels of concurrency are loaded a second time, over the model checker's locks and atomics.
        clippy::duplicate_mod
    )
)]

mod base;
mod cache;
mod compaction;
mod db;
mod engine;
pub mod env;
mod manifest;
mod memtable;
mod merge;
mod mvcc;
mod record;
mod sstable;
mod wal;

pub use base::conflict::{Conflict, ConflictReason};
pub use base::deadlock::{DeadlockMember, DeadlockReport, LockDescription, LockMode, LockSpan};
pub use base::error::{Corruption, Error, ErrorKind, IoFault, Result};
pub use base::slice::Slice;
pub use db::{Batch, Db, Keyspace, Receipt, Session, SessionReceipt, Snapshot, Transaction, TransactionIter};
pub use engine::{
    CompactionStyle, Compression, Cursor, Durability, Event, EventListener, FilterKind, Iter,
    KeyspaceOptions, KeyspaceStats, Latency, LevelStats, LockWait, Options, Pin, PinKind, ReadMode,
    ResolvedOptions, SnapshotAgePolicy, Stats, VerifyReport, VictimPolicy, WriteOptions,
};
pub use mvcc::{
    Isolation, LockStats, PreparedTransaction, RetryPolicy, SerializableStats, SessionInfo, TransactionInfo,
    TransactionOptions, TransactionStats, WaitEdge, WaitGraph,
};
