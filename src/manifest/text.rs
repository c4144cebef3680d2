//! The metadata as lines of text, for people and for tests.
//!
//! A table is `number:[smallest..largest]@seq_min-seq_max`, followed by `{name=value,…}` for what differs from the
//! defaults below; a run is a line `L0 #5: 12:[a..f]@10-20 13:[g..k]@11-19`; an operation is a line such as
//! `remove 0 L0 #5 12`. Keys show letters, digits and `_-/` as they are, other bytes as `\xNN`; a bound whose
//! trailer is not the usual one (newest put for the smallest key, oldest put for the largest) has it appended:
//! `a!15d`. `parse` reads all of it back.

use super::edit::{Edit, EditOp};
use super::meta::{Run, TableMeta, Tree};
use super::settings::KeyspaceSettings;
use super::version::{KeyspaceRecord, Version};
use crate::base::key::{InternalKey, Trailer};
use crate::base::types::EntryKind;
use std::fmt;

/// Bytes of a table that does not say otherwise.
pub(super) const TABLE_BYTES_DEFAULT: u64 = 1000;
/// Entries of a table that does not say otherwise.
pub(super) const TABLE_ENTRIES_DEFAULT: u64 = 10;
/// Suffixes of sizes.
pub(super) const UNITS: [(char, u64); 3] = [('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];

struct KeyText<'a> {
    key: &'a InternalKey,
    usual: Trailer,
}

impl fmt::Display for KeyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in &*self.key.user {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'/' => {
                    write!(f, "{}", char::from(byte))?
                }
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        if self.key.trailer != self.usual {
            let kind = if self.key.trailer.kind() == Ok(EntryKind::Delete) { 'd' } else { 'p' };
            write!(f, "!{}{kind}", self.key.trailer.seq())?;
        }
        Ok(())
    }
}

/// A number of bytes in its largest exact unit.
fn size(bytes: u64) -> String {
    let exact = UNITS.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    match exact.and_then(|(suffix, unit)| Some((suffix, bytes.checked_div(*unit)?))) {
        Some((suffix, count)) => format!("{count}{suffix}"),
        None => bytes.to_string(),
    }
}

impl fmt::Display for TableMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let smallest = KeyText { key: &self.smallest, usual: Trailer::new(self.seq_max, EntryKind::Put) };
        let largest = KeyText { key: &self.largest, usual: Trailer::new(self.seq_min, EntryKind::Put) };
        write!(f, "{}:[{smallest}..{largest}]@{}-{}", self.number, self.seq_min, self.seq_max)?;
        let extras = [
            ("bytes", self.bytes, TABLE_BYTES_DEFAULT, size(self.bytes)),
            ("raw", self.raw_bytes, self.bytes, size(self.raw_bytes)),
            ("entries", self.entries, TABLE_ENTRIES_DEFAULT, self.entries.to_string()),
            ("deletes", self.deletes, 0, self.deletes.to_string()),
            ("older", self.older_versions, 0, self.older_versions.to_string()),
            ("origin", self.origin, self.number, self.origin.to_string()),
        ];
        let mut before = '{';
        for (name, value, default, text) in extras {
            if value != default {
                write!(f, "{before}{name}={text}")?;
                before = ',';
            }
        }
        if before == ',' { write!(f, "}}") } else { Ok(()) }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}:", self.epoch)?;
        self.tables.iter().try_for_each(|table| write!(f, " {table}"))
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        self.runs().try_for_each(|(level, run)| {
            write!(f, "{between}L{level} {run}")?;
            between = "\n";
            Ok(())
        })
    }
}

/// Fields that are set, each after a space.
impl fmt::Display for KeyspaceSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.fields().into_iter().filter(|(_, _, value)| *value != 0);
        set.into_iter().try_for_each(|(_, name, value)| write!(f, " {name}={value}"))
    }
}

impl fmt::Display for EditOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EditOp::CreateKeyspace { id, name, settings } => write!(f, "create {} {name:?}{settings}", id.0),
            EditOp::DropKeyspace { id } => write!(f, "drop {}", id.0),
            EditOp::SetSettings { id, settings } => write!(f, "settings {}{settings}", id.0),
            EditOp::AddTable { keyspace, level, epoch, table } => {
                write!(f, "add {} L{level} #{epoch} {table}", keyspace.0)
            }
            EditOp::RemoveTable { keyspace, level, epoch, number } => {
                write!(f, "remove {} L{level} #{epoch} {number}", keyspace.0)
            }
            EditOp::Flushed { keyspace, seq } => write!(f, "flushed {} {seq}", keyspace.0),
            EditOp::LogNumber(value) => write!(f, "log {value}"),
            EditOp::ReserveFiles(value) => write!(f, "files {value}"),
            EditOp::NextEpoch(value) => write!(f, "epochs {value}"),
            EditOp::NextKeyspace(value) => write!(f, "keyspaces {value}"),
            EditOp::LastSeq(value) => write!(f, "seq {value}"),
            EditOp::Clean { next_log } => write!(f, "clean {next_log}"),
            EditOp::Floor(value) => write!(f, "floor {value}"),
            EditOp::Moment { moment, span_micros } => {
                write!(f, "moment {} {} {span_micros}", moment.at_micros, moment.seq)
            }
        }
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        self.0.iter().try_for_each(|op| {
            write!(f, "{between}{op}")?;
            between = "\n";
            Ok(())
        })
    }
}

impl fmt::Display for KeyspaceRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keyspace {} {:?} flushed {}{}", self.id.0, self.name, self.flushed_seq, self.options)?;
        self.tree.runs().try_for_each(|(level, run)| write!(f, "\n  L{level} {run}"))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "generation {} files {} epochs {}",
            self.generation, self.files_reserved_upto, self.next_epoch
        )?;
        write!(f, " keyspaces {} log {} seq {}", self.next_keyspace, self.log_number, self.last_seq)?;
        if let Some(next_log) = self.clean_next_log {
            write!(f, " clean {next_log}")?;
        }
        self.keyspaces.values().try_for_each(|record| write!(f, "\n{record}"))
    }
}
