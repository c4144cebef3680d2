//! Events: what the engine tells a listener as it happens.

use super::pins::Pin;
use crate::base::error::Error;
use std::fmt;

/// Something that happened inside the engine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The database was not closed, or a copy of the manifest was damaged, and the open read the log for what is not in
    /// tables: maybe nothing.
    Recovered {
        /// Batches replayed.
        batches: u64,
        /// Bytes at the end of the log that no complete record covers, dropped.
        dropped_bytes: u64,
        /// Bytes of a manifest edit that was being written, dropped; what it announced had not happened yet.
        manifest_dropped_bytes: u64,
        /// Time that the syncs took which must come first, in microseconds: what is shown after a recovery must not
        /// vanish with the next power cut.
        sync_micros: u64,
        /// Time that reading and sorting the log took after them, in microseconds.
        replay_micros: u64,
    },
    /// A copy of the manifest was damaged or behind and was written again from the other.
    ManifestHealed {
        /// What was wrong with it.
        damage: Error,
    },
    /// A memtable became a table (or none, when nothing of it was left).
    Flushed {
        /// Keyspace.
        keyspace: String,
        /// Entries read from the memtable.
        entries: u64,
        /// Bytes of the table.
        bytes: u64,
        /// Time it took, in microseconds.
        micros: u64,
    },
    /// A compaction was installed.
    Compacted {
        /// Keyspace.
        keyspace: String,
        /// Why it was picked.
        reason: &'static str,
        /// Level it wrote to.
        output_level: u8,
        /// Bytes of the input tables.
        bytes_read: u64,
        /// Bytes of the output tables.
        bytes_written: u64,
        /// Entries read and entries dropped.
        entries: (u64, u64),
        /// Time it took, in microseconds.
        micros: u64,
    },
    /// Background work failed; its inputs are untouched.
    BackgroundError {
        /// What was being done.
        job: &'static str,
        /// Why it failed.
        error: Error,
    },
    /// Writes are refused from now on until the database is reopened.
    Poisoned {
        /// First cause.
        error: Error,
    },
    /// The disk is full: background work waits, writes go on until the log budget is used up.
    NoSpace {
        /// The failure that showed it.
        error: Error,
    },
    /// There is space again.
    SpaceRestored,
    /// Writes wait, or stopped waiting, for background work.
    Stall {
        /// The reason, `None` when the stall ended.
        reason: Option<&'static str>,
    },
    /// A reader is older than [`Options::max_snapshot_age`](crate::Options::max_snapshot_age). Told once for each.
    OldReader {
        /// The reader.
        pin: Pin,
        /// Whether it was given up: its reads fail from now on.
        given_up: bool,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Recovered {
                batches,
                dropped_bytes,
                manifest_dropped_bytes,
                sync_micros,
                replay_micros,
            } => write!(
                f,
                "recovered {batches} batches in {replay_micros} us after {sync_micros} us of syncs, dropped {dropped_bytes} \
                 bytes of torn log and {manifest_dropped_bytes} of torn manifest"
            ),
            Event::ManifestHealed { damage } => write!(f, "manifest copy healed: {damage}"),
            Event::Flushed { keyspace, entries, bytes, micros } => {
                write!(f, "flushed {entries} entries of {keyspace:?} into {bytes} bytes in {micros} us")
            }
            Event::Compacted {
                keyspace,
                reason,
                output_level,
                bytes_read,
                bytes_written,
                entries,
                micros,
            } => write!(
                f,
                "compacted {keyspace:?} into level {output_level} ({reason}): {bytes_read} to {bytes_written} bytes, {} of {} entries dropped, {micros} us",
                entries.1, entries.0
            ),
            Event::BackgroundError { job, error } => write!(f, "{job} failed: {error}"),
            Event::Poisoned { error } => write!(f, "writes stopped until reopen: {error}"),
            Event::NoSpace { error } => write!(f, "no space: {error}"),
            Event::SpaceRestored => write!(f, "space restored"),
            Event::Stall { reason: Some(reason) } => write!(f, "writes wait: {reason}"),
            Event::Stall { reason: None } => write!(f, "writes run again"),
            Event::OldReader { pin, given_up: false } => write!(f, "an old reader holds back space: {pin}"),
            Event::OldReader { pin, given_up: true } => write!(f, "an old reader was given up: {pin}"),
        }
    }
}

/// Receives events, on the thread where they happen and with no engine lock held. A closure is one.
///
/// ```
/// # fn main() -> esker::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use esker::{Event, EventListener, Options};
/// use std::sync::Arc;
///
/// struct Alarm;
///
/// impl EventListener for Alarm {
///     fn on_event(&self, event: &Event) {
///         match event {
///             Event::Poisoned { .. } | Event::NoSpace { .. } => eprintln!("wake somebody: {event}"),
///             _ => {}
///         }
///     }
/// }
///
/// let db = Options::new().listener(Arc::new(Alarm)).open(dir.path())?;
/// # db.close()?;
/// let db = Options::new().listener(Arc::new(|event: &Event| println!("{event}"))).open(dir.path())?;
/// # db.close()
/// # }
/// ```
///
/// Keep it short. It may read, and drop handles; what waits for background work (`flush`, `compact`, `close` and so on)
/// is refused on a background thread, and a write may have to wait there for the very thread it is on, up to the stall
/// timeout. On the thread of a write nothing waits for a lock of a transaction, because whoever holds it may be that
/// write, or wait for it: a locked key is `LockTimeout` at once. A panic in it is caught and poisons the engine.
pub trait EventListener: Send + Sync {
    /// Called for each event.
    fn on_event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> EventListener for F {
    fn on_event(&self, event: &Event) {
        self(event)
    }
}
