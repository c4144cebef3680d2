//! Compactions and flushes over real tables on an in-memory disk, with faults at every call and cancelled at every
//! question.

use super::generator;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::iter::InternalIter;
use crate::base::key::{InternalKey, KeyRef, Trailer};
use crate::base::types::{DbId, EntryKind, FileNo, SeqNo};
use crate::cache::BlockCache;
use crate::compaction::{Context, Epoch, Input, Kind, Outcome, Task, run, write_run};
use crate::env::{Env, Fault, FaultFs, FaultRule, Fs, MemFs, Op, OpSet, When};
use crate::manifest::{Run, TableMeta, Tree};
use crate::sstable::{Compression, FilterKind, ReadMode, Table, TableIterOptions, TableOptions, TableSource};
use rand::RngExt;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DB: DbId = 77;

type Entry = (InternalKey, Vec<u8>);

/// A cursor over entries in memory; only what a flush needs. Ends early, or fails, where told to.
struct Entries {
    entries: Vec<Entry>,
    at: usize,
    fails_at: Option<usize>,
}

impl Entries {
    fn new(entries: &[Entry]) -> Entries {
        Entries { entries: entries.to_vec(), at: usize::MAX, fails_at: None }
    }

    fn go(&mut self, at: usize) -> Result<()> {
        self.at = at;
        if self.fails_at == Some(at) {
            self.at = usize::MAX;
            return Err(Error::new(ErrorKind::Io, "injected"));
        }
        Ok(())
    }
}

impl InternalIter for Entries {
    fn valid(&self) -> bool {
        self.at < self.entries.len()
    }
    fn key(&self) -> KeyRef<'_> {
        self.entries[self.at].0.as_ref()
    }
    fn value(&self) -> &[u8] {
        &self.entries[self.at].1
    }
    fn seek_to_first(&mut self) -> Result<()> {
        self.go(0)
    }
    fn next(&mut self) -> Result<()> {
        self.go(self.at + 1)
    }
    fn seek(&mut self, _: KeyRef<'_>) -> Result<()> {
        unreachable!()
    }
    fn seek_for_prev(&mut self, _: KeyRef<'_>) -> Result<()> {
        unreachable!()
    }
    fn seek_to_last(&mut self) -> Result<()> {
        unreachable!()
    }
    fn prev(&mut self) -> Result<()> {
        unreachable!()
    }
}

fn put(key: &str, seq: SeqNo, value: &str) -> Entry {
    (KeyRef::new(key.as_bytes(), Trailer::new(seq, EntryKind::Put)).to_owned(), value.into())
}

fn delete(key: &str, seq: SeqNo) -> Entry {
    (KeyRef::new(key.as_bytes(), Trailer::new(seq, EntryKind::Delete)).to_owned(), Vec::new())
}

/// A directory of tables, and the tree that names them.
struct World {
    disk: Arc<MemFs>,
    fs: Arc<FaultFs>,
    env: Env,
    dir: PathBuf,
    tree: Tree,
    next_file: Cell<FileNo>,
    target_table_bytes: u64,
    snapshots: Vec<SeqNo>,
    visible: SeqNo,
    /// Questions whether to stop that are answered with no.
    patience: Cell<u64>,
    read: Cell<u64>,
    leftovers: RefCell<Vec<PathBuf>>,
}

fn path_of(number: FileNo) -> PathBuf {
    PathBuf::from(format!("/db/{number:06}.sst"))
}

fn open(fs: &dyn Fs, meta: &TableMeta) -> Result<Arc<Table>> {
    let path = path_of(meta.number);
    let file = fs.open(&path).map_err(|error| Error::io("open", &path, error))?;
    let cache = Arc::new(BlockCache::new(0));
    let source = TableSource {
        file,
        path,
        db: DB,
        origin: meta.origin,
        bytes: meta.bytes,
        mode: ReadMode::Pread,
        cache,
    };
    Table::open(source).map(Arc::new)
}

impl World {
    fn new() -> World {
        let disk = Arc::new(MemFs::new());
        let fs = Arc::new(FaultFs::new(disk.clone()));
        fs.create_dir_all(Path::new("/db")).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        World {
            env: Env::simulated(fs.clone(), 1),
            disk,
            fs,
            dir: "/db".into(),
            tree: Tree::default(),
            next_file: Cell::new(1),
            target_table_bytes: 2 << 10,
            snapshots: Vec::new(),
            visible: 1 << 40,
            patience: Cell::new(u64::MAX),
            read: Cell::new(0),
            leftovers: RefCell::default(),
        }
    }

    fn with_context<R>(&self, work: impl FnOnce(&Context<'_>) -> R) -> R {
        let (fs, read) = (self.fs.clone(), &self.read);
        work(&Context {
            env: &self.env,
            dir: &self.dir,
            db: DB,
            table_options: TableOptions {
                block_bytes: 256,
                restart_interval: 4,
                compression: Compression::Lz4,
                filter: FilterKind::Blocked,
                bits_per_key: 10,
                index_block_bytes: 1 << 20,
            },
            tree: &self.tree,
            snapshots: &self.snapshots,
            visible: self.visible,
            open: &|meta| open(&*fs, meta),
            path_of: &path_of,
            next_file: &|| Ok(self.next_file.replace(self.next_file.get() + 1)),
            cancelled: &|| {
                let left = self.patience.get();
                self.patience.set(left.saturating_sub(1));
                left == 0
            },
            throttle: &|bytes| read.set(read.get() + bytes),
            leftover: &|path, _| self.leftovers.borrow_mut().push(path.to_path_buf()),
            target_table_bytes: self.target_table_bytes,
            max_compaction_bytes: 1 << 20,
            uncached: false,
        })
    }
}

/// Whole worlds and what is asked of them.
impl World {
    /// Writes entries as a run and hangs it into the tree.
    fn add_run(&mut self, level: usize, epoch: u64, entries: &[Entry]) {
        let count = entries.len() as u64;
        let keep_all: Vec<SeqNo> = (0..1000).collect();
        let snapshots = std::mem::replace(&mut self.snapshots, keep_all);
        let outcome =
            self.with_context(|context| write_run(Entries::new(entries), count, false, context)).unwrap();
        self.snapshots = snapshots;
        assert_eq!(outcome.entries_out, count);
        let tables = outcome.added.into_iter().map(Arc::new).collect();
        self.tree.levels[level].runs.insert(0, Arc::new(Run { epoch, tables }));
        self.tree.check().unwrap();
    }

    /// Everything in the tree into one run of level 2.
    fn whole_task(&self) -> Task {
        let input = |(level, run): (usize, &Arc<Run>)| Input {
            level: level as u8,
            epoch: run.epoch,
            tables: run.tables.clone(),
        };
        Task {
            inputs: self.tree.runs().map(input).collect(),
            output_level: 2,
            output_epoch: Epoch::Existing(1),
            kind: Kind::Merge,
            reason: "test",
        }
    }

    fn run(&self, task: &Task) -> Result<Outcome> {
        self.with_context(|context| run(task, context))
    }

    fn read(&self, tables: &[TableMeta]) -> Vec<Entry> {
        let mut entries = Vec::new();
        for meta in tables {
            let table = open(&*self.disk, meta).unwrap();
            assert_eq!(table.verify().unwrap(), meta.entries);
            let mut iter = table.iter(TableIterOptions::default());
            iter.seek_to_first().unwrap();
            while iter.valid() {
                entries.push((iter.key().to_owned(), iter.value().to_vec()));
                iter.next().unwrap();
            }
        }
        entries
    }

    /// Every file with its bytes.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = self.disk.list_files();
        files.into_iter().map(|path| (path.clone(), self.disk.read_file(&path).unwrap())).collect()
    }

    /// Three runs that overlap, over a last one; about 600 entries.
    fn grown(seed: u64) -> World {
        let mut random = generator(seed);
        let mut world = World::new();
        let mut seq = 0;
        for (level, epoch) in [(2, 1), (1, 2), (0, 3), (0, 4)] {
            let mut entries: Vec<Entry> = Vec::new();
            for _ in 0..150 {
                seq += 1;
                let key = format!("key{:04}", random.random_range(0..200));
                entries.push(match random.random_bool(0.3) {
                    true => delete(&key, seq),
                    false => {
                        put(&key, seq, &format!("value {seq} {}", "x".repeat(random.random_range(0..40))))
                    }
                });
            }
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            world.add_run(level, epoch, &entries);
        }
        world.snapshots = vec![100, 320];
        world.visible = 590;
        world
    }
}

/// What is seen at a sequence number.
fn view(entries: &[Entry], seq: SeqNo) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut view = BTreeMap::new();
    let mut last: Option<&[u8]> = None;
    for (key, value) in entries.iter().filter(|(key, _)| key.trailer.seq() <= seq) {
        if last != Some(&key.user) && key.trailer.kind() == Ok(EntryKind::Put) {
            view.insert(key.user.to_vec(), value.clone());
        }
        last = Some(&key.user);
    }
    view
}

#[test]
fn a_merge_keeps_what_readers_see_and_accounts_for_all_entries() {
    let world = World::grown(11);
    let task = world.whole_task();
    let metas: Vec<TableMeta> = task.tables().map(|table| TableMeta::clone(table)).collect();
    let mut before: Vec<Entry> = world.read(&metas);
    before.sort_by(|a, b| a.0.cmp(&b.0));
    world.read.set(0);
    let outcome = world.run(&task).unwrap();
    let after = world.read(&outcome.added);
    for seq in [100, 320, 590, 591, 595, 600, 1000] {
        assert_eq!(view(&before, seq), view(&after, seq), "at {seq}");
    }
    assert_eq!(outcome.entries_in, before.len() as u64);
    assert_eq!(outcome.entries_out, after.len() as u64);
    assert_eq!(outcome.dropped, outcome.entries_in - outcome.entries_out);
    assert!(outcome.dropped > 100);
    assert_eq!(outcome.bytes_read, task.bytes());
    assert_eq!(outcome.bytes_written, outcome.added.iter().map(|table| table.bytes).sum::<u64>());
    let raw: usize = before.iter().map(|(key, value)| key.user.len() + value.len()).sum();
    assert_eq!(world.read.get(), raw as u64, "the throttle is told of every byte");
    // Deletes that everybody sees hide nothing any more.
    assert!(after.iter().all(|(key, _)| key.trailer.kind() == Ok(EntryKind::Put) || key.trailer.seq() > 100));
    for pair in outcome.added.windows(2) {
        assert!(pair[0].largest.user < pair[1].smallest.user);
    }
    assert!(outcome.added.len() > 3);
    let durable = |table: &TableMeta| world.disk.is_durable(&path_of(table.number)).unwrap();
    assert!(outcome.added.iter().all(durable));
}

#[test]
fn versions_of_a_key_stay_in_one_table() {
    let mut world = World::new();
    world.target_table_bytes = 1;
    let versions =
        |seqs: std::ops::Range<u64>| seqs.rev().map(|seq| put("hot", seq, "value")).collect::<Vec<_>>();
    world.add_run(2, 1, &versions(1..200));
    let mut newer = versions(200..400);
    newer.insert(0, put("before", 500, "x"));
    newer.push(put("later", 501, "x"));
    world.add_run(1, 2, &newer);
    world.snapshots = (0..400).collect();
    let outcome = world.run(&world.whole_task()).unwrap();
    let counts: Vec<u64> = outcome.added.iter().map(|table| table.entries).collect();
    assert_eq!(counts, vec![1, 399, 1]);
}

#[test]
fn an_empty_outcome_leaves_no_file() {
    let mut world = World::new();
    world.add_run(2, 1, &[put("a", 1, "x"), put("b", 2, "x")]);
    world.add_run(1, 2, &[delete("a", 3), delete("b", 4)]);
    let files = world.files();
    let outcome = world.run(&world.whole_task()).unwrap();
    assert_eq!((outcome.added.len(), outcome.entries_in, outcome.dropped), (0, 4, 4));
    assert_eq!(world.files(), files);
}

#[test]
fn moves_and_drops_touch_no_file() {
    let mut world = World::new();
    world.add_run(1, 1, &[put("a", 1, "x"), put("b", 2, "x")]);
    let mut task = world.whole_task();
    (task.kind, task.output_epoch) = (Kind::Move, Epoch::New);
    let operations = world.fs.operations();
    let outcome = world.run(&task).unwrap();
    assert_eq!(outcome.added, task.tables().map(|table| TableMeta::clone(table)).collect::<Vec<_>>());
    task.kind = Kind::Drop;
    let outcome = world.run(&task).unwrap();
    assert_eq!((outcome.added.len(), outcome.dropped), (0, 2));
    assert_eq!(world.fs.operations(), operations);
}

#[test]
fn a_task_that_breaks_a_rule_is_not_run() {
    let world = World::grown(11);
    let mut task = world.whole_task();
    task.inputs.remove(1);
    let files = world.files();
    assert_eq!(world.run(&task).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(world.files(), files);
}

/// Runs the whole task with this fault at the first, second, ... matching call, until there is none left. Each time it
/// fails and leaves all files as they were, or the fault did not matter and the outcome is the right one.
fn survives(ops: OpSet, fault: Fault, check: impl Fn(&Error)) -> u64 {
    let world = World::grown(12);
    let task = world.whole_task();
    let inputs = world.files();
    let expect = {
        let outcome = world.run(&task).unwrap();
        let entries = world.read(&outcome.added);
        outcome.added.iter().for_each(|table| world.disk.remove_file(&path_of(table.number)).unwrap());
        entries
    };
    for nth in 1.. {
        let faults = world.fs.faults();
        world.fs.add(FaultRule::new(ops, fault).when(When::Nth(nth)));
        let result = world.run(&task);
        let happened = world.fs.faults() > faults;
        world.fs.heal();
        match result {
            Ok(outcome) => {
                assert_eq!(world.read(&outcome.added), expect, "{fault:?} at call {nth}");
                outcome
                    .added
                    .iter()
                    .for_each(|table| world.disk.remove_file(&path_of(table.number)).unwrap());
            }
            Err(error) => {
                assert!(happened);
                check(&error);
            }
        }
        assert!(world.files() == inputs, "{fault:?} at call {nth} left other files");
        assert!(world.leftovers.borrow().is_empty());
        if !happened {
            return nth - 1;
        }
    }
    0
}

#[test]
fn every_failing_call_stops_the_compaction_and_leaves_the_inputs() {
    let is_io = |error: &Error| assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    let calls = survives(OpSet::reads(), Fault::Errno(5), is_io);
    assert!(calls > 20, "{calls} calls that read");
    let calls = survives([Op::Create, Op::Append, Op::Sync, Op::Finish].into(), Fault::Errno(5), is_io);
    assert!(calls > 15, "{calls} calls that write");
    let is_fatal = |error: &Error| assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
    assert_eq!(survives(Op::SyncDir.into(), Fault::Errno(5), is_fatal), 1);
    let is_full = |error: &Error| assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    survives(
        Op::Append.into(),
        Fault::ShortWrite { bytes: 7, kind: std::io::ErrorKind::StorageFull },
        is_full,
    );
}

#[test]
fn every_flipped_bit_and_lost_read_is_corruption() {
    let is_corruption = |error: &Error| assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    assert!(survives(Op::Read.into(), Fault::BitFlip, is_corruption) > 20);
    assert!(survives(Op::Read.into(), Fault::Skip, is_corruption) > 20);
    // A write that the device only claimed to have done shows when the output is opened again.
    assert!(survives(Op::Append.into(), Fault::Skip, is_corruption) > 3);
}

#[test]
fn an_output_that_cannot_be_removed_is_reported() {
    let world = World::grown(13);
    world.fs.add(FaultRule::new(Op::Remove, Fault::Errno(5)));
    world.fs.add(FaultRule::new(Op::Sync, Fault::Errno(28)));
    let first = world.next_file.get();
    let error = world.run(&world.whole_task()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "the first error is answered");
    let made: Vec<PathBuf> = (first..world.next_file.get()).map(path_of).collect();
    assert_eq!(*world.leftovers.borrow(), made);
}

#[test]
fn a_file_that_was_there_is_not_removed() {
    let world = World::grown(13);
    let taken = path_of(world.next_file.get() + 1);
    world.disk.write_file(&taken, b"somebody else's").unwrap();
    let files = world.files();
    assert_eq!(world.run(&world.whole_task()).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(world.files(), files);
}

#[test]
fn cancelling_at_any_question_leaves_the_inputs() {
    let world = World::grown(14);
    let task = world.whole_task();
    let files = world.files();
    let mut questions = 0;
    loop {
        world.patience.set(questions);
        match world.run(&task) {
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
        }
        assert!(world.files() == files);
        questions += 1;
    }
    assert!(questions >= 4, "asked {questions} times");
}

#[test]
fn inputs_must_be_what_the_manifest_says() {
    type Spoil = fn(&mut TableMeta);
    let spoil: [(&str, Spoil); 4] = [
        ("more entries", |table| table.entries += 1),
        ("fewer entries", |table| table.entries -= 1),
        ("other deletes", |table| table.deletes += 1),
        ("another origin", |table| table.origin += 1),
    ];
    for (what, spoil) in spoil {
        let mut world = World::grown(15);
        let run = Arc::make_mut(&mut world.tree.levels[2].runs[0]);
        let mut table = TableMeta::clone(&run.tables[1]);
        let path = path_of(table.number);
        spoil(&mut table);
        run.tables[1] = Arc::new(table);
        let files = world.files();
        let error = world.run(&world.whole_task()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
        assert_eq!(error.corruption().unwrap().file, path, "{what}");
        assert_eq!(world.files(), files);
    }
}

#[test]
fn a_flush_keeps_deletes_unless_nothing_older_exists() {
    let mut world = World::new();
    let entries = [delete("a", 5), put("a", 2, "x"), put("b", 4, "y"), put("b", 3, "x"), delete("m", 6)];
    let flush = |is_oldest: bool| {
        let outcome =
            world.with_context(|context| write_run(Entries::new(&entries), 5, is_oldest, context)).unwrap();
        let found: Vec<String> = world
            .read(&outcome.added)
            .iter()
            .map(|(key, _)| format!("{}{}", key.user.escape_ascii(), key.trailer.seq()))
            .collect();
        found.join(" ")
    };
    assert_eq!(flush(false), "a5 b4 m6");
    assert_eq!(flush(true), "b4");
    world.add_run(1, 1, &[put("k", 1, "x"), put("z", 1, "x")]);
    let outcome = world.with_context(|context| write_run(Entries::new(&entries), 5, true, context)).unwrap();
    assert_eq!(outcome.entries_out, 2, "the delete of m may hide something in level 1");
}

#[test]
fn a_flush_whose_source_ends_early_or_fails_writes_nothing() {
    let world = World::new();
    let entries: Vec<Entry> = (0..500).map(|index| put(&format!("key{index:04}"), 1, "value")).collect();
    let short = world.with_context(|context| write_run(Entries::new(&entries[..499]), 500, false, context));
    assert_eq!(short.unwrap_err().kind(), ErrorKind::Corruption);
    for fails_at in [0, 1, 250, 499] {
        let source = Entries { fails_at: Some(fails_at), ..Entries::new(&entries) };
        let failed = world.with_context(|context| write_run(source, 500, false, context));
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Io);
    }
    assert!(world.files().is_empty());
}

#[test]
fn entries_of_a_later_version_are_refused() {
    let world = World::new();
    let key = KeyRef::new(b"k", Trailer((5 << 8) | 4)).to_owned();
    let entries = [(key, Vec::new())];
    let error =
        world.with_context(|context| write_run(Entries::new(&entries), 1, false, context)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::VersionUnsupported);
    assert!(error.to_string().contains("merge operand"), "{error}");
    assert!(world.files().is_empty());
}
