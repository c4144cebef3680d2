//! Tests of serializable snapshot isolation, on a toy multi-version store that leaves every decision to it.

mod cost;
mod limits;
mod model;
mod random;
mod scenarios;
mod sets;

use super::{Danger, RangeEnd, Ssi, Tracker, WriteKeys};
use crate::base::types::{KeyspaceId, SeqNo};
use model::{Node, Reads};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const KEYSPACE: KeyspaceId = KeyspaceId(7);

/// A key as bytes: odd numbers, so that bounds fit between keys.
fn bytes(key: u8) -> [u8; 1] {
    [key * 2 + 1]
}

fn write_keys(keys: &BTreeSet<u8>) -> WriteKeys {
    let bytes: Vec<[u8; 1]> = keys.iter().map(|key| bytes(*key)).collect();
    WriteKeys::collect(bytes.iter().map(|key| (KEYSPACE, key.as_slice())))
}

/// How a transaction takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tracked,
    Declared,
}

/// An open transaction of the toy store.
#[derive(Debug)]
struct Txn {
    id: u64,
    snapshot: SeqNo,
    begun: u64,
    tracker: Option<Tracker>,
    reads: Reads,
    writes: BTreeSet<u8>,
}

/// A commit that is not published yet.
#[derive(Debug)]
struct Unpublished {
    seq: SeqNo,
    /// Kept until publication, like locks.
    txn: Option<Txn>,
    writes: BTreeSet<u8>,
    node: usize,
}

/// The toy store: versions are commit sequence numbers, the content of a version is its number.
#[derive(Debug)]
struct World {
    ssi: Arc<Ssi>,
    assigned: SeqNo,
    visible: Cell<SeqNo>,
    now: u64,
    versions: BTreeMap<u8, Vec<SeqNo>>,
    unpublished: Vec<Unpublished>,
    prepared: BTreeMap<u64, Txn>,
    locked: BTreeSet<u8>,
    /// What has committed.
    history: Vec<Node>,
    last_id: u64,
    /// Asks that commits become visible before a snapshot is taken.
    waits: u64,
    aborts: u64,
    false_aborts: u64,
}

impl World {
    fn new(bytes_max: usize) -> World {
        World {
            ssi: Ssi::new(bytes_max),
            assigned: 10,
            visible: Cell::new(10),
            now: 0,
            versions: BTreeMap::new(),
            unpublished: Vec::new(),
            prepared: BTreeMap::new(),
            locked: BTreeSet::new(),
            history: Vec::new(),
            last_id: 0,
            waits: 0,
            aborts: 0,
            false_aborts: 0,
        }
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn begin(&mut self, kind: Kind) -> Txn {
        self.last_id += 1;
        let id = self.last_id;
        let (assigned, visible) = (self.assigned, &self.visible);
        let waits = Cell::new(0);
        let published = |seq: SeqNo| {
            assert!(seq > visible.get() && seq <= assigned, "waits for {seq}, visible {visible:?}");
            waits.set(waits.get() + 1);
            visible.set(seq);
            Ok::<(), ()>(())
        };
        let take = || (visible.get(), visible.get());
        let (snapshot, tracker) = match kind {
            Kind::Tracked => {
                let (snapshot, tracker) = self.ssi.begin(id, || assigned, published, take).unwrap();
                (snapshot, Some(tracker))
            }
            Kind::Declared => (self.ssi.begin_declared(published, take).unwrap(), None),
        };
        self.waits += waits.get();
        self.publish_upto(snapshot);
        let begun = self.tick();
        Txn { id, snapshot, begun, tracker, reads: Reads::new(), writes: BTreeSet::new() }
    }

    /// The version of a key that is seen from here.
    fn seen(&self, key: u8, snapshot: SeqNo) -> SeqNo {
        let versions = self.versions.get(&key).map_or(&[][..], Vec::as_slice);
        versions.iter().rev().find(|seq| **seq <= snapshot).copied().unwrap_or(0)
    }

    fn newest(&self, key: u8) -> SeqNo {
        self.seen(key, SeqNo::MAX)
    }

    fn note(&self, txn: &mut Txn, key: u8) {
        if !txn.writes.contains(&key) {
            txn.reads.insert((key, self.seen(key, txn.snapshot)));
        }
    }

    fn get(&self, txn: &mut Txn, key: u8) {
        if let Some(tracker) = &txn.tracker {
            tracker.read_key(KEYSPACE, &bytes(key));
        }
        self.note(txn, key);
    }

    /// An iterator's walk over the keys of a range, forwards or backwards.
    fn scan(&self, txn: &mut Txn, from: u8, upto: u8, backwards: bool) {
        let keys: Vec<u8> = (from..upto).collect();
        if let Some(tracker) = &txn.tracker {
            let (start, end) = ([from * 2], [upto * 2]);
            let steps: Vec<[u8; 1]> = keys.iter().map(|key| bytes(*key)).collect();
            if backwards {
                for step in steps.iter().rev() {
                    tracker.read_range(KEYSPACE, step, RangeEnd::Before(&end));
                }
            } else {
                for step in &steps {
                    tracker.read_range(KEYSPACE, &start, RangeEnd::Through(step));
                }
            }
            tracker.read_range(KEYSPACE, &start, RangeEnd::Before(&end));
        }
        for key in keys {
            self.note(txn, key);
        }
    }

    /// Buffers a write, unless somebody holds the key or has committed it since.
    fn put(&mut self, txn: &mut Txn, key: u8) -> bool {
        if txn.writes.contains(&key) {
            return true;
        }
        if self.locked.contains(&key) || self.newest(key) > txn.snapshot {
            return false;
        }
        self.locked.insert(key);
        txn.writes.insert(key);
        true
    }

    fn unlock(&mut self, writes: &BTreeSet<u8>) {
        for key in writes {
            self.locked.remove(key);
        }
    }

    fn rollback(&mut self, txn: Txn) {
        self.unlock(&txn.writes);
    }

    fn node(&self, txn: &Txn, seq: Option<SeqNo>) -> Node {
        Node {
            id: txn.id,
            reads: txn.reads.clone(),
            writes: txn.writes.clone(),
            seq,
            begun: txn.begun,
            ended: None,
        }
    }

    /// Commits, without publication.
    fn commit(&mut self, txn: Txn) -> Result<(), Danger> {
        let checked = match &txn.tracker {
            Some(tracker) if txn.writes.is_empty() => tracker.commit_read_only(),
            None if txn.writes.is_empty() => Ok(()),
            tracker => {
                let writes = write_keys(&txn.writes);
                if self.ssi.is_recording() {
                    let (seq, visible) = (self.assigned + 1, self.visible.get());
                    self.ssi.check_and_record(tracker.as_ref(), &writes, seq, visible)
                } else {
                    assert!(txn.tracker.is_none(), "not recording while a transaction is open");
                    Ok(())
                }
            }
        };
        if let Err(danger) = checked {
            self.aborted(&txn);
            self.rollback(txn);
            return Err(danger);
        }
        self.committed(txn);
        Ok(())
    }

    /// Counts an abort, a false one if the history would have stayed serializable.
    fn aborted(&mut self, txn: &Txn) {
        self.aborts += 1;
        let mut tried = self.history.clone();
        tried.push(self.node(txn, Some(self.assigned + 1)));
        self.false_aborts += u64::from(model::cycle(&tried).is_none());
    }

    fn committed(&mut self, txn: Txn) {
        let node = self.history.len();
        if txn.writes.is_empty() {
            let mut read_only = self.node(&txn, None);
            read_only.ended = Some(self.tick());
            self.history.push(read_only);
            return;
        }
        self.assigned += 1;
        let seq = self.assigned;
        self.history.push(self.node(&txn, Some(seq)));
        for key in &txn.writes {
            self.versions.entry(*key).or_default().push(seq);
        }
        let writes = txn.writes.clone();
        self.unpublished.push(Unpublished { seq, txn: Some(txn), writes, node });
    }

    /// A write outside of any transaction. False if somebody holds a key.
    fn plain(&mut self, keys: BTreeSet<u8>) -> Result<bool, Danger> {
        if keys.iter().any(|key| self.locked.contains(key)) {
            return Ok(false);
        }
        self.locked.extend(&keys);
        self.last_id += 1;
        let (id, begun) = (self.last_id, self.tick());
        let snapshot = self.assigned;
        self.commit(Txn { id, snapshot, begun, tracker: None, reads: Reads::new(), writes: keys })?;
        Ok(true)
    }

    fn prepare(&mut self, mut txn: Txn) -> Result<u64, Danger> {
        let writes = write_keys(&txn.writes);
        if let Err(danger) = self.ssi.prepare(txn.id, txn.tracker.as_ref(), writes) {
            self.aborts += 1;
            self.false_aborts += 1;
            self.rollback(txn);
            return Err(danger);
        }
        txn.tracker = None;
        let id = txn.id;
        self.prepared.insert(id, txn);
        Ok(id)
    }

    fn commit_prepared(&mut self, id: u64) {
        let txn = self.prepared.remove(&id).unwrap();
        self.ssi.commit_prepared(id, self.assigned + 1, self.visible.get());
        self.committed(txn);
        self.ssi.made_prepared(id, self.assigned);
    }

    fn rollback_prepared(&mut self, id: u64) {
        let txn = self.prepared.remove(&id).unwrap();
        self.ssi.rollback_prepared(id);
        self.rollback(txn);
    }

    fn publish_upto(&mut self, seq: SeqNo) {
        let now = self.tick();
        while self.unpublished.first().is_some_and(|commit| commit.seq <= seq) {
            let commit = self.unpublished.remove(0);
            self.visible.set(self.visible.get().max(commit.seq));
            self.unlock(&commit.writes);
            self.history[commit.node].ended = Some(now);
            drop(commit.txn);
        }
    }

    /// Ends everything that is prepared or unpublished, and looks whether anything is left behind.
    fn close(&mut self) {
        for id in self.prepared.keys().copied().collect::<Vec<u64>>() {
            self.commit_prepared(id);
        }
        self.publish_upto(SeqNo::MAX);
        self.ssi.collect(self.visible.get());
        let stats = self.ssi.stats();
        assert_eq!((stats.open, stats.prepared, stats.retained, stats.bytes), (0, 0, 0, 0), "{stats:?}");
    }
}
