//! The writes that a transaction has not committed yet: newest value of each key, in key order, and what it takes to
//! go back to a savepoint.

use crate::base::error::Result;
use crate::base::slice::Slice;
use crate::base::types::KeyspaceId;
use crate::wal::BatchBuilder;
use std::collections::BTreeMap;
use std::ops::Bound;

/// A value, or a deletion.
pub(crate) type Value = Option<Slice>;

/// What an entry takes beside its bytes: node of the tree, reference counts, the allocator's share.
const ENTRY_BYTES: usize = 112;

/// What a write replaced, while a savepoint may ask for it.
struct Undo {
    keyspace: KeyspaceId,
    key: Box<[u8]>,
    before: Option<Value>,
}

impl Undo {
    /// Memory it takes, about.
    fn bytes(&self) -> usize {
        let before = self.before.as_ref().map_or(0, |value| WriteSet::cost(&self.key, value.as_deref()));
        before.saturating_add(self.key.len()).saturating_add(ENTRY_BYTES)
    }
}

/// The writes to one keyspace.
type Keys = BTreeMap<Box<[u8]>, Value>;

/// The writes of one transaction.
#[derive(Default)]
pub(crate) struct WriteSet {
    /// Few, in the order of their numbers.
    keyspaces: Vec<(KeyspaceId, Keys)>,
    undo: Vec<Undo>,
    /// Length of `undo` at each open savepoint, outermost first.
    savepoints: Vec<usize>,
    bytes: usize,
    count: usize,
}

impl WriteSet {
    /// What this transaction wrote to a key: a value, a deletion, or nothing.
    #[inline]
    pub(crate) fn get(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<Value> {
        self.keys(keyspace)?.get(key).cloned()
    }

    fn keys(&self, keyspace: KeyspaceId) -> Option<&Keys> {
        self.keyspaces.iter().find(|(id, _)| *id == keyspace).map(|(_, keys)| keys)
    }

    /// Bytes that a write of this key and value adds at most.
    pub(crate) fn cost(key: &[u8], value: Option<&[u8]>) -> usize {
        let value_bytes = value.map_or(0, <[u8]>::len);
        key.len().saturating_add(value_bytes).saturating_add(ENTRY_BYTES)
    }

    /// Sets or deletes a key.
    pub(crate) fn insert(&mut self, keyspace: KeyspaceId, key: &[u8], value: Option<&[u8]>) {
        let before = self.replace(keyspace, key, Some(value.map(Slice::copy_from)));
        if !self.savepoints.is_empty() {
            let undo = Undo { keyspace, key: key.into(), before };
            self.bytes = self.bytes.saturating_add(undo.bytes());
            self.undo.push(undo);
        }
    }

    /// Puts `after` in the place of what a key has, which it answers; `None` takes the key out.
    fn replace(&mut self, keyspace: KeyspaceId, key: &[u8], after: Option<Value>) -> Option<Value> {
        let keys = keys_mut(&mut self.keyspaces, keyspace)?;
        let cost =
            |value: &Option<Value>| value.as_ref().map_or(0, |value| WriteSet::cost(key, value.as_deref()));
        let added = cost(&after);
        let stays = usize::from(after.is_some());
        let before = match after {
            Some(value) => match keys.get_mut(key) {
                Some(place) => Some(std::mem::replace(place, value)),
                None => keys.insert(key.into(), value),
            },
            None => keys.remove(key),
        };
        self.bytes = self.bytes.saturating_add(added).saturating_sub(cost(&before));
        self.count = self.count.saturating_add(stays).saturating_sub(usize::from(before.is_some()));
        before
    }

    /// Begins a savepoint inside of those already open.
    pub(crate) fn savepoint(&mut self) {
        self.savepoints.push(self.undo.len());
    }

    /// Undoes everything since the innermost savepoint, which ends; says whether there was one.
    pub(crate) fn rollback_to_savepoint(&mut self) -> bool {
        let Some(len) = self.savepoints.pop() else { return false };
        for undo in self.undo.split_off(len).into_iter().rev() {
            self.bytes = self.bytes.saturating_sub(undo.bytes());
            self.replace(undo.keyspace, &undo.key, undo.before);
        }
        true
    }

    /// Ends the innermost savepoint, keeping what was written since; says whether there was one.
    pub(crate) fn release_savepoint(&mut self) -> bool {
        let found = self.savepoints.pop().is_some();
        if self.savepoints.is_empty() {
            for undo in self.undo.drain(..) {
                self.bytes = self.bytes.saturating_sub(undo.bytes());
            }
        }
        found
    }

    /// Memory it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of keys written.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// All writes, by keyspace and key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (KeyspaceId, &[u8], &Value)> {
        self.keyspaces.iter().flat_map(|(id, keys)| keys.iter().map(move |(key, value)| (*id, &**key, value)))
    }

    /// The first write of a keyspace within the bounds.
    pub(crate) fn first(
        &self,
        keyspace: KeyspaceId,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> Option<(&[u8], &Value)> {
        let keys = self.keys(keyspace)?;
        keys.range::<[u8], _>(ordered(lower, upper)?).next().map(|(key, value)| (&**key, value))
    }

    /// The last write of a keyspace within the bounds.
    pub(crate) fn last(
        &self,
        keyspace: KeyspaceId,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> Option<(&[u8], &Value)> {
        let keys = self.keys(keyspace)?;
        keys.range::<[u8], _>(ordered(lower, upper)?).next_back().map(|(key, value)| (&**key, value))
    }

    /// Adds all writes to a batch.
    pub(crate) fn append_to(&self, batch: &mut BatchBuilder) -> Result<()> {
        for (keyspace, key, value) in self.iter() {
            match value {
                Some(value) => batch.put(keyspace, key, value)?,
                None => batch.delete(keyspace, key)?,
            }
        }
        Ok(())
    }
}

/// The writes to a keyspace, made room for where it belongs.
fn keys_mut(keyspaces: &mut Vec<(KeyspaceId, Keys)>, keyspace: KeyspaceId) -> Option<&mut Keys> {
    let place = keyspaces.partition_point(|(id, _)| *id < keyspace);
    if keyspaces.get(place).is_none_or(|(id, _)| *id != keyspace) {
        keyspaces.insert(place, (keyspace, Keys::new()));
    }
    keyspaces.get_mut(place).map(|(_, keys)| keys)
}

/// Both bounds of a range of keys.
type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The bounds, unless nothing can lie between them: a range that is upside down would panic.
fn ordered<'a>(lower: Bound<&'a [u8]>, upper: Bound<&'a [u8]>) -> Option<Range<'a>> {
    let is_empty = match (lower, upper) {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (Bound::Included(low), Bound::Excluded(high))
        | (Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => low >= high,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    };
    (!is_empty).then_some((lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KS: KeyspaceId = KeyspaceId(3);

    fn all(set: &WriteSet) -> Vec<(String, Option<String>)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        set.iter().map(|(_, key, value)| (text(key), value.as_deref().map(text))).collect()
    }

    fn check(set: &WriteSet, expect: &[(&str, Option<&str>)]) {
        let expect: Vec<_> =
            expect.iter().map(|(key, value)| (key.to_string(), value.map(str::to_string))).collect();
        assert_eq!(all(set), expect);
        assert_eq!(set.len(), expect.len());
    }

    #[test]
    fn savepoints_nest_and_give_back_what_was_there() {
        let mut set = WriteSet::default();
        assert!(!set.rollback_to_savepoint() && !set.release_savepoint());
        set.insert(KS, b"a", Some(b"1"));
        let before = set.bytes();
        set.savepoint();
        set.insert(KS, b"a", Some(b"22"));
        set.insert(KS, b"b", None);
        set.savepoint();
        set.insert(KS, b"a", None);
        set.insert(KS, b"c", Some(b"3"));
        check(&set, &[("a", None), ("b", None), ("c", Some("3"))]);
        assert!(set.rollback_to_savepoint());
        check(&set, &[("a", Some("22")), ("b", None)]);
        set.savepoint();
        set.insert(KS, b"d", Some(b"4"));
        assert!(set.release_savepoint());
        check(&set, &[("a", Some("22")), ("b", None), ("d", Some("4"))]);
        assert!(set.rollback_to_savepoint());
        check(&set, &[("a", Some("1"))]);
        assert_eq!(set.bytes(), before);
        set.savepoint();
        set.insert(KS, b"a", Some(b"2"));
        assert!(set.release_savepoint());
        assert_eq!(set.bytes(), before);
        check(&set, &[("a", Some("2"))]);
    }

    #[test]
    fn neighbours_are_found_within_bounds() {
        let mut set = WriteSet::default();
        for key in ["b", "d", "f"] {
            set.insert(KS, key.as_bytes(), Some(b"v"));
        }
        type Case = (Bound<&'static [u8]>, Bound<&'static [u8]>, Option<(&'static str, &'static str)>);
        let cases: [Case; 7] = [
            (Bound::Unbounded, Bound::Unbounded, Some(("b", "f"))),
            (Bound::Excluded(b"b"), Bound::Excluded(b"f"), Some(("d", "d"))),
            (Bound::Included(b"b"), Bound::Included(b"d"), Some(("b", "d"))),
            (Bound::Included(b"c"), Bound::Excluded(b"d"), None),
            (Bound::Excluded(b"d"), Bound::Excluded(b"d"), None),
            (Bound::Included(b"z"), Bound::Excluded(b"a"), None),
            (Bound::Excluded(b"f"), Bound::Unbounded, None),
        ];
        for (lower, upper, expect) in cases {
            let first = set.first(KS, lower, upper).map(|(key, _)| key.to_vec());
            let last = set.last(KS, lower, upper).map(|(key, _)| key.to_vec());
            let expect = expect.map(|(first, last)| (first.as_bytes().to_vec(), last.as_bytes().to_vec()));
            assert_eq!(first.zip(last), expect, "{lower:?} {upper:?}");
        }
        assert!(set.first(KeyspaceId(4), Bound::Unbounded, Bound::Unbounded).is_none());
    }
}
