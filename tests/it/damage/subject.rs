//! The databases that get damaged: small, with everything in them that can be damaged, and with every state known that
//! they may show.

use crate::support::Map;
use esker::env::{CrashMode, Env, Fault, FaultFs, FaultRule, Fs, MemFs, Op};
use esker::{Compression, Db, Durability, FilterKind, KeyspaceOptions, Options, ReadMode, WriteOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub const DIR: &str = "/db";
pub const KEYSPACES: [&str; 2] = ["default", "second"];

/// Content of both keyspaces.
pub type State = [Map; 2];

/// A logged commit: its segment, and where its record ends in it, but for zeros.
#[derive(Debug, Clone)]
pub struct Logged {
    pub segment: PathBuf,
    pub end: u64,
}

/// What a file of the database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Manifest,
    Table,
    /// A segment of the log that a later one names.
    Segment,
    /// The segment that was written last.
    LastSegment,
    /// A segment prepared and not used yet.
    Prepared,
    Lock,
}

/// A database as a process left it.
pub struct Subject {
    pub name: &'static str,
    pub fs: MemFs,
    /// The state after each commit that is in the log; the first is what the tables hold.
    pub states: Vec<State>,
    /// The commits after the first state.
    pub logged: Vec<Logged>,
    /// So many of them were synced, and a later record says so.
    pub proven: usize,
    /// So many zeros may be at the end of a record: those over several blocks end in a small number.
    pub zeros_max: u64,
    /// Whether the segments of its log have their length from the beginning.
    pub reserves: bool,
    /// Earlier contents of files, and how many of the logged commits there were then.
    pub stale: Vec<(usize, Files)>,
}

/// How a subject is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Clean,
    /// Left with a log of several segments, whose last records nothing proves.
    Unproven,
    /// Left after the log had been idle.
    Proven,
    /// As `Unproven`, on a file system that cannot reserve space: nothing tells how long its log was.
    Unreserved,
    /// With records that cross the log's blocks.
    Wide,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Clean, Kind::Unproven, Kind::Proven, Kind::Unreserved, Kind::Wide];
}

fn keyspace(compression: Compression, filter: FilterKind) -> KeyspaceOptions {
    KeyspaceOptions::new()
        .write_buffer_bytes(256 << 10)
        .target_table_bytes(1024)
        .level_base_bytes(2048)
        .block_bytes(256)
        .restart_interval(2)
        .size_ratio(2)
        .l0_runs(2)
        .compression(compression)
        .filter(filter)
}

/// Options of every session here.
pub fn options(env: &Env, mode: ReadMode) -> Options {
    Options::tiny()
        .default_keyspace(keyspace(Compression::Lz4, FilterKind::Blocked))
        .wal_segment_bytes(4096)
        .wal_bytes_max(1 << 20)
        .read_mode(mode)
        .background_threads(0)
        .env(env.clone())
}

/// All keys that ever exist, and some that never do.
pub fn keys() -> Vec<Vec<u8>> {
    (0..34u32).map(|number| key(number * 3 / 2)).chain([b"a".to_vec(), b"zz".to_vec()]).collect()
}

fn key(number: u32) -> Vec<u8> {
    format!("key{number:02}").into_bytes()
}

/// What the database is built on.
fn file_system(kind: Kind, fs: Arc<MemFs>) -> Arc<dyn Fs> {
    if kind != Kind::Unreserved {
        return fs;
    }
    let fs = FaultFs::new(fs);
    fs.add(FaultRule::new(Op::Preallocate, Fault::Skip));
    Arc::new(fs)
}

/// The database while it is being built.
struct Builder {
    fs: Arc<MemFs>,
    env: Env,
    options: Options,
    db: Option<Db>,
    state: State,
    /// Makes every value another one.
    count: u32,
}

impl Builder {
    fn new(kind: Kind, id: u64) -> Builder {
        let fs = Arc::new(MemFs::new());
        let env = Env::simulated(file_system(kind, fs.clone()), id);
        let segment_bytes = if kind == Kind::Wide { 160 << 10 } else { 4096 };
        let options = options(&env, ReadMode::Mmap).wal_segment_bytes(segment_bytes);
        let db = options.clone().open(DIR).expect("create");
        let second = keyspace(Compression::None, FilterKind::Standard);
        db.keyspace_with(KEYSPACES[1], &second).expect("create a keyspace");
        Builder { fs, env, options, db: Some(db), state: State::default(), count: 0 }
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    fn value(&mut self, len: usize) -> Vec<u8> {
        self.count += 1;
        // No zero at the end, so that the end of a record can be seen in the file.
        format!("{:04}-{}", self.count, "value".repeat(len / 5)).into_bytes()
    }

    /// One commit over both keyspaces, with a removal now and then.
    fn commit(&mut self, number: u32, len: usize, durability: Durability) {
        let mut batch = self.db().batch();
        let first = key(number * 3 / 2 % 51);
        for (nth, name) in KEYSPACES.iter().enumerate().take(1 + (number % 2) as usize) {
            let keyspace = self.db().existing_keyspace(name).expect("exists");
            if (self.count + number) % 7 == 3 {
                batch.delete(&keyspace, &first).expect("within limits");
                self.state[nth].remove(&first);
            } else {
                let value = self.value(len);
                batch.put(&keyspace, &first, &value).expect("within limits");
                self.state[nth].insert(first.clone(), value);
            }
        }
        batch.commit_with(WriteOptions::new().durability(durability)).expect("commit");
    }

    /// Tables in several levels of both keyspaces, and a manifest with a few edits.
    fn fill_tables(&mut self) {
        for number in 0..34 {
            self.commit(number, 40, Durability::Os);
        }
        self.db().flush().expect("flush");
        for number in 10..25 {
            self.commit(number, 30, Durability::Os);
        }
        self.db().flush().expect("flush");
        self.db().wait_for_background().expect("compact");
        self.reopen();
        for number in 5..12 {
            self.commit(number, 20, Durability::Os);
        }
        self.db().flush().expect("flush");
        self.idle();
    }

    /// Another session, whose first edit writes the manifest anew.
    fn reopen(&mut self) {
        self.db.take().expect("open").close().expect("close");
        self.db = Some(self.options.clone().open(DIR).expect("open"));
    }

    /// Time in which nothing is written: the sync is proven, garbage is removed.
    fn idle(&mut self) {
        for _ in 0..3 {
            self.env.clock.sleep(Duration::from_secs(3));
            while self.db().run_background_job() {}
        }
    }

    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        files(&self.fs)
    }
}

/// The files of the database and their contents.
pub fn files(fs: &MemFs) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs.list_files().into_iter().filter(|path| path.starts_with(DIR));
    paths.map(|path| (path.clone(), fs.read_file(&path).expect("listed"))).collect()
}

pub fn used_len(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Files and what is in them.
type Files = Vec<(PathBuf, Vec<u8>)>;

/// Bytes of the header of a log segment.
pub const HEADER_BYTES: usize = 64;

/// Where header and records of a log segment end, read by the layout in docs/format.md and not by the engine. A record
/// is one fragment or several, each with a header that has its length and its part; none crosses a block.
pub fn record_ends(bytes: &[u8]) -> impl Iterator<Item = usize> {
    const BLOCK_BYTES: usize = 32 << 10;
    const FRAGMENT_HEADER_BYTES: usize = 32;
    const FULL_OR_LAST: [u8; 2] = [1, 4];
    let mut ends = vec![HEADER_BYTES];
    let mut at = HEADER_BYTES;
    while let Some(header) = bytes.get(at..at + FRAGMENT_HEADER_BYTES).filter(|header| header[10] != 0) {
        at += FRAGMENT_HEADER_BYTES + usize::from(u16::from_le_bytes([header[8], header[9]]));
        if FULL_OR_LAST.contains(&header[10]) {
            ends.push(at);
        }
        let left = BLOCK_BYTES - at % BLOCK_BYTES;
        at += if left < FRAGMENT_HEADER_BYTES { left } else { 0 };
    }
    ends.into_iter()
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal")
}

/// The newest segment with records, and where they end.
fn log_end(files: &[(PathBuf, Vec<u8>)]) -> Logged {
    let mut used = files.iter().filter(|(path, bytes)| is_segment(path) && used_len(bytes) > HEADER_BYTES);
    let (segment, bytes) = used.next_back().expect("something was logged");
    Logged { segment: segment.clone(), end: used_len(bytes) as u64 }
}

impl Subject {
    /// Builds one; `id` makes it another database.
    pub fn new(kind: Kind, id: u64) -> Subject {
        let mut builder = Builder::new(kind, id);
        builder.fill_tables();
        let mut states = vec![builder.state.clone()];
        let mut logged = Vec::new();
        let mut stale = vec![(0, builder.files())];
        let mut proven = 0;
        if kind != Kind::Clean {
            // Of every length of record there is one with every role.
            let lens: &[usize] =
                if kind == Kind::Wide { &[30_000, 45, 20_000, 70] } else { &[45, 160, 5, 280] };
            let count = if kind == Kind::Wide { 4 } else { 34 };
            let mut log = |builder: &mut Builder, number: u32, durability| {
                builder.commit(number, lens[number as usize % lens.len()], durability);
                states.push(builder.state.clone());
                logged.push(log_end(&builder.files()));
            };
            for number in 0..count {
                let durability = if number % 3 == 0 { Durability::Disk } else { Durability::Os };
                log(&mut builder, number, durability);
            }
            builder.db().sync().expect("sync");
            builder.idle();
            proven = count as usize;
            stale.push((proven, builder.files()));
            if kind != Kind::Proven {
                for (number, durability) in
                    [Durability::Os, Durability::Os, Durability::Disk].into_iter().enumerate()
                {
                    log(&mut builder, count + number as u32, durability);
                    stale.push((proven + number + 1, builder.files()));
                }
            }
        }
        let name = match kind {
            Kind::Clean => "clean",
            Kind::Unproven => "unproven",
            Kind::Proven => "proven",
            Kind::Unreserved => "unreserved",
            Kind::Wide => "wide",
        };
        if kind == Kind::Clean {
            builder.db.take().expect("open").close().expect("close");
        }
        let fs = builder.fs.crash_clone(1, CrashMode::ProcessKill);
        let zeros_max = if kind == Kind::Wide { 8 } else { 0 };
        let reserves = kind != Kind::Unreserved;
        Subject { name, fs, states, logged, proven, zeros_max, reserves, stale }
    }

    /// A copy to damage.
    pub fn copy(&self) -> Arc<MemFs> {
        Arc::new(self.fs.crash_clone(1, CrashMode::ProcessKill))
    }

    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        files(&self.fs)
    }

    pub fn role(&self, path: &Path) -> Role {
        let name = path.file_name().expect("a file").to_string_lossy();
        if name == "LOCK" {
            return Role::Lock;
        }
        if name.starts_with("MANIFEST-") {
            return Role::Manifest;
        }
        if !is_segment(path) {
            return Role::Table;
        }
        match self.logged.last() {
            Some(last) if *path < *last.segment => Role::Segment,
            Some(last) if *path == *last.segment => Role::LastSegment,
            _ => Role::Prepared,
        }
    }

    /// How many of the logged commits lie before this offset of a segment for sure, and how many may.
    pub fn commits_before(&self, segment: &Path, offset: u64) -> (usize, usize) {
        let count = |zeros: u64| {
            let is_before = |one: &&Logged| {
                *one.segment < *segment || (*one.segment == *segment && one.end + zeros <= offset)
            };
            self.logged.iter().take_while(is_before).count()
        };
        (count(self.zeros_max), count(0))
    }

    /// The last one.
    pub fn full(&self) -> &State {
        self.states.last().expect("at least the tables' state")
    }
}
