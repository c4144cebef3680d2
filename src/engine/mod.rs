//! The engine: where log, memtables, tables, manifest and compaction meet.
//!
//! Rank 4: uses everything below. `open` and `close` bound a session; `commit` writes, `read` and `cursor` read,
//! `background` does the rest. See `docs/locking.md` for who holds what.

mod background;
mod batch;
mod close;
mod commit;
mod compact;
mod core;
mod cursor;
mod db;
mod epoch_cell;
mod events;
mod flush;
mod health;
mod iter;
mod keyspace;
mod keyspaces;
mod obsolete;
mod open;
mod options;
mod pipeline;
mod read;
mod replayed;
mod run_iter;
mod snapshot;
mod stall;
mod stats;
mod store;
mod tables;
mod verify;

pub use batch::{Batch, Receipt};
pub use cursor::Cursor;
pub use db::{Db, Keyspace, Snapshot};
pub use events::{Event, EventListener};
pub use iter::Iter;
pub use options::{
    CompactionStyle, Compression, Durability, FilterKind, KeyspaceOptions, Options, ReadMode,
    ResolvedOptions, WriteOptions,
};
pub use stats::{KeyspaceStats, Latency, LevelStats, Stats};
pub use verify::VerifyReport;
