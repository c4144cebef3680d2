//! esker: an embedded, transactional key-value storage engine.
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
        clippy::disallowed_methods
    )
)]

mod base;
mod cache;
mod compaction;
mod engine;
pub mod env;
mod manifest;
mod memtable;
mod merge;
mod mvcc;
mod record;
mod sstable;
mod wal;

pub use base::deadlock::{DeadlockMember, DeadlockReport, LockDescription, LockMode, LockSpan};
pub use base::error::{Corruption, Error, ErrorKind, IoFault, Result};
pub use base::slice::Slice;
pub use engine::{
    Batch, CompactionStyle, Compression, Cursor, Db, Durability, Event, EventListener, FilterKind, Iter,
    Keyspace, KeyspaceOptions, KeyspaceStats, Latency, LevelStats, Options, ReadMode, Receipt,
    ResolvedOptions, Snapshot, Stats, VerifyReport, WriteOptions,
};
pub use mvcc::{LockStats, VictimPolicy, WaitEdge, WaitGraph};
