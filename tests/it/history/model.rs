//! What a history is: the transactions that clients ran, what they read and wrote, how they ended and when.
//!
//! **Time** is a counter that every client takes a tick of right before it begins a transaction and right after the
//! transaction has ended. So of two transactions one came before the other in real time if its last tick is smaller
//! than the other's first. The first tick is also the transaction's name.
//!
//! **Versions** are unique: a version says which transaction wrote it and with which of its operations. Commit
//! sequence numbers say in which order the versions of a key were installed. So nothing has to be guessed, except which
//! removal it was that an absent key was read from.
//!
//! A history begins with a known state and may end with one: what the database holds when all clients are at rest, or
//! what came back after a crash. Histories of any length are checked piece by piece, each beginning where the last one
//! ended.

use std::ops::Range;

/// Keys are numbers, those of a range neighbours.
pub type Key = u32;

/// A written value: `version(first tick of the writer, which of its operations)`. 0 means that the key is absent.
pub type Version = u64;

pub const ABSENT: Version = 0;

const OP_BITS: u32 = 16;

pub const fn version(begin: u64, op: usize) -> Version {
    (begin << OP_BITS) | op as u64
}

/// The first tick of the transaction that wrote a version, and the operation that did.
pub const fn written_by(version: Version) -> (u64, usize) {
    (version >> OP_BITS, (version & ((1 << OP_BITS) - 1)) as usize)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl Level {
    pub const ALL: [Level; 4] =
        [Level::ReadUncommitted, Level::ReadCommitted, Level::RepeatableRead, Level::Serializable];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// With this sequence number; of a transaction that wrote nothing the number means nothing.
    Committed(u64),
    Aborted,
    /// The commit was asked for and its outcome never learnt.
    Unknown,
}

/// Place of what a read found in [`History::found`].
#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub first: u32,
    pub count: u32,
}

#[derive(Debug, Clone, Copy)]
pub enum Op {
    Read {
        key: Key,
        version: Version,
    },
    /// A read that locked the key until the end.
    LockedRead {
        key: Key,
        version: Version,
    },
    /// Everything that exists from `from` to before `to`.
    Range {
        from: Key,
        to: Key,
        found: Found,
    },
    /// The same, with a lock on all of it until the end.
    LockedRange {
        from: Key,
        to: Key,
        found: Found,
    },
    /// A read of a list: the versions that were appended, oldest first. The last one is the version read.
    List {
        key: Key,
        found: Found,
    },
    /// Its version follows from its place.
    Write {
        key: Key,
    },
    Delete {
        key: Key,
    },
    Savepoint,
    /// Undoes the writes since the last savepoint, and removes it.
    RollbackToSavepoint,
}

/// Ticks, level, end, and place of its operations in [`History::ops`].
#[derive(Debug, Clone)]
pub struct Transaction {
    pub process: u32,
    pub level: Level,
    pub begin: u64,
    pub end: u64,
    pub status: Status,
    pub ops: Range<u32>,
}

/// The state in which a history ends.
#[derive(Debug, Clone, Default)]
pub struct End {
    /// Version of each key.
    pub state: Vec<Version>,
    /// When the state came back after a crash: commits up to this sequence number must be in it. Later ones may have
    /// been lost, the last first. Without a crash all commits are there.
    pub safe_seq: Option<u64>,
}

#[derive(Debug, Clone, Default)]
pub struct History {
    /// Version of each key at the beginning.
    pub base: Vec<Version>,
    pub transactions: Vec<Transaction>,
    pub ops: Vec<Op>,
    /// What ranges and lists found, as pairs of key and version.
    pub found: Vec<(Key, Version)>,
    pub end: Option<End>,
}

impl History {
    pub fn ops_of(&self, transaction: &Transaction) -> &[Op] {
        &self.ops[transaction.ops.start as usize..transaction.ops.end as usize]
    }

    pub fn found(&self, found: Found) -> &[(Key, Version)] {
        &self.found[found.first as usize..][..found.count as usize]
    }

    /// The same history as if everything had run at this level.
    pub fn at(&self, level: Level) -> History {
        let mut history = self.clone();
        history.transactions.iter_mut().for_each(|transaction| transaction.level = level);
        history
    }

    /// Adds what another client recorded of the same time.
    pub fn absorb(&mut self, other: History) {
        let (ops, found) = (self.ops.len() as u32, self.found.len() as u32);
        let moved = |at: Found| Found { first: at.first + found, ..at };
        self.ops.extend(other.ops.into_iter().map(|op| match op {
            Op::Range { from, to, found } => Op::Range { from, to, found: moved(found) },
            Op::LockedRange { from, to, found } => Op::LockedRange { from, to, found: moved(found) },
            Op::List { key, found } => Op::List { key, found: moved(found) },
            op => op,
        }));
        self.found.extend(other.found);
        self.transactions.extend(
            other
                .transactions
                .into_iter()
                .map(|one| Transaction { ops: one.ops.start + ops..one.ops.end + ops, ..one }),
        );
    }
}

/// The writes of a transaction that are in force, while its operations are gone through in order.
#[derive(Debug, Default)]
pub struct OwnWrites {
    /// Key, operation, whether it removes.
    writes: Vec<(Key, usize, bool)>,
    savepoints: Vec<usize>,
}

impl OwnWrites {
    pub fn clear(&mut self) {
        self.writes.clear();
        self.savepoints.clear();
    }

    pub fn step(&mut self, at: usize, op: Op) {
        match op {
            Op::Write { key } => self.writes.push((key, at, false)),
            Op::Delete { key } => self.writes.push((key, at, true)),
            Op::Savepoint => self.savepoints.push(self.writes.len()),
            Op::RollbackToSavepoint => self.writes.truncate(self.savepoints.pop().unwrap_or(0)),
            _ => {}
        }
    }

    /// The operation that wrote this key last, and whether it removed it.
    pub fn last(&self, key: Key) -> Option<(usize, bool)> {
        self.writes.iter().rev().find(|write| write.0 == key).map(|write| (write.1, write.2))
    }

    /// The last write of each key.
    pub fn finals(&self) -> impl Iterator<Item = (Key, usize, bool)> + '_ {
        let is_last = |at: usize, key: Key| !self.writes[at + 1..].iter().any(|(later, _, _)| *later == key);
        self.writes
            .iter()
            .enumerate()
            .filter(move |(at, write)| is_last(*at, write.0))
            .map(|(_, write)| *write)
    }
}
