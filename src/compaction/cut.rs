//! Where one output table ends and the next begins.
//!
//! Tables end near the target size, and if possible where a table of the next deeper level (a *guard*) ends: later
//! merges then read whole tables of both and rewrite little beside (RocksDB measured an eighth less written; Spooky,
//! Dayan et al. 2022, builds on it). A table that spans many guards ends early, so that pushing it down stays a small
//! compaction. The caller asks once per user key, so that versions of a key are never parted.

use crate::manifest::{TableMeta, Tree};
use std::sync::Arc;

/// Tables side by side that one compaction should be able to take from a level.
const COLUMNS: u64 = 5;

/// Decides on cuts for keys that ascend.
#[derive(Debug)]
pub(super) struct Cutter<'a> {
    target_bytes: u64,
    /// Guard bytes that one table may span.
    span_bytes_max: u64,
    /// Guards that do not end left of the last key.
    guards: &'a [Arc<TableMeta>],
    /// Bytes of guards that ended since the table began.
    span_bytes: u64,
}

impl<'a> Cutter<'a> {
    /// Cuts for outputs of a level of this tree.
    pub(super) fn new(
        tree: &'a Tree,
        level: usize,
        target_bytes: u64,
        max_compaction_bytes: u64,
    ) -> Cutter<'a> {
        // Level 0 is mostly pushed down whole; more files would only make flushes slower.
        let span_bytes_max = if level == 0 { max_compaction_bytes } else { max_compaction_bytes / COLUMNS };
        let deeper = tree.levels.iter().skip(level.saturating_add(1));
        let guards = deeper.filter_map(|level| level.runs.last()).next().map_or(&[][..], |run| &run.tables);
        Cutter { target_bytes: target_bytes.max(1), span_bytes_max, guards, span_bytes: 0 }
    }

    /// Whether the table that has `bytes` by now ends before this user key. Asked once per user key, ascending.
    #[inline]
    pub(super) fn cuts_before(&mut self, user: &[u8], bytes: u64) -> bool {
        let crosses = self.guards.first().is_some_and(|guard| *guard.largest.user < *user);
        if crosses {
            self.cross(user);
        }
        let cuts = self.is_due(crosses, bytes);
        // What lies before the first key is not spanned.
        if cuts || bytes == 0 {
            self.span_bytes = 0;
        }
        cuts
    }

    fn cross(&mut self, user: &[u8]) {
        while let Some((guard, rest)) = self.guards.split_first()
            && *guard.largest.user < *user
        {
            self.span_bytes = self.span_bytes.saturating_add(guard.bytes);
            self.guards = rest;
        }
    }

    fn is_due(&self, crosses: bool, bytes: u64) -> bool {
        let quarter = self.target_bytes / 4;
        // Without a guard to wait for, the target is the size; with one, a little less or a little more will do.
        let wanted = match (crosses, self.guards.is_empty()) {
            (true, _) => self.target_bytes.saturating_sub(quarter),
            (false, true) => self.target_bytes,
            (false, false) => self.target_bytes.saturating_add(quarter),
        };
        let spans_too_much =
            crosses && self.span_bytes >= self.span_bytes_max && bytes >= self.target_bytes / 8;
        bytes > 0 && (bytes >= wanted || spans_too_much)
    }
}
