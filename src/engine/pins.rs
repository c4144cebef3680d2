//! Who keeps old versions from being dropped: the report of it.

use super::core::Core;
use crate::base::types::SeqNo;
use std::fmt;
use std::time::Duration;

/// What kind of reader holds old versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PinKind {
    /// A [`Snapshot`](crate::Snapshot).
    Snapshot,
    /// An [`Iter`](crate::Iter) or a [`Cursor`](crate::Cursor); a `multi_get` while it runs.
    Iterator,
    /// A transaction.
    Transaction,
}

impl fmt::Display for PinKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PinKind::Snapshot => "snapshot",
            PinKind::Iterator => "iterator",
            PinKind::Transaction => "transaction",
        })
    }
}

/// A reader that keeps old versions from being dropped. See [`Db::pins`](crate::Db::pins).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pin {
    /// What it is.
    pub kind: PinKind,
    /// Its label, or that of the snapshot it was made from.
    pub label: Option<String>,
    /// How long ago it was made; an iterator over a snapshot is as old as the snapshot.
    pub age: Duration,
    /// It reads every commit up to this sequence number.
    pub seq: u64,
    /// About how many bytes of older versions it holds back: the operations committed since its sequence number, times
    /// the mean size of an operation, and never more than the bytes of all keys and values there are. Each of those
    /// operations may have replaced a version of its size, so this is an upper estimate; it is close when keys are
    /// overwritten, and too high when they are mostly new. What older readers hold as well is not subtracted.
    pub bytes: u64,
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(label) = &self.label {
            write!(f, " {label:?}")?;
        }
        write!(f, " at {}, {:?} old, about {} bytes", self.seq, self.age, self.bytes)
    }
}

impl Core {
    /// Registered readers, oldest first.
    pub(crate) fn pins(&self) -> Vec<Pin> {
        let mut pins = self.registry.pins();
        self.estimate_bytes(&mut pins);
        pins
    }

    /// Fills in what pins hold back. No lock may be held.
    pub(crate) fn estimate_bytes(&self, pins: &mut [Pin]) {
        if pins.is_empty() {
            return;
        }
        let keyspaces: Vec<_> = self.state.lock().keyspaces.values().cloned().collect();
        let (mut raw_bytes, mut entries) = (0u64, 0u64);
        for keyspace in &keyspaces {
            for table in keyspace.view().tree.tables() {
                raw_bytes = raw_bytes.saturating_add(table.raw_bytes);
                entries = entries.saturating_add(table.entries);
            }
        }
        let visible = self.pipeline.visible();
        let written = self.stats.bytes_written_user.get();
        let mean = match visible.saturating_sub(self.registry.opened_at()) {
            0 => raw_bytes.checked_div(entries).unwrap_or(0),
            operations => written.checked_div(operations).unwrap_or(0),
        };
        let memory = self.memtable_bytes_locked(&self.commit.lock());
        let most = raw_bytes.saturating_add(memory);
        for pin in pins {
            pin.bytes = bytes_since(pin.seq, visible, mean).min(most);
        }
    }
}

fn bytes_since(seq: SeqNo, visible: SeqNo, mean: u64) -> u64 {
    visible.saturating_sub(seq).saturating_mul(mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_as_one_line() {
        let age = Duration::from_millis(1500);
        let mut pin = Pin { kind: PinKind::Snapshot, label: None, age, seq: 7, bytes: 100 };
        assert_eq!(pin.to_string(), "snapshot at 7, 1.5s old, about 100 bytes");
        (pin.kind, pin.label) = (PinKind::Iterator, Some("nightly \"export\"".to_string()));
        assert_eq!(pin.to_string(), "iterator \"nightly \\\"export\\\"\" at 7, 1.5s old, about 100 bytes");
    }
}
