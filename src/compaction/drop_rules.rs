//! Which versions of a key a merge may leave out.
//!
//! Readers stand at the registered snapshots, at the visible sequence number, or (later) above it. With retention,
//! what is called visible here is the sequence number at the start of the window: all above may be read later, too.
//! These sequence numbers cut the versions of a key into *stripes*: a version belongs to the oldest reader that sees
//! it. Versions above the visible sequence number are each a stripe of their own, since a later snapshot may stand
//! between them.
//!
//! * **Shadowed**: a version with a newer one in its stripe is seen by nobody.
//! * **Delete**: one in the oldest stripe says nothing when no older version of its key can exist below the inputs;
//!   those among the inputs are in its stripe and go as shadowed. A delete in a newer stripe stays although it may
//!   hide nothing: it is what tells a transaction with an older snapshot that the key was written since.
//!
//! So the newest version in each stripe stays, which conflict detection relies on, and sequence numbers are never
//! changed. What a kind means must be known before anything around it is dropped: reserved ones are refused.

use super::running::Busy;
use super::task::{Age, Span, Task};
use crate::base::key::KeyRef;
use crate::base::types::{EntryKind, SeqNo, UnknownKind};
use crate::manifest::{TableMeta, Tree};
use std::sync::Arc;

/// What becomes of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is written.
    Keep {
        /// No newer version of its key is written.
        first: bool,
    },
    /// No reader can see it.
    Shadowed,
    /// A delete with nothing left to hide.
    Delete,
}

/// Judges the versions of all keys in their order: keys ascending, versions from new to old.
#[derive(Debug)]
pub(super) struct DropRules<'a> {
    /// Ascending.
    snapshots: &'a [SeqNo],
    visible: SeqNo,
    /// The oldest reader: all it sees is one stripe.
    oldest: SeqNo,
    /// `None`: deletes always stay.
    older: Option<OlderTables<'a>>,
    key: Vec<u8>,
    /// Stripe of the version before, when there was one of the same key.
    stripe: Option<SeqNo>,
    /// No version of the key was kept.
    first: bool,
}

impl<'a> DropRules<'a> {
    /// Rules for readers at `snapshots` (ascending), at `visible` and above. `older` knows where older versions may be;
    /// `None` keeps all deletes.
    pub(super) fn new(
        snapshots: &'a [SeqNo],
        visible: SeqNo,
        older: Option<OlderTables<'a>>,
    ) -> DropRules<'a> {
        // A fault for the tests to find: what the oldest reader needs is dropped.
        #[cfg(plant_drop_needed_version)]
        let snapshots = snapshots.get(1..).unwrap_or_default();
        let oldest = snapshots.first().map_or(visible, |first| visible.min(*first));
        DropRules { snapshots, visible, oldest, older, key: Vec::new(), stripe: None, first: true }
    }

    /// What becomes of the next version.
    ///
    /// # Errors
    /// A kind that this version does not know.
    #[inline]
    pub(super) fn judge(&mut self, key: KeyRef<'_>) -> Result<Verdict, UnknownKind> {
        let kind = key.trailer.kind()?;
        let stripe = self.stripe_of(key.trailer.seq());
        if self.stripe.is_some() && self.key == key.user {
            if self.stripe == Some(stripe) {
                return Ok(Verdict::Shadowed);
            }
        } else {
            self.key.clear();
            self.key.extend_from_slice(key.user);
            self.first = true;
        }
        self.stripe = Some(stripe);
        if kind == EntryKind::Delete && stripe == self.oldest && self.is_oldest_version(key.user) {
            return Ok(Verdict::Delete);
        }
        Ok(Verdict::Keep { first: std::mem::replace(&mut self.first, false) })
    }

    /// The oldest reader that sees this version; above all readers, the version itself.
    #[inline]
    fn stripe_of(&self, seq: SeqNo) -> SeqNo {
        if seq <= self.oldest {
            return self.oldest;
        }
        if seq > self.visible {
            return seq;
        }
        let index = self.snapshots.partition_point(|snapshot| *snapshot < seq);
        self.snapshots.get(index).map_or(self.visible, |snapshot| self.visible.min(*snapshot))
    }

    fn is_oldest_version(&mut self, user: &[u8]) -> bool {
        self.older.as_mut().is_some_and(|older| !older.may_hold(user))
    }
}

/// The tables that may hold versions older than the inputs of a compaction: all that are not inputs and lie below the
/// newest input. The tree may be the one at the start of the compaction: what others do meanwhile moves entries down
/// to places that are below already.
#[derive(Debug)]
pub(super) struct OlderTables<'a> {
    /// Per run, ascending: what is not wholly left of the last key asked for.
    runs: Vec<&'a [Arc<TableMeta>]>,
    inputs: Busy,
}

impl<'a> OlderTables<'a> {
    /// Below the inputs of a task.
    pub(super) fn below(tree: &'a Tree, task: &Task) -> OlderTables<'a> {
        let newest = task.newest_age();
        let hull = task.hull();
        let older = tree.runs().filter(|(level, run)| Age::new(*level, run.epoch) >= newest);
        let runs = older.map(|(_, run)| hull.map_or(&[][..], |hull: Span<'_>| hull.in_run(run)));
        OlderTables {
            runs: runs.filter(|tables| !tables.is_empty()).collect(),
            inputs: Busy::numbers(task.tables().map(|table| table.number)),
        }
    }

    /// Below what is not in the tree yet.
    pub(super) fn all(tree: &'a Tree) -> OlderTables<'a> {
        OlderTables {
            runs: tree.runs().map(|(_, run)| run.tables.as_slice()).collect(),
            inputs: Busy::default(),
        }
    }

    /// Whether one of them may hold this key. Keys are asked for in ascending order.
    pub(super) fn may_hold(&mut self, user: &[u8]) -> bool {
        let inputs = &self.inputs;
        self.runs.iter_mut().any(|rest| {
            while let Some((first, others)) = rest.split_first()
                && (*first.largest.user < *user || inputs.has(first.number))
            {
                *rest = others;
            }
            rest.first().is_some_and(|table| *table.smallest.user <= *user)
        })
    }
}
