//! Prepared transactions: they can no longer fail, so everybody else has to give way.
//!
//! A transaction is prepared only if it has read over nothing that is committed or prepared, and from then on nobody may
//! write over what it has read. So a prepared transaction has no edge out, and never gets one: it cannot be the
//! pivot of a dangerous structure, whoever reads what it writes and however long it takes to decide. Were it allowed an
//! edge out, a declared read-only transaction, which neither fails nor waits, could see what it missed and miss what it
//! writes.
//!
//! The list is walked by commits while it is not empty: a few are expected, for a short time.

use super::check::{Danger, Rule};
use super::reads::ReadSet;
use super::writes::{NEVER, WriteKey, WriteKeys};
use crate::base::types::SeqNo;
use std::sync::Arc;

/// What a prepared transaction has read.
#[derive(Debug)]
pub(super) enum Reads {
    /// Nothing that is tracked: it is of a weaker level.
    Untracked,
    /// These.
    Known(Arc<ReadSet>),
    /// Nobody knows: everything.
    Everything,
}

impl Reads {
    fn covers(&self, write: &WriteKey) -> bool {
        match self {
            Reads::Untracked => false,
            Reads::Known(reads) => reads.covers(write),
            Reads::Everything => true,
        }
    }
}

/// A prepared transaction.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) id: u64,
    pub(super) reads: Reads,
    pub(super) writes: WriteKeys,
    /// Found at open: counts as having conflicts both in and out.
    pub(super) is_recovered: bool,
}

impl Prepared {
    pub(super) fn is_serializable(&self) -> bool {
        !matches!(self.reads, Reads::Untracked)
    }

    /// Where its oldest edge out leads, for all that is known.
    pub(super) fn out_min(&self) -> SeqNo {
        if self.is_recovered && self.is_serializable() { 0 } else { NEVER }
    }
}

/// All prepared transactions.
#[derive(Debug, Default)]
pub(super) struct PreparedList(Vec<Prepared>);

impl PreparedList {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|one| one.writes.bytes()).sum()
    }

    pub(super) fn has_serializable(&self) -> bool {
        self.0.iter().any(Prepared::is_serializable)
    }

    pub(super) fn add(&mut self, one: Prepared) {
        self.0.push(one);
    }

    pub(super) fn get(&self, id: u64) -> Option<&Prepared> {
        self.0.iter().find(|one| one.id == id)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Prepared> {
        let index = self.0.iter().position(|one| one.id == id)?;
        Some(self.0.swap_remove(index))
    }

    /// Fails a commit that writes over what one of them has read.
    pub(super) fn check_writes(&self, writes: &WriteKeys) -> Result<(), Danger> {
        for one in self.0.iter().filter(|one| one.is_serializable()) {
            if let Some(write) = writes.iter().find(|write| one.reads.covers(write)) {
                return Err(Danger::new(Rule::PreparedReader, Some(one.id), Some(write)));
            }
        }
        Ok(())
    }

    /// Fails a transaction that has read what one of them writes: with `all` of any of them, else of one that was
    /// recovered.
    pub(super) fn check_reads(&self, reads: &ReadSet, all: bool) -> Result<(), Danger> {
        let counted = |one: &&Prepared| all || (one.is_recovered && one.is_serializable());
        for one in self.0.iter().filter(counted) {
            if let Some(write) = one.writes.iter().find(|write| reads.covers(write)) {
                return Err(Danger::new(Rule::PreparedWriter, Some(one.id), Some(write)));
            }
        }
        Ok(())
    }
}
