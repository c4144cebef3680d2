//! Registered readers: which sequence numbers somebody still reads at.
//!
//! A reader registers under the lock that flush and compaction take to sample the registry, and takes its sequence
//! number inside it. So either the sample contains the reader, or the reader's number is at or above the `visible`
//! that was sampled with it, which the drop rules keep.

use super::pipeline::Pipeline;
use crate::base::sync::{Mutex, Rank};
use crate::base::types::SeqNo;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The registered readers of a database.
#[derive(Debug)]
pub(crate) struct Registry {
    counts: Mutex<BTreeMap<SeqNo, usize>>,
}

impl Registry {
    /// Nobody reads.
    pub(crate) fn new() -> Registry {
        Registry { counts: Mutex::new(Rank::Snapshots, BTreeMap::new()) }
    }

    /// Registers a reader of what is visible now.
    pub(crate) fn register(self: &Arc<Self>, pipeline: &Pipeline) -> Registration {
        let mut counts = self.counts.lock();
        let seq = pipeline.visible();
        let count = counts.entry(seq).or_insert(0);
        *count = count.saturating_add(1);
        Registration { registry: Arc::clone(self), seq }
    }

    /// The sequence numbers that are read at, ascending and each once, and the visible one, taken together.
    pub(crate) fn sample(&self, pipeline: &Pipeline) -> (Vec<SeqNo>, SeqNo) {
        let counts = self.counts.lock();
        (counts.keys().copied().collect(), pipeline.visible())
    }

    /// Number of registered readers and the oldest sequence number among them.
    pub(crate) fn summary(&self) -> (usize, Option<SeqNo>) {
        let counts = self.counts.lock();
        (counts.values().sum(), counts.keys().next().copied())
    }
}

/// A reader's registration; ends when dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Arc<Registry>,
    seq: SeqNo,
}

impl Registration {
    /// What the reader sees: every commit up to here.
    pub(crate) fn seq(&self) -> SeqNo {
        self.seq
    }
}

impl Clone for Registration {
    fn clone(&self) -> Self {
        let mut counts = self.registry.counts.lock();
        let count = counts.entry(self.seq).or_insert(0);
        *count = count.saturating_add(1);
        Registration { registry: Arc::clone(&self.registry), seq: self.seq }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut counts = self.registry.counts.lock();
        if let Some(count) = counts.get_mut(&self.seq) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.seq);
            }
        }
    }
}
