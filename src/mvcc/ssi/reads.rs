//! What one transaction has read: hashes of keys (present or absent), ranges with their gaps, whole keyspaces.
//!
//! Keys are kept as 64-bit hashes of keyspace and key: two keys with one hash can only cause a false conflict. Ranges
//! keep their bounds, disjoint and merged per keyspace; the one that grows with an iterator is kept apart, so that a
//! step of the iterator writes a few bytes into a buffer that is there already. Under pressure a set goes coarser,
//! never smaller: neighbouring ranges become one, then everything read of a keyspace becomes the whole of it.
//!
//! Knows nothing of snapshots, commits or locks.

use super::writes::WriteKey;
use crate::base::checksum;
use crate::base::types::KeyspaceId;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;
use std::ops::Bound;

/// Hash of a key in its keyspace. Stored in records of prepared transactions: never change.
#[inline]
pub(super) fn hash_of(keyspace: KeyspaceId, key: &[u8]) -> u64 {
    checksum::key_hash(key) ^ u64::from(keyspace.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Hashes are their own hashes.
#[derive(Debug, Default, Clone)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= checksum::key_hash(bytes);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

pub(super) type HashedSet = HashSet<u64, BuildHasherDefault<Identity>>;
pub(super) type HashedMap<V> = HashMap<u64, V, BuildHasherDefault<Identity>>;

/// Memory of a hash table per entry of its capacity: the entry, a control byte, an eighth left empty.
pub(super) const fn table_bytes(capacity: usize, entry_bytes: usize) -> usize {
    capacity.saturating_mul(entry_bytes.saturating_add(1)).saturating_mul(8) / 7
}

/// Where a range that was read ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RangeEnd<'a> {
    /// With this key.
    Through(&'a [u8]),
    /// Right before this key.
    Before(&'a [u8]),
    /// With the keyspace.
    Unbounded,
}

impl RangeEnd<'_> {
    /// True if no key lies between `start` and here.
    fn is_behind(self, start: &[u8]) -> bool {
        match self {
            RangeEnd::Through(key) => key < start,
            RangeEnd::Before(key) => key <= start,
            RangeEnd::Unbounded => false,
        }
    }

    /// True if a range that ends here touches or overlaps one that begins with `start`.
    fn touches(self, start: &[u8]) -> bool {
        match self {
            RangeEnd::Through(key) => key >= start || start.strip_prefix(key) == Some(&[0]),
            RangeEnd::Before(key) => key >= start,
            RangeEnd::Unbounded => true,
        }
    }
}

/// The end of a kept range: right before these bytes, or none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct End {
    before: Vec<u8>,
    unbounded: bool,
}

impl End {
    fn of(end: RangeEnd<'_>) -> End {
        let mut own = End::default();
        own.set(end);
        own
    }

    /// The first key that is outside.
    pub(super) fn bound(&self) -> Option<&[u8]> {
        (!self.unbounded).then_some(&self.before)
    }

    fn as_range_end(&self) -> RangeEnd<'_> {
        self.bound().map_or(RangeEnd::Unbounded, RangeEnd::Before)
    }

    #[inline]
    fn is_before(&self, other: RangeEnd<'_>) -> bool {
        !self.unbounded
            && match other {
                RangeEnd::Through(key) => self.before.as_slice() <= key,
                RangeEnd::Before(key) => self.before.as_slice() < key,
                RangeEnd::Unbounded => true,
            }
    }

    #[inline]
    fn set(&mut self, end: RangeEnd<'_>) {
        self.before.clear();
        match end {
            RangeEnd::Through(key) => {
                self.before.extend_from_slice(key);
                self.before.push(0);
            }
            RangeEnd::Before(key) => self.before.extend_from_slice(key),
            RangeEnd::Unbounded => self.unbounded = true,
        }
    }

    fn extend_to(&mut self, end: RangeEnd<'_>) {
        if self.is_before(end) {
            self.set(end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.unbounded || key < self.before.as_slice()
    }

    fn touches(&self, start: &[u8]) -> bool {
        self.unbounded || start <= self.before.as_slice()
    }
}

/// True if the range `[start, end)` that was read contains the key.
pub(super) fn is_within(start: &[u8], end: &End, key: &[u8]) -> bool {
    if cfg!(plant_miss_gap) {
        return key == start; // Planted fault, in builds that ask for it only: what lies inside of a range is forgotten.
    }
    start <= key && end.contains(key)
}

/// Memory of a kept range beside its bytes: two vectors and its part of a tree node.
const RANGE_BYTES: usize = 96;

#[derive(Debug, Clone)]
struct Range {
    start: Vec<u8>,
    end: End,
}

impl Range {
    fn bytes(&self) -> usize {
        range_bytes(self.start.capacity(), &self.end)
    }
}

fn range_bytes(start: usize, end: &End) -> usize {
    start.saturating_add(end.before.capacity()).saturating_add(RANGE_BYTES)
}

/// What was read of one keyspace.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyspaceReads {
    whole: bool,
    keys: HashedSet,
    /// Disjoint and not touching, but for the growing one.
    ranges: BTreeMap<Vec<u8>, End>,
    ranges_bytes: usize,
    /// The range read last: what an iterator extends.
    growing: Option<Range>,
}

impl KeyspaceReads {
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    pub(super) fn hashes(&self) -> impl Iterator<Item = u64> {
        self.keys.iter().copied()
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = (&[u8], &End)> {
        let kept = self.ranges.iter().map(|(start, end)| (start.as_slice(), end));
        kept.chain(self.growing.iter().map(|range| (range.start.as_slice(), &range.end)))
    }

    fn bytes(&self) -> usize {
        let growing = self.growing.as_ref().map_or(0, Range::bytes);
        table_bytes(self.keys.capacity(), 8).saturating_add(self.ranges_bytes).saturating_add(growing)
    }

    #[inline]
    fn add_range(&mut self, start: &[u8], end: RangeEnd<'_>) {
        if self.whole || end.is_behind(start) {
            return;
        }
        match &mut self.growing {
            Some(range) if range.end.touches(start) && end.touches(&range.start) => {
                if start < range.start.as_slice() {
                    range.start.clear();
                    range.start.extend_from_slice(start);
                }
                range.end.extend_to(end);
            }
            _ => self.begin_range(start, end),
        }
    }

    /// Continues the kept range that `start` lies in or right behind, or begins another.
    fn begin_range(&mut self, start: &[u8], end: RangeEnd<'_>) {
        self.keep_growing();
        let before = self.ranges.range::<[u8], _>((Bound::Unbounded, Bound::Included(start))).next_back();
        let continued = before.filter(|(_, kept)| kept.touches(start)).map(|(kept, _)| kept.clone());
        let taken = continued.and_then(|start| self.take_range(&start));
        let mut range = taken.unwrap_or_else(|| Range { start: start.to_vec(), end: End::of(end) });
        range.end.extend_to(end);
        self.growing = Some(range);
    }

    /// Puts the growing range to the others, merged with those that it touches.
    fn keep_growing(&mut self) {
        let Some(mut range) = self.growing.take() else { return };
        while let Some(start) = self.touching(&range) {
            let Some(other) = self.take_range(&start) else { break };
            if other.start < range.start {
                range.start = other.start;
            }
            range.end.extend_to(other.end.as_range_end());
        }
        range.start.shrink_to_fit();
        range.end.before.shrink_to_fit();
        self.ranges_bytes = self.ranges_bytes.saturating_add(range.bytes());
        self.ranges.insert(range.start, range.end);
    }

    /// The start of the last kept range that touches this one.
    fn touching(&self, range: &Range) -> Option<Vec<u8>> {
        let upto = range.end.bound().map_or(Bound::Unbounded, Bound::Included);
        let (start, end) = self.ranges.range::<[u8], _>((Bound::Unbounded, upto)).next_back()?;
        end.touches(&range.start).then(|| start.clone())
    }

    fn take_range(&mut self, start: &[u8]) -> Option<Range> {
        let (start, end) = self.ranges.remove_entry(start)?;
        let range = Range { start, end };
        self.ranges_bytes = self.ranges_bytes.saturating_sub(range.bytes());
        Some(range)
    }

    fn covers(&self, key: &[u8], hash: u64) -> bool {
        let in_growing = || self.growing.as_ref().is_some_and(|one| is_within(&one.start, &one.end, key));
        self.whole || self.keys.contains(&hash) || in_growing() || self.is_in_kept(key)
    }

    fn is_in_kept(&self, key: &[u8]) -> bool {
        let before = self.ranges.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        before.is_some_and(|(start, end)| is_within(start, end, key))
    }

    /// Coarser by one step: half as many ranges, or the whole keyspace.
    fn coarsen(&mut self) {
        self.keep_growing();
        if self.ranges.len() < 2 || self.ranges_bytes < self.bytes() / 2 {
            *self = KeyspaceReads { whole: true, ..KeyspaceReads::default() };
            return;
        }
        self.ranges_bytes = 0;
        let mut old = mem::take(&mut self.ranges).into_iter();
        while let Some((start, first_end)) = old.next() {
            let end = old.next().map_or(first_end, |(_, end)| end);
            self.ranges_bytes = self.ranges_bytes.saturating_add(range_bytes(start.capacity(), &end));
            self.ranges.insert(start, end);
        }
    }
}

/// What one transaction has read.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadSet {
    keyspaces: Vec<(KeyspaceId, KeyspaceReads)>,
    bytes: usize,
}

impl ReadSet {
    pub(super) fn is_empty(&self) -> bool {
        self.keyspaces.is_empty()
    }

    /// Memory, but for a small constant.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn keyspaces(&self) -> impl Iterator<Item = (KeyspaceId, &KeyspaceReads)> {
        self.keyspaces.iter().map(|(id, reads)| (*id, reads))
    }

    pub(super) fn reads_of(&self, keyspace: KeyspaceId) -> Option<&KeyspaceReads> {
        self.keyspaces.iter().find(|(id, _)| *id == keyspace).map(|(_, reads)| reads)
    }

    pub(super) fn hashes(&self) -> impl Iterator<Item = u64> {
        self.keyspaces.iter().flat_map(|(_, reads)| reads.hashes())
    }

    pub(super) fn has_whole(&self) -> bool {
        self.keyspaces.iter().any(|(_, reads)| reads.whole)
    }

    pub(super) fn keys_len(&self) -> usize {
        self.keyspaces.iter().map(|(_, reads)| reads.keys.len()).sum()
    }

    pub(super) fn ranges_len(&self) -> usize {
        self.keyspaces.iter().map(|(_, reads)| reads.ranges().count()).sum()
    }

    #[inline]
    pub(super) fn add_key(&mut self, keyspace: KeyspaceId, hash: u64) {
        self.update(keyspace, |reads| {
            if !reads.whole {
                reads.keys.insert(hash);
            }
        });
    }

    #[inline]
    pub(super) fn add_range(&mut self, keyspace: KeyspaceId, start: &[u8], end: RangeEnd<'_>) {
        self.update(keyspace, |reads| reads.add_range(start, end));
    }

    pub(super) fn add_whole(&mut self, keyspace: KeyspaceId) {
        self.update(keyspace, |reads| *reads = KeyspaceReads { whole: true, ..KeyspaceReads::default() });
    }

    #[inline]
    fn update(&mut self, keyspace: KeyspaceId, change: impl FnOnce(&mut KeyspaceReads)) {
        if let Some((_, reads)) = self.keyspaces.iter_mut().find(|(id, _)| *id == keyspace) {
            let before = reads.bytes();
            change(reads);
            self.bytes = self.bytes.saturating_sub(before).saturating_add(reads.bytes());
            return;
        }
        let mut reads = KeyspaceReads::default();
        change(&mut reads);
        self.bytes =
            self.bytes.saturating_add(reads.bytes()).saturating_add(size_of::<(KeyspaceId, KeyspaceReads)>());
        self.keyspaces.push((keyspace, reads));
    }

    /// True if a write of this key changes what was read.
    #[inline]
    pub(super) fn covers(&self, write: &WriteKey) -> bool {
        self.reads_of(write.keyspace).is_some_and(|reads| reads.covers(&write.key, write.hash))
    }

    /// Makes the keyspace that takes the most memory coarser by one step. False if nothing is left to do.
    pub(super) fn coarsen(&mut self) -> bool {
        let fine = self.keyspaces.iter_mut().filter(|(_, reads)| !reads.whole);
        let Some((_, reads)) = fine.max_by_key(|(_, reads)| reads.bytes()) else { return false };
        let before = reads.bytes();
        reads.coarsen();
        self.bytes = self.bytes.saturating_sub(before).saturating_add(reads.bytes());
        true
    }

    /// As plain data, to be stored with a prepared transaction.
    pub(super) fn export(&self) -> ExportedReads {
        let keyspaces = self.keyspaces().map(|(keyspace, reads)| ExportedKeyspace {
            keyspace,
            whole: reads.whole,
            hashes: reads.hashes().collect(),
            ranges: reads
                .ranges()
                .map(|(start, end)| (start.to_vec(), end.bound().map(<[u8]>::to_vec)))
                .collect(),
        });
        ExportedReads { keyspaces: keyspaces.collect() }
    }

    /// The set that was exported.
    pub(super) fn import(exported: &ExportedReads) -> ReadSet {
        let mut reads = ReadSet::default();
        for one in &exported.keyspaces {
            if one.whole {
                reads.add_whole(one.keyspace);
            }
            for hash in &one.hashes {
                reads.add_key(one.keyspace, *hash);
            }
            for (start, end) in &one.ranges {
                let end = end.as_deref().map_or(RangeEnd::Unbounded, RangeEnd::Before);
                reads.add_range(one.keyspace, start, end);
            }
        }
        reads
    }
}

/// A set of reads as plain data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ExportedReads {
    /// Each keyspace at most once.
    pub(crate) keyspaces: Vec<ExportedKeyspace>,
}

/// What was read of one keyspace, as plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExportedKeyspace {
    /// Which.
    pub(crate) keyspace: KeyspaceId,
    /// Everything; the rest is empty then.
    pub(crate) whole: bool,
    /// Hashes of the keys read one by one.
    pub(crate) hashes: Vec<u64>,
    /// First key inside, first key behind; `None` is the end of the keyspace.
    pub(crate) ranges: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}
