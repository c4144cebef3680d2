//! `verify`: reads everything and checks it.

use super::core::Core;
use crate::base::error::{Error, Result};
use std::fmt;

/// What a verification read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Tables read from the first to the last byte.
    pub tables: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes in them.
    pub bytes: u64,
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tables, {} entries, {} bytes: sound", self.tables, self.entries, self.bytes)
    }
}

impl Core {
    /// Checks the structure of every tree and every block of every table.
    pub(crate) fn verify(&self) -> Result<VerifyReport> {
        self.health.check_open()?;
        let keyspaces: Vec<_> = self.state.lock().keyspaces.values().cloned().collect();
        let mut report = VerifyReport::default();
        for keyspace in keyspaces {
            let view = keyspace.view();
            view.tree.check().map_err(|why| {
                Error::corrupt(&self.dir, None, "a tree in order", format!("{}: {why}", keyspace.name))
            })?;
            for meta in view.tree.tables() {
                let table = self.tables.get(meta)?;
                let entries = table.verify()?;
                if entries != meta.entries {
                    let path = super::tables::table_path(&self.dir, meta.number);
                    return Err(Error::corrupt(
                        &path,
                        None,
                        format!("{} entries", meta.entries),
                        format!("{entries}"),
                    ));
                }
                report.tables = report.tables.saturating_add(1);
                report.entries = report.entries.saturating_add(entries);
                report.bytes = report.bytes.saturating_add(meta.bytes);
            }
        }
        Ok(report)
    }
}
