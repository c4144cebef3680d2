//! The steps of the model test that read and are done: points, snapshots, ranges, whole keyspaces.

use super::draw::{self, Range};
use super::rig::{Handle, Rig};
use esker::{Iter, Slice};
use std::ops::Bound;

/// A bound, lent.
pub fn lent(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

impl Rig {
    /// Whether what was read is what the reference has; where old data may go, nothing is right as well.
    pub fn agrees(&self, handle: &Handle, key: &[u8], commit: u64, found: Option<&[u8]>) -> bool {
        let expect = self.spaces[handle.space].get(key, commit);
        found == expect || (handle.lossy && found.is_none())
    }

    fn check_value(&self, handle: &Handle, key: &[u8], commit: u64, found: Option<&Slice>) {
        let found = found.map(|value| value.as_bytes());
        assert!(
            self.agrees(handle, key, commit, found),
            "{self}: key {} at commit {commit} of {} in {}: found {:?}, expected {:?}",
            shorten(key),
            self.commits,
            handle.keyspace.name(),
            found.map(shorten),
            self.spaces[handle.space].get(key, commit).map(shorten),
        );
    }

    pub fn point_reads(&mut self) {
        let handle = self.any_handle();
        let key = draw::target(&mut self.random, &self.keys);
        if self.random.chance(70) {
            let found = handle.keyspace.get(&key).unwrap_or_else(|error| panic!("{self}: get: {error}"));
            self.check_value(&handle, &key, self.commits, found.as_ref());
            return;
        }
        if self.random.chance(50) {
            let found = handle.keyspace.contains_key(&key);
            let found = found.unwrap_or_else(|error| panic!("{self}: contains_key: {error}"));
            let expect = self.spaces[handle.space].get(&key, self.commits).is_some();
            assert!(found == expect || (handle.lossy && !found), "{self}: contains_key");
            return;
        }
        let keys: Vec<_> =
            (0..self.random.below(12)).map(|_| draw::target(&mut self.random, &self.keys)).collect();
        let found = handle.keyspace.multi_get(&keys);
        let found = found.unwrap_or_else(|error| panic!("{self}: multi_get: {error}"));
        assert_eq!(found.len(), keys.len(), "{self}: multi_get");
        for (key, value) in keys.iter().zip(&found) {
            self.check_value(&handle, key, self.commits, value.as_ref());
        }
    }

    pub fn take_snapshot(&mut self) {
        if self.snapshots.len() < 6 {
            let snapshot = self.db().snapshot();
            assert_eq!(snapshot.seq(), self.db().latest_seq(), "{self}: snapshot");
            self.snapshots.push((snapshot, self.commits));
        }
    }

    /// Lets go of one. Some are held for long.
    pub fn release_snapshot(&mut self) {
        if let Some(nth) = (self.random.below(16) as usize).checked_rem(self.snapshots.len().max(4))
            && nth < self.snapshots.len()
        {
            self.snapshots.swap_remove(nth);
        }
    }

    pub fn read_snapshot(&mut self) {
        let Some(nth) = (self.random.next() as usize).checked_rem(self.snapshots.len()) else { return };
        let (snapshot, commit) = self.snapshots[nth].clone();
        let handle = self.any_handle();
        match self.random.below(10) {
            0..5 => {
                let key = draw::target(&mut self.random, &self.keys);
                let found = snapshot.get_in(&handle.keyspace, &key);
                let found = found.unwrap_or_else(|error| panic!("{self}: get at a snapshot: {error}"));
                self.check_value(&handle, &key, commit, found.as_ref());
            }
            5..7 => {
                let keys: Vec<_> =
                    (0..self.random.below(9)).map(|_| draw::target(&mut self.random, &self.keys)).collect();
                let found = snapshot.multi_get_in(&handle.keyspace, &keys);
                let found = found.unwrap_or_else(|error| panic!("{self}: multi_get at a snapshot: {error}"));
                for (key, value) in keys.iter().zip(&found) {
                    self.check_value(&handle, key, commit, value.as_ref());
                }
            }
            7..9 => {
                let range = draw::range(&mut self.random, &self.keys);
                let iter = snapshot.range_in(&handle.keyspace, range.clone());
                self.check_entries(&handle, iter, &range, commit, 20);
            }
            _ => {
                let prefix = draw::prefix(&mut self.random, &self.keys);
                let iter = snapshot.prefix_in(&handle.keyspace, &prefix);
                self.check_entries(&handle, iter, &draw::prefix_range(&prefix), commit, 20);
            }
        }
    }

    /// Reads up to `limit` entries from one end or the other and compares them.
    fn check_entries(&mut self, handle: &Handle, iter: Iter, range: &Range, commit: u64, limit: usize) {
        let backward = self.random.chance(50);
        let items: esker::Result<Vec<_>> =
            if backward { iter.rev().take(limit).collect() } else { iter.take(limit).collect() };
        let items = items.unwrap_or_else(|error| panic!("{self}: iterate: {error}"));
        let space = &self.spaces[handle.space];
        let mut entries = space.entries(lent(&range.0), lent(&range.1), commit);
        let mut expect = || if backward { entries.next_back() } else { entries.next() };
        for (key, value) in &items {
            let found = (&key[..], &value[..]);
            let mut entry = expect();
            while handle.lossy && entry.is_some_and(|entry| entry != found) {
                entry = expect();
            }
            assert!(
                entry == Some(found),
                "{self}: {range:?} backward {backward} at commit {commit}: found {} = {}, expected {:?}",
                shorten(found.0),
                shorten(found.1),
                entry.map(|(key, value)| (shorten(key), shorten(value))),
            );
        }
        if items.len() < limit && !handle.lossy {
            let missing = expect().map(|(key, _)| shorten(key));
            assert_eq!(missing, None, "{self}: {range:?} backward {backward} at commit {commit}: missing");
        }
    }

    /// Compares a whole keyspace, in one direction, now or as of a snapshot.
    pub fn compare_one(&mut self) {
        let handle = self.any_handle();
        let whole = (Bound::Unbounded, Bound::Unbounded);
        match self.snapshots.last() {
            Some((snapshot, commit)) if self.step_is_even() => {
                let (iter, commit) = (snapshot.iter_in(&handle.keyspace), *commit);
                self.check_entries(&handle, iter, &whole, commit, usize::MAX);
            }
            _ => self.check_entries(&handle, handle.keyspace.iter(), &whole, self.commits, usize::MAX),
        }
    }

    fn step_is_even(&self) -> bool {
        self.random.clone().chance(50)
    }

    /// Compares everything: by scans in both directions, by points, and at every snapshot.
    pub fn compare_all(&mut self) {
        let handles: Vec<Handle> = self.handles.values().cloned().collect();
        let whole = (Bound::Unbounded, Bound::Unbounded);
        for handle in &handles {
            for _ in 0..2 {
                self.check_entries(handle, handle.keyspace.iter(), &whole, self.commits, usize::MAX);
            }
            for nth in 0..self.snapshots.len() {
                let (iter, commit) = (self.snapshots[nth].0.iter_in(&handle.keyspace), self.snapshots[nth].1);
                self.check_entries(handle, iter, &whole, commit, usize::MAX);
            }
            let found = handle.keyspace.multi_get(&self.keys);
            let found = found.unwrap_or_else(|error| panic!("{self}: multi_get: {error}"));
            for (key, value) in self.keys.iter().zip(&found) {
                self.check_value(handle, key, self.commits, value.as_ref());
            }
        }
    }
}

/// Bytes for a message.
pub fn shorten(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(24)];
    format!("\"{}\" ({} bytes)", shown.escape_ascii(), bytes.len())
}
