//! The engine: where log, memtables, tables, manifest and compaction meet.
//!
//! Rank 4: uses everything below. `open` and `close` bound a session; `commit` writes, `read` and `cursor` read,
//! `background` does the rest. The public handles are in `db`. See `docs/locking.md` for who holds what.

mod background;
mod close;
mod commit;
mod compact;
mod core;
mod cursor;
mod epoch_cell;
mod events;
mod flush;
mod health;
mod history;
mod iter;
mod keyspace;
mod keyspaces;
mod newer;
mod obsolete;
mod open;
mod options;
mod pins;
mod pipeline;
mod read;
mod readers;
mod replayed;
mod run_iter;
mod single;
mod snapshot;
mod stall;
mod stats;
mod store;
mod tables;
mod verify;

pub(crate) use background::{is_background_thread, waits_for_itself};
pub(crate) use core::Core;
pub(crate) use cursor::Bounds;
pub use cursor::Cursor;
pub use events::{Event, EventListener};
pub use iter::Iter;
pub(crate) use keyspace::KeyspaceCore;
pub(crate) use open::{Threads, open};
pub use options::{
    CompactionStyle, Compression, Durability, FilterKind, KeyspaceOptions, LockWait, Options, ReadMode,
    ResolvedOptions, SnapshotAgePolicy, VictimPolicy, WriteOptions,
};
pub use pins::{Pin, PinKind};
pub(crate) use snapshot::Registration;
pub use stats::{KeyspaceStats, Latency, LevelStats, Stats};
pub(crate) use store::VersionedStore;
pub use verify::VerifyReport;
