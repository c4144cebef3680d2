//! A step function over keys: for each key, the mark of the last reader of a range around it.
//!
//! Readers finish in about the order of their marks, so a new range nearly always replaces all that lies under it, and
//! the number of steps stays near the number of bounds that are still visible.

use std::collections::BTreeMap;
use std::ops::Bound;

/// A reader that has finished, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// Its commit; for one without writes, its snapshot. 0 is nobody.
    pub(super) at: u64,
    pub(super) id: u64,
}

impl Mark {
    pub(super) fn raise(&mut self, other: Mark) {
        if self.at < other.at {
            *self = other;
        }
    }
}

/// Memory of a step beside its key.
const STEP_BYTES: usize = 80;

/// The function: nobody before the first key; each mark holds from its key up to the next.
#[derive(Debug, Default)]
pub(super) struct Steps {
    marks: BTreeMap<Vec<u8>, Mark>,
    bytes: usize,
    /// Ranges added since the last sweep.
    added: usize,
}

impl Steps {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    pub(super) fn get(&self, key: &[u8]) -> Mark {
        let before = self.marks.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        before.map_or(Mark::default(), |(_, mark)| *mark)
    }

    /// Raises `[start, end)` to this mark.
    pub(super) fn raise(&mut self, start: &[u8], end: Option<&[u8]>, mark: Mark) {
        if end.is_some_and(|end| end <= start) {
            return;
        }
        if let Some(end) = end {
            self.split(end);
        }
        self.split(start);
        let upto = end.map_or(Bound::Unbounded, Bound::Excluded);
        for (_, known) in self.marks.range_mut::<[u8], _>((Bound::Included(start), upto)) {
            known.raise(mark);
        }
        self.join(start, end);
        self.added = self.added.saturating_add(1);
    }

    /// Makes the key begin a step.
    fn split(&mut self, key: &[u8]) {
        if !self.marks.contains_key(key) {
            let mark = self.get(key);
            self.bytes = self.bytes.saturating_add(key.len()).saturating_add(STEP_BYTES);
            self.marks.insert(key.to_vec(), mark);
        }
    }

    /// Removes steps inside of the range, and at its end, that are as high as the one before.
    fn join(&mut self, start: &[u8], end: Option<&[u8]>) {
        let before = self.marks.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(start))).next_back();
        let mut last = before.map_or(0, |(_, mark)| mark.at);
        let mut level = Vec::new();
        let upto = end.map_or(Bound::Unbounded, Bound::Included);
        for (key, mark) in self.marks.range::<[u8], _>((Bound::Included(start), upto)) {
            if mark.at == last {
                level.push(key.clone());
            }
            last = mark.at;
        }
        for key in level {
            self.marks.remove(&key);
            self.bytes = self.bytes.saturating_sub(key.len().saturating_add(STEP_BYTES));
        }
    }

    /// Forgets marks up to the horizon, when enough was added since the last time to pay for it.
    pub(super) fn sweep(&mut self, horizon: u64) {
        if self.added < self.marks.len() / 2 {
            return;
        }
        self.added = 0;
        let mut last = 0;
        let mut bytes = 0usize;
        self.marks.retain(|key, mark| {
            if mark.at <= horizon {
                *mark = Mark::default();
            }
            let is_step = mark.at != last;
            last = mark.at;
            bytes = bytes.saturating_add(if is_step { key.len().saturating_add(STEP_BYTES) } else { 0 });
            is_step
        });
        self.bytes = bytes;
    }
}
