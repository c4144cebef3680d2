//! A whole keyspace without files: tables with known content, flushes, several compactions at once, snapshots.
//!
//! Whatever a policy does, every reader must find what was written, by walking runs in the order of age as a read does.

use crate::base::key::{InternalKey, KeyRef, Trailer};
use crate::base::types::{EntryKind, FileNo, SeqNo};
use crate::compaction::cut::Cutter;
use crate::compaction::drop_rules::{DropRules, OlderTables, Verdict};
use crate::compaction::{Epoch, Goal, Kind, Manual, Running, Shape, Task, check_task, manual, pick};
use crate::manifest::{Run, TableMeta, Tree};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Bytes of an entry in the model.
pub(super) const ENTRY_BYTES: u64 = 10;

/// User key, sequence number, whether it is a delete.
type Entry = (u32, SeqNo, bool);

/// Key to the sequence number of its value, deletes left out.
type View = BTreeMap<u32, SeqNo>;

/// A compaction under way: the tree and the readers that it saw when it began.
struct Begun {
    task: Arc<Task>,
    tree: Tree,
    snapshots: Vec<SeqNo>,
    visible: SeqNo,
}

pub(super) struct Model {
    pub(super) shape: Shape,
    pub(super) tree: Tree,
    pub(super) running: Running,
    begun: Vec<Begun>,
    contents: HashMap<FileNo, Vec<Entry>>,
    next_file: FileNo,
    next_epoch: u64,
    seq: SeqNo,
    latest: View,
    snapshots: BTreeMap<SeqNo, View>,
    /// Entries flushed and entries written by merges.
    pub(super) flushed: u64,
    pub(super) written: u64,
}

fn key_bytes(key: u32) -> [u8; 4] {
    key.to_be_bytes()
}

fn internal((key, seq, delete): Entry) -> InternalKey {
    let kind = if delete { EntryKind::Delete } else { EntryKind::Put };
    KeyRef::new(&key_bytes(key), Trailer::new(seq, kind)).to_owned()
}

impl Model {
    pub(super) fn new(shape: Shape) -> Model {
        Model {
            shape,
            tree: Tree::default(),
            running: Running::default(),
            begun: Vec::new(),
            contents: HashMap::new(),
            next_file: 1,
            next_epoch: 1,
            seq: 0,
            latest: View::new(),
            snapshots: BTreeMap::new(),
            flushed: 0,
            written: 0,
        }
    }

    /// Writes operations, in this order, and flushes them as a run of level 0.
    pub(super) fn flush(&mut self, ops: &[(u32, bool)]) {
        let mut entries: Vec<Entry> = Vec::new();
        for (key, delete) in ops {
            self.seq += 1;
            entries.push((*key, self.seq, *delete));
            match delete {
                true => drop(self.latest.remove(key)),
                false => drop(self.latest.insert(*key, self.seq)),
            }
        }
        self.flushed += entries.len() as u64;
        let snapshots: Vec<SeqNo> = self.snapshots.keys().copied().collect();
        entries.sort_by_key(|(key, seq, _)| (*key, u64::MAX - seq));
        let tree = self.tree.clone();
        let rules = DropRules::new(&snapshots, self.seq, None);
        let tables = self.write(entries, rules, &tree, 0);
        let epoch = self.next_epoch();
        self.add(0, epoch, tables);
    }

    fn next_epoch(&mut self) -> u64 {
        self.next_epoch += 1;
        self.next_epoch
    }

    pub(super) fn take_snapshot(&mut self) {
        self.snapshots.insert(self.seq, self.latest.clone());
    }

    pub(super) fn release_snapshot(&mut self, index: usize) {
        if let Some(seq) = self.snapshots.keys().nth(index).copied() {
            self.snapshots.remove(&seq);
        }
    }

    pub(super) fn snapshot_count(&self) -> usize {
        self.snapshots.len()
    }

    /// Begins what the policy wants next; says whether there was something.
    pub(super) fn begin(&mut self) -> bool {
        let Some(task) = pick(&self.tree, &self.shape, &self.running) else { return false };
        self.begin_task(task);
        true
    }

    fn begin_task(&mut self, task: Task) {
        check_task(&self.tree, &self.running, &task).unwrap();
        let task = Arc::new(task);
        self.running.add(Arc::clone(&task));
        let snapshots = self.snapshots.keys().copied().collect();
        self.begun.push(Begun { task, tree: self.tree.clone(), snapshots, visible: self.seq });
    }

    pub(super) fn begun(&self) -> usize {
        self.begun.len()
    }

    /// Ends a running compaction and installs its outcome, as seen from the tree it began with.
    pub(super) fn finish(&mut self, index: usize) {
        let Begun { task, tree, snapshots, visible } = self.begun.remove(index);
        self.running.remove(&task);
        let outputs = match task.kind {
            Kind::Merge => {
                let mut entries: Vec<Entry> =
                    task.tables().flat_map(|table| self.contents[&table.number].clone()).collect();
                entries.sort_by_key(|(key, seq, _)| (*key, u64::MAX - seq));
                let rules = DropRules::new(&snapshots, visible, Some(OlderTables::below(&tree, &task)));
                let outputs = self.write(entries, rules, &tree, usize::from(task.output_level));
                self.written += outputs.iter().map(|table| table.entries).sum::<u64>();
                outputs
            }
            Kind::Move => task.tables().cloned().collect(),
            Kind::Drop => Vec::new(),
        };
        for input in &task.inputs {
            let level = &mut self.tree.levels[usize::from(input.level)];
            let index = level.position(input.epoch).unwrap();
            let run = Arc::make_mut(&mut level.runs[index]);
            let before = run.tables.len();
            run.tables.retain(|table| !input.tables.contains(table));
            assert_eq!(before, run.tables.len() + input.tables.len());
            if run.tables.is_empty() {
                level.runs.remove(index);
            }
        }
        let epoch = match task.output_epoch {
            Epoch::New => self.next_epoch(),
            Epoch::Existing(epoch) => epoch,
        };
        self.add(usize::from(task.output_level), epoch, outputs);
    }

    fn add(&mut self, level: usize, epoch: u64, tables: Vec<Arc<TableMeta>>) {
        if tables.is_empty() {
            return;
        }
        let runs = &mut self.tree.levels[level];
        let index = runs.position(epoch).unwrap_or_else(|index| {
            runs.runs.insert(index, Arc::new(Run { epoch, tables: Vec::new() }));
            index
        });
        let run = Arc::make_mut(&mut runs.runs[index]);
        run.tables.extend(tables);
        run.tables.sort_by(|a, b| a.smallest.cmp(&b.smallest));
        self.tree.check().unwrap();
    }

    fn write(
        &mut self,
        entries: Vec<Entry>,
        mut rules: DropRules<'_>,
        tree: &Tree,
        level: usize,
    ) -> Vec<Arc<TableMeta>> {
        let (target, span_max) = (self.shape.target_table_bytes, self.shape.max_compaction_bytes);
        let mut cutter = Cutter::new(tree, level, target, span_max);
        let mut tables: Vec<Vec<Entry>> = vec![Vec::new()];
        for entry in entries {
            let key = internal(entry);
            let Verdict::Keep { first } = rules.judge(key.as_ref()).unwrap() else { continue };
            let bytes = tables.last().unwrap().len() as u64 * ENTRY_BYTES;
            if first && cutter.cuts_before(&key.user, bytes) {
                tables.push(Vec::new());
            }
            tables.last_mut().unwrap().push(entry);
        }
        tables.retain(|table| !table.is_empty());
        tables.into_iter().map(|table| self.table(table)).collect()
    }

    fn table(&mut self, entries: Vec<Entry>) -> Arc<TableMeta> {
        let number = self.next_file;
        self.next_file += 1;
        let seqs = || entries.iter().map(|entry| entry.1);
        let bytes = entries.len() as u64 * ENTRY_BYTES;
        let meta = TableMeta {
            number,
            origin: number,
            bytes,
            smallest: internal(entries[0]),
            largest: internal(*entries.last().unwrap()),
            entries: entries.len() as u64,
            deletes: entries.iter().filter(|entry| entry.2).count() as u64,
            raw_bytes: bytes,
            seq_min: seqs().min().unwrap(),
            seq_max: seqs().max().unwrap(),
            older_versions: entries.windows(2).filter(|pair| pair[0].0 == pair[1].0).count() as u64,
        };
        self.contents.insert(number, entries);
        Arc::new(meta)
    }

    /// The newest version of a key at a reader, asking runs from new to old and stopping at the first answer.
    fn get(&self, key: u32, seq: SeqNo) -> Option<SeqNo> {
        for (_, run) in self.tree.runs() {
            let Some(table) = run.find(&key_bytes(key)) else { continue };
            let entries = &self.contents[&table.number];
            let start = entries.partition_point(|entry| entry.0 < key);
            let versions = entries[start..].iter().take_while(|entry| entry.0 == key);
            if let Some((_, found, delete)) = versions.into_iter().find(|entry| entry.1 <= seq) {
                return (!delete).then_some(*found);
            }
        }
        None
    }

    /// Every reader finds what was written. With `may_expire`, a value may be gone, but never an older one be back.
    pub(super) fn verify(&self, keys: u32, may_expire: bool) {
        let readers = self.snapshots.iter().map(|(seq, view)| (*seq, view));
        for (seq, view) in readers.chain([(self.seq, &self.latest)]) {
            for key in 0..keys {
                let (found, expect) = (self.get(key, seq), view.get(&key).copied());
                let right = found == expect || (may_expire && found.is_none());
                assert!(
                    right,
                    "key {key} at {seq}: {found:?} instead of {expect:?} in {:#?}",
                    self.picture()
                );
            }
        }
    }

    /// Runs the policy alone until it comes to rest, in at most `steps`.
    pub(super) fn settle(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.begun() > 0 {
                self.finish(0);
            } else if !self.begin() {
                return;
            }
        }
        assert_eq!(self.begun(), 0);
        let next = pick(&self.tree, &self.shape, &self.running).map(|task| task.to_string());
        assert_eq!(next, None, "not at rest after {steps} steps: {:#?}", self.picture());
    }

    /// Compacts everything by hand.
    pub(super) fn compact_all(&mut self, steps: usize) {
        assert_eq!(self.begun(), 0);
        let files_below = self.next_file;
        for _ in 0..steps {
            let goal = Goal { lo: None, hi: None, seq_max: self.seq, files_below };
            match manual(&self.tree, &self.shape, &self.running, &goal) {
                Manual::Step(task) => self.begin_task(task),
                Manual::Wait => panic!("waits for nothing"),
                Manual::Done => return,
            }
            self.finish(0);
        }
        panic!("not done after {steps} steps");
    }

    pub(super) fn entries(&self) -> u64 {
        self.tree.tables().map(|table| table.entries).sum()
    }

    pub(super) fn live(&self) -> u64 {
        self.latest.len() as u64
    }

    /// One line per run: level, epoch, tables, bytes.
    pub(super) fn picture(&self) -> Vec<String> {
        let line = |(level, run): (usize, &Arc<Run>)| {
            format!("L{level}#{} {} tables {} bytes", run.epoch, run.tables.len(), run.bytes())
        };
        self.tree.runs().map(line).collect()
    }
}
