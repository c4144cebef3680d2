//! A memtable that was sorted before it was made (recovery, huge batches) and takes no writes.
//!
//! Beside the entries stands an array with one word of each key: its eight bytes, big-endian, behind the prefix
//! that all keys of the run share. A search bisects these words, eight to a cache line, and compares whole keys
//! only among equal ones.

use super::entry::Place;
use super::filter::Filter;
use crate::base::checksum::key_hash;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::iter::InternalIter;
use crate::base::key::{KeyRef, Trailer};
use crate::base::slice::Slice;
use crate::base::types::SeqNo;
use rayon::ThreadPool;
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;
use std::cmp::Ordering as Order;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An entry: its version, and where its bytes are. Names its buffer by number, so that half a million entries of one
/// log segment cost no reference count.
#[derive(Debug, Clone, Copy)]
struct RunEntry {
    trailer: Trailer,
    owner: u32,
    key_start: u32,
    key_len: u32,
    value_start: u32,
    value_len: u32,
}

impl RunEntry {
    /// Has no bytes and comes after every other.
    const NOTHING: RunEntry =
        RunEntry { trailer: Trailer::LAST, owner: 0, key_start: 0, key_len: 0, value_start: 0, value_len: 0 };

    fn new(BufferNo(owner): BufferNo, place: Place, trailer: Trailer) -> Option<RunEntry> {
        Some(RunEntry {
            trailer,
            owner: u32::try_from(owner).ok()?,
            key_start: u32::try_from(place.key_start).ok()?,
            key_len: u32::try_from(place.key_len).ok()?,
            value_start: u32::try_from(place.value_start).ok()?,
            value_len: u32::try_from(place.value_len).ok()?,
        })
    }
}

/// Number of a buffer of a [`RunList`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BufferNo(usize);

/// Entries in any order, on their way into a run.
#[derive(Debug, Default)]
pub(crate) struct RunList {
    owners: Vec<Arc<[u8]>>,
    entries: Vec<RunEntry>,
    /// What all keys begin with.
    shared_prefix: Vec<u8>,
    /// Smallest and largest sequence number.
    seqs: Option<(SeqNo, SeqNo)>,
}

impl RunList {
    /// Keeps a buffer alive for entries to come; answers its number. The same one may be added for entry after entry.
    pub(crate) fn add_buffer(&mut self, buffer: &Arc<[u8]>) -> BufferNo {
        if !self.owners.last().is_some_and(|last| Arc::ptr_eq(last, buffer)) {
            self.owners.push(Arc::clone(buffer));
        }
        BufferNo(self.owners.len().saturating_sub(1))
    }

    /// Puts another buffer in the place of one that stood for it while it was being filled.
    pub(crate) fn set_buffer(&mut self, BufferNo(number): BufferNo, buffer: &Arc<[u8]>) {
        if let Some(owner) = self.owners.get_mut(number) {
            *owner = Arc::clone(buffer);
        }
    }

    /// Adds an entry with this key, which is in a buffer at that place. The error says that it is outside of the limits;
    /// then nothing was added.
    #[inline]
    pub(crate) fn push(
        &mut self,
        buffer: BufferNo,
        key: &[u8],
        place: Place,
        trailer: Trailer,
    ) -> Result<()> {
        let entry = RunEntry::new(buffer, place, trailer).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "an entry is beyond what a run can hold")
        })?;
        match self.entries.is_empty() {
            true => self.shared_prefix = key.to_vec(),
            false => self.shared_prefix.truncate(shared_prefix_len(&self.shared_prefix, key)),
        }
        let seq = trailer.seq();
        self.seqs = self.seqs.map_or(Some((seq, seq)), |(low, high)| Some((low.min(seq), high.max(seq))));
        self.entries.push(entry);
        Ok(())
    }
}

/// Reading entries by their buffers.
trait Buffers {
    fn owners(&self) -> &[Arc<[u8]>];

    #[inline]
    fn part(&self, owner: u32, start: u32, len: usize) -> &[u8] {
        let start = start as usize;
        let owner = self.owners().get(owner as usize);
        owner.and_then(|owner| owner.get(start..start.wrapping_add(len))).unwrap_or_default()
    }

    #[inline]
    fn user(&self, entry: &RunEntry) -> &[u8] {
        self.part(entry.owner, entry.key_start, entry.key_len as usize)
    }

    #[inline]
    fn key(&self, entry: &RunEntry) -> KeyRef<'_> {
        KeyRef::new(self.user(entry), entry.trailer)
    }

    #[inline]
    fn value(&self, entry: &RunEntry) -> &[u8] {
        self.part(entry.owner, entry.value_start, entry.value_len as usize)
    }

    #[inline]
    fn value_slice(&self, entry: &RunEntry) -> Slice {
        let owner = self.owners().get(entry.owner as usize);
        owner
            .and_then(|owner| Slice::part(owner, entry.value_start as usize, entry.value_len as usize))
            .unwrap_or_else(|| Slice::copy_from(&[]))
    }
}

impl Buffers for RunList {
    fn owners(&self) -> &[Arc<[u8]>] {
        &self.owners
    }
}

/// The immutable run. Internal keys are unique and ascend.
#[derive(Debug)]
pub(crate) struct SortedRun {
    owners: Box<[Arc<[u8]>]>,
    entries: Box<[RunEntry]>,
    /// Length of the prefix that all keys share.
    shared_len: usize,
    /// For each entry the word behind the shared prefix.
    words: Box<[u64]>,
    filter: Filter,
    seqs: Option<(SeqNo, SeqNo)>,
    owner_bytes: AtomicUsize,
}

impl Buffers for SortedRun {
    #[inline]
    fn owners(&self) -> &[Arc<[u8]>] {
        &self.owners
    }
}

impl SortedRun {
    /// Makes a run of the entries of all lists; sorts them, on the threads of the pool if there is one. Of equal
    /// internal keys the first stays.
    pub(super) fn new(lists: Vec<RunList>, pool: Option<&ThreadPool>) -> SortedRun {
        let unsorted = Unsorted::new(lists);
        let filter = Filter::new(unsorted.len);
        let heads = unsorted.sorted_heads(&filter, pool);
        SortedRun {
            entries: map(pool, &heads, |head| unsorted.moved(head)).into(),
            words: map(pool, &heads, |head| (head.bytes >> 64) as u64).into(),
            seqs: unsorted.seq_range(),
            shared_len: unsorted.shared_len,
            owners: unsorted.into_owners(),
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
        (self.user(entry) == key).then(|| (entry.trailer, self.value_slice(entry)))
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Heap bytes it keeps.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.entries)
            .saturating_add(size_of_val(&*self.words))
            .saturating_add(size_of_val(&*self.owners))
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
        let shared = self.part(first.owner, first.key_start, self.shared_len);
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
        low.saturating_add(candidates.partition_point(|entry| before(self.key(entry))))
    }
}

/// What decides nearly every comparison of a sort, beside its neighbours in memory: sorting these instead of the
/// entries looks at a key only where heads tie. Reading the keys of half a million entries is as many cache misses for
/// every level of the sort.
struct Head {
    /// The sixteen bytes behind the prefix that all keys share: orders as the keys do, up to ties.
    bytes: u128,
    /// Where the entry is: list, and place in it.
    list: u32,
    index: u32,
}

/// The lists of a run to be.
struct Unsorted {
    lists: Vec<RunList>,
    /// For each list how many entries, and how many buffers, the lists before it have.
    starts: Vec<(usize, u32)>,
    len: usize,
    shared_len: usize,
}

impl Unsorted {
    fn new(mut lists: Vec<RunList>) -> Unsorted {
        lists.retain(|list| !list.entries.is_empty());
        let (mut len, mut owners) = (0usize, 0usize);
        let starts = lists.iter().map(|list| {
            let start = (len, u32::try_from(owners).unwrap_or(u32::MAX));
            len = len.saturating_add(list.entries.len());
            owners = owners.saturating_add(list.owners.len());
            start
        });
        let starts = starts.collect();
        let prefixes = lists.iter().map(|list| &*list.shared_prefix);
        let shared = prefixes.reduce(|a, b| a.get(..shared_prefix_len(a, b)).unwrap_or_default());
        let shared_len = shared.map_or(0, <[u8]>::len);
        Unsorted { lists, starts, len, shared_len }
    }

    /// The heads of all entries in the order of their internal keys, each of these once. Adds the keys to the filter
    /// on the way, while they are read one after the other.
    fn sorted_heads(&self, filter: &Filter, pool: Option<&ThreadPool>) -> Vec<Head> {
        let mut heads = map(pool, 0..self.len, |at| self.head(at, filter));
        match pool {
            Some(pool) => pool.install(|| heads.par_sort_unstable_by(|a, b| self.order(a, b))),
            None => heads.sort_unstable_by(|a, b| self.order(a, b)),
        }
        heads.dedup_by(|later, first| later.bytes == first.bytes && self.key_of(later) == self.key_of(first));
        heads
    }

    /// The head of the entry with this number over all lists.
    #[inline]
    fn head(&self, at: usize, filter: &Filter) -> Head {
        let list = self.starts.partition_point(|(start, _)| *start <= at).saturating_sub(1);
        let index = at.saturating_sub(self.starts.get(list).map_or(0, |(start, _)| *start));
        let (list, index) = (list as u32, index as u32);
        let user = self.entry(list, index).map_or(&[][..], |(list, entry)| list.user(entry));
        filter.add(key_hash(user));
        let high = u128::from(word_at(user, self.shared_len));
        let low = u128::from(word_at(user, self.shared_len.saturating_add(8)));
        Head { bytes: (high << 64) | low, list, index }
    }

    #[inline]
    fn order(&self, a: &Head, b: &Head) -> Order {
        let place = |head: &Head| (head.list, head.index);
        let keys = || self.key_of(a).cmp(&self.key_of(b)).then_with(|| place(a).cmp(&place(b)));
        a.bytes.cmp(&b.bytes).then_with(keys)
    }

    #[inline]
    fn entry(&self, list: u32, index: u32) -> Option<(&RunList, &RunEntry)> {
        let list = self.lists.get(list as usize)?;
        Some((list, list.entries.get(index as usize)?))
    }

    #[inline]
    fn key_of(&self, head: &Head) -> Option<KeyRef<'_>> {
        self.entry(head.list, head.index).map(|(list, entry)| list.key(entry))
    }

    /// The entry with its buffer's number among the buffers of all lists. Every head has one.
    #[inline]
    fn moved(&self, head: &Head) -> RunEntry {
        let entry = self.entry(head.list, head.index).map_or(RunEntry::NOTHING, |(_, entry)| *entry);
        let owners_before = self.starts.get(head.list as usize).map_or(0, |(_, owners)| *owners);
        RunEntry { owner: entry.owner.saturating_add(owners_before), ..entry }
    }

    fn seq_range(&self) -> Option<(SeqNo, SeqNo)> {
        let seqs = self.lists.iter().filter_map(|list| list.seqs);
        seqs.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    fn into_owners(self) -> Box<[Arc<[u8]>]> {
        self.lists.into_iter().flat_map(|list| list.owners).collect()
    }
}

/// `f` of every item, in order; worked out on the threads of the pool if there is one.
fn map<I, T: Send>(
    pool: Option<&ThreadPool>,
    items: I,
    f: impl Fn(<I as IntoIterator>::Item) -> T + Sync + Send,
) -> Vec<T>
where
    I: IntoParallelIterator<Iter: IndexedParallelIterator>
        + IntoIterator<Item = <I as IntoParallelIterator>::Item>
        + Send,
{
    match pool {
        Some(pool) => pool.install(|| items.into_par_iter().map(f).collect()),
        None => items.into_iter().map(f).collect(),
    }
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
        self.entry().map_or(KeyRef::new(&[], Trailer::LAST), |entry| self.run.key(entry))
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.entry().map(|entry| self.run.value(entry)).unwrap_or_default()
    }

    fn value_slice(&self) -> Slice {
        self.entry().map_or_else(|| Slice::copy_from(&[]), |entry| self.run.value_slice(entry))
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
