//! A memtable that was sorted before it was made (recovery, huge batches) and takes no writes.
//!
//! Beside the entries stands an array with one word of each key: its eight bytes, big-endian, behind the prefix
//! that all keys of the run share. A search bisects these words, eight to a cache line, and compares whole keys
//! only among equal ones.

use super::filter::Filter;
use crate::base::checksum::key_hash;
use crate::base::error::Result;
use crate::base::iter::InternalIter;
use crate::base::key::{KeyRef, Trailer};
use crate::base::slice::Slice;
use crate::base::types::SeqNo;
use rayon::ThreadPool;
use rayon::slice::ParallelSliceMut;
use std::cmp::Ordering as Order;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An entry of a run.
#[derive(Debug, Clone)]
pub(crate) struct RunEntry {
    /// User key.
    pub(crate) key: Slice,
    /// Version and kind.
    pub(crate) trailer: Trailer,
    /// Value; empty for kinds without one.
    pub(crate) value: Slice,
}

impl RunEntry {
    #[inline]
    fn key(&self) -> KeyRef<'_> {
        KeyRef::new(&self.key, self.trailer)
    }
}

/// The immutable run. Internal keys are unique and ascend.
#[derive(Debug)]
pub(crate) struct SortedRun {
    entries: Box<[RunEntry]>,
    /// Length of the prefix that all keys share.
    shared_len: usize,
    /// For each entry the word behind the shared prefix.
    words: Box<[u64]>,
    filter: Filter,
    seqs: Option<(SeqNo, SeqNo)>,
    owner_bytes: AtomicUsize,
}

impl SortedRun {
    /// Makes a run of the entries of all lists; sorts them, on the threads of the pool if there is one. Of equal
    /// internal keys the first stays.
    pub(super) fn new(lists: Vec<Vec<RunEntry>>, pool: Option<&ThreadPool>) -> SortedRun {
        let filter = Filter::new(lists.iter().map(Vec::len).sum());
        let seqs = || lists.iter().flatten().map(|entry| entry.trailer.seq());
        let seqs = seqs().min().zip(seqs().max());
        let Sorted { entries, words, shared_len } = match pool {
            Some(pool) => {
                pool.install(|| sort(lists, &filter, |heads, order| heads.par_sort_unstable_by(order)))
            }
            None => sort(lists, &filter, |heads, order| heads.sort_unstable_by(order)),
        };
        SortedRun {
            entries: entries.into_boxed_slice(),
            words: words.into_boxed_slice(),
            seqs,
            shared_len,
            filter,
            owner_bytes: AtomicUsize::new(0),
        }
    }

    /// Counts a buffer that entries keep alive.
    pub(super) fn charge_owner(&self, bytes: usize) {
        self.owner_bytes.fetch_add(super::buffer_bytes(bytes), Ordering::Relaxed);
    }

    /// See [`super::Memtable::get`].
    pub(super) fn get(&self, key: &[u8], hash: u64, seq: SeqNo) -> Option<(Trailer, Slice)> {
        if !self.filter.may_contain(hash) {
            return None;
        }
        let entry = self.entries.get(self.lower_bound(KeyRef::new(key, Trailer::search(seq))))?;
        (entry.key == *key).then(|| (entry.trailer, entry.value.clone()))
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Heap bytes it keeps.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.entries)
            .saturating_add(size_of_val(&*self.words))
            .saturating_add(self.filter.bytes())
            .saturating_add(size_of::<SortedRun>())
            .saturating_add(self.owner_bytes.load(Ordering::Relaxed))
    }

    /// Smallest and largest sequence number.
    pub(super) fn seq_range(&self) -> Option<(SeqNo, SeqNo)> {
        self.seqs
    }

    /// Index of the first entry at or after `target`.
    fn lower_bound(&self, target: KeyRef<'_>) -> usize {
        self.partition(target, |entry| entry < target)
    }

    /// Index of the first entry after `target`.
    fn upper_bound(&self, target: KeyRef<'_>) -> usize {
        self.partition(target, |entry| entry <= target)
    }

    /// Index of the first entry for which `before` is false. It must be true for every key below `target` and
    /// false for every key above.
    fn partition(&self, target: KeyRef<'_>, before: impl Fn(KeyRef<'_>) -> bool) -> usize {
        let Some(first) = self.entries.first() else { return 0 };
        let shared = first.key.get(..self.shared_len).unwrap_or_default();
        let head = target.user.get(..self.shared_len).unwrap_or(target.user);
        match head.cmp(shared) {
            Order::Less => return 0,
            Order::Greater => return self.entries.len(),
            Order::Equal => {}
        }
        let word = word_at(target.user, self.shared_len);
        let low = self.words.partition_point(|other| *other < word);
        let equal_word = self.words.get(low..).unwrap_or_default();
        let equal_len = equal_word.partition_point(|other| *other == word);
        let candidates = self.entries.get(low..low.saturating_add(equal_len)).unwrap_or_default();
        low.saturating_add(candidates.partition_point(|entry| before(entry.key())))
    }
}

/// Entries in order, each internal key once, and what a search looks at first.
struct Sorted {
    entries: Vec<RunEntry>,
    words: Vec<u64>,
    shared_len: usize,
}

/// What decides nearly every comparison of a sort, beside its neighbours in memory.
struct Head {
    /// The sixteen bytes behind the prefix that all keys share: orders as the keys do, up to ties.
    bytes: u128,
    /// Where the entry is: list, and place in it.
    list: u32,
    index: u32,
}

type Compare<'a> = &'a (dyn Fn(&Head, &Head) -> Order + Sync);

/// Sorts small heads instead of entries and looks at a key only where heads tie: reading the keys of half a million
/// entries is as many cache misses for every level of the sort. Adds the keys to the filter on the way, while they
/// still lie one after the other in memory.
fn sort(lists: Vec<Vec<RunEntry>>, filter: &Filter, sort_heads: impl Fn(&mut [Head], Compare<'_>)) -> Sorted {
    let first = lists.iter().flatten().next().map(|entry| entry.key.clone());
    let shared_len = first.map_or(0, |first| {
        lists.iter().flatten().fold(first.len(), |len, entry| len.min(shared_prefix_len(&first, &entry.key)))
    });
    let mut heads = Vec::with_capacity(lists.iter().map(Vec::len).sum());
    for (list, entries) in (0u32..).zip(&lists) {
        heads.extend((0u32..).zip(entries).map(|(index, entry)| {
            filter.add(key_hash(&entry.key));
            let high = u128::from(word_at(&entry.key, shared_len));
            let low = u128::from(word_at(&entry.key, shared_len.saturating_add(8)));
            Head { bytes: (high << 64) | low, list, index }
        }));
    }
    let entry_of = |head: &Head| lists.get(head.list as usize)?.get(head.index as usize);
    let key_of = |head: &Head| entry_of(head).map(RunEntry::key);
    let place = |head: &Head| (head.list, head.index);
    sort_heads(&mut heads, &|a, b| {
        a.bytes.cmp(&b.bytes).then_with(|| key_of(a).cmp(&key_of(b))).then_with(|| place(a).cmp(&place(b)))
    });
    heads.dedup_by(|later, first| later.bytes == first.bytes && key_of(later) == key_of(first));
    let words = heads.iter().map(|head| (head.bytes >> 64) as u64).collect();
    let mut slots: Vec<Vec<Option<RunEntry>>> =
        lists.into_iter().map(|entries| entries.into_iter().map(Some).collect()).collect();
    let take = |head: &Head| slots.get_mut(head.list as usize)?.get_mut(head.index as usize)?.take();
    let entries = heads.iter().filter_map(take).collect();
    Sorted { entries, words, shared_len }
}

/// The eight bytes at `start`, big-endian, zeros past the key's end: orders as the keys do, up to ties.
#[inline]
fn word_at(key: &[u8], start: usize) -> u64 {
    let rest = key.get(start..).unwrap_or_default();
    match rest.first_chunk::<8>() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0u8; 8];
            bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            u64::from_be_bytes(bytes)
        }
    }
}

fn shared_prefix_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// A cursor over a [`SortedRun`], which it keeps alive.
#[derive(Debug)]
pub(crate) struct RunIter {
    run: Arc<SortedRun>,
    /// Index of the entry; past the end when not valid.
    at: usize,
}

/// An index that no run has.
const NOWHERE: usize = usize::MAX;

impl RunIter {
    pub(super) fn new(run: Arc<SortedRun>) -> RunIter {
        RunIter { run, at: NOWHERE }
    }

    #[inline]
    fn entry(&self) -> Option<&RunEntry> {
        self.run.entries.get(self.at)
    }

    fn before(&mut self, index: usize) {
        self.at = index.checked_sub(1).unwrap_or(NOWHERE);
    }
}

impl InternalIter for RunIter {
    #[inline]
    fn valid(&self) -> bool {
        self.at < self.run.entries.len()
    }

    #[inline]
    fn key(&self) -> KeyRef<'_> {
        self.entry().map_or(KeyRef::new(&[], Trailer::LAST), RunEntry::key)
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.entry().map(|entry| entry.value.as_bytes()).unwrap_or_default()
    }

    fn value_slice(&self) -> Slice {
        self.entry().map_or_else(|| Slice::copy_from(&[]), |entry| entry.value.clone())
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.at = self.run.lower_bound(target);
        Ok(())
    }

    fn seek_for_prev(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.before(self.run.upper_bound(target));
        Ok(())
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.at = 0;
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.before(self.run.entries.len());
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        self.at = self.at.saturating_add(1);
        Ok(())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if self.valid() {
            self.before(self.at);
        }
        Ok(())
    }
}
