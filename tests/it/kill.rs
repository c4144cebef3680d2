//! `kill -9` of a real process under load, again and again, on one database.
//!
//! A child process (this binary again) writes with several threads: batches over two keyspaces, durability `Disk` and
//! `Os` mixed, flushes, compactions and syncs in between. Each thread has a stripe of keys and a counter; what its
//! `n`th batch does follows from `n` alone, and each batch also stores `n`. Every commit that returned is noted by one
//! plain `write(2)` to a file opened for appending, which a kill cannot take back.
//!
//! The parent kills the child at a random moment: under load, while it opens, or while it recovers from the kill
//! before. Then it opens the database itself: each stripe must show exactly the state after some `n`, in both keyspaces
//! the same, with every noted commit in it and at most one that was under way.
//!
//! `ESKER_KILL_CYCLES` sets how many kills.

use crate::process::this_test;
use crate::support::{Map, Random, contents, seed, setting};
use esker::{Db, Durability, Options, ReadMode, WriteOptions};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

const THREADS: u64 = 4;
const KEYS: u64 = 40;
const KEYSPACES: [&str; 2] = ["default", "second"];
/// Holds the number of the last batch of a stripe.
const LAST: &str = "last";

/// Set in a child: where it works, and the seed of its options.
const CHILD: &str = "ESKER_KILL_CHILD";
const CHILD_SEED: &str = "ESKER_KILL_CHILD_SEED";

/// What the child says before it opens the database.
const READY: &str = "about to open";

/// One write: keyspace (index into `KEYSPACES`), key, value or removal.
type WriteOp = (usize, String, Option<Vec<u8>>);

/// What the `n`th batch of a thread does.
fn nth_batch(thread: u64, n: u64) -> Vec<WriteOp> {
    let mut random = Random::new(thread << 48 | n);
    let mut writes = Vec::new();
    for _ in 0..random.below(4) {
        let keyspace = random.below(2) as usize;
        let key = format!("{thread}/key{:02}", random.below(KEYS));
        let len = if random.chance(2) { 5000 } else { random.below(150) };
        let value = (!random.chance(25)).then(|| random.bytes(len as usize));
        writes.push((keyspace, key, value));
    }
    for keyspace in 0..KEYSPACES.len() {
        writes.push((keyspace, format!("{thread}/{LAST}"), Some(n.to_be_bytes().to_vec())));
    }
    writes
}

fn options(seed: u64) -> Options {
    let mut random = Random::new(seed);
    Options::tiny()
        .wal_mapped(random.chance(50))
        .read_mode(*random.pick(&[ReadMode::Mmap, ReadMode::Pread]))
        .background_threads(*random.pick(&[1, 2, 3]))
        .sync_interval(Duration::from_millis(20))
}

fn database(root: &Path) -> PathBuf {
    root.join("db")
}

fn notes(root: &Path) -> PathBuf {
    root.join("notes")
}

/// One line of the notes: a thread's counter after a commit that returned, or as it was found at a start.
#[derive(Debug, Clone, Copy)]
struct Note {
    thread: u64,
    is_start: bool,
    n: u64,
    seq: u64,
}

const NOTE_BYTES: usize = 32;

impl Note {
    fn write(self, file: &File) {
        let numbers = [self.thread, u64::from(self.is_start), self.n, self.seq];
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        // One call, so that the note is there whole or not at all.
        let mut file = file;
        assert_eq!(file.write(&bytes).expect("write a note"), NOTE_BYTES);
    }

    fn read(bytes: &[u8]) -> Note {
        let number = |index: usize| u64::from_le_bytes(*bytes[index * 8..].first_chunk().expect("8 bytes"));
        Note { thread: number(0), is_start: number(1) == 1, n: number(2), seq: number(3) }
    }
}

/// The number of the last batch of a stripe, which must be the same in both keyspaces.
fn last_of(db: &Db, thread: u64) -> u64 {
    let numbers = KEYSPACES.map(|name| {
        let keyspace = db.keyspace(name).expect("keyspace");
        let value = keyspace.get(format!("{thread}/{LAST}")).expect("read");
        value.map_or(0, |bytes| u64::from_be_bytes(*bytes.first_chunk().expect("8 bytes")))
    });
    assert_eq!(numbers[0], numbers[1], "a batch of thread {thread} came back in one keyspace only");
    numbers[0]
}

/// Not a test by itself: the process that is killed. Does nothing when the tests are run as usual.
#[test]
fn child() {
    let Some(root) = std::env::var_os(CHILD) else { return };
    let seed = setting(CHILD_SEED, 0);
    println!("\n{READY}");
    let db = options(seed).open(database(Path::new(&root))).expect("open");
    let notes = OpenOptions::new().append(true).create(true).open(notes(Path::new(&root))).expect("notes");
    // Some lives are full of syncs, some go through many flushes and compactions.
    let disk_percent = *Random::new(!seed).pick(&[0, 1, 5, 50]);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (db, notes) = (db.clone(), &notes);
            scope.spawn(move || write_for_ever(&db, notes, thread, disk_percent));
        }
    });
}

fn write_for_ever(db: &Db, notes: &File, thread: u64, disk_percent: u64) {
    let keyspaces = KEYSPACES.map(|name| db.keyspace(name).expect("keyspace"));
    let last = last_of(db, thread);
    Note { thread, is_start: true, n: last, seq: db.latest_seq() }.write(notes);
    for n in last + 1.. {
        let mut batch = db.batch();
        for (keyspace, key, value) in nth_batch(thread, n) {
            match value {
                Some(value) => batch.put(&keyspaces[keyspace], key, value),
                None => batch.delete(&keyspaces[keyspace], key),
            }
            .expect("within limits");
        }
        let is_disk = Random::new(n).chance(disk_percent);
        let durability = if is_disk { Durability::Disk } else { Durability::Os };
        let receipt = batch.commit_with(WriteOptions::new().durability(durability)).expect("commit");
        Note { thread, is_start: false, n, seq: receipt.seq }.write(notes);
        match n % 500 {
            100 => db.flush().expect("flush"),
            200 => db.sync().expect("sync"),
            300 => db.compact().expect("compact"),
            _ => {}
        }
    }
}

/// What is known and what must be there.
struct Witness {
    root: PathBuf,
    /// Per thread: the last batch known to be in, and the state after it, of both keyspaces.
    known: Vec<u64>,
    applied: Vec<u64>,
    states: Vec<Map>,
    /// Sequence number of the newest commit that returned.
    seq: u64,
    commits: u64,
    what: String,
}

impl Witness {
    fn new(root: &Path) -> Witness {
        let zeros = vec![0; THREADS as usize];
        let states = vec![Map::new(); KEYSPACES.len()];
        let (known, applied, what) = (zeros.clone(), zeros, String::new());
        Witness { root: root.to_path_buf(), known, applied, states, seq: 0, commits: 0, what }
    }

    /// Reads what the killed children noted. A later child must have found what an earlier one noted.
    fn read_notes(&mut self) {
        let path = notes(&self.root);
        if !path.exists() {
            return;
        }
        let bytes = fs::read(&path).expect("read the notes");
        assert_eq!(bytes.len() % NOTE_BYTES, 0, "a torn note");
        let mut by_seq = BTreeMap::new();
        for note in bytes.chunks(NOTE_BYTES).map(Note::read) {
            let known = &mut self.known[note.thread as usize];
            if note.is_start {
                assert!((*known..=*known + 1).contains(&note.n), "{}: {note:?} after {known}", self.what);
            } else {
                assert_eq!(note.n, *known + 1, "{}: {note:?}", self.what);
                let other = by_seq.insert(note.seq, note);
                assert!(other.is_none(), "{}: {note:?} and {other:?} have one sequence number", self.what);
                self.commits += 1;
            }
            *known = note.n;
            self.seq = self.seq.max(note.seq);
        }
        self.check_commit_order(by_seq.values());
        fs::remove_file(path).expect("remove the notes");
    }

    /// The order of sequence numbers agrees with the order in which each thread committed.
    fn check_commit_order<'a>(&self, notes: impl Iterator<Item = &'a Note>) {
        let mut last = BTreeMap::new();
        for note in notes {
            let before = last.insert(note.thread, note.n);
            assert!(before.is_none_or(|before| before < note.n), "{}: {note:?} after {before:?}", self.what);
        }
    }

    /// Opens the database and holds it against what is known.
    fn judge(&mut self, seed: u64) {
        let db = options(seed).open(database(&self.root)).unwrap_or_else(|error| {
            panic!("{}: open after a kill: {error}", self.what);
        });
        assert!(db.latest_seq() >= self.seq, "{}: {} < {}", self.what, db.latest_seq(), self.seq);
        for thread in 0..THREADS {
            let (found, known) = (last_of(&db, thread), self.known[thread as usize]);
            assert!(
                (known..=known + 1).contains(&found),
                "{}: thread {thread} had {known} commits acknowledged, {found} are there",
                self.what
            );
            self.advance(thread, found);
        }
        for (name, expect) in KEYSPACES.iter().zip(&self.states) {
            let found = contents(&db.keyspace(name).expect("keyspace")).expect("read");
            assert!(found == *expect, "{}: keyspace {name} is not as committed", self.what);
        }
        db.verify().unwrap_or_else(|error| panic!("{}: verify: {error}", self.what));
        self.check_files(db);
    }

    fn advance(&mut self, thread: u64, to: u64) {
        for n in self.applied[thread as usize] + 1..=to {
            for (keyspace, key, value) in nth_batch(thread, n) {
                match value {
                    Some(value) => self.states[keyspace].insert(key.into_bytes(), value),
                    None => self.states[keyspace].remove(key.as_bytes()),
                };
            }
        }
        self.applied[thread as usize] = to;
        self.known[thread as usize] = to;
    }

    /// Writes, closes, and looks for files that nothing names.
    fn check_files(&self, db: Db) {
        let check = db.keyspace("check").expect("keyspace");
        check.put("cycle", &self.what).expect("write after a kill");
        db.flush().expect("flush after a kill");
        db.wait_for_background().expect("background work after a kill");
        let keyspaces = db.stats().keyspaces;
        let tables: usize = keyspaces.iter().flat_map(|one| &one.levels).map(|level| level.tables).sum();
        db.close().expect("close after a kill");
        let names: Vec<String> = fs::read_dir(database(&self.root))
            .expect("list")
            .map(|entry| entry.expect("list").file_name().to_string_lossy().into_owned())
            .collect();
        let (found, rest): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.ends_with(".sst"));
        assert_eq!(found.len(), tables, "{}: {found:?}", self.what);
        let strange = rest.iter().find(|name| !["LOCK", "MANIFEST-A", "MANIFEST-B"].contains(&name.as_str()));
        assert_eq!(strange, None, "{}", self.what);
    }
}

/// Starts a child and lets it live for so long after it begins to open the database.
fn live_and_die(root: &Path, seed: u64, life: Duration) {
    let mut command = this_test("kill::child");
    command.env(CHILD, root).env(CHILD_SEED, seed.to_string());
    let log = File::create(root.join("child.log")).expect("log of the child");
    let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("start a child");
    wait_until_ready(&mut child);
    std::thread::sleep(life);
    child.kill().expect("kill the child");
    let status = child.wait().expect("wait for the child");
    let log = || fs::read_to_string(root.join("child.log")).unwrap_or_default();
    assert_eq!(status.signal(), Some(9), "the child ended by itself: {}", log());
}

fn wait_until_ready(child: &mut Child) {
    let output = child.stdout.take().expect("output of the child");
    let ready = BufReader::new(output).lines().any(|line| line.is_ok_and(|line| line == READY));
    assert!(ready, "the child did not start");
}

#[test]
fn every_acknowledged_commit_survives_kill_9() {
    let cycles = setting("ESKER_KILL_CYCLES", 20);
    let seed = seed(9);
    println!("ESKER_SEED={seed} ESKER_KILL_CYCLES={cycles}");
    let mut random = Random::new(seed);
    let root = tempfile::tempdir().expect("a directory");
    let mut witness = Witness::new(root.path());
    let mut kills = 0;
    while kills < cycles {
        // A second child right after the first is killed while it recovers, or soon after.
        for _ in 0..1 + random.below(3) {
            let longest_micros = *random.pick(&[4_000, 60_000, 60_000, 400_000]);
            let life_micros = random.below(longest_micros);
            live_and_die(root.path(), random.next(), Duration::from_micros(life_micros));
            kills += 1;
        }
        witness.what = format!("ESKER_SEED={seed} kill {kills}");
        witness.read_notes();
        witness.judge(random.next());
    }
    println!("{kills} kills, {} commits acknowledged", witness.commits);
    assert!(witness.commits > 0, "no child lived long enough to commit anything");
}
