//! What is said of a deadlock: who waited for whom and for what, who was chosen, and why. Plain data.
//!
//! Keys are the user's bytes: they are shown escaped and cut, and are never interpreted. This file knows nothing of
//! how locks are kept; `mvcc::locks` fills it in.

use std::fmt::{self, Write};
use std::time::Duration;

/// How a lock may be shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockMode {
    /// Others may hold it shared as well.
    Shared,
    /// Nobody else holds it.
    Exclusive,
}

impl LockMode {
    /// Whether two transactions cannot hold the same thing in these modes.
    pub(crate) fn conflicts(self, other: LockMode) -> bool {
        self == LockMode::Exclusive || other == LockMode::Exclusive
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LockMode::Shared => "shared",
            LockMode::Exclusive => "exclusive",
        })
    }
}

/// What a lock covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockSpan {
    /// One key, present or not.
    Key(Vec<u8>),
    /// All keys from `start`, and before `end` if there is one, those that do not exist included.
    Range {
        /// First key.
        start: Vec<u8>,
        /// First key after it.
        end: Option<Vec<u8>>,
    },
}

/// Bytes of a key that are shown.
const SHOWN_BYTES_MAX: usize = 64;

/// A key as text: printable ASCII as it is, everything else escaped, long ones cut.
fn write_key(f: &mut fmt::Formatter<'_>, key: &[u8]) -> fmt::Result {
    match key.get(..SHOWN_BYTES_MAX) {
        Some(head) if key.len() > SHOWN_BYTES_MAX => {
            write!(f, "\"{}\"... ({} bytes)", head.escape_ascii(), key.len())
        }
        _ => write!(f, "\"{}\"", key.escape_ascii()),
    }
}

impl fmt::Display for LockSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockSpan::Key(key) => {
                f.write_str("key ")?;
                write_key(f, key)
            }
            LockSpan::Range { start, end } => {
                f.write_str("range from ")?;
                write_key(f, start)?;
                match end {
                    Some(end) => {
                        f.write_str(" to ")?;
                        write_key(f, end)
                    }
                    None => f.write_str(" to the end"),
                }
            }
        }
    }
}

/// A lock that is held or wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockDescription {
    /// Number of the keyspace.
    pub keyspace: u32,
    /// Name of the keyspace, if it is known.
    pub keyspace_name: Option<String>,
    /// What is locked.
    pub span: LockSpan,
    /// How.
    pub mode: LockMode,
}

impl LockDescription {
    /// Puts the parts together, without a name of the keyspace.
    pub(crate) fn new(keyspace: u32, span: LockSpan, mode: LockMode) -> LockDescription {
        LockDescription { keyspace, keyspace_name: None, span, mode }
    }
}

impl fmt::Display for LockDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) of keyspace ", self.span, self.mode)?;
        match &self.keyspace_name {
            Some(name) => write!(f, "\"{}\"", name.as_bytes().escape_ascii()),
            None => write!(f, "{}", self.keyspace),
        }
    }
}

/// One transaction of a cycle. It waits for the next one; the first one is the one that closed the cycle, and the last
/// one waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadlockMember {
    /// Transaction.
    pub id: u64,
    /// Its label.
    pub label: Option<String>,
    /// Its isolation level, or what else it is.
    pub level: &'static str,
    /// Its priority: lower ones are sacrificed first.
    pub priority: i32,
    /// Time since it began.
    pub age: Duration,
    /// Writes it has done so far.
    pub writes: u64,
    /// Whether it is prepared, and so never a victim.
    pub prepared: bool,
    /// The lock it waits for.
    pub waits_for: LockDescription,
    /// How long it has waited.
    pub waited: Duration,
    /// The lock that the transaction before it in the cycle runs into.
    pub holds: LockDescription,
    /// Whether it has that lock; else it is ahead in the queue for it.
    pub holds_granted: bool,
}

impl DeadlockMember {
    /// Number and label.
    fn name(&self) -> String {
        transaction_name(self.id, self.label.as_deref())
    }
}

/// A transaction in a message: `transaction 7 "transfer"`.
pub(crate) fn transaction_name(id: u64, label: Option<&str>) -> String {
    let mut name = format!("transaction {id}");
    if let Some(label) = label {
        let _ = write!(name, " \"{}\"", label.escape_debug());
    }
    name
}

/// A cycle of transactions that waited for each other, and how it was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadlockReport {
    /// The transactions, each waiting for the next and the last for the first.
    pub cycle: Vec<DeadlockMember>,
    /// The transaction that got the error.
    pub victim: u64,
    /// Why this one.
    pub why: String,
    /// When, in microseconds since the Unix epoch.
    pub at_unix_micros: u64,
}

impl DeadlockReport {
    /// Puts the parts together.
    pub(crate) fn new(cycle: Vec<DeadlockMember>, victim: u64, why: String, at: u64) -> DeadlockReport {
        DeadlockReport { cycle, victim, why, at_unix_micros: at }
    }

    /// One line: how many, who was chosen, why.
    pub(crate) fn summary(&self) -> String {
        let victim = self.cycle.iter().find(|member| member.id == self.victim);
        let name = victim.map_or_else(|| transaction_name(self.victim, None), DeadlockMember::name);
        let mut line =
            format!("deadlock of {} transactions: {name} is the victim: {}", self.cycle.len(), self.why);
        if let Some(victim) = victim {
            let _ = write!(line, "; it waited for {}", victim.waits_for);
        }
        line
    }
}

impl fmt::Display for DeadlockReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.summary())?;
        for member in &self.cycle {
            let fate = if member.id == self.victim { ", victim" } else { "" };
            let prepared = if member.prepared { ", prepared" } else { "" };
            write!(
                f,
                "\n  {} ({}, priority {}, age {:?}, {} writes{prepared}{fate})",
                member.name(),
                member.level,
                member.priority,
                member.age,
                member.writes,
            )?;
            write!(f, "\n    waits since {:?} for {}", member.waited, member.waits_for)?;
            let verb = if member.holds_granted { "holds" } else { "is ahead in the queue for" };
            write!(f, "\n    {verb} {}", member.holds)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_escaped_and_cut() {
        for (span, expected) in [
            (LockSpan::Key(b"plain".to_vec()), "key \"plain\"".to_string()),
            (LockSpan::Key(b"a\"\x00\xff\n".to_vec()), r#"key "a\"\x00\xff\n""#.to_string()),
            (LockSpan::Key(vec![b'k'; 64]), format!("key \"{}\"", "k".repeat(64))),
            (LockSpan::Key(vec![b'k'; 65]), format!("key \"{}\"... (65 bytes)", "k".repeat(64))),
            (
                LockSpan::Range { start: b"a".to_vec(), end: Some(b"b".to_vec()) },
                "range from \"a\" to \"b\"".to_string(),
            ),
            (LockSpan::Range { start: Vec::new(), end: None }, "range from \"\" to the end".to_string()),
        ] {
            assert_eq!(span.to_string(), expected);
        }
    }
}
