//! The memtable that takes writes: crossbeam-skiplist behind rules under which it needs no epoch.
//!
//! Every internal key is inserted once and nothing is ever removed or replaced (the published version of the
//! crate loses concurrent reads when it replaces). So no node is unlinked or freed before the whole list is
//! dropped, and all operations run under the dummy guard: no pin, no reference counts on hot nodes.
#![expect(unsafe_code, reason = "reads the list without an epoch: its nodes live as long as it does")]

use super::entry::{Entry, Place};
use super::filter::Filter;
use crate::base::checksum::key_hash;
use crate::base::error::Result;
use crate::base::iter::InternalIter;
use crate::base::key::{KeyRef, Trailer};
use crate::base::slice::Slice;
use crate::base::types::SeqNo;
use crossbeam_epoch::Guard;
use crossbeam_skiplist::base::{Entry as NodeRef, SkipList};
use self_cell::self_cell;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// What a small entry takes, node and buffer together: how many keys to expect in a memtable of a given size.
const ENTRY_BYTES_EXPECTED: usize = 160;

/// Heap bytes of a node: the entry, its word of count and height, a tower of two links on average (heights are
/// geometric with 1/2), the allocator's header of 8 and its rounding to 16, which costs 5 1/3 on average.
const NODE_BYTES: usize = size_of::<Entry>() + 8 + 16 + 8 + 6;

/// Sequence numbers present and bytes charged. On cache lines of its own, for every insertion writes it.
#[derive(Debug)]
#[repr(align(128))]
struct Counters {
    min: AtomicU64,
    max: AtomicU64,
    owner_bytes: AtomicUsize,
}

/// A memtable that can be written to, by several threads at once, while others read. No lock, nobody waits.
pub(crate) struct ActiveMemtable {
    list: SkipList<Entry, ()>,
    /// Made with the first entry: a memtable that nothing is written to takes no memory for what might be.
    filter: OnceLock<Filter>,
    /// How many keys the filter is made for.
    keys_expected: usize,
    written: Counters,
}

/// The guard that protects nothing.
#[inline]
fn guard() -> &'static Guard {
    // SAFETY: the dummy guard lets removed nodes be freed at once. No node is ever removed from these lists: only
    // `insert` on an existing key, `remove`, `pop_*` and `clear` mark nodes, and this module, which keeps the list
    // to itself, calls none of them (`get_or_insert` leaves an existing node alone). Nodes are freed when the list
    // is dropped, which every `NodeRef` prevents by borrowing it.
    unsafe { crossbeam_epoch::unprotected() }
}

impl ActiveMemtable {
    /// An empty memtable that is meant to be sealed when it holds about `capacity_bytes`; more fits.
    pub(crate) fn new(capacity_bytes: usize) -> ActiveMemtable {
        ActiveMemtable {
            list: SkipList::new(crossbeam_epoch::default_collector().clone()),
            filter: OnceLock::new(),
            keys_expected: capacity_bytes.div_ceil(ENTRY_BYTES_EXPECTED),
            written: Counters {
                min: AtomicU64::new(u64::MAX),
                max: AtomicU64::new(0),
                owner_bytes: AtomicUsize::new(0),
            },
        }
    }

    /// Adds an entry whose bytes are in `owner`, which it keeps alive. Of two with the same internal key the first
    /// stays. The error says that the place is not inside the buffer; then nothing was added.
    ///
    /// A reader that learned of the entry from this thread afterwards finds it.
    #[inline]
    pub(crate) fn insert(&self, owner: &Arc<[u8]>, place: Place, trailer: Trailer) -> Result<()> {
        let entry = Entry::new(owner, place, trailer)?;
        self.note_seq(trailer.seq());
        // Before the node is linked: the filter must never deny a key that is there.
        self.filter.get_or_init(|| Filter::new(self.keys_expected)).add(key_hash(entry.key().user));
        self.list.get_or_insert(entry, (), guard()).release(guard());
        Ok(())
    }

    fn note_seq(&self, seq: SeqNo) {
        if seq < self.written.min.load(Ordering::Relaxed) {
            self.written.min.fetch_min(seq, Ordering::Relaxed);
        }
        if seq > self.written.max.load(Ordering::Relaxed) {
            self.written.max.fetch_max(seq, Ordering::Relaxed);
        }
    }

    /// Counts a buffer of this many bytes that entries keep alive. To be called once for each buffer.
    pub(crate) fn charge_owner(&self, bytes: usize) {
        self.written.owner_bytes.fetch_add(super::buffer_bytes(bytes), Ordering::Relaxed);
    }

    /// See [`super::Memtable::get`].
    #[inline]
    pub(crate) fn get(&self, key: &[u8], hash: u64, seq: SeqNo) -> Option<(Trailer, Slice)> {
        if !self.filter.get()?.may_contain(hash) {
            return None;
        }
        let probe = Entry::probe(KeyRef::new(key, Trailer::search(seq)));
        let entry = self.list.lower_bound(Bound::Included(&probe), guard())?.key();
        entry.same_user(&probe).then(|| (entry.trailer(), entry.value_slice()))
    }

    /// Entries in it.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Heap bytes it keeps: nodes (by their mean size), filter, and the buffers charged to it.
    pub(crate) fn bytes(&self) -> usize {
        self.len()
            .saturating_mul(NODE_BYTES)
            .saturating_add(self.filter.get().map_or(0, Filter::bytes))
            .saturating_add(size_of::<ActiveMemtable>())
            .saturating_add(self.written.owner_bytes.load(Ordering::Relaxed))
    }

    /// Smallest and largest sequence number inserted.
    pub(crate) fn seq_range(&self) -> Option<(SeqNo, SeqNo)> {
        let (min, max) = (self.written.min.load(Ordering::Relaxed), self.written.max.load(Ordering::Relaxed));
        (min <= max).then_some((min, max))
    }
}

impl std::fmt::Debug for ActiveMemtable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActiveMemtable").field("len", &self.len()).field("bytes", &self.bytes()).finish()
    }
}

/// Where a cursor stands in a list.
struct Position<'a>(Option<NodeRef<'a, 'a, Entry, ()>>);

// SAFETY: a position holds references to the list and to a node of it, both `Sync`, and to the dummy guard. Only
// the type of the latter is not `Sync`: the dummy one belongs to no thread, and crossbeam-epoch itself hands the
// same static to all of them. `guard()` is the only guard in this file.
unsafe impl Send for Position<'_> {}

self_cell! {
    struct Cell {
        owner: Arc<ActiveMemtable>,
        #[covariant]
        dependent: Position,
    }
}

/// A cursor over an [`ActiveMemtable`], which it keeps alive. Entries added meanwhile may appear.
pub(crate) struct ListIter {
    cell: Cell,
}

impl ListIter {
    pub(super) fn new(table: Arc<ActiveMemtable>) -> ListIter {
        ListIter { cell: Cell::new(table, |_| Position(None)) }
    }

    #[inline]
    fn entry(&self) -> Option<&Entry> {
        self.cell.borrow_dependent().0.as_ref().map(NodeRef::key)
    }

    /// The value, sharing the buffer it was inserted from.
    #[inline]
    pub(super) fn shared_value(&self) -> Option<Slice> {
        self.entry().map(Entry::value_slice)
    }

    #[inline]
    fn place(
        &mut self,
        find: impl for<'a> FnOnce(&'a SkipList<Entry, ()>) -> Option<NodeRef<'a, 'a, Entry, ()>>,
    ) {
        self.cell.with_dependent_mut(|table, position| position.0 = find(&table.list));
    }
}

impl InternalIter for ListIter {
    #[inline]
    fn valid(&self) -> bool {
        self.cell.borrow_dependent().0.is_some()
    }

    #[inline]
    fn key(&self) -> KeyRef<'_> {
        self.entry().map_or(KeyRef::new(&[], Trailer::LAST), Entry::key)
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.entry().map(Entry::value).unwrap_or_default()
    }

    fn value_slice(&self) -> Slice {
        self.shared_value().unwrap_or_else(|| Slice::copy_from(&[]))
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        let probe = Entry::probe(target);
        self.place(|list| list.lower_bound(Bound::Included(&probe), guard()));
        Ok(())
    }

    fn seek_for_prev(&mut self, target: KeyRef<'_>) -> Result<()> {
        let probe = Entry::probe(target);
        self.place(|list| list.upper_bound(Bound::Included(&probe), guard()));
        Ok(())
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.place(|list| list.front(guard()));
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.place(|list| list.back(guard()));
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        self.cell.with_dependent_mut(|_, position| position.0 = position.0.as_ref().and_then(NodeRef::next));
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        self.cell.with_dependent_mut(|_, position| position.0 = position.0.as_ref().and_then(NodeRef::prev));
        Ok(())
    }
}
