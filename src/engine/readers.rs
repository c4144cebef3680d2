//! The list of registered readers, in the order of their sequence numbers.
//!
//! Slots in a vector, linked both ways: new readers read at the newest sequence number and are added at the end, and
//! any reader is taken out by its slot's index. Both take a few nanoseconds and allocate nothing, however many readers
//! there are: this is on the way of every iterator. Only a reader of the past is inserted by a walk.

use super::pins::PinKind;
use crate::base::types::SeqNo;
use std::sync::Arc;

/// A registered reader.
#[derive(Debug)]
pub(super) struct Reader {
    /// It reads every commit up to here.
    pub(super) seq: SeqNo,
    /// What it is.
    pub(super) kind: PinKind,
    /// Its name.
    pub(super) label: Option<Arc<str>>,
    /// When it was registered, in nanoseconds of the clock.
    pub(super) started: u64,
    /// It was reported as too old.
    pub(super) reported: bool,
}

impl Reader {
    /// A reader that was not reported yet.
    pub(super) fn new(seq: SeqNo, kind: PinKind, label: Option<Arc<str>>, started: u64) -> Reader {
        Reader { seq, kind, label, started, reported: false }
    }
}

/// Index of a slot; `NONE` for none.
type Index = usize;
const NONE: Index = usize::MAX;

#[derive(Debug)]
struct Slot {
    reader: Option<Reader>,
    older: Index,
    /// Of a free slot: the next free one.
    newer: Index,
}

/// The readers. Of one sequence number, those registered first come first.
#[derive(Debug)]
pub(super) struct Readers {
    slots: Vec<Slot>,
    free: Index,
    oldest: Index,
    newest: Index,
}

impl Readers {
    /// Nobody.
    pub(super) fn new() -> Readers {
        Readers { slots: Vec::new(), free: NONE, oldest: NONE, newest: NONE }
    }

    /// Adds a reader; answers what removes it.
    #[inline]
    pub(super) fn insert(&mut self, reader: Reader) -> Index {
        let mut older = self.newest;
        while let Some(slot) = self.slots.get(older)
            && slot.reader.as_ref().is_some_and(|before| before.seq > reader.seq)
        {
            older = slot.older;
        }
        let newer = self.slots.get(older).map_or(self.oldest, |slot| slot.newer);
        let slot = Slot { reader: Some(reader), older, newer };
        let index = self.free;
        let index = match self.slots.get_mut(index) {
            Some(place) => {
                self.free = place.newer;
                *place = slot;
                index
            }
            None => {
                self.slots.push(slot);
                self.slots.len().wrapping_sub(1)
            }
        };
        self.link(older, newer, index, index);
        index
    }

    /// Takes a reader out.
    #[inline]
    pub(super) fn remove(&mut self, index: Index) -> Option<Reader> {
        let slot = self.slots.get_mut(index)?;
        let reader = slot.reader.take()?;
        let (older, newer) = (slot.older, slot.newer);
        slot.newer = std::mem::replace(&mut self.free, index);
        self.link(older, newer, newer, older);
        Some(reader)
    }

    /// After `older` comes `next`, and before `newer` comes `before`.
    #[inline]
    fn link(&mut self, older: Index, newer: Index, next: Index, before: Index) {
        match self.slots.get_mut(older) {
            Some(slot) => slot.newer = next,
            None => self.oldest = next,
        }
        match self.slots.get_mut(newer) {
            Some(slot) => slot.older = before,
            None => self.newest = before,
        }
    }

    /// The reader of a slot.
    pub(super) fn get(&self, index: Index) -> Option<&Reader> {
        self.slots.get(index)?.reader.as_ref()
    }

    /// All, oldest sequence number first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Reader> {
        let at = |index: Index| self.slots.get(index);
        std::iter::successors(at(self.oldest), move |slot| at(slot.newer))
            .filter_map(|slot| slot.reader.as_ref())
    }

    /// All, in no order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Reader> {
        self.slots.iter_mut().filter_map(|slot| slot.reader.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SplitMix64;

    /// Random insertions and removals against a sorted vector.
    #[test]
    fn the_list_is_a_sorted_vector() {
        let seed = std::env::var("ESKER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        println!("ESKER_SEED={seed}");
        let mut random = SplitMix64::new(seed);
        let mut readers = Readers::new();
        let mut model: Vec<(SeqNo, u64, Index)> = Vec::new();
        for started in 0..20_000u64 {
            if model.is_empty() || (model.len() < 30 && random.next_u64().is_multiple_of(2)) {
                let seq = if random.next_u64().is_multiple_of(3) {
                    random.next_u64() % 20
                } else {
                    started / 1000 + 20
                };
                let reader = Reader::new(seq, PinKind::Iterator, None, started);
                let index = readers.insert(reader);
                assert!(model.iter().all(|(_, _, other)| *other != index));
                model.push((seq, started, index));
                model.sort_unstable();
            } else {
                let (seq, started, index) = model.remove(random.next_u64() as usize % model.len());
                let removed = readers.remove(index).unwrap();
                assert_eq!((removed.seq, removed.started), (seq, started));
                assert!(readers.remove(index).is_none() && readers.get(index).is_none());
            }
            let found: Vec<_> = readers.iter().map(|reader| (reader.seq, reader.started)).collect();
            let expect: Vec<_> = model.iter().map(|(seq, started, _)| (*seq, *started)).collect();
            assert_eq!(found, expect);
            assert_eq!(readers.iter_mut().count(), model.len());
        }
        assert!(readers.slots.len() <= 30, "slots are used again");
    }
}
