//! What can be wrong with a history, and which level forbids it.
//!
//! Names after Adya, Liskov and O'Neil ("Generalized Isolation Level Definitions", 2000), Bailis et al. ("Highly
//! Available Transactions", 2013), Berenson et al. (P4) and the design of the scenario table.

use super::model::Level;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A value that nobody ever wrote there.
    Garbage,
    /// A transaction did not see its own write.
    Internal,
    /// Between locking a key and committing, another one wrote it.
    LockBroken,
    /// A cycle of writes: the order that readers saw contradicts the order of commits.
    G0,
    /// A value of a transaction that rolled back.
    G1a,
    /// A value that its writer replaced before it committed.
    G1b,
    /// A cycle of writes and reads of what was written; also a value that was committed only after its reader.
    G1c,
    /// Observed transaction vanishes: after one transaction's effect an older state is read.
    Otv,
    /// One read that is not one state: half of a commit, or an older and a newer one.
    Torn,
    /// Predicate many preceders: two reads of a range that no one state explains.
    Pmp,
    /// Lost update: between reading a key and overwriting it, another one wrote it.
    P4,
    /// Read skew: a cycle with exactly one missed write.
    GSingle,
    /// A cycle without two adjacent missed writes, or a state that no prefix of the commits has.
    GSi,
    /// Two readers see two independent commits in different orders.
    LongFork,
    /// Write skew on keys.
    G2Item,
    /// Write skew through ranges.
    G2,
    /// A commit that had returned was not seen by a transaction that began afterwards.
    RealTime,
    /// Data in the final state that no commit put there.
    Dirty,
    /// A commit that had to be there is gone.
    Lost,
    /// A commit that is there in part.
    Partial,
}

impl Kind {
    /// The weakest level that forbids it.
    pub fn forbidden_from(self) -> Level {
        use Kind::*;
        match self {
            Garbage | Internal | LockBroken | G0 | RealTime | Dirty | Lost | Partial => {
                Level::ReadUncommitted
            }
            G1a | G1b | G1c | Otv | Torn => Level::ReadCommitted,
            Pmp | P4 | GSingle | GSi | LongFork => Level::RepeatableRead,
            G2Item | G2 => Level::Serializable,
        }
    }
}

/// One thing that is wrong, with the reason in words.
#[derive(Debug, Clone)]
pub struct Anomaly {
    pub kind: Kind,
    pub why: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.why)
    }
}

pub fn kinds(anomalies: &[Anomaly]) -> BTreeSet<Kind> {
    anomalies.iter().map(|anomaly| anomaly.kind).collect()
}

/// So many of each kind are told in words; more are only counted.
const TOLD: usize = 3;

/// Collects anomalies without telling the same story ten thousand times.
#[derive(Debug, Default)]
pub struct Findings {
    of_kind: BTreeMap<Kind, (u64, Vec<String>)>,
}

impl Findings {
    pub fn note(&mut self, kind: Kind, why: impl FnOnce() -> String) {
        let (count, told) = self.of_kind.entry(kind).or_default();
        *count += 1;
        if told.len() < TOLD {
            told.push(why());
        }
    }

    pub fn into_anomalies(self) -> Vec<Anomaly> {
        let mut all = Vec::new();
        for (kind, (count, told)) in self.of_kind {
            let more = count - told.len() as u64;
            all.extend(told.into_iter().map(|why| Anomaly { kind, why }));
            if more > 0 {
                all.push(Anomaly { kind, why: format!("and {more} more") });
            }
        }
        all
    }
}
