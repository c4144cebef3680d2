//! What a fault rule says: at which operations, on which paths, when, and what happens. Pure matching, no I/O.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::base::random::SplitMix64;

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// An operation of a file system or of one of its files.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum Op {
            $($(#[$doc])* $name,)*
        }

        impl Op {
            /// Every operation.
            pub const ALL: &[Op] = &[$(Op::$name,)*];
        }
    };
}

ops! {
    /// Creating a file.
    Create,
    /// Reserving space for a file that was just created.
    Preallocate,
    /// Appending to a file.
    Append,
    /// Syncing a file that is being written.
    Sync,
    /// Finishing a file that was written.
    Finish,
    /// Opening a file for reading.
    Open,
    /// Asking an open file for its length.
    Len,
    /// Reading from an open file, through the page cache or past it.
    Read,
    /// Mapping a file.
    Map,
    /// Reading from a mapping.
    MapRead,
    /// Creating directories.
    CreateDir,
    /// Asking whether something exists.
    Exists,
    /// Listing a directory.
    List,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Syncing a directory.
    SyncDir,
    /// Syncing a file by its name.
    SyncFile,
    /// Asking for free space.
    FreeSpace,
    /// Taking a lock.
    Lock,
}

impl Op {
    fn bit(self) -> u32 {
        1u32.wrapping_shl(u32::from(self as u8))
    }
}

/// A set of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpSet {
    bits: u32,
}

impl OpSet {
    /// Every operation.
    pub const ALL: OpSet = OpSet { bits: u32::MAX };

    /// Everything that changes the disk or makes a change durable.
    pub fn mutations() -> OpSet {
        use Op::*;
        OpSet::from([
            Create,
            Preallocate,
            Append,
            Sync,
            Finish,
            CreateDir,
            Rename,
            Remove,
            SyncDir,
            SyncFile,
            Lock,
        ])
    }

    /// Everything that only looks.
    pub fn reads() -> OpSet {
        use Op::*;
        OpSet::from([Open, Len, Read, Map, MapRead, Exists, List, FreeSpace])
    }

    /// The three kinds of sync.
    pub fn syncs() -> OpSet {
        OpSet::from([Op::Sync, Op::SyncDir, Op::SyncFile])
    }

    /// Whether the operation is one of them.
    pub fn contains(self, op: Op) -> bool {
        self.bits & op.bit() != 0
    }
}

impl From<Op> for OpSet {
    fn from(op: Op) -> OpSet {
        OpSet { bits: op.bit() }
    }
}

impl<const N: usize> From<[Op; N]> for OpSet {
    fn from(ops: [Op; N]) -> OpSet {
        OpSet { bits: ops.into_iter().fold(0, |bits, op| bits | op.bit()) }
    }
}

/// At which of the operations that match a rule its fault happens. Counted from the moment the rule was added.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum When {
    /// At the `n`th (1 is the next one), once.
    Nth(u64),
    /// At the `n`th and all later ones, until healed.
    From(u64),
    /// At each with this probability, the same ones for the same seed.
    Probability {
        /// Seed of the choice.
        seed: u64,
        /// Between 0 (never) and 1 (always).
        probability: f64,
    },
    /// At each, until healed.
    Always,
}

/// What happens instead of, or around, an operation. At an operation for which a fault has no meaning it does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing is done and this error is reported.
    Error(io::ErrorKind),
    /// Nothing is done and the error of this number is reported, such as 5 for `EIO` on Unix.
    Errno(i32),
    /// The operation is done, and then reported as failed with this error.
    ErrorAfter(io::ErrorKind),
    /// An append writes its first so many bytes and reports this error.
    ShortWrite {
        /// How many bytes are written.
        bytes: usize,
        /// What is reported.
        kind: io::ErrorKind,
    },
    /// One bit of the bytes that are read or appended is inverted, and success reported.
    BitFlip,
    /// Nothing is done and success reported: a device that lies. Of an append, zeros are written; a read gives zeros.
    /// Applies to append, finish, the syncs, rename, remove and reads.
    Skip,
    /// An append into a mapped window fails as stores do: success is reported, zeros are there, and
    /// [`AppendFile::is_poisoned`](crate::env::AppendFile::is_poisoned) is true from now on.
    Poison,
    /// The operation takes this long on the clock, and is then done. Other rules apply as well.
    Latency(Duration),
}

/// A fault with its condition. By default it happens always, on every path.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultRule {
    /// The operations it applies to.
    pub ops: OpSet,
    /// The paths it applies to, as a pattern in which `*` stands for any characters and `?` for one. Without a `/` it
    /// is compared with the file name, with one with the whole path. A rename matches by either of its names.
    pub path: String,
    /// At which of the matching operations.
    pub when: When,
    /// What happens.
    pub fault: Fault,
}

impl FaultRule {
    /// This fault at these operations, on every path, always.
    pub fn new(ops: impl Into<OpSet>, fault: Fault) -> FaultRule {
        FaultRule { ops: ops.into(), path: "*".to_string(), when: When::Always, fault }
    }

    /// Restricts the rule to paths of this pattern.
    pub fn path(mut self, pattern: impl Into<String>) -> FaultRule {
        self.path = pattern.into();
        self
    }

    /// Restricts the rule to some of the operations that match.
    pub fn when(mut self, when: When) -> FaultRule {
        self.when = when;
        self
    }

    fn applies_to(&self, op: Op, paths: &[&Path]) -> bool {
        self.ops.contains(op) && paths.iter().any(|path| self.matches(path))
    }

    fn matches(&self, path: &Path) -> bool {
        let text = if self.path.contains('/') { Some(path.as_os_str()) } else { path.file_name() };
        let text = text.map(|text| text.to_string_lossy()).unwrap_or_default();
        glob(self.path.as_bytes(), text.as_bytes())
    }
}

/// A rule in force, with what it has seen.
#[derive(Debug)]
pub(super) struct ActiveRule {
    rule: FaultRule,
    matched: u64,
    random: SplitMix64,
}

impl ActiveRule {
    pub(super) fn new(rule: FaultRule) -> ActiveRule {
        let seed = match rule.when {
            When::Probability { seed, .. } => seed,
            _ => 0,
        };
        ActiveRule { rule, matched: 0, random: SplitMix64::new(seed) }
    }

    /// Counts the operation if it matches, and answers the fault if it is its turn.
    pub(super) fn check(&mut self, op: Op, paths: &[&Path]) -> Option<Fault> {
        if !self.rule.applies_to(op, paths) {
            return None;
        }
        self.matched = self.matched.saturating_add(1);
        let fires = match self.rule.when {
            When::Nth(n) => self.matched == n,
            When::From(n) => self.matched >= n,
            When::Probability { probability, .. } => self.random.chance(probability),
            When::Always => true,
        };
        fires.then_some(self.rule.fault)
    }
}

/// Whether the text has the form of the pattern: the usual greedy match with one point to come back to.
fn glob(mut pattern: &[u8], mut text: &[u8]) -> bool {
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), text.split_first()) {
            (Some((b'*', rest)), _) => {
                retry = Some((rest, text));
                pattern = rest;
            }
            (Some((p, pattern_rest)), Some((t, text_rest))) if *p == b'?' || p == t => {
                pattern = pattern_rest;
                text = text_rest;
            }
            (None, None) => return true,
            _ => {
                let Some((after_star, [_, from @ ..])) = retry else { return false };
                retry = Some((after_star, from));
                pattern = after_star;
                text = from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let check = |pattern: &str, path: &str, expect: bool| {
            let rule = FaultRule::new(Op::Read, Fault::BitFlip).path(pattern);
            assert_eq!(rule.applies_to(Op::Read, &[Path::new(path)]), expect, "{pattern} {path}");
        };
        check("*", "/db/000001.wal", true);
        check("*", "/", true);
        check("*.wal", "/db/000001.wal", true);
        check("*.wal", "/db/000001.sst", false);
        check("*.wal", "/db.wal/x", false);
        check("MANIFEST-?", "db/MANIFEST-A", true);
        check("MANIFEST-?", "db/MANIFEST-A.tmp", false);
        check("0*1*.sst", "0010100.sst", true);
        check("0*1*.sst", "0000000.sst", false);
        check("/db/*", "/db/000001.wal", true);
        check("/db/*", "/other/000001.wal", false);
        check("*/db/*", "/a/db/x", true);
        check("", "/db/x", false);
    }

    #[test]
    fn every_operation_is_in_exactly_one_of_mutations_and_reads() {
        for op in Op::ALL {
            assert_ne!(OpSet::mutations().contains(*op), OpSet::reads().contains(*op), "{op:?}");
            assert!(OpSet::ALL.contains(*op));
            for other in Op::ALL {
                assert_eq!(OpSet::from(*op).contains(*other), op == other);
            }
        }
    }
}
